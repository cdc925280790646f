"""Newcomers in models of gradient steps: as good as trained factors, on any scale, and whatever they have rated."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import fastmf
from fastmf import BPR, SGD, Interactions, SVDpp, testing
from fastmf.errors import DataError, NotFittedError, ParameterError
from fastmf.models.descent import DescentModel
from fastmf.models.fit_steps import epochs_to_fold_in
from fastmf.models.folding import FoldedIn

SHAPE: dict[str, Any] = {"n_factors": 8, "n_epochs": 10, "n_threads": 1}
FILMS = testing.film_club(300, 120, 40)
TRAIN, TEST = fastmf.split.per_user(FILMS, 0.2, seed=0)
EXPLICIT: dict[str, tuple[type[DescentModel], dict[str, Any]]] = {
    "sgd": (SGD, {}),
    "sgd in a range": (SGD, {"rating_range": (1, 5)}),
    "sgd without biases": (SGD, {"biases": False}),
    "svdpp": (SVDpp, {}),
    "svdpp in a range": (SVDpp, {"rating_range": (1, 5)}),
}
IMPLICIT: dict[str, tuple[type[DescentModel], dict[str, Any]]] = {
    "logistic": (SGD, {"loss": "logistic"}),
    "bpr": (BPR, {}),
    "bpr without biases": (BPR, {"biases": False}),
}
MODELS = EXPLICIT | IMPLICIT
each_model = pytest.mark.parametrize("name", MODELS)
each_side = pytest.mark.parametrize("side", ["user", "item"])
_fitted: dict[str, DescentModel] = {}


def fitted(name: str) -> DescentModel:
    """Return a model that was fitted once for all tests; they must not change it."""
    if name not in _fitted:
        kind, settings = MODELS[name]
        _fitted[name] = kind(**SHAPE, **settings).fit(TRAIN)
    return _fitted[name]


def fresh(name: str, ratings: Interactions = TRAIN, **settings: Any) -> DescentModel:
    kind, more = MODELS[name]
    return kind(**{**SHAPE, **more, **settings}).fit(ratings)


def part(ratings: Interactions, rows: npt.NDArray[np.bool_]) -> Interactions:
    """Some ratings, without the ids of users and items that have none among them."""
    users, items = ratings.users[rows], ratings.items[rows]
    return Interactions.from_arrays(ratings.user_ids.take(users), ratings.item_ids.take(items), ratings.ratings[rows])


def of_users(ratings: Interactions, *users: int) -> Interactions:
    return part(ratings, np.isin(ratings.users, users))


def scores(model: DescentModel, users: FoldedIn) -> npt.NDArray[np.float64]:
    """Scores of all items for users who were folded in."""
    terms = users.biases[:, None] + model.item_biases + model.global_mean
    return np.asarray(users.factors.astype(np.float64) @ model.item_factors.T + terms)


def trained(model: DescentModel) -> FoldedIn:
    return FoldedIn(model.user_ids, model.user_factors, model.user_biases)


def rmse(model: DescentModel, users: FoldedIn, ratings: Interactions) -> float:
    low, span = model.fitted.link
    predicted = scores(model, users)[ratings.users, ratings.items]
    if span:
        predicted = low + span / (1 + np.exp(-predicted))
    return float(np.sqrt(np.mean((predicted - ratings.ratings) ** 2)))


def hits(model: DescentModel, users: FoldedIn, ratings: Interactions) -> float:
    """The share of ratings that are among the ten best items of their users, without those of training."""
    found = scores(model, users)
    found[TRAIN.users, TRAIN.items] = -np.inf
    best = np.argsort(-found, axis=1)[:, :10]
    return float(np.mean([item in best[user] for user, item in zip(ratings.users, ratings.items, strict=True)]))


@each_side
@each_model
def test_a_row_for_each_newcomer(name: str, side: str) -> None:
    model = fitted(name)
    folded = model.fold_in(TRAIN, side)
    ids = model.user_ids if side == "user" else model.item_ids
    assert folded.ids.equals(ids)
    assert folded.factors.shape == (len(ids), 8)
    assert folded.factors.dtype == folded.biases.dtype == np.float32
    assert np.isfinite(folded.factors).all()
    has_bias = "without" not in name and not (name == "bpr" and side == "user")
    assert folded.biases.any() == has_bias


@pytest.mark.parametrize("name", EXPLICIT)
def test_users_are_predicted_as_well_as_in_training(name: str) -> None:
    model = fitted(name)
    folded = model.fold_in(TRAIN)
    assert rmse(model, folded, TEST) < 1.01 * rmse(model, trained(model), TEST)
    correlation = np.corrcoef(scores(model, folded).ravel(), scores(model, trained(model)).ravel())[0, 1]
    assert correlation > 0.95


@pytest.mark.parametrize("name", EXPLICIT)
def test_items_are_predicted_as_well_as_in_training(name: str) -> None:
    model = fitted(name)
    before = rmse(model, trained(model), TEST)
    folded = model.fold_in(TRAIN, "item")
    model = fresh(name)
    model.item_factors[:], model.item_biases[:] = folded.factors, folded.biases
    assert rmse(model, trained(model), TEST) < 1.01 * before


@pytest.mark.parametrize("name", IMPLICIT)
def test_users_get_lists_as_good_as_in_training(name: str) -> None:
    model = fitted(name)
    popular = FoldedIn(model.user_ids, np.zeros_like(model.user_factors), model.user_biases)
    found = hits(model, model.fold_in(TRAIN), TEST)
    assert found > 0.95 * hits(model, trained(model), TEST)
    assert found > 1.2 * hits(model, popular, TEST)


@pytest.mark.parametrize("name", IMPLICIT)
def test_items_get_into_lists_as_in_training(name: str) -> None:
    model = fresh(name)
    before, folded = hits(model, trained(model), TEST), model.fold_in(TRAIN, "item")
    # Every second item: new ones have to compare with those that there are.
    model.item_factors[::2], model.item_biases[::2] = folded.factors[::2], folded.biases[::2]
    assert hits(model, trained(model), TEST) > 0.9 * before


@each_side
@each_model
def test_a_row_alone_is_the_row_in_a_batch(name: str, side: str) -> None:
    model = fitted(name)
    together = model.fold_in(TRAIN, side)
    rows = TRAIN.users if side == "user" else TRAIN.items
    alone = model.fold_in(part(TRAIN, rows == 7), side)
    np.testing.assert_array_equal(alone.factors[0], together.factors[7])
    assert alone.biases[0] == together.biases[7]


@each_side
@each_model
def test_the_same_for_any_threads_and_after_loading(name: str, side: str, tmp_path: Path) -> None:
    model = fitted(name)
    model.save(tmp_path / "model")
    loaded = fastmf.load(tmp_path / "model")
    loaded.n_threads = 2
    for found, expected in zip(loaded.fold_in(TRAIN, side)[1:], model.fold_in(TRAIN, side)[1:], strict=True):
        np.testing.assert_array_equal(found, expected)


@each_side
@each_model
def test_the_reference_says_the_same(name: str, side: str) -> None:
    model, few = fitted(name), part(TRAIN, (TRAIN.users if side == "user" else TRAIN.items) == 3)
    reference = type(model)(**{**model.get_params(), "backend": "reference"})
    reference.restore(model.fitted, model.history)
    for found, expected in zip(model.fold_in(few, side)[1:], reference.fold_in(few, side)[1:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@each_side
@each_model
def test_the_model_stays_as_it_is(name: str, side: str) -> None:
    model = fitted(name)
    before = [term.copy() for term in model.fitted.factors] + [a.copy() for a in model.fitted.state.values()]
    model.fold_in(of_users(TRAIN, 1, 2), side)
    after = [*model.fitted.factors, *model.fitted.state.values()]
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


# Units


@pytest.mark.parametrize(("a", "b"), [(20, 0), (0.01, 0), (4, -13), (1e6, 0)])
@pytest.mark.parametrize("name", ["sgd", "sgd in a range", "svdpp"])
def test_ratings_on_another_scale(name: str, a: float, b: float) -> None:
    def transformed(ratings: Interactions) -> Interactions:
        values = (np.float64(a) * ratings.ratings + b).astype(np.float32)
        return Interactions(ratings.users, ratings.items, values, None, ratings.user_ids, ratings.item_ids)

    settings = {"rating_range": (a + b, 5 * a + b)} if "range" in name else {}
    model, other = fitted(name), fresh(name, transformed(TRAIN), **settings)
    newcomers = of_users(TRAIN, *range(20))
    before, after = (scores(m, m.fold_in(r)) for m, r in ((model, newcomers), (other, transformed(newcomers))))
    if settings:
        np.testing.assert_allclose(after, before, atol=2e-3)
    else:
        np.testing.assert_allclose((after - b) / a, before, atol=2e-3)


# What newcomers may have rated


@each_side
@pytest.mark.parametrize("name", IMPLICIT)
def test_ratings_of_0_and_below_are_no_choices(name: str, side: str) -> None:
    model, chosen = fitted(name), of_users(TRAIN, 5, 6)
    values = chosen.ratings.copy()
    values[::3], values[1::3] = 0, -2
    marked = Interactions(chosen.users, chosen.items, values, None, chosen.user_ids, chosen.item_ids)
    some = Interactions(chosen.users[2::3], chosen.items[2::3], values[2::3], None, chosen.user_ids, chosen.item_ids)
    found, expected = model.fold_in(marked, side), model.fold_in(some, side)
    np.testing.assert_array_equal(found.factors, expected.factors)
    nothing = Interactions(chosen.users, chosen.items, 0 * values, None, chosen.user_ids, chosen.item_ids)
    assert not model.fold_in(nothing, side).factors.any()


@each_side
@each_model
def test_nothing_known_is_0(name: str, side: str) -> None:
    strangers = Interactions.from_arrays(["eve", "eve"], ["x", "y"], [5, 4])
    folded = fitted(name).fold_in(strangers, side)
    assert folded.factors.shape == (1 if side == "user" else 2, 8)
    assert not folded.factors.any()
    assert not folded.biases.any()


@each_model
def test_one_rating(name: str) -> None:
    model = fitted(name)
    folded = model.fold_in(Interactions.from_arrays(["eve"], [model.item_ids[3].as_py()], [5]))
    assert folded.factors.any()
    spread = np.abs(scores(model, folded)).max()
    assert spread < 2 * np.abs(scores(model, trained(model))).max()


@pytest.mark.parametrize("name", IMPLICIT)
def test_items_without_training_ratings_are_not_drawn(name: str) -> None:
    items = pa.concat_arrays([TRAIN.item_ids, pa.array(["new-1", "new-2"])])
    with_cold = Interactions(TRAIN.users, TRAIN.items, TRAIN.ratings, None, TRAIN.user_ids, items)
    model = fresh(name, with_cold)
    model.item_factors[-2:] = np.nan
    assert np.isfinite(model.fold_in(of_users(TRAIN, 1, 2)).factors).all()
    assert np.isfinite(model.fold_in(of_users(TRAIN, 1, 2), "item").factors).all()


@each_side
@pytest.mark.parametrize("name", ["sgd in a range", "svdpp in a range"])
def test_a_rating_outside_the_range(name: str, side: str) -> None:
    model = fitted(name)
    newcomer = Interactions.from_arrays(["eve"], [model.item_ids[0].as_py()], [9])
    if side == "item":
        newcomer = Interactions.from_arrays([model.user_ids[0].as_py()], ["new"], [9])
    with pytest.raises(DataError, match=r"rating_range.*\(1, 5\).*9"):
        model.fold_in(newcomer, side)


def of_size(model: DescentModel, size: float) -> Interactions:
    items = [item.as_py() for item in model.item_ids[:3]]
    return Interactions.from_arrays(["eve"] * 3, items, [size, -size, size])


@pytest.mark.parametrize("size", [1e10, 1e30])
@pytest.mark.parametrize("name", ["sgd", "sgd without biases", "svdpp"])
def test_a_rating_that_is_far_too_large(name: str, size: float) -> None:
    model = fitted(name)
    folded = model.fold_in(of_size(model, size))
    assert np.isfinite(folded.factors).all()
    assert np.abs(folded.factors).max() > 1e-3 * size


@pytest.mark.parametrize("name", ["sgd", "svdpp"])
def test_a_rating_whose_factors_are_no_numbers(name: str) -> None:
    model = fresh(name, adaptive=False, learning_rate=0.01)
    model.item_factors[:3] = 50
    with pytest.raises(DataError, match=r"ratings.*3e\+38"):
        model.fold_in(of_size(model, 3e38))


def test_svdpp_without_implicit_factors() -> None:
    model = fresh("svdpp")
    del model.fitted.state["item_implicit_factors"]
    with pytest.raises(DataError, match="train it again"):
        model.fold_in(TRAIN)
    assert model.fold_in(TRAIN, "item").factors.any()


# Parameters


@each_model
def test_before_fit(name: str) -> None:
    kind, settings = MODELS[name]
    with pytest.raises(NotFittedError):
        kind(**settings).fold_in(TRAIN)


def test_the_parameters_of_the_fit_count() -> None:
    model = fresh("sgd")
    expected = model.fold_in(TRAIN).factors
    model.set_params(rating_range=(1, 5), biases=False, regularization=7.0, n_epochs=1, learning_rate_decay=0.5)
    np.testing.assert_array_equal(model.fold_in(TRAIN).factors, expected)


def test_a_parameter_that_was_given_becomes_auto() -> None:
    model = fresh("sgd", regularization=0.1)
    expected = model.fold_in(TRAIN).factors
    model.set_params(regularization="auto")
    np.testing.assert_array_equal(model.fold_in(TRAIN).factors, expected)
    # As models were saved before fits kept what they were given.
    del model.fitted.trained_with["objective"]
    with pytest.raises(ParameterError, match="regularization"):
        model.fold_in(TRAIN)


def test_as_many_epochs_as_were_best() -> None:
    kind, settings = MODELS["sgd"]
    model = kind(**{**SHAPE, "n_epochs": 40, "learning_rate": 0.5}, **settings, patience=2).fit(TRAIN, validation=TEST)
    best = model.best_epoch
    assert best is not None
    assert best < 40
    found = model.fold_in(TRAIN).factors
    model.fitted.trained_with["patience"] = None
    model.fitted.trained_with["objective"]["n_epochs"] = best
    np.testing.assert_array_equal(found, model.fold_in(TRAIN).factors)


def test_another_seed_takes_other_steps() -> None:
    model = fresh("bpr")
    first = model.fold_in(TRAIN).factors
    model.seed = 1
    assert not np.array_equal(model.fold_in(TRAIN).factors, first)
    assert np.corrcoef(model.fold_in(TRAIN).factors.ravel(), first.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", ["sgd", "svdpp", "bpr"])
def test_after_partial_fit(name: str) -> None:
    model = fresh(name, part(TRAIN, TRAIN.users < 200))
    model.set_params(n_epochs=1)
    model.partial_fit(part(TRAIN, TRAIN.users >= 200))
    assert epochs_to_fold_in(model.fitted, model.get_params(), model.best_epoch) == SHAPE["n_epochs"]
    folded = model.fold_in(TRAIN)
    assert folded.factors.shape == model.user_factors.shape
    assert folded.factors.any(axis=1).all()


def test_a_model_that_claims_endless_epochs_folds_in_at_once() -> None:
    model = SGD(n_factors=2, n_epochs=2).fit(testing.low_rank(n_users=20, n_items=10, seed=0))
    claims = {**model.fitted.trained_with, "epochs_before": 10**9}
    model.restore(dataclasses.replace(model.fitted, trained_with=claims), model.history)

    newcomer = Interactions.from_arrays([1], model.item_ids[:1], [3.0])

    assert np.isfinite(model.fold_in(newcomer).factors).all()
