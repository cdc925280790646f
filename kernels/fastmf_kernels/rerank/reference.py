"""NumPy reference of re-ranking: the specification of `fastmf_kernels.rerank.cpu`."""

import numpy as np

from fastmf_kernels._types import BoolArray, Float64Array, Int32Array, Int64Array
from fastmf_kernels.rerank.arrays import Caps, Directions, Exploration, Lists


def rerank(
    lists: Lists,
    diversify: float,
    directions: Directions,
    caps: Caps,
    exploration: Exploration,
    n_threads: int | None = None,
) -> Int32Array:
    """Choose k candidates of each user, one after the other.

    A candidate i may be chosen if it was not yet, and if no category of it has as many chosen items as its limit. A
    place that has a draw x goes to the ⌊x·n⌋-th of the n new candidates that may be chosen, in the order of the list,
    if there is one. Any other place goes to the candidate of the largest

        (1 - θ)·relevance(i) - θ·max over chosen j of similarity(i, j),

    maximal marginal relevance, where the maximum over no items is 0; among equals, to the first in the list. (Carbonell
    & Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries", SIGIR
    1998, whose λ is 1 - θ.)

    Parameters
    ----------
    lists : Lists
    diversify : float
        θ, from 0 to 1.
    directions : Directions
        Not read if θ is 0.
    caps : Caps
    exploration : Exploration
        Its draws have a column for each of the k places.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    int32 array, shape (n_users, k)
        Places in the lists of candidates, in the new order; -1 where nothing is left to choose.
    """
    chosen = np.full(exploration.draws.shape, -1, np.int32)
    for user, items in enumerate(lists.items):
        counts = np.zeros(len(caps.limits), np.int64)
        closest, left = np.full(len(items), -np.inf), items >= 0
        for place, draw in enumerate(exploration.draws[user]):
            possible = left & ~_is_full(items, counts, caps)
            if not possible.any():
                break
            new = np.flatnonzero(possible & exploration.is_new[items])
            if draw >= 0 and len(new):
                best = int(new[int(draw * len(new))])
            else:
                penalty = np.where(closest > -np.inf, closest, 0)
                value = (1 - diversify) * lists.relevance[user] - diversify * penalty
                best = int(np.argmax(np.where(possible, value, -np.inf)))
            chosen[user, place], left[best] = best, False
            counts[_categories(int(items[best]), caps)] += 1
            if diversify:
                closest = np.maximum(closest, _similarities(items, int(items[best]), directions))
    return chosen


def _categories(item: int, caps: Caps) -> Int32Array:
    """Return the categories of an item."""
    indptr, indices = caps.categories
    return np.asarray(indices[indptr[item] : indptr[item + 1]])


def _is_full(items: Int32Array, counts: Int64Array, caps: Caps) -> BoolArray:
    """Tell which items have a category of which no more may be chosen."""
    is_full = counts >= caps.limits
    return np.array([item >= 0 and is_full[_categories(int(item), caps)].any() for item in items], np.bool_)


def _similarities(items: Int32Array, other: int, directions: Directions) -> Float64Array:
    """Return the products of the vectors of items with that of another."""
    vectors = np.stack([_vector(int(item), directions) for item in items])
    return np.asarray(vectors @ _vector(other, directions))


def _vector(item: int, directions: Directions) -> Float64Array:
    """Return both parts of the vector of an item as one, in float64."""
    indptr, indices, values = directions.sparse
    sparse = np.zeros(directions.n_columns)
    entries = slice(indptr[item], indptr[item + 1])
    sparse[indices[entries]] = values[entries]
    return np.append(directions.dense[item].astype(np.float64), sparse)
