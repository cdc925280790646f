"""Cutting the rows of a half sweep into tasks of bounded work."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Int64Array

# A task has at most 1/128 of all entries, so that at the end of a sweep no thread waits long for the last task.
_TASKS_OF_A_SWEEP = 128
# A task has at least this many entries, so that starting it costs little in comparison.
_FEWEST_ENTRIES_OF_A_TASK = 4096


class Tasks(NamedTuple):
    """Tasks that do not depend on each other, and not on the number of threads.

    Attributes
    ----------
    longest : int
        Entries of the longest row that may be part of a chunk.
    chunks : int64 array, shape (n_chunks, 2)
        Half-open ranges of rows, the heaviest range first; rows longer than one task are skipped.
    long_rows : int64 array, shape (n_long,)
        Rows too long for one task.
    parts : int64 array, shape (n_parts, 3)
        Index into ``long_rows``, first entry, and the entry after the last.
    """

    longest: int
    chunks: Int64Array
    long_rows: Int64Array
    parts: Int64Array


def cut_into_tasks(indptr: Int64Array, n_factors: int, uncut: int = 0) -> Tasks:
    """Cut rows into chunks of equal work, and rows that are longer than a chunk into parts.

    A row of n entries costs n·k² for its matrix and k³/3 for the factorisation: in units of k², n + k/3.

    Parameters
    ----------
    indptr : int64 array, shape (n_rows + 1,)
    n_factors : int
    uncut : int
        Rows of up to so many entries are not cut, even if that makes for larger tasks.

    Returns
    -------
    Tasks
    """
    counts = np.diff(indptr)
    limit = max(_FEWEST_ENTRIES_OF_A_TASK, int(counts.sum()) // _TASKS_OF_A_SWEEP)
    longest = max(limit, uncut)
    long_rows = np.flatnonzero(counts > longest)
    parts = [
        (place, *ends)
        for place, row in enumerate(long_rows)
        for ends in np.lib.stride_tricks.sliding_window_view(_cuts(indptr[row], indptr[row + 1], limit), 2)
    ]
    work = np.concatenate([[0], np.cumsum(np.where(counts > longest, 0, counts) + n_factors / 3)])
    cuts = np.unique(np.searchsorted(work, np.arange(0, work[-1], limit)))
    chunks = np.column_stack([cuts, np.append(cuts, len(counts))[1:]])
    chunks = chunks[np.argsort(work[chunks[:, 0]] - work[chunks[:, 1]], kind="stable")]
    return Tasks(
        longest,
        chunks.astype(np.int64),
        long_rows.astype(np.int64),
        np.array(parts, np.int64).reshape(-1, 3),
    )


def _cuts(start: int, stop: int, limit: int) -> Int64Array:
    n_parts = -(-(stop - start) // limit)
    return np.linspace(start, stop, n_parts + 1).astype(np.int64)
