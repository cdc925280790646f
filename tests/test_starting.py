"""Warm start: `fit(start=model)` goes on from what a model has learned, on the same ratings or on others."""

from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf import ALS, SGD, Bias, Interactions, Popularity
from fastmf.errors import DataError, NotFittedError, ParameterError
from fastmf.models import FACTOR_MODELS, MODELS

pytestmark = pytest.mark.filterwarnings("ignore::fastmf.errors.QualityWarning")

RATINGS = fastmf.testing.film_club(n_users=80, n_items=40, mean_ratings=15)
OBJECTIVES = {"ALS": "objective", "ImplicitALS": "objective", "BPR": "train_auc"}


def only(ratings: Interactions, keep: Any) -> Interactions:
    """Some of the ratings, in the ids that these have."""
    part = ratings.take(np.flatnonzero(keep))
    return Interactions.from_arrays(part.user_ids.take(part.users), part.item_ids.take(part.items), part.ratings)


def factors_of(model: Any) -> dict[str, Any]:
    """Every user's and item's factors and bias, by outside id."""
    rows = {}
    users = model.fitted.state.get("user_factors_alone", model.user_factors)  # in SVD++ without their rated items
    for ids, factors, biases in (
        (model.user_ids, users, model.user_biases),
        (model.item_ids, model.item_factors, model.item_biases),
    ):
        rows |= {
            name: (*row.tolist(), float(bias)) for name, row, bias in zip(ids.to_pylist(), factors, biases, strict=True)
        }
    return rows


@pytest.mark.parametrize("kind", [*FACTOR_MODELS])
@pytest.mark.parametrize("with_cold", [False, True])
def test_a_start_on_the_same_ratings_goes_on(kind: str, with_cold: bool) -> None:
    ratings = fastmf.split.random(RATINGS, test_fraction=0.5, seed=0)[0] if with_cold else RATINGS
    first = MODELS[kind](n_factors=4, n_epochs=10).fit(ratings)
    before = factors_of(first)

    more = MODELS[kind](n_factors=4, n_epochs=3).fit(ratings, start=first)

    name = OBJECTIVES.get(kind, "train_rmse")
    values = [record[name] for record in more.history]
    at_first = MODELS[kind](n_factors=4, n_epochs=1).fit(ratings).history[0][name]
    last = first.history[-1][name]
    if kind == "BPR":
        assert values[0] > (last + at_first) / 2
    elif kind in OBJECTIVES:
        assert last >= values[0] * (1 - 1e-6)
        assert values == sorted(values, reverse=True)
    else:
        assert values[0] < last + 0.1 * (at_first - last)
    assert len(more.history) == 3
    assert factors_of(first) == before  # the start stays as it was


@pytest.mark.parametrize("solver", ["cholesky", "cg", "subspace"])
@pytest.mark.parametrize("kind", ["ALS", "ImplicitALS"])
def test_two_halves_of_alternating_least_squares_are_about_the_whole(kind: str, solver: str) -> None:
    def fit(n_epochs: int, start: Any = None) -> Any:
        return MODELS[kind](n_factors=4, n_epochs=n_epochs, solver=solver).fit(RATINGS, start=start)

    halves, whole = fit(4, start=fit(4)), fit(8)

    np.testing.assert_allclose(halves.user_factors, whole.user_factors, atol=1e-4)
    np.testing.assert_allclose(halves.item_factors, whole.item_factors, atol=1e-4)
    assert halves.history[-1]["objective"] == pytest.approx(whole.history[-1]["objective"], rel=1e-5)


def test_steps_of_the_start_go_on_to_shrink() -> None:
    """With its accumulators, the second fit takes the steps that one of twice the epochs takes."""
    first = SGD(n_factors=4, n_epochs=4).fit(RATINGS)
    more = SGD(n_factors=4, n_epochs=4).fit(RATINGS, start=first)

    assert (more.fitted.state["user_squares"] > first.fitted.state["user_squares"]).all()
    whole = SGD(n_factors=4, n_epochs=8).fit(RATINGS)
    np.testing.assert_allclose(more.fitted.state["user_squares"], whole.fitted.state["user_squares"], rtol=0.05)


class _Unchanged:
    """Learns nothing in an epoch: what is left is what a fit begins at."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def run_epoch(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("kind", [*FACTOR_MODELS])
def test_a_fit_begins_at_the_factors_of_the_start_by_outside_ids(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[kind]
    first = model(n_factors=4, n_epochs=2).fit(only(RATINGS, (RATINGS.users >= 5) & (RATINGS.items >= 5)))
    later = only(RATINGS, (RATINGS.users < 60) & (RATINGS.items < 30))
    # An item and a user that are listed without a rating.
    ratings = later.take(np.flatnonzero((later.users != 20) & (later.items != 10)))
    make = model._make_trainer
    monkeypatch.setattr(model, "_make_trainer", lambda *given: _Unchanged(make(*given)))

    begun = model(n_factors=4, n_epochs=1).fit(ratings, start=first)
    fresh = model(n_factors=4, n_epochs=1).fit(ratings)

    began, afresh, before = factors_of(begun), factors_of(fresh), factors_of(first)
    cold = {ratings.user_ids[20].as_py(), ratings.item_ids[10].as_py()}
    assert began.keys() == {*ratings.user_ids.to_pylist(), *ratings.item_ids.to_pylist()}
    known = (began.keys() & before.keys()) - cold
    assert 20 < len(known) < len(began)
    for name, row in began.items():
        if name in cold:
            assert not np.any(row)
        elif name not in known:
            assert row == afresh[name]
        else:
            np.testing.assert_allclose(row, before[name], rtol=1e-6)
    assert begun.global_mean == fresh.global_mean
    assert begun.chosen == fresh.chosen
    for name in ("user_baseline", "item_baseline"):
        if name in fresh.fitted.state:
            np.testing.assert_array_equal(begun.fitted.state[name], fresh.fitted.state[name])


def test_factors_below_0_are_no_start_for_factors_above() -> None:
    first = ALS(n_factors=4, n_epochs=3).fit(RATINGS)
    assert first.item_factors.min() < 0

    model = ALS(n_factors=4, n_epochs=2, nonnegative=True).fit(RATINGS, start=first)

    assert min(model.item_factors.min(), model.user_factors.min()) >= 0


def test_bias_begins_its_sweeps_at_the_start() -> None:
    first = Bias().fit(RATINGS)

    more = Bias().fit(RATINGS, start=first)

    assert len(more.history) < len(first.history)
    last = first.history[-1]["train_rmse"]
    assert more.history[0]["train_rmse"] == pytest.approx(last, rel=2e-4)
    assert abs(Bias(n_epochs=1).fit(RATINGS).history[0]["train_rmse"] - last) > 1e-2 * last
    given = Bias(regularization=1.0, n_epochs=1).fit(RATINGS, start=first)
    assert "regularization" not in given.chosen


def test_popularity_is_counted_whatever_it_starts_at() -> None:
    first = Popularity().fit(only(RATINGS, RATINGS.items < 9))

    more = Popularity().fit(RATINGS, start=first)

    np.testing.assert_array_equal(more.item_biases, Popularity().fit(RATINGS).item_biases)


def test_a_loaded_model_is_a_start(tmp_path: Any) -> None:
    first = SGD(n_factors=4, n_epochs=2).fit(RATINGS)
    first.save(tmp_path / "model")

    loaded = SGD(n_factors=4, n_epochs=2).fit(RATINGS, start=fastmf.load(tmp_path / "model"))

    np.testing.assert_array_equal(
        loaded.user_factors, SGD(n_factors=4, n_epochs=2).fit(RATINGS, start=first).user_factors
    )


def test_what_cannot_be_a_start_is_refused() -> None:
    first = SGD(n_factors=4, n_epochs=1).fit(RATINGS)
    numbers = Interactions.from_arrays([1, 2, 3], [1, 2, 3], [1, 2, 3])

    with pytest.raises(ParameterError, match="start is of class SGD; expected a fitted model of class ALS"):
        ALS(n_factors=4).fit(RATINGS, start=first)
    with pytest.raises(ParameterError, match="start is of class str; expected a fitted model of class SGD"):
        SGD().fit(RATINGS, start="model")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="n_factors is 5 and start has 4 factors; expected as many: set n_factors"):
        SGD(n_factors=5).fit(RATINGS, start=first)
    with pytest.raises(ParameterError, match="biases is False and start was trained with True; expected the same"):
        SGD(n_factors=4, biases=False).fit(RATINGS, start=first)
    with pytest.raises(ParameterError, match="loss is 'logistic' and start was trained with 'squared'"):
        SGD(n_factors=4, loss="logistic").fit(RATINGS, start=first)
    with pytest.raises(NotFittedError, match="is not fitted"):
        SGD().fit(RATINGS, start=SGD())
    with pytest.raises(DataError, match=r"user_ids.* cast them"):
        SGD(n_factors=4).fit(numbers, start=first)
