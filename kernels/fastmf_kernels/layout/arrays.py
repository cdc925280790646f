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
    order : int64 array, shape (n,)
        Positions, ascending inside a group.
    """

    offsets: Int64Array
    order: Int64Array
