"""Counts of the items that score higher than given ones: scores are computed a tile at a time, and none is stored."""

import numpy as np

from fastmf_kernels._jit import inlined, kernel
from fastmf_kernels._types import Float32Array, Index, Int64Array
from fastmf_kernels.topk.arrays import Counts, ItemIndex, Rows
from fastmf_kernels.topk.cpu.best import Search, clear_excluded
from fastmf_kernels.topk.cpu.scan import Block, begin_block, round_to_floats
from fastmf_kernels.topk.cpu.tiles import COLUMNS, ROWS, product_in_order, screen_floats


@kernel
def count_panels(
    search: Search, index: ItemIndex, relevant: Rows, start: Index, stop: Index, block: Block, counts: Counts
) -> None:
    """Compare all items with the relevant ones, for the queries ``start:stop``; items are in their own order.

    A relevant item's score is summed in the order of the panels: equal factors give equal scores.
    """
    begin_block(search, start, stop, block)
    for row in range(block.reach.size):
        round_to_floats(search, start + row, stop, block, row // ROWS, row % ROWS)
    block.limits[:, 1] = 0  # no slack: scores are compared as they are
    panels, of_queries, of_tile, limits = index.floats, block.floats, block.scores, block.limits
    queries, factors, n_factors = search.queries, search.factors, index.factors.shape[1]
    thresholds, cursors = np.empty(relevant.indptr[stop] - relevant.indptr[start], np.float32), block.best.counts
    for query in range(start, stop):
        cursors[query - start, 0] = search.exclude.indptr[query]
        for j in range(relevant.indptr[query], relevant.indptr[query + 1]):
            item = np.int64(relevant.indices[j])
            thresholds[j - relevant.indptr[start]] = product_in_order(
                queries, query * n_factors, factors, item * n_factors, n_factors
            )
    for p in range(panels.shape[0]):
        n_items = min(COLUMNS, factors.shape[0] - p * COLUMNS)
        for tile in range(block.active.size):
            screen_floats(
                of_queries,
                tile * n_factors * ROWS,
                panels,
                p * n_factors * COLUMNS,
                n_factors,
                limits,
                tile * limits.shape[1] * ROWS,
                np.float32(0),
                of_tile,
                block.margins,
                block.passed,
            )
            for r in range(min(ROWS, stop - start - tile * ROWS)):
                row = tile * ROWS + r
                _hide(search.exclude, start + row, p, n_items, cursors, row, of_tile[r])
                _count(relevant, start, start + row, thresholds, of_tile[r], counts)
    clear_excluded(search, start, stop, block.best)


@inlined
def _hide(
    exclude: Rows, query: Index, p: Index, n_items: Index, cursors: Int64Array, row: Index, scores: Float32Array
) -> None:
    """Replace the scores of excluded items, and of the padding of the last panel, by NaN, which is never counted."""
    for v in range(n_items, COLUMNS):
        scores[v] = np.float32(np.nan)
    cursor = cursors[row, 0]
    while cursor < exclude.indptr[query + 1] and exclude.indices[cursor] < p * COLUMNS + n_items:
        scores[exclude.indices[cursor] - p * COLUMNS] = np.float32(np.nan)
        cursor += 1
    cursors[row, 0] = cursor


@inlined
def _count(
    relevant: Rows, start: Index, query: Index, thresholds: Float32Array, scores: Float32Array, counts: Counts
) -> None:
    for j in range(relevant.indptr[query], relevant.indptr[query + 1]):
        threshold = thresholds[j - relevant.indptr[start]]
        higher, equal = 0, 0
        for v in range(COLUMNS):
            higher += scores[v] > threshold
            equal += scores[v] == threshold
        counts.higher[j] += higher
        counts.equal[j] += equal
