"""NumPy reference of top-k: the specification of `fastmf_kernels.topk.cpu`."""

import numpy as np

from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Pairs, Rows, Scan, TopK, without_layout


def index_items(items: Float32Array, pruning: bool = True, n_threads: int | None = None) -> ItemIndex:
    """Lay items out for `top_k`.

    Parameters
    ----------
    items : float32 array, shape (n_items, n_factors)
    pruning : bool
        Whether items that cannot be among the best may be left out before they are scored; the answers are the same.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    ItemIndex
        Good for this backend only.
    """
    return without_layout(items)


def top_k(queries: Float32Array, index: ItemIndex, k: int, exclude: Rows, n_threads: int | None = None) -> Found:
    """Find the k items with the largest dot product for every query.

    Parameters
    ----------
    queries : float32 array, shape (n_queries, n_factors)
    index : ItemIndex
        From `index_items` or `without_layout`.
    k : int
        At least 1; it may be larger than ``n_items``.
    exclude : Rows
        Items that are not to be returned, for every query.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    Found
        Best first; of equal scores the lower index comes first. Scores are rounded to float32 from float64, and
        compared as that. A score that is NaN or -inf is no candidate.
    """
    scores = queries.astype(np.float64) @ index.factors.astype(np.float64).T
    for r in range(len(queries)):
        scores[r, exclude.indices[exclude.indptr[r] : exclude.indptr[r + 1]]] = -np.inf
    return Found(_select(scores, k), Scan(0, 0, scores.size))


def top_k_among(
    queries: Float32Array,
    items: Float32Array,
    k: int,
    candidates: Rows,
    exclude: Rows,
    n_threads: int | None = None,
) -> TopK:
    """Find the k best among each query's own candidates.

    Parameters
    ----------
    queries : float32 array, shape (n_queries, n_factors)
    items : float32 array, shape (n_items, n_factors)
    k : int
    candidates : Rows
        The only items that may be returned, for every query.
    exclude : Rows
        Items that are not to be returned, for every query.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    TopK
    """
    scores = queries.astype(np.float64) @ items.astype(np.float64).T
    for r in range(len(queries)):
        is_excluded = np.ones(len(items), bool)
        is_excluded[candidates.indices[candidates.indptr[r] : candidates.indptr[r + 1]]] = False
        is_excluded[exclude.indices[exclude.indptr[r] : exclude.indptr[r + 1]]] = True
        scores[r, is_excluded] = -np.inf
    return _select(scores, k)


def count_better(
    queries: Float32Array, index: ItemIndex, relevant: Rows, exclude: Rows, n_threads: int | None = None
) -> Counts:
    """Count, for some items of each query, how many others score higher, and how many the same.

    Parameters
    ----------
    queries : float32 array, shape (n_queries, n_factors)
    index : ItemIndex
        From ``index_items(items, pruning=False)``.
    relevant : Rows
        The items, for every query.
    exclude : Rows
        Items that are not counted, for every query.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    Counts
        A pair of numbers for each of ``relevant.indices``. A score that is NaN is neither higher nor the same. Scores
        are compared as float32; a variant may sum them in float32, too.
    """
    scores = (queries.astype(np.float64) @ index.factors.astype(np.float64).T).astype(np.float32)
    counts = Counts(np.zeros(len(relevant.indices), np.int64), np.zeros(len(relevant.indices), np.int64))
    for r in range(len(queries)):
        counted = np.ones(len(index.factors), bool)
        counted[exclude.indices[exclude.indptr[r] : exclude.indptr[r + 1]]] = False
        others = scores[r, counted]
        for j in range(relevant.indptr[r], relevant.indptr[r + 1]):
            score = scores[r, relevant.indices[j]]
            counts.higher[j], counts.equal[j] = np.sum(others > score), np.sum(others == score)
    return counts


def mark_hits(indices: Int32Array, k: int, relevant: Pairs, n_threads: int | None = None) -> BoolArray:
    """Tell which of the first k items found for each query are relevant.

    Parameters
    ----------
    indices : int32 array, shape (n_queries, at least k)
        Best first; -1 for none.
    k : int
    relevant : Pairs
    n_threads : int, optional
        Not used here.

    Returns
    -------
    bool array, shape (n_queries, k)
    """
    first = indices[:, :k]
    rows = (relevant.items[relevant.queries == r] for r in range(len(indices)))
    hits = [np.isin(found, row) & (found >= 0) for found, row in zip(first, rows, strict=True)]
    return np.array(hits, np.bool_).reshape(first.shape)


def _select(exact_scores: Float64Array, k: int) -> TopK:
    n_queries = len(exact_scores)
    with np.errstate(over="ignore"):  # beyond the range of float32 a score is infinite, as it is in the kernels
        scores = exact_scores.astype(np.float32)
    scores = np.where(np.isnan(scores), np.float32(-np.inf), scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
    best = np.take_along_axis(scores, order, axis=1)
    top = TopK(
        np.full((n_queries, k), -np.inf, np.float32),
        np.full((n_queries, k), -1, np.int32),
    )
    top.scores[:, : order.shape[1]] = best
    top.indices[:, : order.shape[1]] = np.where(best == -np.inf, -1, order)
    return top
