"""Re-ranking on all cores; the contract is that of `fastmf_kernels.rerank.reference`."""

import numpy as np

from fastmf_kernels._jit import device, parallel, prange, threads
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.linalg.panels import dot_product
from fastmf_kernels.rerank.arrays import Caps, Directions, Exploration, Lists
from fastmf_kernels.topk.arrays import Rows

# Users who share the counts of categories and the vector of a chosen item. They are reset after each user.
_CHUNK = 32


def rerank(
    lists: Lists,
    diversify: float,
    directions: Directions,
    caps: Caps,
    exploration: Exploration,
    n_threads: int | None = None,
) -> Int32Array:
    """Choose k candidates of each user, one after the other; see the reference."""
    chosen = np.full(exploration.draws.shape, -1, np.int32)
    if n_threads == 1 or len(chosen) <= _CHUNK:  # the pool of threads does not start
        _rerank.serial(lists, float(diversify), *directions, *caps, exploration, chosen)
        return chosen
    with threads(n_threads):
        _rerank(lists, float(diversify), *directions, *caps, exploration, chosen)
    return chosen


@parallel
def _rerank(
    lists: Lists,
    diversify: float,
    dense: Float32Array,
    sparse: CSR,
    n_columns: int,
    categories: Rows,
    limits: Int32Array,
    exploration: Exploration,
    chosen: Int32Array,
) -> None:
    n_users, n_candidates = lists.items.shape
    for chunk in prange((n_users + _CHUNK - 1) // _CHUNK):
        counts = np.zeros(len(limits), np.int32)
        vector = np.zeros(n_columns, np.float32)
        closest = np.empty(n_candidates, np.float64)
        possible = np.empty(n_candidates, np.bool_)
        for user in range(chunk * _CHUNK, min(n_users, (chunk + 1) * _CHUNK)):
            items = lists.items[user]
            for j in range(n_candidates):
                closest[j] = 0.0
                possible[j] = items[j] >= 0
            for place in range(chosen.shape[1]):
                _drop_full(items, possible, counts, categories, limits)
                best = _draw_new(items, possible, exploration.is_new, exploration.draws[user, place])
                if best < 0:
                    best = _most_valuable(lists.relevance[user], closest, possible, diversify)
                if best < 0:
                    break
                chosen[user, place], possible[best] = best, False
                _count(items[best], counts, categories, 1)
                if diversify > 0.0:
                    _scatter(items[best], vector, sparse)
                    _come_closer(items, items[best], possible, closest, place == 0, dense, sparse, vector)
                    _clear(items[best], vector, sparse)
            for place in range(chosen.shape[1]):
                if chosen[user, place] >= 0:
                    _count(items[chosen[user, place]], counts, categories, -1)


@device
def _drop_full(
    items: Int32Array, possible: BoolArray, counts: Int32Array, categories: Rows, limits: Int32Array
) -> None:
    """Rule out candidates of a category of which no more may be chosen; counts only rise within a list."""
    indptr, indices = categories
    if len(limits) == 0:
        return
    for j in range(len(items)):
        if possible[j]:
            for entry in range(indptr[items[j]], indptr[items[j] + 1]):
                if counts[indices[entry]] >= limits[indices[entry]]:
                    possible[j] = False


@device
def _draw_new(items: Int32Array, possible: BoolArray, is_new: BoolArray, draw: float) -> int:
    """Return the place of the new candidate that a draw chooses; -1 if there is no draw, or no such candidate."""
    if draw < 0.0:
        return -1
    n_new = 0
    for j in range(len(items)):
        n_new += possible[j] and is_new[items[j]]
    n_before = int(draw * n_new)
    for j in range(len(items)):
        if possible[j] and is_new[items[j]]:
            if n_before == 0:
                return j
            n_before -= 1
    return -1


@device
def _most_valuable(relevance: Float64Array, closest: Float64Array, possible: BoolArray, diversify: float) -> int:
    """Return the first place of the largest marginal relevance; -1 if no candidate is possible."""
    best, largest = -1, -np.inf
    for j in range(len(possible)):
        if possible[j]:
            value = (1.0 - diversify) * relevance[j] - diversify * closest[j]
            if best < 0 or value > largest:
                best, largest = j, value
    return best


@device
def _count(item: int, counts: Int32Array, categories: Rows, change: int) -> None:
    indptr, indices = categories
    for entry in range(indptr[item], indptr[item + 1]):
        counts[indices[entry]] += change


@device
def _come_closer(
    items: Int32Array,
    chosen: int,
    possible: BoolArray,
    closest: Float64Array,
    is_first: bool,
    dense: Float32Array,
    sparse: CSR,
    vector: Float32Array,
) -> None:
    """Raise the largest similarity of candidates with the chosen items by that with ``chosen``.

    ``vector`` is the sparse part of the vector of ``chosen``.
    """
    indptr, indices, values = sparse
    n_factors = dense.shape[1]
    for j in range(len(items)):
        if possible[j]:
            item = items[j]
            similarity = np.float64(dot_product(dense, item * n_factors, dense, chosen * n_factors, n_factors))
            for entry in range(indptr[item], indptr[item + 1]):
                similarity += np.float64(values[entry]) * np.float64(vector[indices[entry]])
            if is_first or similarity > closest[j]:
                closest[j] = similarity


@device
def _scatter(item: int, vector: Float32Array, sparse: CSR) -> None:
    for entry in range(sparse.indptr[item], sparse.indptr[item + 1]):
        vector[sparse.indices[entry]] = sparse.values[entry]


@device
def _clear(item: int, vector: Float32Array, sparse: CSR) -> None:
    for entry in range(sparse.indptr[item], sparse.indptr[item + 1]):
        vector[sparse.indices[entry]] = 0.0
