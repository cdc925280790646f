"""What models of ratings choose from the data: the formulas, and that the choice is a good one."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf import ALS, SGD, Bias, Interactions, SVDpp, testing
from fastmf.errors import ParameterError
from fastmf.models import FactorModel
from fastmf.models.bias_terms import bias_terms
from fastmf.models.descent import DescentModel
from fastmf.models.explicit_strengths import strengths_of

RATINGS = testing.power_law(150, 100, 4000)
EXPLICIT = [SGD, SVDpp, ALS]
SMALL: dict[str, Any] = {"n_factors": 4, "n_epochs": 3}
each_kind = pytest.mark.parametrize("kind", EXPLICIT)
STRENGTHS = {"regularization", "bias_regularization", "item_bias_regularization"}


def rmse(model: Any, train: Interactions, test: Interactions) -> float:
    return float(fastmf.evaluate(model.fit(train), test, metrics=["rmse"])["rmse"])


def numbers_of(model: FactorModel) -> list[float]:
    return [value for value in model.chosen.values() if not isinstance(value, str)]


def made_ratings(size_of_factors: float, density: float, seed: int = 0) -> tuple[Interactions, Interactions]:
    """Ratings of biases, three factors and noise; the parts to train and to test on."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((600, 400)) < density)
    b_u, b_i = rng.normal(0, 0.4, 600), rng.normal(0, 0.6, 400)
    p, q = rng.normal(0, 1, (600, 3)), rng.normal(0, size_of_factors / math.sqrt(3), (400, 3))
    scores = 3 + b_u[users] + b_i[items] + (p[users] * q[items]).sum(axis=1)
    ratings = testing.from_indices(users, items, scores + rng.normal(0, 0.8, len(users)), 600, 400)
    return fastmf.split.random(ratings, 0.2, seed=0)


@pytest.mark.parametrize(("scaling", "exponent"), [("none", 0.0), ("root", 0.5), ("count", 1.0)])
def test_strengths_are_those_of_the_formula(scaling: str, exponent: float) -> None:
    user_counts, item_counts = np.bincount(RATINGS.users), np.bincount(RATINGS.items)
    n_u, n_i = (np.mean(counts[rows]) for counts, rows in ((user_counts, RATINGS.users), (item_counts, RATINGS.items)))
    terms = bias_terms(RATINGS)
    noise = terms.noise / RATINGS.ratings.std(dtype=np.float64)

    found = strengths_of(RATINGS, scaling)

    expected = 0.62 * noise * (math.sqrt(n_u) + math.sqrt(n_i) + math.sqrt(math.log(250)))
    assert found.factors == pytest.approx(expected / math.sqrt(n_u * n_i) ** exponent)
    assert found.user_biases == pytest.approx(terms.strengths.user / n_u**exponent)
    assert found.item_biases == pytest.approx(terms.strengths.item / n_i**exponent)


@each_kind
def test_what_is_chosen_is_kept_and_makes_the_same_model(kind: type[FactorModel], tmp_path: Path) -> None:
    model = kind(**SMALL).fit(RATINGS)

    assert model.chosen.keys() - {"learning_rate"} == STRENGTHS | {"regularization_scaling"}
    assert model.chosen["regularization_scaling"] == ("none" if kind is ALS else "root")
    assert model.chosen == model.choose_parameters(RATINGS)
    assert model.get_params()["regularization"] == "auto"
    given = kind(**{**SMALL, **model.chosen}).fit(RATINGS)
    np.testing.assert_array_equal(given.item_factors, model.item_factors)
    assert given.chosen == {}
    model.save(tmp_path / "model")
    assert fastmf.load(tmp_path / "model").chosen == model.chosen


@each_kind
def test_a_number_means_what_it_meant_before_it_could_be_chosen(kind: type[FactorModel]) -> None:
    before: dict[str, Any] = {"regularization_scaling": "count", "regularization": 0.05}
    if kind is not ALS:
        before |= {"bias_regularization": 0.02, "learning_rate": 0.1 if kind is SGD else 0.05}

    model, as_before = (
        kind(n_factors=4, n_epochs=3, **given).fit(RATINGS) for given in ({"regularization": 0.05}, before)
    )

    np.testing.assert_array_equal(model.item_factors, as_before.item_factors)
    np.testing.assert_array_equal(model.item_biases, as_before.item_biases)
    assert model.chosen.keys() <= {"learning_rate"}


@each_kind
def test_one_number_leaves_the_others_to_be_chosen(kind: type[FactorModel]) -> None:
    model = kind(n_factors=4, n_epochs=1, bias_regularization=0.3).fit(RATINGS)

    assert model.chosen.keys() - {"learning_rate"} == {"regularization", "regularization_scaling"}
    assert model.chosen["regularization"] == pytest.approx(strengths_of(RATINGS, "count").factors)
    model.set_params(regularization=0.1, bias_regularization="auto").fit(RATINGS)
    assert model.chosen.keys() - {"learning_rate"} == STRENGTHS - {"regularization"} | {"regularization_scaling"}
    model.set_params(bias_regularization="auto", item_bias_regularization=0.5).fit(RATINGS)
    assert model.chosen.keys() - {"learning_rate"} == {"bias_regularization", "regularization_scaling"}


@each_kind
def test_without_biases_rows_pay_for_every_rating(kind: type[FactorModel]) -> None:
    model = kind(n_factors=4, n_epochs=1, biases=False).fit(RATINGS)

    assert model.chosen["regularization"] == pytest.approx(strengths_of(RATINGS, "count").factors)
    assert "bias_regularization" not in model.chosen


@each_kind
def test_without_biases_no_strength_of_theirs_is_chosen(kind: type[FactorModel]) -> None:
    plain = kind(**SMALL, biases=False, regularization=0.1).fit(RATINGS)
    model = kind(**SMALL, biases=False, regularization=0.1, bias_regularization="auto").fit(RATINGS)

    assert model.chosen.keys() <= {"learning_rate"}
    assert model.user_factors.tobytes() == plain.user_factors.tobytes()
    assert np.isfinite(model.fold_in(RATINGS).factors).all()


@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_a_rating_range_changes_the_unit_of_strengths(kind: type[Any]) -> None:
    # The mean is the middle of the range, where the sigmoid has the slope ¼: a score of 1 is a rating of 1.
    ratings = Interactions.from_arrays(RATINGS.users, RATINGS.items, RATINGS.ratings)
    mean, deviation = float(ratings.ratings.mean(dtype=np.float64)), float(ratings.ratings.std(dtype=np.float64))
    free, bounded = (
        kind(n_factors=2, n_epochs=1, rating_range=bounds).fit(ratings).chosen
        for bounds in (None, (mean - 10, mean + 10))
    )

    slope = 20 / 4 / deviation
    assert bounded["regularization"] == pytest.approx(slope * free["regularization"], rel=1e-3)
    assert bounded["bias_regularization"] == pytest.approx(slope**2 * free["bias_regularization"], rel=1e-3)


@each_kind
@pytest.mark.parametrize("density", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("size_of_factors", [0, 0.3])
def test_defaults_are_no_worse_than_biases_where_there_is_little_else(
    kind: type[FactorModel], density: float, size_of_factors: float
) -> None:
    train, test = made_ratings(size_of_factors, density)

    assert rmse(kind(), train, test) <= 1.01 * rmse(Bias(), train, test)


@each_kind
def test_defaults_find_factors_where_there_are_some(kind: type[FactorModel]) -> None:
    train, test = made_ratings(1.0, 0.2)

    assert rmse(kind(), train, test) < 0.92 < 0.75 * rmse(Bias(), train, test)  # the noise alone is 0.8


@each_kind
@pytest.mark.parametrize("values", [[3, 3, 3], [0, 0, 0], [1, 2, 3]])
def test_a_few_ratings_are_enough_to_choose(kind: type[FactorModel], values: list[float]) -> None:
    model = kind(n_factors=2, n_epochs=5).fit(Interactions.from_arrays([1, 2, 3], [1, 2, 3], values))

    assert all(math.isfinite(value) and value > 0 for value in numbers_of(model))
    assert np.isfinite(model.predict([1, 2, 3], [3, 2, 1])).all()


@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_a_fit_that_goes_on_keeps_what_was_chosen(kind: type[DescentModel]) -> None:
    first, second = fastmf.split.random(RATINGS, 0.3, seed=0)
    model = kind(n_factors=3, n_epochs=1).fit(first)
    chosen = model.chosen

    assert model.partial_fit(second).chosen == chosen
    model.set_params(regularization=0.1)  # biases follow it again
    kept = {name: chosen[name] for name in ("learning_rate", "regularization_scaling")}
    assert model.partial_fit(second).chosen == kept
    assert model.partial_fit(second).chosen == kept


GOING_ON: list[Any] = [
    pytest.param({}, {"bias_regularization": 0.02}, "root", id="a strength"),
    pytest.param({}, {"regularization": 0.1, "bias_regularization": 0.02}, "root", id="all strengths"),
    pytest.param({"regularization_scaling": "none"}, {"regularization_scaling": None}, "none", id="no scaling"),
    pytest.param({"bias_regularization": 0.02}, {"item_bias_regularization": 0.02}, "count", id="a second strength"),
]


@pytest.mark.parametrize("kind", [SGD, SVDpp])
@pytest.mark.parametrize(("given", "changed", "scaling"), GOING_ON)
def test_a_fit_that_goes_on_keeps_how_strengths_are_scaled(
    kind: type[Any], given: dict[str, Any], changed: dict[str, Any], scaling: str, tmp_path: Path
) -> None:
    first, second = fastmf.split.random(RATINGS, 0.3, seed=0)
    model = kind(**SMALL, **given).fit(first)
    before = model.chosen
    model.save(tmp_path / "model")
    same = fastmf.load(tmp_path / "model")
    assert isinstance(same, DescentModel)

    model.set_params(**changed).partial_fit(second)

    assert model.chosen["regularization_scaling"] == scaling
    assert model.chosen.items() <= {**before, "regularization_scaling": scaling}.items()
    same.set_params(**{**changed, **model.chosen}).partial_fit(second)
    np.testing.assert_array_equal(model.item_factors, same.item_factors)


@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_a_fit_that_goes_on_refuses_strengths_that_were_not_chosen_for_it(kind: type[Any]) -> None:
    model = kind(**SMALL).fit(RATINGS)
    with pytest.raises(ParameterError, match=r"regularization_scaling is 'count', but \w+ was chosen for 'root'; set"):
        model.set_params(regularization_scaling="count").partial_fit(RATINGS)

    model = kind(**SMALL, regularization=0.02).fit(RATINGS)
    model.set_params(regularization="auto")
    with pytest.raises(ParameterError, match=r"regularization is to be chosen from the data, .*: give a number, or"):
        model.partial_fit(RATINGS.take(np.arange(3)))
    assert model.set_params(regularization=0.02, learning_rate=0.05).partial_fit(RATINGS).chosen == {}


ALL_MODELS: list[Any] = [
    *EXPLICIT,
    *(lambda each=each, **given: each(biases=False, **given) for each in EXPLICIT),
    lambda **given: ALS(**{"regularization": 0.1, **given}),
    lambda **given: SGD(**{"bias_regularization": "auto", "regularization": 0.1, **given}),
    lambda **given: SGD(adaptive=False, **given),
    lambda **given: SGD(loss="logistic", **given),
    lambda **given: SVDpp(rating_range=(0.5, 5), **given),
    fastmf.BPR,
    fastmf.ImplicitALS,
]


@pytest.mark.parametrize("make", ALL_MODELS)
def test_what_was_chosen_makes_the_same_model(make: Any) -> None:
    model = make(**SMALL).fit(RATINGS)

    same = make(**{**SMALL, **model.chosen}).fit(RATINGS)

    np.testing.assert_array_equal(same.user_factors, model.user_factors)
    np.testing.assert_array_equal(same.item_factors, model.item_factors)
    np.testing.assert_array_equal(same.item_biases, model.item_biases)
    assert same.chosen == {}


def test_strengths_that_were_learned_make_the_same_biases() -> None:
    model = Bias().fit(RATINGS)

    np.testing.assert_allclose(Bias(**model.chosen).fit(RATINGS).item_biases, model.item_biases, atol=1e-3)


@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_steps_suit_the_strengths_and_their_kind(kind: type[DescentModel]) -> None:
    def rate(**given: Any) -> float:
        return kind(**given).choose_parameters(RATINGS).get("learning_rate", math.nan)

    assert rate() == 0.07
    assert rate(regularization=0.05) == (0.1 if kind is SGD else 0.05)
    assert rate(adaptive=False) == 0.01
    assert math.isnan(rate(learning_rate=0.2))


def test_new_ratings_pay_their_share_of_the_strengths_of_a_row() -> None:
    # User 0 and item 0 have nine ratings before, and one more now.
    others = np.arange(1, 10)
    first = testing.from_indices(np.append(np.zeros(9), others), np.append(others, np.zeros(9)), np.ones(18), 10, 10)
    more = testing.from_indices(np.array([0]), np.array([0]), np.array([1.0]), 10, 10)
    settings: dict[str, Any] = {"regularization_scaling": "none", "adaptive": False, "biases": False}

    def after(strength: float) -> Any:
        model = SGD(n_factors=2, n_epochs=1, learning_rate=1e-3, init_scale=1, regularization=0, **settings).fit(first)
        return model.set_params(regularization=strength).partial_fit(more).user_factors[0]

    lost = (after(0.0) - after(50.0)) / after(0.0)

    np.testing.assert_allclose(lost, 1e-3 * 50 / 10 / (1 + 1e-3 * 50 / 10), rtol=1e-2)


def test_first_ratings_that_are_all_alike_do_not_free_the_factors() -> None:
    users, items = np.divmod(np.arange(400), 20)
    ratings = Interactions.from_arrays(users, items, np.full(400, 4.0))

    assert strengths_of(ratings).factors > 0
    assert np.abs(ALS().fit(ratings).predict(users, items) - 4).max() < 1e-3
