"""Lists of items, one for each user, in one pair of arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import BoolArray, Float32Array, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.topk.arrays import Rows

IndexArray = npt.NDArray[np.integer[Any]]
# Pairs that are searched for together, so that what a step makes of them stays in the cache.
_SEARCHED_AT_ONCE = 1 << 15


def rows_of_pairs(rows: IndexArray, columns: IndexArray, n_rows: int, n_columns: int) -> Rows:
    """Make the rows of (row, column) pairs in any order: ascending and without repetition."""
    pairs = rows.astype(np.int64) * n_columns + columns
    if np.any(np.diff(pairs) <= 0):
        # `numpy.unique` hashes the pairs first, which takes many times as long.
        pairs.sort()
        pairs = pairs[np.append(True, np.diff(pairs) > 0)]
    row, column = np.divmod(pairs, max(n_columns, 1))
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=n_rows), out=indptr[1:])
    return Rows(indptr, column.astype(np.int32))


def ratings_of_pairs(
    rows: IndexArray, columns: IndexArray, values: Float32Array, n_rows: int, n_columns: int
) -> tuple[Rows, Float32Array]:
    """Make the rows of (row, column, value) triples in any order; of a repeated pair the last value counts."""
    pairs = rows.astype(np.int64) * n_columns + columns
    order = np.argsort(pairs, kind="stable")
    order = order[np.append(np.diff(pairs[order]) > 0, True)[: len(order)]]
    made = rows_of_pairs(rows[order], columns[order], n_rows, n_columns)
    return made, np.ascontiguousarray(values[order], np.float32)


def merged_ratings(before: CSR, more: CSR, n_columns: int) -> CSR:
    """Return, row by row, the ratings of both; of a pair that both have, that of ``more``.

    Pairs of ``before`` keep their order, so this takes a copy and a search for each of ``more``, and no sorting.

    Parameters
    ----------
    before, more : CSR
        Of as many rows; columns ascend inside a row.
    n_columns : int
    """
    pairs, others = _pairs_of(before, n_columns), _pairs_of(more, n_columns)
    places = np.searchsorted(pairs, others)
    is_old = np.zeros(len(others), np.bool_)
    inside = places < len(pairs)
    is_old[inside] = pairs[places[inside]] == others[inside]
    values = np.array(before.values, np.float32)
    values[places[is_old]] = more.values[is_old]
    is_new = ~is_old
    indices = np.insert(before.indices, places[is_new], more.indices[is_new]).astype(np.int32, copy=False)
    row_of_new = np.repeat(np.arange(len(more.indptr) - 1), np.diff(more.indptr))[is_new]
    n_added = np.bincount(row_of_new, minlength=len(before.indptr) - 1)
    indptr = before.indptr + np.concatenate([[0], np.cumsum(n_added)])
    return CSR(indptr, indices, np.insert(values, places[is_new], more.values[is_new]))


def _pairs_of(rows: CSR, n_columns: int) -> Int64Array:
    """Return a number for each entry, which rises from entry to entry."""
    return np.repeat(np.arange(len(rows.indptr) - 1) * n_columns, np.diff(rows.indptr)) + rows.indices


def sorted_rows(indptr: Int64Array, indices: npt.NDArray[Any], n_columns: int) -> Rows:
    """Sort each row and drop repetitions; rows that are sorted and distinct are returned as they are."""
    rises = indices[1:] > indices[:-1]
    borders = indptr[1:-1]
    rises[borders[(borders > 0) & (borders < len(indices))] - 1] = True
    if rises.all():
        return Rows(indptr, indices.astype(np.int32, copy=False))
    n_rows = len(indptr) - 1
    return rows_of_pairs(np.repeat(np.arange(n_rows), np.diff(indptr)), indices, n_rows, n_columns)


def take_rows(rows: Rows, users: Int32Array) -> Rows:
    """Return the rows of some users, in that order. Rows of consecutive users are a view, without a copy."""
    indptr, entries = _entries_of(rows.indptr, users)
    return Rows(indptr, np.asarray(rows.indices[entries], np.int32))


def take_ratings(rows: CSR, users: Int32Array) -> CSR:
    """Return the rows of some users with their values, in that order, like `take_rows`."""
    indptr, entries = _entries_of(rows.indptr, users)
    values = np.ascontiguousarray(rows.values[entries], np.float32)
    return CSR(indptr, np.asarray(rows.indices[entries], np.int32), values)


def _entries_of(indptr: Int64Array, users: Int32Array) -> tuple[Int64Array, slice | Int64Array]:
    """Return the offsets of the rows of some users, and where their entries are."""
    n_rows = len(users)
    if n_rows and users[-1] - users[0] == n_rows - 1 and np.all(np.diff(users) == 1):
        offsets = indptr[users[0] : users[-1] + 2]
        return offsets - offsets[0], slice(int(offsets[0]), int(offsets[-1]))
    counts = indptr[users + 1] - indptr[users]
    taken = np.zeros(n_rows + 1, np.int64)
    np.cumsum(counts, out=taken[1:])
    return taken, np.arange(taken[-1]) + np.repeat(indptr[users] - taken[:-1], counts)


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


def renumber_columns(rows: Rows, numbers: Int32Array) -> Rows:
    """Give the columns of rows other numbers, which rise with the old ones; a negative number drops a column."""
    columns = numbers[rows.indices]
    kept = columns >= 0
    if kept.all():
        return Rows(rows.indptr, columns)
    n_kept = np.concatenate([[0], np.cumsum(kept)])
    return Rows(n_kept[rows.indptr].astype(np.int64, copy=False), columns[kept])


def keep_columns(rows: Rows, columns: Int32Array, n_columns: int) -> Rows:
    """Keep only some columns of rows."""
    numbers = np.full(n_columns, -1, np.int32)
    numbers[columns] = columns
    return renumber_columns(rows, numbers)


def contains(rows: Rows, row: IndexArray, columns: IndexArray) -> BoolArray:
    """Tell which (row, column) pairs are among rows: a binary search for all pairs at once.

    Parameters
    ----------
    rows : Rows
        Ascending inside a row.
    row, columns : int arrays, shape (n,)
        Those that are negative are not contained.

    Returns
    -------
    bool array, shape (n,)
    """
    found = np.zeros(len(row), np.bool_)
    for start in range(0, len(row), _SEARCHED_AT_ONCE):
        chunk = slice(start, start + _SEARCHED_AT_ONCE)
        found[chunk] = _contains(rows, row[chunk], columns[chunk])
    return found


def count_contained(rows: Rows, row: IndexArray, columns: IndexArray, n_columns: int) -> int:
    """Count the (row, column) pairs, of columns below ``n_columns``, that are among rows; -1 is in none.

    They are searched for in ascending order: neighbours then read the same memory, which takes a third of the time.
    """
    pairs = np.sort(row.astype(np.int64) * (n_columns + 1) + (columns + 1))
    row, columns = np.divmod(pairs, n_columns + 1)
    return int(np.count_nonzero(contains(rows, row, columns - 1)))


def _contains(rows: Rows, row: IndexArray, columns: IndexArray) -> BoolArray:
    if not len(rows.indices):
        return np.zeros(len(row), np.bool_)
    known = (row >= 0) & (columns >= 0)
    low = rows.indptr[np.where(known, row, 0)]
    end = rows.indptr[np.where(known, row + 1, 0)]
    # All entries before `low` are smaller. It moves on by powers of two, the largest first.
    step = 1 << int((end - low).max(initial=0)).bit_length()
    while step > 1:
        step >>= 1
        ahead = low + step
        low += step * ((ahead <= end) & (rows.indices.take(ahead - 1, mode="clip") < columns))
    return np.asarray(known & (low < end) & (rows.indices.take(low, mode="clip") == columns))


def same_for_all(items: Int32Array, n_users: int) -> Rows:
    """Return one list, ascending, repeated for every user."""
    return Rows(np.arange(n_users + 1, dtype=np.int64) * len(items), np.tile(items, n_users))
