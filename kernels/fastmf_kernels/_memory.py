"""Memory for tables whose rows are read in random order."""

import contextlib
import mmap

import numpy as np

from fastmf_kernels._types import Float32Array

# In bytes.
_HUGE_PAGE = 1 << 21
_CACHE_LINE = 64


def in_huge_pages(rows: Float32Array, n_columns: int) -> Float32Array:
    """Copy a table into memory of huge pages, where the system has them, with columns of 0 added on the right.

    In a table of 4 KiB pages, gathering a row takes longer for the translation of its address than for its numbers: a
    row of 256 bytes took 56 ns in a table of 18 MB, and 18 ns with pages of 2 MiB. A small table begins at a cache
    line, as every page does: a vector of 64 bytes that lies across two lines takes twice as long to load.

    Parameters
    ----------
    rows : float32 array, shape (n_rows, at most n_columns)
    n_columns : int

    Returns
    -------
    float32 array, shape (n_rows, n_columns), C order
    """
    n_bytes = 4 * len(rows) * n_columns
    if n_bytes < _HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        memory = np.zeros(n_bytes + _CACHE_LINE, np.uint8)
        start = -memory.ctypes.data % _CACHE_LINE
        table = memory[start : start + n_bytes].view(np.float32).reshape(len(rows), n_columns)
    else:
        pages = mmap.mmap(-1, n_bytes)
        with contextlib.suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
        table = np.frombuffer(pages, np.float32).reshape(len(rows), n_columns)
    table[:, : rows.shape[1]] = rows
    return table


def begins_a_cache_line(array: Float32Array) -> bool:
    """Whether an array starts at a cache line, so that none of its vectors of 64 bytes lies across two."""
    return array.ctypes.data % _CACHE_LINE == 0
