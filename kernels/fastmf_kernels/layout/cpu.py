"""Counting sort in two passes on all cores; the contract is that of `fastmf_kernels.layout.reference`.

A plain counting sort scatters over the whole output and misses the cache with nearly every write. Here the first pass
splits the positions into a few hundred ranges of keys, and the second pass sorts each range: its writes stay within a
piece of the output that fits into the cache. Both passes keep the input order of equal keys, so the result does not
depend on the number of threads.
"""

import itertools

import numpy as np

from fastmf_kernels._jit import parallel, prange, threads
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR, Groups, empty_positions

_MOST_RANGES = 512
# Keys that a thread splits at a time.
_FEWEST_KEYS_OF_A_CHUNK = 1 << 14


def group_by(keys: Int32Array, n_groups: int, n_threads: int | None = None) -> Groups:
    """Group the positions of ``keys`` by key; see the reference."""
    shift = 0
    while (n_groups >> shift) >= _MOST_RANGES:
        shift += 1
    n_ranges = (max(n_groups, 1) - 1 >> shift) + 1
    offsets = np.zeros(n_groups + 1, np.int64)
    positions, order = empty_positions(len(keys)), empty_positions(len(keys))
    with threads(n_threads) as count:
        n_chunks = max(1, min(4 * count, len(keys) // _FEWEST_KEYS_OF_A_CHUNK))
        chunks = np.linspace(0, len(keys), n_chunks + 1).astype(np.int64)
        cursors, starts = _starts(keys, shift, n_ranges, chunks)
        _split_into_ranges(keys, shift, chunks, cursors, positions)
        _sort_ranges(keys, shift, positions, starts, offsets[1:], order)
    return Groups(offsets, order)


def _starts(keys: Int32Array, shift: int, n_ranges: int, chunks: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Find where each chunk first writes into each range, (n_chunks, n_ranges), and where ranges start, (n_ranges + 1).

    In NumPy: a third parallel loop would take longer to compile than it could ever save.
    """
    counts = np.array(
        [np.bincount(keys[a:b] >> shift, minlength=n_ranges) for a, b in itertools.pairwise(chunks)], np.int64
    )
    before = np.cumsum(counts.T).reshape(n_ranges, -1).T - counts
    return np.ascontiguousarray(before), np.append(before[0], len(keys))


def coo_to_csr(
    rows: Int32Array, columns: Int32Array, values: Float32Array, n_rows: int, n_threads: int | None = None
) -> CSR:
    """Turn coordinate triples into rows; see the reference."""
    offsets, order = group_by(rows, n_rows, n_threads)
    csr = CSR(offsets, np.empty(len(order), np.int32), np.empty(len(order), np.float32))
    with threads(n_threads):
        _gather(columns, values, order, csr.indices, csr.values)
    return csr


def transpose(csr: CSR, n_columns: int, n_threads: int | None = None) -> CSR:
    """Turn rows into columns; see the reference."""
    return coo_to_csr(csr.indices, csr.row_of_each_entry(), csr.values, n_columns, n_threads)


@parallel
def _split_into_ranges(
    keys: Int32Array, shift: int, chunks: Int64Array, cursors: Int64Array, positions: Int32Array | Int64Array
) -> None:
    """Fill ``positions`` with all positions sorted by range (``key >> shift``); ``cursors`` move on as it writes."""
    for c in prange(len(chunks) - 1):
        for position in range(chunks[c], chunks[c + 1]):
            r = keys[position] >> shift
            positions[cursors[c, r]] = position
            cursors[c, r] += 1


@parallel
def _sort_ranges(
    keys: Int32Array,
    shift: int,
    positions: Int32Array | Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    order: Int32Array | Int64Array,
) -> None:
    """Sort each range by counting; fills ``order``, and ``ends`` (n_groups, 0 on entry) with where each group ends."""
    for r in prange(len(starts) - 1):
        for j in range(starts[r], starts[r + 1]):
            ends[keys[positions[j]]] += 1
        start = starts[r]
        for group in range(r << shift, min((r + 1) << shift, len(ends))):
            size = ends[group]
            ends[group] = start
            start += size
        for j in range(starts[r], starts[r + 1]):  # placing a group moves its start to its end
            group = keys[positions[j]]
            order[ends[group]] = positions[j]
            ends[group] += 1


@parallel
def _gather(
    columns: Int32Array, values: Float32Array, order: Int32Array | Int64Array, indices: Int32Array, data: Float32Array
) -> None:
    """Fill ``indices`` with ``columns[order]`` and ``data`` with ``values[order]``."""
    for j in prange(len(order)):
        indices[j] = columns[order[j]]
        data[j] = values[order[j]]
