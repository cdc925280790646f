"""Least squares beside NumPy's pseudo-inverse: for collinear columns, sparse matrices, many targets and penalties."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse

from fastmf import Features, LinearMap
from fastmf.errors import DataError, NotFittedError, ParameterError, QualityWarning
from fastmf.models import linear_map_solvers

N_ROWS = 60


def matrices() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N_ROWS, 6))
    codes = np.eye(3)[rng.integers(3, size=N_ROWS)]
    return {
        "regular": x,
        "one row": x[:1],
        "duplicated": np.hstack([x, x[:, :1]]),
        "constant": np.hstack([x, np.full((N_ROWS, 1), 0.1)]),
        "duplicated and constant": np.hstack([x, x[:, 2:4], np.full((N_ROWS, 1), 3.0)]),
        "all categories": np.hstack([x, codes]),
        "wide": x.T,
        "zeros": np.zeros((N_ROWS, 3)),
        "ill-conditioned": np.hstack([x, x[:, :1] + 1e-7 * x[:, 1:2]]),
        "different units": x * [1e6, 1.0, 1e-3, 1.0, 1e4, 1.0],
        "far from 0": x + 1e5,
    }


MATRICES = matrices()
each_matrix = pytest.mark.parametrize("name", list(MATRICES))


def targets_for(x: Any, n_targets: int) -> Any:
    rng = np.random.default_rng(2)
    return x @ rng.normal(size=(x.shape[1], n_targets)) / max(np.abs(x).max(), 1) + rng.normal(size=(len(x), n_targets))


@each_matrix
@pytest.mark.parametrize("n_targets", [1, 3])
def test_without_an_intercept_it_is_the_pseudo_inverse(name: str, n_targets: int) -> None:
    x = MATRICES[name]
    y = targets_for(x, n_targets)

    fitted = LinearMap(intercept=False).fit(x, y)

    expected = np.linalg.pinv(x, rcond=max(x.shape) * np.finfo(float).eps) @ y
    tolerance = 1e-7 if name in ("ill-conditioned", "far from 0") else 1e-9
    np.testing.assert_allclose(fitted.coefficients, expected, tolerance, tolerance * np.abs(expected).max())
    assert fitted.rank == np.linalg.matrix_rank(x)
    assert np.all(fitted.offset == 0.0)


@each_matrix
@pytest.mark.parametrize("is_sparse", [False, True])
def test_with_an_intercept_it_is_the_pseudo_inverse_without_means(name: str, is_sparse: bool) -> None:
    x = MATRICES[name]
    y = targets_for(x, 2)

    fitted = LinearMap().fit(scipy.sparse.csr_array(x) if is_sparse else x, y)

    centred = x - x.mean(axis=0)
    centred[:, (x == x[0]).all(axis=0)] = 0.0
    expected = np.linalg.pinv(centred, rcond=max(x.shape) * np.finfo(float).eps) @ (y - y.mean(axis=0))
    tolerance = 1e-7 if name in ("ill-conditioned", "far from 0") else 1e-9
    np.testing.assert_allclose(fitted.coefficients, expected, tolerance, tolerance * np.abs(expected).max())
    np.testing.assert_allclose(fitted.offset, y.mean(axis=0) - x.mean(axis=0) @ expected, 1e-6, 1e-6)
    assert fitted.rank == np.linalg.matrix_rank(centred)


@each_matrix
@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_penalty_is_as_many_more_rows(name: str, is_sparse: bool) -> None:
    x = MATRICES[name]
    y = targets_for(x, 2)
    strength = 0.7

    fitted = LinearMap(regularization=strength).fit(scipy.sparse.csr_array(x) if is_sparse else x, y)

    n = x.shape[1]
    below = np.hstack([np.zeros((n, 1)), np.sqrt(strength) * np.eye(n)])
    rows = np.vstack([np.hstack([np.ones((len(x), 1)), x]), below])
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((n, 2))]), rcond=None)[0]
    atol = 1e-8 * np.abs(expected[1:]).max() + 1e-12
    np.testing.assert_allclose(fitted.coefficients, expected[1:], 1e-6, atol)
    if name != "ill-conditioned":
        assert fitted.rank == np.linalg.matrix_rank(x - x.mean(axis=0))


@pytest.mark.parametrize(
    ("name", "options", "solver"),
    [
        ("regular", {}, "cholesky"),
        ("different units", {}, "cholesky"),
        ("duplicated", {}, "svd"),
        ("duplicated", {"regularization": 1.0}, "cholesky"),
        ("constant", {}, "svd"),
        ("constant", {"intercept": False}, "cholesky"),
        ("ill-conditioned", {}, "svd"),
        ("wide", {}, "svd"),
    ],
)
def test_the_solver_that_ran(name: str, options: Any, solver: str) -> None:
    x = MATRICES[name]

    assert LinearMap(**options).fit(x, targets_for(x, 1)).solver == solver


@each_matrix
def test_rows_in_blocks_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = MATRICES[name]
    y = targets_for(x, 2)
    whole = LinearMap().fit(x, y)

    monkeypatch.setattr(linear_map_solvers, "_CELLS_OF_A_BLOCK", 5 * x.shape[1])
    blocks = LinearMap().fit(x, y)

    tolerance = 1e-6 if name == "ill-conditioned" else 1e-9
    np.testing.assert_allclose(blocks.coefficients, whole.coefficients, tolerance, 1e-9)
    assert (blocks.rank, blocks.solver) == (whole.rank, whole.solver)


@pytest.mark.parametrize("name", ["regular", "duplicated and constant", "wide", "zeros"])
@pytest.mark.parametrize("options", [{}, {"intercept": False}, {"regularization": 2.0}])
def test_iteration_gives_the_same(name: str, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = MATRICES[name]
    y = targets_for(x, 2)
    direct = LinearMap(**options).fit(x, y)

    monkeypatch.setattr(linear_map_solvers, "MOST_DIRECT_COLUMNS", 1)
    iterated = LinearMap(**options).fit(scipy.sparse.csr_array(x), y)

    assert (iterated.solver, iterated.rank) == ("lsmr", None)
    np.testing.assert_allclose(iterated.coefficients, direct.coefficients, 1e-7, 1e-8)
    np.testing.assert_allclose(iterated.offset, direct.offset, 1e-7, 1e-8)


def test_iteration_that_does_not_converge_gives_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_map_solvers, "MOST_DIRECT_COLUMNS", 1)
    monkeypatch.setattr(linear_map_solvers, "_MOST_ITERATIONS", 2)

    with pytest.warns(QualityWarning, match="the coefficients of 6 columns have not converged"):
        LinearMap().fit(MATRICES["regular"], targets_for(MATRICES["regular"], 1))


def test_many_columns_of_few_rows_are_solved_directly() -> None:
    x = np.random.default_rng(3).normal(size=(4, 5003))
    y = np.array([1.0, 2.0, 4.0, 8.0])

    fitted = LinearMap().fit(x, y)

    assert (fitted.solver, fitted.rank) == ("svd", 3)
    np.testing.assert_allclose(fitted.predict(x), y)


def test_a_sparse_matrix_of_many_columns_is_never_dense() -> None:
    n = 20_000  # dense, 3 GB, and as many again for columns by columns
    x = scipy.sparse.diags_array(np.linspace(1.0, 2.0, n), format="csr")
    y = np.linspace(-1.0, 1.0, n)

    fitted = LinearMap(intercept=False).fit(x, y)

    assert fitted.solver == "lsmr"
    np.testing.assert_allclose(fitted.coefficients, y / np.linspace(1.0, 2.0, n), atol=1e-9)


def test_predictions_have_the_shape_of_the_targets() -> None:
    x, y = MATRICES["regular"], targets_for(MATRICES["regular"], 2)

    one, column, two = (LinearMap().fit(x, targets) for targets in (y[:, 0], y[:, :1], y))

    assert [fitted.predict(x[:5]).shape for fitted in (one, column, two)] == [(5,), (5, 1), (5, 2)]
    assert [fitted.coefficients.shape for fitted in (one, column, two)] == [(6,), (6, 1), (6, 2)]
    assert isinstance(one.offset, float)
    np.testing.assert_allclose(one.predict(x), x @ one.coefficients + one.offset)
    np.testing.assert_allclose(two.predict(scipy.sparse.csr_array(x))[:, 0], one.predict(x))


def test_tables_have_names() -> None:
    table = pa.table({"a": [1, 2, 4], "b": [True, False, True], "c": [0.5, 0.0, 0.0]})
    y = pa.table({"p": [1, 2, 3], "q": [3, 2, 1]})

    fitted = LinearMap(regularization=1).fit(table, y)

    assert fitted.names == ("a", "b", "c")
    assert fitted.to_arrow().column_names == ["feature", "p", "q"]
    assert fitted.to_arrow()["q"].to_pylist() == fitted.coefficients[:, 1].tolist()
    other_order = table.select(["c", "b", "a"]).append_column("other", pa.array(["x", "y", "z"]))
    np.testing.assert_array_equal(fitted.predict(other_order), fitted.predict(table))
    with pytest.raises(DataError, match="no column 'b'"):
        fitted.predict(table.drop_columns("b"))


def test_arrays_have_numbers_for_names() -> None:
    fitted = LinearMap().fit(MATRICES["regular"], targets_for(MATRICES["regular"], 2))

    assert fitted.names == ("x0", "x1", "x2", "x3", "x4", "x5")
    assert fitted.to_arrow().column_names == ["feature", "y0", "y1"]


def films(years: Any, genres: Any) -> Features:
    return Features.from_arrow(pa.table({"item_id": range(len(years)), "year": years, "genre": genres}))


def test_features_with_a_missing_number_have_its_mean() -> None:
    years, genres = [1990.0, None, 2000.0, 2010.0], ["a", "b", "b|a", "c"]
    y = [1.0, 2.0, 4.0, 3.0]

    fitted = LinearMap(regularization=0.1).fit(films(years, genres), y)

    dense = np.array([[1990, 1, 0, 0], [2000, 0, 1, 0], [2000, 1, 1, 0], [2010, 0, 0, 1]], float)
    expected = LinearMap(regularization=0.1).fit(dense, y)
    assert fitted.names == ("year", "genre=a", "genre=b", "genre=c")
    np.testing.assert_allclose(fitted.coefficients, expected.coefficients)
    predicted = fitted.predict(films([None, 0.0], ["c", "a"]))
    np.testing.assert_allclose(predicted, expected.predict([[2000, 0, 0, 1], [0, 1, 0, 0]]))


def test_features_that_were_not_fitted_are_counted() -> None:
    fitted = LinearMap().fit(films([1990, 2000, 2010], ["a", "b", "a"]), [1.0, 2.0, 4.0])

    with pytest.warns(QualityWarning, match="2 entries of X are of features that the map was not fitted to"):
        predicted = fitted.predict(films([1990, 1990, 1990], ["a|new", "a", "other"]))

    assert predicted[0] == predicted[1] != predicted[2]
    with pytest.raises(DataError, match="X lacks 1 numeric columns that the map was fitted to, for example 'year'"):
        fitted.predict(Features.from_arrow(pa.table({"item_id": [1], "genre": ["a"]})))
    with pytest.raises(ParameterError, match="X is Features, but the map was fitted to a matrix"):
        LinearMap().fit([[1.0], [2.0]], [1.0, 2.0]).predict(films([1990], ["a"]))


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            [[1.0], [np.nan]],
            [1, 2],
            DataError,
            r"X has 1 values that are not finite, or beyond 1e\+100, the first in row 1",
        ),
        (scipy.sparse.csr_array([[0.0], [np.inf]]), [1, 2], DataError, "X has 1 values .* row 1"),
        ([[1.0], [2.0]], [1, np.inf], DataError, "y has 1 values that are not finite, .* row 1"),
        ([[1.0], [2.0]], [1], ParameterError, "y has 1 rows and X has 2"),
        ([[1.0], [2.0]], [["a"], ["b"]], ParameterError, "y is <U1 of shape"),
        ([[1.0], [2.0]], [[], []], ParameterError, "y is float64 of shape"),
        ([1.0, 2.0], [1, 2], ParameterError, "X is float64 of shape .2,.; expected numbers in two dimensions"),
        ([["a"], ["b"]], [1, 2], ParameterError, "X is <U1"),
        (scipy.sparse.coo_array([1.0, 2.0]), [1, 2], ParameterError, "X is a sparse matrix of float64 of shape .2,."),
        (np.empty((0, 2)), [], DataError, "X has 0 rows and 2 columns"),
        (np.empty((2, 0)), [1, 2], DataError, "X has 2 rows and 0 columns"),
        (pa.table({"a": [1, None]}), [1, 2], DataError, "'a' has 1 null value"),
        (pa.table({"a": ["x", "y"]}), [1, 2], DataError, "'a' has type string; expected numbers.*Features.from_arrow"),
        ([[1.0], [2e200]], [1.0, 2.0], DataError, "X has 1 values .* row 1.*scale those rows"),
    ],
)
def test_what_is_no_problem_of_least_squares(x: Any, y: Any, error: Any, message: str) -> None:
    before = LinearMap().fit([[1.0], [2.0]], [1.0, 2.0])

    with pytest.raises(error, match=message):
        before.fit(x, y)

    assert before.predict([[3.0]])[0] == pytest.approx(3.0)


def test_parameters() -> None:
    linear = LinearMap(regularization=2, intercept=False)

    assert linear.get_params() == {"regularization": 2, "intercept": False}
    assert linear.set_params(intercept=True).intercept is True
    assert repr(linear) == "LinearMap(regularization=2, intercept=True)"
    with pytest.raises(ParameterError, match="regularization is -1; expected a finite number of at least 0"):
        LinearMap(regularization=-1)
    with pytest.raises(ParameterError, match="intercept is 'yes'"):
        LinearMap(intercept="yes")  # type: ignore[arg-type]
    linear.regularization = -5
    with pytest.raises(ParameterError, match="regularization is -5"):
        linear.fit([[1.0]], [1.0])
    linear.regularization = 2
    with pytest.raises(ParameterError, match="X has 2 columns; expected 1"):
        LinearMap().fit([[1.0], [2.0]], [1.0, 2.0]).predict([[1.0, 2.0]])
    for ask in (lambda: linear.rank, lambda: linear.coefficients, lambda: linear.predict([[1.0]]), linear.to_arrow):
        with pytest.raises(NotFittedError, match="not fitted"):
            ask()


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_columns_whose_squares_are_below_float64(strength: float) -> None:
    fitted = LinearMap(regularization=strength).fit([[0.0], [1e-200], [2e-200]], [1.0, 2.0, 3.0])
    expected = 1e200 if strength == 0 else 2e-200
    assert fitted.coefficients[0] == pytest.approx(expected)


def test_house_prices_are_predicted_as_the_documentation_says() -> None:
    data = Path(os.environ.get("FASTMF_DATA", "")) / "california-housing" / "housing.parquet"
    if not data.is_file():
        pytest.skip(f"there is no {data}; set FASTMF_DATA to the folder of real data sets")
    page = (Path(__file__).parents[1] / "docs" / "features.md").read_text(encoding="utf-8")
    program = page.partition("### House prices")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(program.replace('"housing.parquet"', repr(str(data))), "features.md", "exec"), names)

    lines = printed.getvalue().splitlines()
    assert lines[:3] == [
        "LinearMap: RMSE 66695.92, R² 0.6752",
        "NumPy: RMSE 66695.92, R² 0.6752",
        "mean: RMSE 117040.18, R² -0.0001",
    ]
    assert (names["linear"].rank, names["rank"]) == (12, 13)
    assert np.abs(names["predictions"]["LinearMap"] - names["predictions"]["NumPy"]).max() < 1e-6
