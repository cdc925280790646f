"""How well the items found for queries agree with those wanted."""

import numpy as np

from fastmf_kernels._jit import inlined, kernel
from fastmf_kernels._types import Float64Array, Int32Array
from fastmf_kernels.topk.arrays import Pairs


@kernel
def measure_rankings(indices: Int32Array, wanted: Pairs, discounts: Float64Array, figures: Float64Array) -> None:
    """Fill in the figures of the reference's ``rank_figures``; there is a discount for each place that counts.

    What is wanted is looked for among what was found: to group it by query would take longer than all the rest.
    """
    n_queries, k = indices.shape[0], discounts.size
    # Little of what is wanted is found: most of it has no bit in common with anything that is.
    bits = np.zeros(n_queries, np.uint64)
    for r in range(n_queries):
        for place in range(k):
            if indices[r, place] >= 0:
                bits[r] |= _bit(indices[r, place])
    is_hit, n_wanted = np.zeros((n_queries, k), np.bool_), np.zeros(n_queries, np.int64)
    for j in range(wanted.items.size):
        r, item = wanted.queries[j], wanted.items[j]
        n_wanted[r] += 1
        if item >= 0 and bits[r] & _bit(item) != np.uint64(0):
            for place in range(k):
                is_hit[r, place] |= indices[r, place] == item
    ideal = np.cumsum(discounts)
    for r in range(n_queries):
        n_hits, first, gain, precisions = 0, 0, 0.0, 0.0
        for place in range(k):
            if is_hit[r, place]:
                n_hits += 1
                first = place + 1 if first == 0 else first
                gain += discounts[place]
                precisions += n_hits / (place + 1)
        possible = min(n_wanted[r], k)
        figures[0, r] = n_hits / k
        figures[1, r] = n_hits / n_wanted[r]
        figures[2, r] = min(n_hits, 1)
        figures[3, r] = gain / ideal[possible - 1]
        figures[4, r] = precisions / possible
        figures[5, r] = 1 / first if first > 0 else 0.0
        if possible == 0:
            figures[:, r] = np.nan


@inlined
def _bit(item: np.int32) -> np.uint64:
    return np.uint64(1) << (np.uint64(item) & np.uint64(63))
