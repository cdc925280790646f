"""Blocked product with selection on all cores; the contract is that of `fastmf_kernels.topk.reference`.

A block of queries meets the items tile by tile. The scores of a tile stay in the cache; a row of 16 of them is looked
at only when one beats the query's threshold, the worst score kept so far. The kept ones form a heap with the worst on
top. Excluded items are looked up last, for the few scores that pass.
"""

import numpy as np

from fastmf_kernels._jit import device, parallel, prange, threads
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.linalg.panels import dot_product
from fastmf_kernels.topk.arrays import Rows, TopK

_TILE = 256
_GROUP = 16
_QUERY_BLOCK = 64


def top_k(queries: Float32Array, items: Float32Array, k: int, exclude: Rows, n_threads: int | None = None) -> TopK:
    """Find the k items with the largest dot product for every query; see the reference."""
    top = _empty(len(queries), k)
    if len(queries) == 1:
        # Laying the items out in tiles would cost more than the scores; so would starting threads.
        _score_one_by_one.serial(queries, items, exclude, top)
    else:
        with threads(n_threads):
            _score_all(queries, _tiles(items), len(items), exclude, top)
    return top


def top_k_among(
    queries: Float32Array,
    items: Float32Array,
    k: int,
    candidates: Rows,
    exclude: Rows,
    n_threads: int | None = None,
) -> TopK:
    """Find the k best among each query's own candidates; see the reference."""
    top = _empty(len(queries), k)
    with threads(n_threads):
        _score_candidates(queries, items, candidates, exclude, top)
    return top


def _empty(n_queries: int, k: int) -> TopK:
    return TopK(np.full((n_queries, k), -np.inf, np.float32), np.full((n_queries, k), -1, np.int32))


def _tiles(items: Float32Array) -> Float32Array:
    """Items in tiles with the factors outermost, shape (n_tiles, n_factors, _TILE), the last one padded with zeros."""
    n_items, n_factors = items.shape
    n_tiles = -(-n_items // _TILE)
    padded = np.zeros((n_tiles * _TILE, n_factors), np.float32)
    padded[:n_items] = items
    return np.ascontiguousarray(padded.reshape(n_tiles, _TILE, n_factors).transpose(0, 2, 1))


@parallel
def _score_all(queries: Float32Array, tiles: Float32Array, n_items: int, exclude: Rows, top: TopK) -> None:
    n_queries = queries.shape[0]
    for block in prange((n_queries + _QUERY_BLOCK - 1) // _QUERY_BLOCK):
        _score_block(queries, tiles, n_items, exclude, top, block * _QUERY_BLOCK)


@device
def _score_block(
    queries: Float32Array, tiles: Float32Array, n_items: int, exclude: Rows, top: TopK, start: int
) -> None:
    stop = min(start + _QUERY_BLOCK, queries.shape[0])
    scores = np.empty(_TILE, np.float32)
    for t in range(tiles.shape[0]):
        first = t * _TILE
        size = min(_TILE, n_items - first)
        for r in range(start, stop):
            _score_tile(queries[r], tiles[t], scores)
            for v in range(size, _TILE):
                scores[v] = -np.inf
            _offer_tile(scores, first, exclude, r, top.scores[r], top.indices[r])
    for r in range(start, stop):
        _sort_heap(top.scores[r], top.indices[r])


@device
def _score_tile(query: Float32Array, tile: Float32Array, scores: Float32Array) -> None:
    """Scores = queryᵀ tile, four factors at a time to spare loads and stores of the scores."""
    n_factors = query.size
    scores[:] = np.float32(0)
    whole = n_factors - n_factors % 4
    for f in range(0, whole, 4):
        q0, q1, q2, q3 = query[f], query[f + 1], query[f + 2], query[f + 3]
        t0, t1, t2, t3 = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
        for v in range(_TILE):
            scores[v] += (q0 * t0[v] + q1 * t1[v]) + (q2 * t2[v] + q3 * t3[v])
    for f in range(whole, n_factors):
        q0, t0 = query[f], tile[f]
        for v in range(_TILE):
            scores[v] += q0 * t0[v]


@device
def _offer_tile(
    scores: Float32Array, first: int, exclude: Rows, r: int, heap: Float32Array, indices: Int32Array
) -> None:
    for group in range(0, _TILE, _GROUP):
        passing = 0
        for v in range(_GROUP):
            passing += scores[group + v] > heap[0]
        if passing:
            for v in range(group, group + _GROUP):
                _offer(scores[v], first + v, exclude, r, heap, indices)


@parallel
def _score_one_by_one(queries: Float32Array, items: Float32Array, exclude: Rows, top: TopK) -> None:
    for r in prange(queries.shape[0]):
        heap, indices = top.scores[r], top.indices[r]
        for item in range(items.shape[0]):
            _offer(_score(queries, r, items, item), item, exclude, r, heap, indices)
        _sort_heap(heap, indices)


@parallel
def _score_candidates(queries: Float32Array, items: Float32Array, candidates: Rows, exclude: Rows, top: TopK) -> None:
    for r in prange(queries.shape[0]):
        heap, indices = top.scores[r], top.indices[r]
        for j in range(candidates.indptr[r], candidates.indptr[r + 1]):
            item = candidates.indices[j]
            _offer(_score(queries, r, items, item), item, exclude, r, heap, indices)
        _sort_heap(heap, indices)


@device
def _score(queries: Float32Array, r: int, items: Float32Array, item: int) -> np.float32:
    n_factors = queries.shape[1]
    return dot_product(queries, r * n_factors, items, np.int64(item) * n_factors, n_factors)


@device
def _offer(score: np.float32, item: int, exclude: Rows, r: int, heap: Float32Array, indices: Int32Array) -> None:
    """Put an item into the heap if it beats the worst there and is not excluded.

    Items come in ascending order, so an equal score later on never displaces an earlier one.
    """
    if score > heap[0] and not _contains(exclude, r, item):
        _sift_down(heap, indices, heap.size, score, item)


@device
def _contains(rows: Rows, r: int, item: int) -> bool:
    """Binary search for ``item`` in row ``r``."""
    low, high = rows.indptr[r], rows.indptr[r + 1]
    while low < high:
        middle = (low + high) // 2
        if rows.indices[middle] < item:
            low = middle + 1
        else:
            high = middle
    return bool(low < rows.indptr[r + 1] and rows.indices[low] == item)


@device
def _is_worse(score_a: np.float32, index_a: int, score_b: np.float32, index_b: int) -> bool:
    """Whether a ranks after b: a lower score, or the same score and a higher index."""
    return bool(score_a < score_b or (score_a == score_b and index_a > index_b))


@device
def _sift_down(heap: Float32Array, indices: Int32Array, size: int, score: np.float32, index: int) -> None:
    """Fill the root of ``heap[:size]`` with (score, index) and let it sink: every parent is worse than its children."""
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and _is_worse(heap[child + 1], indices[child + 1], heap[child], indices[child]):
            child += 1
        if not _is_worse(heap[child], indices[child], score, index):
            break
        heap[hole], indices[hole] = heap[child], indices[child]
        hole = child
    heap[hole], indices[hole] = score, index


@device
def _sort_heap(heap: Float32Array, indices: Int32Array) -> None:
    """Turn the heap into a list, best first."""
    for size in range(heap.size - 1, 0, -1):
        score, index = heap[size], indices[size]
        heap[size], indices[size] = heap[0], indices[0]
        _sift_down(heap, indices, size, score, index)
