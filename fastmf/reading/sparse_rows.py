"""Sparse rows: built from entries, checked, and taken in another order."""

from typing import Any, NamedTuple

import numpy as np

from fastmf.errors import ParameterError
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array
from fastmf_kernels.layout.arrays import CSR

# Deviations below this share of the mean are those of equal numbers.
_ROUNDING = 1e-9


def rows_from_entries(rows: Int32Array, columns: Int32Array, values: Float32Array, shape: tuple[int, int]) -> CSR:
    """Return entries as sparse rows, columns ascending in a row.

    Parameters
    ----------
    rows, columns : int32 arrays, shape (n_entries,)
        In range of ``shape``; no pair occurs twice.
    values : float32 array, shape (n_entries,)
    shape : (int, int)
        Number of rows and of columns.
    """
    from fastmf_kernels.layout import cpu as layout

    by_column = layout.coo_to_csr(columns, rows, values, shape[1])
    return layout.transpose(by_column, shape[0])


def take_rows(matrix: CSR, positions: Int32Array) -> CSR:
    """Return rows in the order of ``positions``, shape (n,); a position of -1 gives an empty row."""
    known = positions >= 0
    starts = np.where(known, matrix.indptr[:-1][positions] if len(matrix.indptr) > 1 else 0, 0)
    sizes = np.where(known, np.diff(matrix.indptr)[positions] if len(matrix.indptr) > 1 else 0, 0)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    entries = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], sizes)
    return CSR(indptr, matrix.indices[entries], matrix.values[entries])


def stacked(above: CSR, below: CSR) -> CSR:
    """Return the rows of two matrices of the same columns one below the other."""
    return CSR(
        np.concatenate([above.indptr, above.indptr[-1] + below.indptr[1:]]),
        np.concatenate([above.indices, below.indices]),
        np.concatenate([above.values, below.values]),
    )


class Moments(NamedTuple):
    """Means and standard deviations of the entries of columns, float64 arrays of shape (n_columns,).

    Both are 0 in a column without entries; the deviation is 0 where all entries are the same.
    """

    means: Float64Array
    deviations: Float64Array


def moments_of_columns(matrix: CSR, n_columns: int) -> Moments:
    """Return means and deviations of the entries that columns have."""
    columns, values = matrix.indices, matrix.values.astype(np.float64)
    counts = np.maximum(np.bincount(columns, minlength=n_columns), 1)
    means = np.bincount(columns, values, n_columns) / counts
    deviations = np.sqrt(np.bincount(columns, (values - means[columns]) ** 2, n_columns) / counts)
    # What is left of a column of one value is rounding.
    return Moments(means, np.where(deviations > _ROUNDING * np.abs(means), deviations, 0))


def lengths_of_rows(matrix: CSR) -> Float64Array:
    """Return ‖x‖ of each row x, shape (n_rows,)."""
    squares = matrix.values.astype(np.float64) ** 2
    return np.sqrt(np.bincount(matrix.row_of_each_entry(), squares, len(matrix.indptr) - 1))


def require_rows(name: str, matrix: Any, n_rows: int, n_columns: int) -> CSR:
    """Return sparse rows as arrays of the types of `CSR`.

    Raises
    ------
    ParameterError
        If offsets and indices do not fit the sizes, columns do not ascend in a row, or a value is not finite.
    """
    expected = f"expected (indptr, indices, values) of {n_rows} rows and {n_columns} columns"
    try:
        indptr, indices, values = (np.asarray(part) for part in matrix)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} is a {type(matrix).__name__}; {expected}") from error
    if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu" or values.dtype.kind not in "fiu":
        raise ParameterError(f"{name} has types {indptr.dtype}, {indices.dtype} and {values.dtype}; {expected}")
    if indptr.shape != (n_rows + 1,) or indices.ndim != 1 or indices.shape != values.shape:
        raise ParameterError(f"{name} has shapes {indptr.shape}, {indices.shape} and {values.shape}; {expected}")
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr.astype(np.int64)) < 0).any():
        raise ParameterError(f"{name} has offsets that do not ascend from 0 to {len(indices)}; {expected}")
    if len(indices) and (indices.min() < 0 or indices.max() >= n_columns):
        raise ParameterError(f"{name} has columns from {indices.min()} to {indices.max()}; {expected}")
    is_step = np.ones(max(len(indices) - 1, 0), np.bool_)
    is_step[indptr[1:-1][(indptr[1:-1] > 0) & (indptr[1:-1] < len(indices))].astype(np.int64) - 1] = False
    if (np.diff(indices.astype(np.int64)) <= 0)[is_step].any():
        raise ParameterError(f"{name} has a row whose columns do not ascend; expected each column once, in order")
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(numbers).all():
        raise ParameterError(f"{name} has values that are not finite in float32; drop or repair them first")
    return CSR(np.ascontiguousarray(indptr, np.int64), np.ascontiguousarray(indices, np.int32), numbers)
