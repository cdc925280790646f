"""Which of the items found for queries are relevant."""

import numpy as np

from fastmf_kernels._jit import inlined, kernel
from fastmf_kernels._types import BoolArray, Int32Array
from fastmf_kernels.topk.arrays import Pairs


@kernel
def find_relevant(indices: Int32Array, relevant: Pairs, is_hit: BoolArray) -> None:
    """Set ``is_hit``, which is false before, where one of the first items found for a query is relevant.

    Each relevant pair is looked up among the k items of its query; to group the pairs by query first would take longer.
    """
    n_queries, k = is_hit.shape
    # Most relevant items were not found. One bit for the last six bits of each found item rules nearly all of them out.
    bits = np.zeros(n_queries, np.uint64)
    for r in range(n_queries):
        for place in range(k):
            if indices[r, place] >= 0:
                bits[r] |= _bit(indices[r, place])
    for j in range(relevant.items.size):
        r, item = relevant.queries[j], relevant.items[j]
        if item >= 0 and bits[r] & _bit(item) != np.uint64(0):
            for place in range(k):
                is_hit[r, place] |= indices[r, place] == item


@inlined
def _bit(item: np.int32) -> np.uint64:
    return np.uint64(1) << (np.uint64(item) & np.uint64(63))
