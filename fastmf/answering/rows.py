"""Lists of items, one for each user, in one pair of arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import Int32Array, Int64Array
from fastmf_kernels.topk.arrays import Rows

IndexArray = npt.NDArray[np.integer[Any]]


def rows_of_pairs(rows: IndexArray, columns: IndexArray, n_rows: int, n_columns: int) -> Rows:
    """Make the rows of (row, column) pairs in any order: ascending and without repetition."""
    pairs = rows.astype(np.int64) * n_columns + columns
    if np.any(np.diff(pairs) <= 0):
        pairs = np.unique(pairs)
    row, column = np.divmod(pairs, max(n_columns, 1))
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=n_rows), out=indptr[1:])
    return Rows(indptr, column.astype(np.int32))


def sorted_rows(indptr: Int64Array, indices: npt.NDArray[Any], n_columns: int) -> Rows:
    """Make rows that are ascending and without repetition of rows that may be so already."""
    rises = indices[1:] > indices[:-1]
    borders = indptr[1:-1]
    rises[borders[(borders > 0) & (borders < len(indices))] - 1] = True
    if rises.all():
        return Rows(indptr, indices.astype(np.int32, copy=False))
    n_rows = len(indptr) - 1
    return rows_of_pairs(np.repeat(np.arange(n_rows), np.diff(indptr)), indices, n_rows, n_columns)


def take_rows(rows: Rows, wanted: Int32Array) -> Rows:
    """Return the rows numbered ``wanted``, in that order; nothing is copied of rows that follow one another."""
    n_rows = len(wanted)
    if n_rows and wanted[-1] - wanted[0] == n_rows - 1 and np.all(np.diff(wanted) == 1):
        offsets = rows.indptr[wanted[0] : wanted[-1] + 2]
        return Rows(offsets - offsets[0], rows.indices[offsets[0] : offsets[-1]])
    counts = rows.indptr[wanted + 1] - rows.indptr[wanted]
    indptr = np.zeros(len(wanted) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    positions = np.arange(indptr[-1]) + np.repeat(rows.indptr[wanted] - indptr[:-1], counts)
    return Rows(indptr, np.asarray(rows.indices[positions], np.int32))


def union(a: Rows, b: Rows, n_items: int) -> Rows:
    """Return, row by row, what either list has."""
    if len(b.indices) == 0:
        return a
    n_rows = len(a.indptr) - 1
    rows = np.concatenate([np.repeat(np.arange(n_rows), np.diff(r.indptr)) for r in (a, b)])
    return rows_of_pairs(rows, np.concatenate([a.indices, b.indices]), n_rows, n_items)


def difference(a: Rows, b: Rows, n_items: int) -> Rows:
    """Return, row by row, what the first list has, of items below ``n_items``, and the second has not."""
    n_rows = len(a.indptr) - 1
    rows, others = (np.repeat(np.arange(n_rows), np.diff(r.indptr)) for r in (a, b))
    kept = a.indices < n_items
    kept[kept] = ~np.isin(rows[kept] * n_items + a.indices[kept], others * n_items + b.indices)
    return rows_of_pairs(rows[kept], a.indices[kept], n_rows, n_items)


def same_for_all(items: Int32Array, n_users: int) -> Rows:
    """Return one list, ascending, repeated for every user."""
    return Rows(np.arange(n_users + 1, dtype=np.int64) * len(items), np.tile(items, n_users))
