"""NumPy reference of top-k: the specification of `fastmf_kernels.topk.cpu`."""

import numpy as np

from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.topk.arrays import Rows, TopK


def top_k(queries: Float32Array, items: Float32Array, k: int, exclude: Rows, n_threads: int | None = None) -> TopK:
    """Find the k items with the largest dot product for every query.

    Parameters
    ----------
    queries : float32 array, shape (n_queries, n_factors)
    items : float32 array, shape (n_items, n_factors)
    k : int
        At least 1; it may be larger than ``n_items``.
    exclude : Rows
        Items that are not to be returned, for every query.
    n_threads : int, optional
        Not used here.

    Returns
    -------
    TopK
        Best first; of equal scores the lower index comes first. A score that is NaN or -inf is no candidate.
    """
    scores = queries.astype(np.float64) @ items.astype(np.float64).T
    for r in range(len(queries)):
        scores[r, exclude.indices[exclude.indptr[r] : exclude.indptr[r + 1]]] = -np.inf
    return _select(scores, k)


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
        barred = np.ones(len(items), bool)
        barred[candidates.indices[candidates.indptr[r] : candidates.indptr[r + 1]]] = False
        barred[exclude.indices[exclude.indptr[r] : exclude.indptr[r + 1]]] = True
        scores[r, barred] = -np.inf
    return _select(scores, k)


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
