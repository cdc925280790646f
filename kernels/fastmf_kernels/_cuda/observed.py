"""Observed values on the device: they stay there between half sweeps, or go there a range of rows at a time."""

import itertools
import weakref
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.memory import DeviceArray, is_on_device, put
from fastmf_kernels._types import Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR

# Device memory of a row beside its factors (offset, number, λ, loss, flag), and of an entry (column, value).
_BYTES_OF_ROW, _BYTES_OF_ENTRY = 21, 8
# Share of the free memory that is reserved for kernel overhead and fragmentation.
_LEFT_ALONE = 0.1


class ObservedRows(NamedTuple):
    """Observed values on the device, and the rows by their length.

    Attributes
    ----------
    indptr, indices, values : arrays on the device
    order : int32 array on the device, shape (n_rows,)
        Rows, the longest one first.
    rows : int32 array, shape (n_rows,)
        The same, on the host.
    starts, counts : int64 arrays, shape (n_rows,)
        First entry, and number of entries, of each of them in that order; on the host.
    """

    indptr: DeviceArray
    indices: DeviceArray
    values: DeviceArray
    order: DeviceArray
    rows: Int32Array
    starts: Int64Array
    counts: Int64Array


_vectors: dict[int, DeviceArray] = {}


def vector_on_device(vector: Any) -> DeviceArray:
    """Return an array of the host on the device, where it stays as long as it lives; it must not be changed."""
    if is_on_device(vector):
        return vector
    key = id(vector)
    if key not in _vectors:
        _vectors[key] = put(vector)
        weakref.finalize(vector, _vectors.pop, key, None)
    return _vectors[key]


# A model sweeps over the same two sets of rows in every epoch and never changes them, so they go to the device once.
# The key is the identity of the host array of columns; when that array is deleted, its finaliser deletes the entry,
# before another array can get the same identity. Weak references tell whether the other two arrays are still the same.
_rows: dict[int, tuple[tuple["weakref.ref[object]", "weakref.ref[object]"], ObservedRows]] = {}


def rows_on_device(rows: CSR) -> ObservedRows:
    """Return rows on the device, where they are from now on; they must not be changed."""
    if not are_on_device(rows):
        key = id(rows.indices)
        _rows[key] = (weakref.ref(rows.indptr), weakref.ref(rows.values)), put_rows_of(rows)
        weakref.finalize(rows.indices, _rows.pop, key, None)
    return _rows[id(rows.indices)][1]


def are_on_device(rows: CSR) -> bool:
    """Whether rows are on the device."""
    found = _rows.get(id(rows.indices))
    return found is not None and found[0][0]() is rows.indptr and found[0][1]() is rows.values


def release() -> None:
    """Delete all rows and vectors that were kept on the device."""
    _rows.clear()
    _vectors.clear()


def put_rows_of(rows: CSR) -> ObservedRows:
    """Return a copy of rows on the device."""
    counts = np.diff(rows.indptr)
    order = np.argsort(-counts, kind="stable").astype(np.int32)
    arrays = put(rows.indptr), put(rows.indices), put(rows.values), put(order)
    return ObservedRows(*arrays, order, rows.indptr[order], counts[order])


def cut_out(rows: CSR, start: int, stop: int) -> CSR:
    """Return some of the rows."""
    first, last = rows.indptr[start], rows.indptr[stop]
    return CSR(rows.indptr[start : stop + 1] - first, rows.indices[first:last], rows.values[first:last])


def cut_into_ranges(
    indptr: Int64Array, width: int, tables: int, free: int, are_there: bool = False
) -> list[tuple[int, int]]:
    """Cut rows into ranges that the device has memory for, beside what all of them need.

    Parameters
    ----------
    indptr : int64 array, shape (n_rows + 1,)
    width : int
        Numbers of a padded row of factors.
    tables : int
        Bytes that all of them need.
    free : int
        Bytes that are free.
    are_there : bool
        Whether the entries are there already.

    Returns
    -------
    list of (int, int)
        The first row of each range, and the one after its last.

    Raises
    ------
    MemoryError
        If there is no room for ``tables`` and the longest row.
    """
    n_rows = len(indptr) - 1
    of_row, of_entry = 4 * width + _BYTES_OF_ROW, 0 if are_there else _BYTES_OF_ENTRY
    needed = np.arange(n_rows + 1) * of_row + (indptr - indptr[0]) * of_entry
    usable = int(free * (1 - _LEFT_ALONE)) - tables
    largest = int(np.diff(needed).max(initial=0))
    if usable < largest:
        raise MemoryError(
            f"a half sweep takes {tables:,} bytes of the GPU's memory for the fixed factors and equations and "
            f"{largest:,} for the longest row; {free:,} are free, of which {free - usable - tables:,} are left alone; "
            'choose fewer factors, free memory that others use, or use backend "cpu"'
        )
    cuts = [0]
    while cuts[-1] < n_rows:
        cuts.append(int(np.searchsorted(needed, needed[cuts[-1]] + usable, side="right")) - 1)
    return list(itertools.pairwise(cuts))
