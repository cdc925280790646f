"""How well the items found for queries agree with those wanted."""

import numpy as np

from fastmf_kernels._jit import inlined, kernel
from fastmf_kernels._types import Float64Array, Index, Int32Array
from fastmf_kernels.topk.arrays import Rows


@kernel
def measure_rankings(indices: Int32Array, wanted: Rows, discounts: Float64Array, figures: Float64Array) -> None:
    """Fill in the figures of the reference's ``rank_figures``; there is a discount for each place that counts."""
    indptr, items, k = wanted.indptr, wanted.indices, discounts.size
    ideal = np.cumsum(discounts)
    for r in range(indices.shape[0]):
        start, stop = indptr[r], indptr[r + 1]
        n_hits, first, gain, precisions = 0, 0, 0.0, 0.0
        # Of what is found little is wanted: most of it has no bit in common with any that is.
        bits = np.uint64(0)
        for j in range(start, stop):
            bits |= _bit(items[j])
        for place in range(k):
            item = indices[r, place]
            if item >= 0 and bits & _bit(item) != np.uint64(0) and _is_in(item, items, start, stop):
                n_hits += 1
                first = place + 1 if first == 0 else first
                gain += discounts[place]
                precisions += n_hits / (place + 1)
        possible = min(stop - start, k)
        figures[0, r] = n_hits / k
        figures[1, r] = n_hits / (stop - start)
        figures[2, r] = min(n_hits, 1)
        figures[3, r] = gain / ideal[possible - 1]
        figures[4, r] = precisions / possible
        figures[5, r] = 1 / first if first > 0 else 0.0
        if possible == 0:
            figures[:, r] = np.nan


@inlined
def _bit(item: np.int32) -> np.uint64:
    return np.uint64(1) << (np.uint64(item) & np.uint64(63))


@inlined
def _is_in(item: np.int32, items: Int32Array, start: Index, stop: Index) -> bool:
    """Look an item up in a row, which is ascending, by bisection."""
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return bool(low < stop and items[low] == item)
