"""What the layout kernels return."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array, Int64Array


class CSR(NamedTuple):
    """Compressed sparse rows: row ``r`` owns the entries ``indptr[r]:indptr[r + 1]``.

    Attributes
    ----------
    indptr : int64 array, shape (n_rows + 1,)
    indices : int32 array, shape (n_entries,)
        Column of each entry.
    values : float32 array, shape (n_entries,)
    """

    indptr: Int64Array
    indices: Int32Array
    values: Float32Array

    def row_of_each_entry(self) -> Int32Array:
        """Return the row of each entry, shape (n_entries,)."""
        rows = np.arange(len(self.indptr) - 1, dtype=np.int32)
        return np.repeat(rows, np.diff(self.indptr))


class Groups(NamedTuple):
    """Positions of an array grouped by key: group ``g`` holds ``order[offsets[g]:offsets[g + 1]]``.

    Attributes
    ----------
    offsets : int64 array, shape (n_groups + 1,)
    order : int32 array, shape (n,)
        Positions, ascending inside a group; int64 where they do not fit.
    """

    offsets: Int64Array
    order: Int32Array | Int64Array


def empty_positions(n: int) -> Int32Array | Int64Array:
    """Return uninitialised space for the positions of n things, in half the space wherever they fit."""
    return np.empty(n, np.int32) if n <= 2**31 else np.empty(n, np.int64)
