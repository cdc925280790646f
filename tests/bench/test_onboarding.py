"""The suite onboarding: who is asked what, what is known of the answers, and how recommendations are measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Interactions
from fastmf_bench.results import Run
from fastmf_bench.suites import TASKS, onboarding
from fastmf_bench.suites.onboarding import POPULAR, WAYS, Setting, Subject

Bench = Callable[..., tuple[str, str]]
NO_PACE: Any = lambda lap=None: False  # noqa: E731


@pytest.fixture
def some() -> Interactions:
    return fastmf.testing.film_club(n_users=100, n_items=40, mean_ratings=20)


@pytest.fixture
def file(tmp_path: Path, some: Interactions) -> str:
    path = tmp_path / "data" / "club" / "ratings.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(some.to_arrow().select(["user_id", "item_id", "rating"]), path)
    return str(path)


def setting_of(file: str, kind: str) -> Setting:
    return onboarding.prepare(Subject(file, kind, 0, 1))


def pairs_of(ratings: Interactions) -> set[tuple[str, str]]:
    table = ratings.to_arrow()
    return set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


@pytest.mark.parametrize("kind", ["ratings", "choices"])
def test_new_users_are_in_no_fit_and_their_ratings_in_two_halves(kind: str, file: str, some: Interactions) -> None:
    setting = setting_of(file, kind)

    new = set(setting.can_answer.user_ids.to_pylist())
    assert len(new) == 20
    assert not new & set(setting.model.user_ids.take(setting.model.fitted.warm_users()).to_pylist())
    halves = pairs_of(setting.can_answer), pairs_of(setting.test)
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == {pair for pair in pairs_of(some) if pair[0] in new}
    assert set(setting.can_answer.ratings) == ({1} if kind == "choices" else {1, 2, 3, 4, 5})
    np.testing.assert_array_equal(
        setting.model.item_ids.take(setting.places).to_pylist(), setting.can_answer.item_ids.to_pylist()
    )


def test_who_answers_what(file: str) -> None:
    setting = setting_of(file, "choices")
    asked = np.random.default_rng(0).permutation(setting.model.fitted.n_items)[:25].astype(np.int32)
    ids = setting.model.item_ids.take(asked).to_pylist()

    known = pairs_of(setting.can_answer)
    for n in (3, 25, 100):
        found = pairs_of(onboarding.answers(setting, asked, n, False))
        assert found == {pair for pair in known if pair[1] in ids[:n]}
        found = pairs_of(onboarding.answers(setting, asked, n, True))
        expected = set()
        for user in setting.can_answer.user_ids.to_pylist():
            expected |= set([(user, item) for item in ids if (user, item) in known][:n])
        assert found == expected


def test_the_ways_to_choose(file: str) -> None:
    setting = setting_of(file, "ratings")
    counts = setting.model.fitted.counts.of_items
    chosen = {name: way(setting, 10, 0) for name, way in WAYS.items()}

    assert chosen["fastmf.onboarding"].tolist() == fastmf.onboarding(setting.model, 10).items.tolist()
    other = fastmf.onboarding(setting.model, 10, popularity_weight=0.25)
    assert chosen["fastmf.onboarding, weight 0.25"].tolist() == other.items.tolist()
    assert counts[chosen[POPULAR]].tolist() == sorted(counts, reverse=True)[:10]
    assert len(set(chosen["random of the 200 most popular"])) == 10
    table = setting.known.to_arrow()
    ratings_of = [
        table["rating"].to_numpy()[table["item_id"].to_numpy(zero_copy_only=False) == item]
        for item in setting.model.item_ids.to_pylist()
    ]
    shares = [np.unique(each, return_counts=True)[1] / len(each) for each in ratings_of]
    worth = np.array([len(each) * -(p * np.log(p)).sum() for each, p in zip(ratings_of, shares, strict=True)])
    np.testing.assert_allclose(worth[chosen["popularity x entropy"]], np.sort(worth)[::-1][:10])


def test_the_metrics_of_choices_are_those_of_the_library(file: str) -> None:
    setting = setting_of(file, "choices")
    given = onboarding.answers(setting, np.arange(10, dtype=np.int32), 10, False)

    found = onboarding.measure(setting, given)

    items = setting.model.recommend_for(given, k=20, deny=setting.can_answer, cold="popular").items
    rows = setting.test.by_user
    relevant = rows.indptr, setting.places[rows.indices].astype(np.int32)
    assert found["nDCG@10"].values.mean() == pytest.approx(fastmf.metrics.ndcg_at_k(items, relevant, 10))
    assert found["Recall@20"].values.mean() == pytest.approx(fastmf.metrics.recall_at_k(items, relevant, 20))


def test_without_answers_people_get_popular_items(file: str) -> None:
    setting = setting_of(file, "choices")
    nothing = setting.can_answer.take(np.empty(0, np.int64))
    popularity = setting._replace(model=fastmf.Popularity().fit(setting.known))

    found, expected = (onboarding.measure(each, nothing) for each in (setting, popularity))

    np.testing.assert_allclose(found["nDCG@10"].values, expected["nDCG@10"].values)


def test_the_error_without_answers_is_that_of_items_alone(file: str) -> None:
    setting = setting_of(file, "ratings")

    found = onboarding.measure(setting, setting.can_answer.take(np.empty(0, np.int64)))["RMSE"]

    factors, test = setting.model.fitted.factors, setting.test
    predicted = float(factors.global_mean) + factors.item_biases[setting.places[test.items]]
    assert np.sqrt(found.sums.sum() / found.weights.sum()) == pytest.approx(
        fastmf.metrics.rmse(test.ratings, predicted), rel=1e-5
    )


@pytest.mark.parametrize(("kind", "metric"), [("ratings", "RMSE"), ("choices", "nDCG@10")])
def test_what_is_found_of_a_way(kind: str, metric: str, file: str) -> None:
    subject = Subject(file, kind, 0, 1)
    task = TASKS["onboarding.questions"]

    nothing = task(NO_PACE, tuple(subject), onboarding.NOBODY)
    popular = task(NO_PACE, tuple(subject), POPULAR)
    found = task(NO_PACE, tuple(subject), "random of the 200 most popular")

    assert metric in nothing
    for what in ("3 questions", "10 questions", "3 answers", "10 answers"):
        mean, low, high = found[f"{metric}, {what}, difference"]
        assert low <= mean <= high
        assert mean == pytest.approx(found[f"{metric}, {what}"] - popular[f"{metric}, {what}"])
        assert f"{metric}, {what}, difference" not in popular
    assert popular["answers to 3 questions"] < popular["answers to 10 questions"] < 10


def test_without_data_it_says_what_it_needs(bench: Bench) -> None:
    _, errors = bench("onboarding", "--peers", status=1)

    assert "onboarding: left out; it needs real data, in the directory that --data names" in errors


@pytest.mark.slow
def test_from_data_to_a_table(bench: Bench, file: str, tmp_path: Path) -> None:
    table, _ = bench(
        *("onboarding", "--data", "data", "--sets", "club", "--threads", 1, "--peers", "--output", "r.json")
    )

    assert "onboarding · new users with choices · club" in table
    run = Run.read(tmp_path / "r.json")
    assert not run.problems
    of_suite = [(m.task, m.contestant) for m in run.measurements if m.suite == "onboarding"]
    assert of_suite == [
        (f"new users with {kind}", way) for kind in ("ratings", "choices") for way in ("nothing", *WAYS)
    ]
