"""Items to ask a new user about: the greedy choice is that of the determinants, and what may not be asked is not."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Interactions
from fastmf.answering.design import NOISE, History, choose, directions, shares_beside
from fastmf.errors import DataError, NotFittedError, ParameterError

NONE = np.empty(0, np.int32)
NOTHING = History(NONE, NONE)
MODELS: dict[str, Any] = {
    "ALS": fastmf.ALS(n_factors=4),
    "ImplicitALS": fastmf.ImplicitALS(n_factors=4),
    "SGD": fastmf.SGD(n_factors=4),
    "SGD logistic": fastmf.SGD(n_factors=4, loss="logistic"),
    "SVDpp": fastmf.SVDpp(n_factors=4),
    "BPR": fastmf.BPR(n_factors=4),
    "Bias": fastmf.Bias(),
    "Popularity": fastmf.Popularity(),
}


@pytest.fixture(scope="module")
def ratings() -> Interactions:
    return fastmf.testing.film_club(n_users=60, n_items=30, mean_ratings=12)


@pytest.fixture(scope="module")
def model(ratings: Interactions) -> fastmf.ALS:
    return fastmf.ALS(n_factors=4).fit(ratings)


def by_popularity(model: Any) -> list[int]:
    return np.argsort(-model.fitted.counts.of_items, kind="stable").tolist()


def log_det(rows: Any, weights: Any) -> float:
    return float(np.linalg.slogdet(NOISE * np.eye(rows.shape[1]) + (rows * weights[:, np.newaxis]).T @ rows)[1])


@pytest.mark.parametrize(("answered", "asked"), [([], []), ([2, 5], []), ([], [3]), ([2], [3, 4])])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_step_takes_the_item_with_the_largest_determinant(
    answered: list[int], asked: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, weights = 2 * rng.normal(size=(12, 3)), rng.random(12)
    may_be_asked = np.ones(12, bool)
    may_be_asked[[*answered, *asked, 7]] = False

    history = History(np.array(answered, np.int32), np.array(asked, np.int32))
    design = choose(rows, weights, 6, history, np.flatnonzero(may_be_asked))

    chosen = np.isin(np.arange(12), answered).astype(float)
    chosen[asked] = weights[asked]
    for item, gain in zip(*design, strict=True):
        before = log_det(rows, chosen)
        gains = {
            other: log_det(rows, np.where(np.arange(12) == other, weights, chosen)) - before
            for other in np.flatnonzero(may_be_asked)
        }
        assert item == max(gains, key=lambda other: gains[other])
        assert gain == pytest.approx(gains[item], rel=1e-9)
        chosen[item], may_be_asked[item] = weights[item], False


def test_the_greedy_choice_is_near_the_best_of_all_sets() -> None:
    # The objective is monotone and submodular: 1 - 1/e of the best is reached (Nemhauser, Wolsey, Fisher, 1978).
    rng = np.random.default_rng(3)
    rows, weights = 3 * rng.normal(size=(9, 3)), rng.random(9)
    nothing = log_det(rows, np.zeros(9))

    def value(items: Any) -> float:
        return log_det(rows, np.where(np.isin(np.arange(9), items), weights, 0)) - nothing

    design = choose(rows, weights, 3, NOTHING, np.arange(9))

    best = max(value(items) for items in itertools.combinations(range(9), 3))
    assert design.gains.sum() == pytest.approx(value(design.items))
    assert (1 - 1 / np.e) * best <= value(design.items) <= best + 1e-9
    assert (np.diff(design.gains) <= 1e-12).all()


def test_the_same_item_again_tells_less_than_another_direction() -> None:
    rows = 3 * np.array([[1.0, 0], [1, 0], [0, 0.9]])

    assert choose(rows, np.ones(3), 3, NOTHING, np.arange(3)).items.tolist() == [0, 2, 1]
    assert choose(rows, np.ones(3), 1, History(np.array([0]), NONE), np.array([1, 2])).items.tolist() == [2]


def test_of_equal_items_the_first_candidate_is_asked() -> None:
    rows, weights = np.zeros((4, 2)), np.array([0.1, 0.3, 0.1, 0.3])

    assert choose(rows, weights, 4, NOTHING, np.array([2, 0, 3, 1])).items.tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize("name", MODELS)
def test_directions_have_the_variances_of_predictions_between_users(name: str, ratings: Interactions) -> None:
    fitted = MODELS[name].fit(ratings).fitted
    factors = fitted.factors
    scores = factors.user_factors.astype(float) @ factors.item_factors.T + factors.user_biases[:, np.newaxis]
    expected = scores.var(axis=0)

    found = (directions(fitted) ** 2).sum(axis=1)

    if name == "Popularity":
        assert not found.any()
        return
    counts = fitted.counts.of_items
    assert counts @ found / counts.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, expected / (counts @ expected / counts.sum()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_asks_and_serves_the_answers(name: str, ratings: Interactions) -> None:
    model = MODELS[name].fit(ratings)

    found = fastmf.onboarding(model, n=5)

    assert len(set(found.items.tolist())) == 5
    np.testing.assert_array_equal(found.shares, model.fitted.counts.share_of_users[found.items])
    answers = Interactions.from_arrays(["somebody new"] * 5, found.ids, [5, 4, 3, 5, 1])
    assert not set(model.recommend_for(answers, k=3).items[0]) & set(found.items)
    if name in ("Bias", "Popularity"):
        assert found.items.tolist() == by_popularity(model)[:5]


def test_the_weight_of_popularity(model: fastmf.ALS) -> None:
    def ask(weight: float) -> list[int]:
        return fastmf.onboarding(model, 5, popularity_weight=weight).items.tolist()

    assert ask(1000) == by_popularity(model)[:5]
    assert ask(1e6) == by_popularity(model)[:5]  # all weights but those of 1 are 0 as numbers
    shares = [model.fitted.counts.share_of_users[ask(weight)].mean() for weight in (0, 0.5, 100)]
    assert shares == sorted(shares)
    assert shares[0] < shares[2]
    without = choose(directions(model.fitted), np.ones(30), 5, NOTHING, np.arange(30))
    assert ask(0) == without.items.tolist()


def test_what_may_be_asked(model: fastmf.ALS) -> None:
    ids = model.item_ids.to_pylist()
    first = fastmf.onboarding(model, 4).ids.to_pylist()

    assert set(fastmf.onboarding(model, 3, allow=iter([*ids[:3], "no such film"])).ids.to_pylist()) == set(ids[:3])
    assert set(fastmf.onboarding(model, 3, allow=ids[:3]).ids.to_pylist()) == set(ids[:3])
    assert first[0] not in fastmf.onboarding(model, 29, deny=[first[0], "no such film"]).ids.to_pylist()
    assert set(fastmf.onboarding(model, 2, allow=ids[:3], deny=ids[2:]).ids.to_pylist()) == set(ids[:2])


def test_cold_items_are_never_asked(ratings: Interactions) -> None:
    is_of_cold = ratings.items == by_popularity(fastmf.Popularity().fit(ratings))[0]
    model = fastmf.ImplicitALS(n_factors=4).fit(ratings.take(np.flatnonzero(~is_of_cold)))
    cold = np.flatnonzero(model.fitted.counts.of_items == 0)

    assert len(cold) == 1
    assert cold[0] not in fastmf.onboarding(model, 29, popularity_weight=0).items
    with pytest.raises(ParameterError, match="n is 30, but there are 29 items to ask about: those that have training"):
        fastmf.onboarding(model, 30)
    assert fastmf.onboarding(model, 1, answered=[model.item_ids[int(cold[0])].as_py()]).n_unknown_answered == 1


def test_going_on_after_answers(model: fastmf.ALS) -> None:
    first = fastmf.onboarding(model, 3)
    ids = first.ids.to_pylist()
    answers = Interactions.from_arrays(["eve"] * 3, ids, [5, 1, 3])

    found = fastmf.onboarding(model, 4, answered=answers)

    known, rest = np.sort(first.items), np.ones(30, bool)
    rest[known] = False
    shares = shares_beside(model.fitted, known)
    expected = choose(directions(model.fitted), shares**0.5, 4, History(known, NONE), np.flatnonzero(rest))
    np.testing.assert_array_equal(found.items, expected.items)
    for same in (ids, iter(ids), first.ids, np.array(ids), [*ids, ids[0]], answers.to_arrow(), [*ids, "unknown"]):
        again = fastmf.onboarding(model, 4, answered=same)
        assert again.items.tolist() == found.items.tolist()
    assert (found.n_unknown_answered, again.n_unknown_answered) == (0, 1)


def test_questions_in_vain(model: fastmf.ALS) -> None:
    first = fastmf.onboarding(model, 6)
    ids = first.ids.to_pylist()

    one_by_one = [fastmf.onboarding(model, 1, asked=[*ids[:n], "unknown"]).ids[0].as_py() for n in range(6)]

    assert one_by_one == ids
    with_answers = fastmf.onboarding(model, 3, asked=iter(ids), answered=ids[:2])
    assert not set(with_answers.ids.to_pylist()) & set(ids)
    shares = shares_beside(model.fitted, np.sort(first.items[:2]))
    np.testing.assert_array_equal(with_answers.shares, shares[with_answers.items])


def test_shares_among_users_who_know_the_same(ratings: Interactions, model: fastmf.ALS) -> None:
    table = np.zeros((60, 30))
    table[ratings.users, ratings.items] = 1
    weights = table[:, [3, 8]].sum(axis=1)

    np.testing.assert_allclose(shares_beside(model.fitted, np.array([3, 8])), weights @ table / weights.sum())
    np.testing.assert_allclose(shares_beside(model.fitted, NONE), table.mean(axis=0))


def test_scale_and_rotation_of_factors_do_not_matter(model: fastmf.ALS) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    fitted = model.fitted
    changed = fitted.factors._replace(
        user_factors=(8 * fitted.factors.user_factors @ turn).astype(np.float32),
        item_factors=(fitted.factors.item_factors @ turn / 8).astype(np.float32),
    )

    turned = dataclasses.replace(fitted, factors=changed)

    rows, others = directions(fitted), directions(turned)
    np.testing.assert_allclose(others @ others.T, rows @ rows.T, atol=1e-5)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_change_nothing(n_threads: int, ratings: Interactions, model: fastmf.ALS) -> None:
    other = fastmf.ALS(n_factors=4, n_threads=n_threads).fit(ratings)

    assert fastmf.onboarding(other, 8).to_arrow() == fastmf.onboarding(model, 8).to_arrow()


def test_a_model_of_which_the_training_ratings_are_not_known(model: fastmf.ALS) -> None:
    fitted = model.fitted
    seen = type(fitted.seen)(np.zeros(61, np.int64), np.empty(0, np.int32))
    other = fastmf.ALS(n_factors=4)
    other.restore(dataclasses.replace(fitted, seen=seen, values=None), [])

    found = fastmf.onboarding(other, 5)

    assert found.shares.tolist() == [1] * 5
    assert found.items.tolist() == fastmf.onboarding(other, 5, popularity_weight=0).items.tolist()


def test_the_answer_as_a_table(model: fastmf.ALS, tmp_path: Path) -> None:
    found = fastmf.onboarding(model, 4)

    table = found.to_arrow()
    assert table.column_names == ["rank", "item_id", "share", "gain"]
    assert table["rank"].to_pylist() == [1, 2, 3, 4]
    assert table["item_id"].to_pylist() == found.ids.to_pylist()
    found.to_parquet(tmp_path / "questions.parquet")
    assert pq.read_table(tmp_path / "questions.parquet").equals(table)
    assert repr(found).startswith(f"Onboarding(4 items: {found.ids[0].as_py()!r}, ")
    assert repr(found).endswith("', ...)")
    assert repr(fastmf.onboarding(model, 1)) == f"Onboarding(1 item: {found.ids[0].as_py()!r})"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n is 0; expected"),
        ({"n": 2.5}, "n is 2.5; expected"),
        ({"n": 31}, "n is 31, but there are 30 items to ask about"),
        ({"n": 3, "allow": ["film-001", "film-001", "film-002"]}, "n is 3, but there are 2 items to ask about"),
        ({"n": 29, "answered": ["film-001", "film-002"]}, "n is 29, but there are 28 items"),
        ({"popularity_weight": -1}, "popularity_weight is -1; expected"),
        ({"popularity_weight": float("nan")}, "popularity_weight is nan; expected"),
        ({"allow": "film-001"}, "allow is 'film-001'; expected a list of item ids"),
        ({"deny": {"eve": ["film-001"]}}, "expected a list of item ids"),
        ({"n": 29, "answered": ["film-001"], "asked": ["film-002"]}, "n is 29, but there are 28 items"),
        ({"asked": "film-001"}, "asked is 'film-001'; expected a list of item ids"),
        ({"answered": 7}, "answered is 7; expected a list of item ids"),
        (
            {"answered": Interactions.from_arrays(["a", "b"], ["film-001", "film-002"])},
            "answered has ratings of 2 users; expected those of one",
        ),
    ],
)
def test_wrong_parameters(wrong: dict[str, Any], message: str, model: fastmf.ALS) -> None:
    with pytest.raises(ParameterError, match=message):
        fastmf.onboarding(model, **wrong)


def test_ids_of_another_type_and_models_that_are_none(model: fastmf.ALS) -> None:
    for name in ("allow", "deny", "answered", "asked"):
        with pytest.raises(DataError, match=f"column '{name}' has ids of type int64"):
            fastmf.onboarding(model, **{name: [1, 2]})
    with pytest.raises(NotFittedError):
        fastmf.onboarding(fastmf.ALS())
    with pytest.raises(ParameterError, match="model is a str; expected a model of fastmf"):
        fastmf.onboarding("model/")  # type: ignore[arg-type]
