"""Cutting the rows of a half sweep into parts of equal work."""

import numpy as np

from fastmf_kernels._types import Int64Array


def cut_by_work(indptr: Int64Array, n_factors: int, n_parts: int) -> Int64Array:
    """Cut rows into contiguous parts that cost about the same.

    A row of n entries costs n·k² for its matrix and k³/3 for the factorisation: in units of k², n + k/3.

    Parameters
    ----------
    indptr : int64 array, shape (n_rows + 1,)
    n_factors : int
    n_parts : int

    Returns
    -------
    int64 array, shape (n_parts + 1,)
        Part ``i`` is the rows ``cuts[i]:cuts[i + 1]``. A part may be empty.
    """
    n_rows = len(indptr) - 1
    work = indptr + np.arange(n_rows + 1) * (n_factors / 3)
    goals = work[-1] * np.arange(n_parts + 1) / n_parts
    cuts = np.searchsorted(work, goals)
    cuts[0], cuts[-1] = 0, n_rows
    return np.asarray(cuts, np.int64)
