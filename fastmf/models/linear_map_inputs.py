"""What `fastmf.LinearMap` takes as X and y, as matrices of float64."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.common.arrays import as_plain_array
from fastmf.errors import DataError, ParameterError
from fastmf.reading.columns import Column, decode, is_number
from fastmf.reading.features import Features
from fastmf.reading.ids import require_no_nulls
from fastmf.reading.tables import all_columns, as_table, is_table
from fastmf_kernels.layout.arrays import CSR

Float64Array = npt.NDArray[np.float64]

_MOST = 1e100  # in magnitude: sums of squares of larger numbers could be beyond float64


class Matrix(NamedTuple):
    """A matrix, and what is known of its columns.

    Attributes
    ----------
    cells : float64 array or SciPy CSR array, shape (n_rows, n_columns)
    names : tuple of str, or None for columns without names
    fill : float64 array, shape (n_columns,), or None
        Stands for missing values in the numeric columns of `Features`, and is NaN for their other columns; None for
        other matrices.
    """

    cells: Any
    names: tuple[str, ...] | None = None
    fill: Float64Array | None = None


def read_matrix(x: Any) -> Matrix:
    """Return an array, a sparse matrix, a table of numbers or `Features` as a matrix.

    Raises
    ------
    ParameterError
        If it is no matrix of numbers.
    DataError
        If a cell is null or not finite.
    """
    if isinstance(x, Features):
        fill = _means_of_numeric(x)
        return Matrix(_filled(x.rows, fill), x.names, fill)
    if _is_table(x):
        names, table = all_columns(x)
        return Matrix(_cells_of_table(table, names), tuple(names))
    if hasattr(x, "tocsr") and hasattr(x, "shape"):
        return Matrix(_require_finite(_as_csr(x), "X"))
    array = as_plain_array(x, "X")
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise ParameterError(
            f"X is {array.dtype} of shape {array.shape}; expected numbers in two dimensions: a row for each row of y"
        )
    return Matrix(_require_finite(array.astype(np.float64, copy=False), "X"))


def read_matrix_like(x: Any, fitted: Matrix) -> tuple[Any, int]:
    """Return the cells of another matrix in the columns of the one that was fitted, and how many were left out.

    Parameters
    ----------
    x : as in `read_matrix`
    fitted : Matrix
        Its cells are not looked at.

    Raises
    ------
    DataError, ParameterError
        As `read_matrix`; or if columns are missing.
    """
    if isinstance(x, Features):
        return _features_like(x, fitted)
    if _is_table(x) and fitted.names is not None:
        return _cells_of_table(as_table(x, fitted.names), fitted.names), 0
    return read_matrix(x).cells, 0


def read_targets(y: Any, n_rows: int) -> tuple[Float64Array, tuple[str, ...] | None]:
    """Return targets as an array, shape (n_rows,) or (n_rows, n_targets), and their names if they have any.

    Raises
    ------
    ParameterError
        If they are no numbers, or not one row for each of X.
    DataError
        If one is null or not finite.
    """
    names = None
    if _is_table(y):
        columns, table = all_columns(y)
        array, names = _cells_of_table(table, columns), tuple(columns)
    else:
        array = as_plain_array(y, "y")
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2) or array.shape[1:] == (0,):
        raise ParameterError(
            f"y is {array.dtype} of shape {array.shape}; expected numbers in one dimension, or a column for each target"
        )
    if len(array) != n_rows:
        raise ParameterError(f"y has {len(array)} rows and X has {n_rows}; expected one row of y for each of X")
    return _require_finite(array.astype(np.float64, copy=False), "y"), names


def _is_table(value: Any) -> bool:
    """Whether a value has columns; columns of other libraries are streams of Arrow, too, but have one type."""
    return is_table(value) and not hasattr(value, "dtype") and not isinstance(value, pa.Array)


def _cells_of_table(table: pa.Table, names: "list[str] | tuple[str, ...]") -> Float64Array:
    cells = np.empty((len(table), len(names)), np.float64)
    for place, name in enumerate(names):
        column = Column(decode(table.column(place)))
        if not (is_number(column.values.type) or pa.types.is_boolean(column.values.type)):
            raise DataError(
                f"column {name!r} has type {column.values.type}; expected numbers: leave it out, or read the table by "
                "Features.from_arrow, which makes categories of texts"
            )
        require_no_nulls(column.values, name, column.where)
        cells[:, place] = column.values.cast(pa.float64(), safe=False).to_numpy()
    return np.asarray(_require_finite(cells, "the table"))


def _as_csr(matrix: Any) -> Any:
    import scipy.sparse

    if matrix.dtype.kind not in "biuf" or len(matrix.shape) != 2:
        raise ParameterError(
            f"X is a sparse matrix of {matrix.dtype} of shape {matrix.shape}; expected numbers in two dimensions"
        )
    csr = scipy.sparse.csr_array(matrix, dtype=np.float64)
    csr.sum_duplicates()
    return csr


def _require_finite(cells: Any, name: str) -> Any:
    values = cells if isinstance(cells, np.ndarray) else cells.data
    with np.errstate(invalid="ignore"):
        finite = np.abs(values) <= _MOST
    if not finite.all():
        if isinstance(cells, np.ndarray):
            first = int(np.argwhere(~finite)[0][0])
        else:
            first = int(np.searchsorted(cells.indptr, np.argmin(finite), side="right")) - 1
        raise DataError(
            f"{name} has {np.count_nonzero(~finite)} values that are not finite, or beyond {_MOST:g}, the first in "
            f"row {first} (from 0); drop, repair or scale those rows first"
        )
    return cells


def _means_of_numeric(features: Features) -> Float64Array:
    """Return the mean of the known values of each numeric column, shape (n_features,); NaN for other columns."""
    indices, size = features.rows.indices, features.n_features
    sums = np.bincount(indices, features.rows.values.astype(np.float64), minlength=size)
    counts = np.bincount(indices, minlength=size)
    return np.where(features.is_numeric, sums / np.maximum(counts, 1), np.nan)


def _filled(rows: CSR, fill: Float64Array) -> Any:
    """Return features as a sparse matrix, with ``fill`` for what is missing where it is a number."""
    import scipy.sparse

    shape = (len(rows.indptr) - 1, len(fill))
    matrix = scipy.sparse.csr_array((rows.values.astype(np.float64), rows.indices, rows.indptr), shape=shape)
    is_numeric = np.isfinite(fill)
    numeric = np.flatnonzero(is_numeric)
    place = np.cumsum(is_numeric) - 1
    of_numeric = is_numeric[rows.indices]
    is_known = np.zeros((shape[0], len(numeric)), np.bool_)
    is_known[rows.row_of_each_entry()[of_numeric], place[rows.indices[of_numeric]]] = True
    at, column = np.nonzero(~is_known)
    missing = scipy.sparse.coo_array((fill[numeric[column]], (at, numeric[column])), shape=shape)
    return scipy.sparse.csr_array(matrix + missing)


def _features_like(features: Features, fitted: Matrix) -> tuple[Any, int]:
    names, fill = fitted.names, fitted.fill
    if names is None or fill is None:
        raise ParameterError("X is Features, but the map was fitted to a matrix or table; expected the same kind")
    here = set(features.names)
    lacking = [names[place] for place in np.flatnonzero(np.isfinite(fill)) if names[place] not in here]
    if lacking:
        raise DataError(
            f"X lacks {len(lacking)} numeric columns that the map was fitted to, for example {lacking[0]!r}; expected "
            "the same numeric columns"
        )
    matched = features.in_columns(names)
    return _filled(matched.rows, fill), matched.n_unknown
