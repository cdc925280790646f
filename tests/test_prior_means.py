"""The linear map from features to factors: its equations, and the choice of its strength."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastmf import ALS, Features
from fastmf.answering.side_features import Columns, SideFeatures
from fastmf.models.prior_means import PriorMeans, choose_regularization
from tests.hybrid import N_ITEMS, items, means, place, ratings

N, N_FACTORS = 300, 3


def described(n: int = N) -> Any:
    """Three columns of the ids 0 to n - 1: a category, a number that misses in places, and tags; id 3 has nothing."""
    rng = np.random.default_rng(2)
    table = {
        "item_id": range(n),
        "genre": [None if row == 3 else f"g{row % 4}" for row in range(n)],
        "year": [None if row % 7 == 3 else float(year) for row, year in enumerate(rng.integers(1950, 2000, n))],
        "tags": [[] if row == 3 else [f"t{tag}" for tag in set(rng.integers(0, 6, 2).tolist())] for row in range(n)],
    }
    columns = Columns.of(features := Features.from_arrow(pa.table(table)))
    weights = np.zeros((features.n_features + 1, N_FACTORS), np.float32)
    return SideFeatures(columns, columns.encode(features)[0], weights, 1.0)


def dense(features: SideFeatures) -> Any:
    indptr, indices, values = features.rows
    table = np.zeros((len(indptr) - 1, len(features.weights)))
    table[np.repeat(np.arange(len(table)), np.diff(indptr)), indices] = values
    return table


def planted(features: SideFeatures, noise: float) -> Any:
    """Factors that are a linear map of features, and noise."""
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((len(features.weights), N_FACTORS))
    return (dense(features) @ weights + noise * rng.standard_normal((N, N_FACTORS))).astype(np.float32)


def strengths() -> Any:
    return np.random.default_rng(6).uniform(0.5, 8, N)


def test_the_map_is_the_ridge_solution() -> None:
    features, of_rows, regularization = described(), strengths(), 0.7
    factors, x = planted(features, 0.3), dense(features)
    prior = PriorMeans(features, of_rows, regularization)
    for _ in range(100):
        prior.update(factors)

    ridge = regularization * of_rows[features.are_described].mean()
    matrix = (x.T * of_rows) @ x + ridge * np.eye(x.shape[1])
    expected = np.linalg.solve(matrix, (x.T * of_rows) @ factors)
    np.testing.assert_allclose(prior.weights, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(prior.means, x @ expected, rtol=0, atol=1e-3)
    assert prior.penalty() == pytest.approx(ridge * (expected**2).sum(), rel=1e-3)
    before = prior.weights.copy()
    prior.update(factors)  # where the equations are solved, they leave it
    np.testing.assert_allclose(prior.weights, before, rtol=0, atol=1e-4)


def test_each_update_lowers_the_objective() -> None:
    features, of_rows, regularization = described(), strengths(), 0.1
    factors = planted(features, 0.5)
    prior = PriorMeans(features, of_rows, regularization)
    objectives = []
    for _ in range(8):
        away = ((factors - prior.means.astype(float)) ** 2).sum(axis=1)
        objectives.append(float(of_rows @ away) + prior.penalty())
        prior.update(factors)
    assert (np.diff(objectives) <= 1e-6 * objectives[0]).all()
    assert objectives[-1] < 0.7 * objectives[0]


def test_factors_of_zero_give_a_map_of_zeros() -> None:
    features = described()
    prior = PriorMeans(features, strengths(), 1.0)
    prior.update(np.zeros((N, N_FACTORS), np.float32))
    assert not prior.weights.any()
    assert not prior.means.any()


def chosen(factors: Any) -> float:
    return choose_regularization(factors, described(), strengths(), np.random.default_rng(0))


def test_the_strength_is_small_where_features_tell_factors_and_large_where_not() -> None:
    noise = np.random.default_rng(8).standard_normal((N, N_FACTORS)).astype(np.float32)
    told = planted(described(), 0.05)
    assert chosen(told) <= 1
    assert chosen(noise) >= 100


def test_the_strength_is_chosen_of_what_can_be_compared() -> None:
    """Rows without features or with factors of zero tell nothing; of nobody, the strongest pull is chosen."""
    nothing = np.zeros((N, N_FACTORS), np.float32)
    assert chosen(nothing) >= 100
    told = planted(described(), 0.05)
    told[::2] = 0
    assert chosen(told) <= 3


def test_rows_have_length_1_and_numbers_are_standardised() -> None:
    features = described()
    x, (names, centers, scales) = dense(features), features.columns
    lengths = np.sqrt((x**2).sum(axis=1))
    np.testing.assert_allclose(lengths[features.are_described], 1, rtol=1e-6)
    assert np.flatnonzero(~features.are_described).tolist() == [3]
    assert not x[3].any()
    is_numeric = np.array([name == "year" for name in names.to_pylist()])
    assert (centers[~is_numeric] == 0).all()
    assert (scales[~is_numeric] == 1).all()
    years = x[:, :-1][:, is_numeric][:, 0] / np.where(x[:, -1] > 0, x[:, -1], 1)  # the intercept undoes the length
    known = years[years != 0]
    assert abs(known.mean()) < 1e-5
    assert known.std() == pytest.approx(1, rel=1e-5)


def test_unknown_categories_are_left_out_and_counted() -> None:
    columns = described().columns
    given = Features.from_arrow(
        pa.table({"item_id": [1, 2, 3], "genre": ["g1", "new", "g1"], "studio": ["s", "s", None]})
    )
    rows, n_unknown = columns.encode(given)
    assert n_unknown == 3
    assert np.diff(rows.indptr).tolist() == [2, 0, 2]  # of unknown ones alone, no row
    without, none = columns.encode(Features.from_arrow(pa.table({"item_id": [1, 2, 3], "genre": ["g1", None, "g1"]})))
    assert none == 0
    for part, expected in zip(rows, without, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_a_fit_chooses_a_strength_for_each_side_and_says_which() -> None:
    model = ALS(n_factors=4, n_epochs=3).fit(ratings(), item_features=items())
    assert set(model.chosen) >= {"item_feature_regularization"}
    assert "user_feature_regularization" not in model.chosen
    r = model.chosen["item_feature_regularization"]
    assert model.fitted.features["item"].pull == pytest.approx(min(1, r / 3))
    given = ALS(n_factors=4, n_epochs=3, item_feature_regularization=r).fit(ratings(), item_features=items())
    np.testing.assert_array_equal(given.item_factors, model.item_factors)
    assert "item_feature_regularization" not in given.chosen


def test_a_strong_ridge_leaves_items_without_ratings_near_the_mean() -> None:
    """With a large r the map is small, so that cold items are close to 0; with a small one they are not."""
    sizes = []
    for r in (0.1, 1e6):
        model = ALS(n_factors=4, n_epochs=3, item_feature_regularization=r).fit(ratings(), item_features=items())
        assert model.fitted.features["item"].weights.shape[1] == 5  # the bias, too
        row = place(model, N_ITEMS)
        np.testing.assert_allclose(model.item_factors[row], means(model, "item")[row, :4], rtol=1e-4, atol=1e-6)
        sizes.append(float(np.abs(model.item_factors[row]).max()))
    assert sizes[1] < 1e-3 * sizes[0]
