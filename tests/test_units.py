"""Models of ratings a·r + b: the same ranking, and errors that are a times as large."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmf
from fastmf import ALS, SGD, Interactions, SVDpp, testing
from fastmf.errors import DataError, DivergenceError
from fastmf.models.descent import DescentModel
from fastmf.models.factor_model import FactorModel

SHAPE = {"n_factors": 8, "n_epochs": 8, "n_threads": 1}
TRAIN, TEST = fastmf.split.random(testing.power_law(150, 100, 4000), test_fraction=0.2, seed=0)
EXPLICIT = {
    "sgd": (SGD, {}),
    "sgd, steps of one size": (SGD, {"adaptive": False, "learning_rate": 0.02}),
    "sgd, once a row": (SGD, {"regularization_scaling": "none", "regularization": 0.5}),
    "sgd, large first factors": (SGD, {"init_scale": 1}),
    "svdpp": (SVDpp, {}),
    "als": (ALS, {}),
    "als, once a row": (ALS, {"regularization_scaling": "none", "regularization": 2}),
    "als, cg": (ALS, {"solver": "cg"}),
    "als, subspace": (ALS, {"solver": "subspace", "block_size": 16, "n_factors": 20}),
    "als, nonnegative": (ALS, {"nonnegative": True}),
}
RANGED = {"sgd": (SGD, {}), "svdpp": (SVDpp, {})}
SCALES = [(20, 0), (0.01, 0), (4, -13), (1e6, 0), (1, 500)]


def transformed(ratings: Interactions, a: float, b: float) -> Interactions:
    values = (np.float64(a) * ratings.ratings + b).astype(np.float32)
    return Interactions(ratings.users, ratings.items, values, None, ratings.user_ids, ratings.item_ids)


def rmse(model: FactorModel, ratings: Interactions) -> float:
    errors = model.predict_indices(ratings.users, ratings.items).astype(np.float64) - ratings.ratings
    return float(np.sqrt(np.mean(errors**2)))


def in_units(model: FactorModel, a: float, b: float) -> npt.NDArray[np.float64]:
    """Predictions of all users for some items, brought back to the scale of the ratings before."""
    users, items = np.divmod(np.arange(150 * 10, dtype=np.int32), 10)
    return (model.predict_indices(users.astype(np.int32), items.astype(np.int32)) - np.float64(b)) / a


def assert_same(plain: FactorModel, other: FactorModel, a: float, b: float, tolerance: float = 2e-3) -> None:
    np.testing.assert_allclose(in_units(other, a, b), in_units(plain, 1, 0), rtol=0, atol=5 * tolerance)
    assert rmse(other, transformed(TEST, a, b)) == pytest.approx(a * rmse(plain, TEST), rel=tolerance)
    for before, after in zip(plain.history, other.history, strict=True):
        assert after["train_rmse"] == pytest.approx(a * before["train_rmse"], rel=tolerance)


def ranking(model: FactorModel) -> npt.NDArray[np.float32]:
    return model.recommend(k=3, exclude=None).items[:, 0]


@pytest.mark.parametrize(("a", "b"), SCALES)
@pytest.mark.parametrize("name", EXPLICIT)
def test_training_does_not_depend_on_the_scale_of_ratings(name: str, a: float, b: float) -> None:
    kind, parameters = EXPLICIT[name]
    plain, other = (kind(**{**SHAPE, **parameters}).fit(transformed(TRAIN, *scale)) for scale in ((1.0, 0.0), (a, b)))
    assert_same(plain, other, a, b, tolerance=5e-3 if "cg" in name else 2e-3)
    assert np.mean(ranking(plain) == ranking(other)) > 0.95  # a tie may fall either way by rounding


@pytest.mark.parametrize(("a", "b"), SCALES)
@pytest.mark.parametrize("name", RANGED)
def test_a_rating_range_is_transformed_with_the_ratings(name: str, a: float, b: float) -> None:
    kind, parameters = RANGED[name]
    plain, other = (
        kind(rating_range=(0.5 * c + d, 5 * c + d), **SHAPE, **parameters).fit(transformed(TRAIN, c, d))
        for c, d in ((1.0, 0.0), (a, b))
    )
    assert_same(plain, other, a, b)
    assert np.mean(ranking(plain) == ranking(other)) > 0.95


@pytest.mark.parametrize("a", [20, 0.01])
@pytest.mark.parametrize("name", [name for name in EXPLICIT if name != "als, nonnegative"])
def test_without_biases_the_scale_alone_is_free(name: str, a: float) -> None:
    kind, parameters = EXPLICIT[name]
    plain, other = (
        kind(biases=False, **{**SHAPE, **parameters}).fit(transformed(TRAIN, scale, 0)) for scale in (1.0, a)
    )
    assert_same(plain, other, a, 0, tolerance=1e-2)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([SGD, SVDpp, ALS]),
    st.floats(1e-4, 1e5),
    st.floats(-100, 100),
    st.floats(0.01, 0.5),  # without any, users with fewer ratings than factors are at the mercy of rounding
    st.sampled_from([0.02, 0.1, 0.3]),
)
def test_any_scale(kind: type[FactorModel], a: float, offset: float, strength: float, init_scale: float) -> None:
    parameters: dict[str, Any] = {**SHAPE, "n_epochs": 3, "regularization": strength, "init_scale": init_scale}
    plain, other = (kind(**parameters).fit(transformed(TRAIN, *scale)) for scale in ((1, 0), (a, a * offset)))
    assert_same(plain, other, a, a * offset, tolerance=1e-2)


@pytest.mark.parametrize("rating_range", [None, (0.5, 5.0)])
@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_a_continued_fit_keeps_the_scale(
    kind: type[DescentModel], rating_range: tuple[float, float] | None, tmp_path: Path
) -> None:
    """The second part has half the deviation: it is measured in that of the first. It has new users and items too."""
    a, b = 20.0, 7.0
    first = Interactions.from_arrays(TRAIN.users + 10, TRAIN.items, TRAIN.ratings)
    second = Interactions.from_arrays(TRAIN.users, TRAIN.items + 5, 1 + TRAIN.ratings / 2)
    models = []
    for scale in ((1.0, 0.0), (a, b)):
        bounds = None if rating_range is None else tuple(scale[0] * end + scale[1] for end in rating_range)
        model = kind(**SHAPE, rating_range=bounds).fit(transformed(first, *scale))
        model.save(tmp_path / str(scale))
        loaded = fastmf.load(tmp_path / str(scale))
        assert isinstance(loaded, DescentModel)
        loaded.set_params(n_epochs=2).partial_fit(transformed(second, *scale))
        model.set_params(n_epochs=2).partial_fit(transformed(second, *scale))
        np.testing.assert_array_equal(loaded.item_factors, model.item_factors)
        assert model.fitted.data["deviation"] == pytest.approx(scale[0] * first.ratings.std(), rel=1e-5)
        models.append(model)
    plain, other = models
    np.testing.assert_allclose(in_units(other, a, b), in_units(plain, 1, 0), rtol=0, atol=1e-2)
    assert other.history[-1]["train_rmse"] == pytest.approx(a * plain.history[-1]["train_rmse"], rel=2e-3)


def test_a_model_saved_without_its_scale_goes_on_with_ratings_as_they_are(tmp_path: Path) -> None:
    ratings = Interactions.from_arrays([1, 2], [1, 2], [50.0, 10.0])
    SGD(n_factors=3, n_epochs=1, init_scale=2).fit(ratings).save(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    del manifest["data"]["deviation"]
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))
    model = fastmf.load(tmp_path / "model")
    assert isinstance(model, SGD)
    model.set_params(n_epochs=1, adaptive=False, learning_rate=1e-4, bias_learning_rate=0, regularization=0)
    p, q, error = model.user_factors[0].copy(), model.item_factors[0].copy(), 50 - model.predict([1], [1])[0]
    squares = model.fitted.state["user_squares"][0]

    model.partial_fit(ratings)

    np.testing.assert_allclose(model.user_factors[0] - p, 1e-4 / np.sqrt(squares) * error * q, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("high", [10, 100, 1000])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_ratings_of_any_range_are_predicted_better_than_by_their_mean(
    kind: type[DescentModel], bounded: bool, high: float
) -> None:
    a = high / 4.5
    train, test = transformed(TRAIN, a, -0.5 * a), transformed(TEST, a, -0.5 * a)

    model = kind(n_factors=8, rating_range=(0, high) if bounded else None).fit(train)

    assert rmse(model, test) < 0.8 * test.ratings.std()


@pytest.mark.filterwarnings("ignore::fastmf.errors.QualityWarning")
@pytest.mark.parametrize("value", [0, 1, 5, -3, 0.1, 1e5])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("kind", [SGD, SVDpp, ALS])
def test_one_constant_rating_is_fitted_quietly(kind: type[FactorModel], biases: bool, value: float) -> None:
    ratings = transformed(TRAIN, 0, value)

    model = kind(n_factors=4, n_epochs=30, biases=biases).fit(ratings)

    if biases:
        assert rmse(model, ratings) < 0.02 * max(abs(value), 1)


@pytest.mark.filterwarnings("ignore::fastmf.errors.QualityWarning")
@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_an_end_of_the_rating_range_alone_is_fitted_quietly(kind: type[DescentModel]) -> None:
    ratings = transformed(TRAIN, 0, 5)

    model = kind(n_factors=4, n_epochs=30, rating_range=(1, 5)).fit(ratings)

    assert rmse(model, ratings) < 0.1


@pytest.mark.parametrize("strength", [1e3, 1e10, 1e38, 1e300])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("kind", [SGD, SVDpp])
def test_a_large_regularization_leaves_the_mean(
    kind: type[DescentModel], adaptive: bool, bounded: bool, strength: float
) -> None:
    strengths = {"regularization": strength, "bias_regularization": strength}

    model = kind(**SHAPE, **strengths, adaptive=adaptive, rating_range=(0.5, 5) if bounded else None).fit(TRAIN)

    assert rmse(model, TRAIN) == pytest.approx(TRAIN.ratings.std(), rel=1e-2)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_scores_that_run_away_within_a_rating_range_are_divergence(backend: str) -> None:
    ratings = testing.power_law(60, 40, 800)
    model = SGD(n_factors=4, n_epochs=4, rating_range=(0.5, 5), adaptive=False, learning_rate=50, backend=backend)

    with pytest.raises(DivergenceError, match=r"diverged in epoch .*learning_rate=50; lower it, for example to 0\.01"):
        model.fit(ratings)


def test_divergence_names_a_rating_range_that_is_far_too_wide() -> None:
    ratings = testing.power_law(60, 40, 800)
    model = SGD(n_factors=4, n_epochs=4, rating_range=(0, 1e5), adaptive=False, learning_rate=5)

    with pytest.raises(
        DivergenceError, match=r"rating_range=\(0, 100000\), while ratings go from 0\.5 to 5; give the range"
    ):
        model.fit(ratings)


def test_a_rating_range_that_is_far_too_wide_predicts_no_worse_than_the_mean() -> None:
    model = SGD(n_factors=4, rating_range=(0, 1e4)).fit(TRAIN)

    assert rmse(model, TEST) < TEST.ratings.std()


@pytest.mark.parametrize("a", [1e-12, 1e12])
@pytest.mark.parametrize("kind", [SGD, SVDpp, ALS])
def test_ratings_beyond_float32_are_refused(kind: type[FactorModel], a: float) -> None:
    with pytest.raises(DataError, match=r"standard deviation is .*e[+-]1[123]; expected 1e-09 to 1e\+09"):
        kind(**SHAPE).fit(transformed(TRAIN, a, 0))


@pytest.mark.filterwarnings("ignore::fastmf.errors.QualityWarning")
def test_validation_and_patience_are_in_the_units_of_the_ratings() -> None:
    plain, other = (
        SGD(**{**SHAPE, "n_epochs": 40}, learning_rate=0.5, regularization=0, patience=2).fit(
            transformed(TRAIN, a, 0), validation=transformed(TEST, a, 0)
        )
        for a in (1, 64)
    )
    assert plain.best_epoch == other.best_epoch
    assert len(plain.history) == len(other.history) < 40
    for before, after in zip(plain.history, other.history, strict=True):
        assert after["validation_rmse"] == pytest.approx(64 * before["validation_rmse"], rel=1e-3)
