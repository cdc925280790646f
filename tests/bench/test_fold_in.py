"""The suite fold-in: what is found of models whose users can be folded in exactly, of others, and of held-out users."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Interactions
from fastmf.answering.fitted import Fitted
from fastmf_bench import people
from fastmf_bench.results import Run
from fastmf_bench.suites import TASKS, fold_in
from fastmf_bench.suites.fold_in import Subject

Bench = Callable[..., tuple[str, str]]
NO_PACE: Any = lambda lap=None: False  # noqa: E731


@pytest.fixture
def some() -> Interactions:
    return fastmf.testing.film_club(n_users=60, n_items=40, mean_ratings=15)


def store(path: Path, ratings: Interactions, times: list[int | None] | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = ratings.to_arrow().select(["user_id", "item_id", "rating"])
    if times is not None:
        table = table.append_column("timestamp", pa.array(times, pa.int64()))
    pq.write_table(table, path)
    return str(path)


def people_of(factors: Any, biases: Any, items: Any, item_biases: Any, ratings: Interactions) -> people.People:
    """Return people whose factors are given, of a model that knows the items of some ratings."""
    model = fastmf.ALS(n_factors=1).fit(ratings)
    of_model = model.fitted.factors
    arrays = [np.array(array, np.float32) for array in (factors, items, biases, item_biases)]
    fitted = Fitted(
        of_model._replace(user_factors=arrays[0], item_factors=arrays[1], item_biases=arrays[3]),
        *(getattr(model.fitted, name) for name in ("link", "user_ids", "item_ids", "seen", "data")),
    )
    return people.People(model, fitted, arrays[0], arrays[2])


def test_the_best_items_are_neither_seen_nor_unknown() -> None:
    # All of 13 items are known, but for the last one; the better an item, the higher its number.
    users, items = np.repeat([1, 2], [2, 10]), np.r_[0, 11, np.arange(1, 11)]
    catalogue = [f"{item:02}" for item in range(13)]
    pairs = Interactions.from_arrays(np.r_[users, 2], [catalogue[item] for item in np.r_[items, 12]])
    seen = pairs.take(np.arange(12))
    found = people_of([[1.0], [1.0]], [5.0, -5.0], np.arange(13.0)[:, None], np.zeros(13), seen)

    assert people.best_items(found, seen, np.array([0], np.int32)).tolist() == [list(range(10, 0, -1))]


def test_lists_that_agree_in_part() -> None:
    first = np.array([range(10), range(10, 20)])
    second = np.array([[*range(9, -1, -1)], [*range(10, 15), *range(5)]])

    assert people.agreement(first, second) == {"same top-10": 0.5, "overlap of top-10": 0.75}


def test_a_difference_is_a_share_of_the_largest_number(some: Interactions) -> None:
    first = people.trained(fastmf.ALS(n_factors=2).fit(some))
    factors, biases = np.zeros((60, 2), np.float32), np.zeros(60, np.float32)
    other = first._replace(factors=factors.copy(), biases=biases)
    factors[3, 1], biases[7] = 4, -8
    first = first._replace(factors=factors.copy(), biases=biases)
    factors[3, 1] = 3

    assert people.largest_difference(other._replace(factors=factors, biases=biases), first) == 1 / 8


@pytest.mark.parametrize("model", [fastmf.ALS(n_factors=4), fastmf.SGD(n_factors=4, rating_range=(1, 5))])
def test_the_error_is_that_of_the_library(model: Any, some: Interactions) -> None:
    train, test = fastmf.split.random(some, 0.2)
    model.fit(train)

    found = people.quality(people.trained(model), train, people.of_known_items(model.fitted, test))

    assert found == pytest.approx(fastmf.evaluate(model, test, metrics=["rmse"])["rmse"], rel=1e-5)


def test_the_ndcg_is_that_of_the_library(some: Interactions) -> None:
    train, test = fastmf.split.per_user(some, 0.2)
    model = fastmf.ImplicitALS(n_factors=4).fit(train)

    expected = fastmf.evaluate(model, test, k=10, metrics=["ndcg"])["ndcg@10"]

    assert people.quality(people.trained(model), train, test) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "exact", "stepwise"), [("ratings", "ALS", "SGD"), ("choices", "ImplicitALS", "BPR")])
def test_what_is_found_of_a_model(kind: str, exact: str, stepwise: str, tmp_path: Path, some: Interactions) -> None:
    file = store(tmp_path / "ratings.parquet", some)

    found = {
        name: TASKS["fold-in.model"](NO_PACE, tuple(Subject(file, kind, name, 0, 1))) for name in (exact, stepwise)
    }

    assert found[exact]["largest difference"] == 0
    assert found[exact]["same factors"]
    assert found[exact]["same top-10"] == found[exact]["overlap of top-10"] == 1
    assert found[exact]["trained"] == found[exact]["folded in"]
    assert found[stepwise]["same top-10, one epoch before"] < 1
    assert not found[stepwise]["same factors"]
    assert 0.2 < found[stepwise]["overlap of top-10"] <= 1
    for figures in found.values():
        assert figures["ms a user alone"] > 0 < figures["ms a user in a batch"]
        assert len({figures[f"held out, {how}"] for how in ("folded in", "in the fit", "baseline")}) == 3


@pytest.mark.parametrize("name", ["ALS", "SGD", "Bias"])
def test_one_epoch_before_is_a_fit_of_one_epoch_less(name: str, tmp_path: Path, some: Interactions) -> None:
    subject = Subject(store(tmp_path / "ratings.parquet", some), "ratings", name, 0, 1)

    model, before = fold_in.fit_twice(subject, some)

    earlier = people.trained(subject.unfitted(n_epochs=len(model.history) - 1).fit(some))
    assert people.largest_difference(before, earlier) == 0
    np.testing.assert_array_equal(before.fitted.factors.item_biases, earlier.fitted.factors.item_biases)
    assert people.largest_difference(before, people.trained(model)) > 0


def test_held_out_users_are_in_one_fit_and_not_in_the_other(
    tmp_path: Path, some: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []

    class Listed(fastmf.ALS):
        def fit(self, ratings: Any, *arguments: Any, **named: Any) -> "Listed":
            fits.append(ratings)
            return super().fit(ratings, *arguments, **named)

    monkeypatch.setitem(fold_in.MODELS, "ALS", Listed)
    subject = Subject(store(tmp_path / "ratings.parquet", some), "ratings", "ALS", 0, 1)
    TASKS["fold-in.model"](NO_PACE, subject)

    _, without, with_them = fits
    absent = np.bincount(without.users, minlength=60) == 0
    assert absent.sum() == 6
    counts, of_all = (np.bincount(part.users, minlength=60) for part in (with_them, some))
    np.testing.assert_array_equal(counts[~absent], of_all[~absent])
    np.testing.assert_array_equal(counts[absent], of_all[absent] - np.floor(0.2 * of_all[absent] + 0.5))


@pytest.mark.parametrize(("kind", "model"), [("ratings", "ALS"), ("choices", "ImplicitALS")])
def test_a_continued_fit(kind: str, model: str, tmp_path: Path, some: Interactions) -> None:
    times = np.random.default_rng(0).permutation(some.n_ratings).tolist()
    file = store(tmp_path / "ratings.parquet", some, times)

    found = TASKS["fold-in.partial_fit"](NO_PACE, tuple(Subject(file, kind, model, 0, 1)))

    assert len(found["after each step"]) == 6
    assert (found["after 80 %"], found["after 5 steps"]) == (found["after each step"][0], found["after each step"][-1])
    assert found["seconds a step"] > 0 < found["seconds of a full fit"]
    assert abs(found["after 5 steps"] - found["full fit"]) < 0.1 * found["full fit"]


def test_without_data_it_says_what_it_needs(bench: Bench, tmp_path: Path) -> None:
    _, errors = bench("fold-in", "--peers", status=1)
    assert "fold-in: left out; it needs real data, in the directory that --data names" in errors

    _, errors = bench("fold-in", "--peers", "--data", tmp_path, status=1)
    assert "movielens-1m" in errors
    assert "; --sets names the folders that have such a file" in errors


@pytest.mark.slow
def test_from_data_to_a_table(
    bench: Bench, tmp_path: Path, some: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, told in fold_in.KINDS.items():
        one = {told.continued: told.models[told.continued]}
        monkeypatch.setitem(fold_in.KINDS, kind, told._replace(models=one))
    store(tmp_path / "data" / "timed" / "ratings.parquet", some, list(range(some.n_ratings)))
    store(tmp_path / "data" / "other" / "ratings.parquet", some, [None, *range(1, some.n_ratings)])

    table, _ = bench(
        "fold-in", "--data", "data", "--sets", "timed", "other", "--threads", 1, "--peers", "--output", "r.json"
    )

    assert "fold-in · users from ratings · timed" in table
    run = Run.read(tmp_path / "r.json")
    assert not run.problems
    assert [(m.task, m.problem) for m in run.measurements if m.contestant.endswith("ALS")] == [
        (task, problem)
        for problem in ("timed", "other")
        for kind in fold_in.KINDS
        for task in (f"users from {kind}", f"continued with {kind}")
        if problem == "timed" or task.startswith("users")
    ]
    assert json.loads((tmp_path / "r.json").read_text())["measurements"][0]["figures"]["same factors"] is True
