"""Measures of closeness as searches for the largest dot products, and distances that are exact."""

from typing import NamedTuple

import numpy as np

from fastmf.backend import Kernels
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.topk.arrays import ItemIndex, Rows, TopK

MEASURES = ("cosine", "dot", "euclidean")
"""How the closeness of two vectors may be measured."""

# Scores order by distance up to rounding: so many more than k are measured again.
_MORE = 32
# The rounding of a score is below this share of the largest terms in it: 2^-24 for each of two, with room to spare.
_ROUNDING = 2.0**-21
# The largest terms of a score that are still float32 numbers when they are added up.
_LARGEST = 1e37
# Numbers that are held in float64 at once.
_CELLS = 1 << 22


def as_rows(vectors: Float32Array, measure: str) -> Float32Array:
    """Return rows to index: their products with `as_queries` of a vector order them by closeness to it.

    For "cosine" they are q/‖q‖, or zeros; for "dot" q; for "euclidean" [q, -‖q‖²/2], as
    [p, 1]·[q, -‖q‖²/2] = (‖p‖² - ‖p - q‖²)/2 (Bachrach et al., "Speeding Up the Xbox Recommender System Using a
    Euclidean Transformation for Inner-Product Spaces", RecSys 2014, has the same transformation the other way round).

    Parameters
    ----------
    vectors : float32 array, shape (n, n_factors)
    measure : one of `MEASURES`

    Returns
    -------
    float32 array, shape (n, n_factors) or (n, n_factors + 1)
        To index with ``pruning=prunes(measure)``.
    """
    if measure == "dot":
        return vectors
    if measure == "cosine":
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0))
    rows = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
    rows[:, :-1] = vectors
    with np.errstate(over="ignore"):  # `nearest` does without the product then
        rows[:, -1] = _squared_norms(vectors) / -2
    return rows


def prunes(measure: str) -> bool:
    """Whether an index of `as_rows` answers sooner with pruning.

    Not for "euclidean": -‖q‖²/2 is so much larger than other numbers of its row that bounds from bytes rule out little,
    and the longest rows, which come first, are the most distant ones. Of 200,000 items with 64 factors, the neighbours
    of 1,000 took 3.2 s with pruning, and 0.5 s without.
    """
    return measure != "euclidean"


def as_queries(vectors: Float32Array, measure: str) -> Float32Array:
    """Return queries for an index of `as_rows`: p/‖p‖, p, or [p, 1]."""
    if measure != "euclidean":
        return as_rows(vectors, measure)
    return np.column_stack([vectors, np.ones(len(vectors), np.float32)])


class Queries(NamedTuple):
    """Vectors whose nearest rows are searched for.

    Attributes
    ----------
    vectors : float32 array
        From `as_queries`.
    k : int
    exclude : Rows
        Rows of the index that are no answer to each query.
    """

    vectors: Float32Array
    k: int
    exclude: Rows


def nearest(queries: Queries, index: ItemIndex, measure: str, kernels: Kernels, n_threads: int | None) -> TopK:
    """Find the k nearest rows of an index for each query, nearest first; of equally near ones the first row.

    Parameters
    ----------
    queries : Queries
    index : ItemIndex
        Of `as_rows`.
    measure : one of `MEASURES`
    kernels : Kernels
    n_threads : int, optional

    Returns
    -------
    TopK
        Cosines or dot products; or distances, which are computed in float64 from the vectors, and infinite where there
        are no more rows. Distances are exact, and so is their order: where rounding may hide a row that is as near as
        the last of those found, the distances of all rows are computed.
    """
    vectors, k, exclude = queries
    if measure != "euclidean":
        return kernels.top_k(vectors, index, k, exclude, n_threads).top
    if len(index.factors) == 0:
        return _nobody(len(vectors), k)
    vectors, points = vectors[:, :-1], index.factors[:, :-1]
    largest = _largest_terms(vectors, index.factors)
    if not np.all(largest < _LARGEST):
        found, is_sure = _nobody(len(vectors), k), np.zeros(len(vectors), np.bool_)
    else:
        width = min(k + _MORE, len(points))
        candidates = kernels.top_k(queries.vectors, index, width, exclude, n_threads).top
        found, is_sure = _by_distance(vectors, points, candidates, k, largest)
    for row in np.flatnonzero(~is_sure):
        left_out = exclude.indices[exclude.indptr[row] : exclude.indptr[row + 1]]
        found.scores[row], found.indices[row] = _nearest_of_all(vectors[row], points, left_out, k)
    return found


class _Found(NamedTuple):
    """Nearest rows of each query, and whether they surely are."""

    top: TopK
    is_sure: BoolArray


def _by_distance(
    vectors: Float32Array, points: Float32Array, candidates: TopK, k: int, largest: Float64Array
) -> _Found:
    """Order candidates by their distance, and compare the last of the k with any row that is no candidate."""
    n_rows, width = candidates.indices.shape
    top, squares_of_last = _nobody(n_rows, k), np.full(n_rows, np.inf)
    step = max(1, _CELLS // max(1, width * vectors.shape[1]))
    for start in range(0, n_rows, step):
        chunk = slice(start, start + step)
        indices = candidates.indices[chunk]
        differences = points.take(indices, axis=0, mode="clip").astype(np.float64)
        differences -= vectors[chunk, np.newaxis]
        squares = np.where(indices >= 0, np.einsum("nkf,nkf->nk", differences, differences), np.inf)
        order = np.lexsort((indices, squares), axis=1)[:, :k]
        best = np.take_along_axis(squares, order, axis=1)
        top.scores[chunk, : order.shape[1]] = np.sqrt(best)
        top.indices[chunk, : order.shape[1]] = np.take_along_axis(indices, order, axis=1)
        squares_of_last[chunk] = best[:, -1]
    highest_of_others = candidates.scores[:, -1].astype(np.float64) + _ROUNDING * largest
    are_all = (candidates.indices[:, -1] < 0) | (width == len(points))
    is_sure = are_all | (squares_of_last < _squared_norms(vectors) - 2 * highest_of_others)
    return _Found(top, is_sure)


def _nearest_of_all(
    vector: Float32Array, points: Float32Array, left_out: Int32Array, k: int
) -> tuple[Float64Array, Int32Array]:
    """Return the k smallest distances of a vector to points, and which they are; inf and -1 where there are no more."""
    squares = np.empty(len(points))
    step = max(1, _CELLS // max(1, points.shape[1]))
    for start in range(0, len(points), step):
        differences = points[start : start + step].astype(np.float64) - vector.astype(np.float64)
        squares[start : start + step] = np.einsum("nf,nf->n", differences, differences)
    squares[left_out] = np.inf
    n_found = min(k, len(points) - len(left_out))
    distances, indices = np.full(k, np.inf), np.full(k, -1, np.int32)
    if n_found > 0:
        last = np.partition(squares, n_found - 1)[n_found - 1]
        near = np.flatnonzero(squares <= last)
        order = near[np.argsort(squares[near], kind="stable")][:n_found]
        distances[:n_found], indices[:n_found] = np.sqrt(squares[order]), order
    return distances, indices


def _largest_terms(vectors: Float32Array, rows: Float32Array) -> Float64Array:
    """Return, for each vector, a bound of the terms ‖p‖‖q‖ + ‖q‖² of its scores, shape (n,); it may be inf."""
    squared = -2.0 * float(rows[:, -1].min(initial=0)) * (1 + 1e-6)
    if not np.isfinite(squared):
        return np.full(len(vectors), np.inf)
    return np.asarray(np.sqrt(_squared_norms(vectors) * squared) + squared)


def _squared_norms(vectors: Float32Array) -> Float64Array:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))


def _nobody(n_rows: int, k: int) -> TopK:
    return TopK(np.full((n_rows, k), np.inf, np.float32), np.full((n_rows, k), -1, np.int32))
