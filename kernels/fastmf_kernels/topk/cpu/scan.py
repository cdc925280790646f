"""Scans: a block of queries against the panels of an index, or one query against rows of factors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._jit import device, inlined, kernel
from fastmf_kernels._types import Float32Array, Index, Int32Array, Int64Array
from fastmf_kernels.topk.arrays import ItemIndex, Rows, TopK
from fastmf_kernels.topk.cpu.best import (
    Candidates,
    Search,
    append,
    begin_rows,
    compact,
    finish_rows,
    is_exact,
    limit_after,
    make_candidates,
    prune_candidates,
)
from fastmf_kernels.topk.cpu.index import HIGHEST, LONGEST, MIDDLE, SHORTEST, length, round_row
from fastmf_kernels.topk.cpu.tiles import (
    COLUMNS,
    LIMIT,
    N_APPENDED,
    N_COUNTS,
    QUAD,
    ROWS,
    append_passed,
    exact_product,
    largest_magnitude,
    screen_bytes,
    screen_floats,
)

_BOUND, _SLACK, _OTHER_SLACK, _N_LIMITS = range(4)
# Upper bounds on float32 rounding errors, as a share of ‖p‖‖q‖: for each factor of a sum, and for a few operations.
_ROUNDING, _LITTLE = 2.0**-23, np.float32(2.0**-20)
# Upper bound on the absolute rounding error of a score, which counts near the denormal numbers.
_TINY = np.float32(2e-40)
_INFINITY, _LARGEST_FINITE = np.float32(np.inf), np.float32(3.4028235e38)


class Block(NamedTuple):
    """A block of queries in tiles of 8, laid out for the screens, and its buffers.

    Attributes
    ----------
    floats : float32 array, shape (n_tiles, n_factors, 8)
    quads : int32 array, shape (n_tiles, n_quads + 1, 8)
        Factors rounded to a·y, four bytes y in a number. The last row is 128·Σy, by which products of bytes are too
        large, because an item's byte x is stored as x + 128.
    limits : float32 array, shape (n_tiles, 3, 8)
        The bounds and slacks of the queries, as `tiles.screen_floats` and `tiles.screen_bytes` take them.
    scales : float32 array, shape (n_tiles, 8)
        The query's unit: a score times this is compared with its bound; 1 for floats, 1/a for bytes.
    norms : float32 array, shape (n_tiles, 8)
        ‖p‖, rounded up.
    reach : float32 array, shape (n_tiles, 8)
        The smallest norm of an item whose score can reach the query's bound.
    scores, margins, passed
        Outputs of the screens; see `tiles.screen_floats`.
    active : int64 array, shape (n_tiles,)
        First the tiles whose search goes on; a tile leaves them when all items that are left are too short for it.
    best : Candidates
    """

    floats: Float32Array
    quads: Int32Array
    limits: Float32Array
    scales: Float32Array
    norms: Float32Array
    reach: Float32Array
    scores: Float32Array
    margins: Float32Array
    passed: Int32Array
    active: Int64Array
    best: Candidates


def make_block(n_rows: int, k: int, index: ItemIndex) -> Block:
    """Allocate a block for ``n_rows`` queries."""
    n_tiles, n_factors = -(-n_rows // ROWS), index.factors.shape[1]
    return Block(
        np.zeros((n_tiles, n_factors, ROWS), np.float32),
        np.zeros((n_tiles, index.bytes.shape[1] + 1, ROWS), np.int32),
        np.zeros((n_tiles, _N_LIMITS, ROWS), np.float32),
        np.zeros((n_tiles, ROWS), np.float32),
        np.zeros((n_tiles, ROWS), np.float32),
        np.zeros((n_tiles, ROWS), np.float32),
        np.zeros((ROWS, COLUMNS), np.float32),
        np.zeros(ROWS, np.float32),
        np.zeros(ROWS, np.int32),
        np.zeros(n_tiles, np.int64),
        make_candidates(n_tiles * ROWS, k, len(index.factors), len(index.factors)),
    )


@inlined
def _screen_floats(
    queries: Float32Array,
    panels: Float32Array,
    norms: Float32Array,
    limits: Float32Array,
    scores: Float32Array,
    margins: Float32Array,
    passed: Int32Array,
    tile: Index,
    p: Index,
) -> bool:
    n, i, j, k = panels.shape[1], tile * queries.shape[1] * ROWS, p * panels.shape[1] * COLUMNS, tile * _N_LIMITS * ROWS
    return screen_floats(queries, i, panels, j, n, limits, k, norms[p], scores, margins, passed)


@inlined
def _screen_bytes(
    queries: Int32Array,
    panels: Any,
    terms: Float32Array,
    limits: Float32Array,
    scores: Float32Array,
    margins: Float32Array,
    passed: Int32Array,
    tile: Index,
    p: Index,
) -> bool:
    n, i, k = panels.shape[1], tile * queries.shape[1] * ROWS, tile * _N_LIMITS * ROWS
    j = p * panels.shape[1] * COLUMNS * QUAD
    return screen_bytes(queries, i, panels, j, n, limits, k, terms, 4 * p, scores, margins, passed)


@inlined
def _sides_in_floats(block: Block, index: ItemIndex) -> tuple[Float32Array, Float32Array, Float32Array]:
    return block.floats, index.floats, index.norms


@inlined
def _sides_in_bytes(block: Block, index: ItemIndex) -> tuple[Int32Array, Any, Float32Array]:
    return block.quads, index.bytes, index.terms


def _scan_with(sides: Callable[..., Any], screen: Callable[..., bool]) -> Callable[..., None]:
    """Return the function that takes a block of queries through an index by one of the screens.

    Compaction is inlined here: a call would cost more than the work.
    """

    @device
    def scan_block(
        search: Search, index: ItemIndex, start: Index, stop: Index, block: Block, counts: Int64Array
    ) -> None:
        queries, panels, terms = sides(block, index)
        norms, limits, reach, active, best = index.norms, block.limits, block.reach, block.active, block.best
        scores, margins, passed, excluded = block.scores, block.margins, block.passed, best.excluded
        scales, lengths, k, full = block.scales, block.norms, search.k, search.full
        lows, highs, items, of_rows = best.lows, best.highs, best.items, best.counts
        n_panels, n_active, n_skipped, pruning = norms.size, active.size, 0, index.pruning
        capacity, of_tile = lows.shape[1], excluded.shape[1] * ROWS
        for p in range(n_panels):
            t = 0
            while t < n_active:
                tile = active[t]
                if pruning and _is_out_of_reach(reach, tile, norms[p]):
                    n_active -= 1
                    active[t] = active[n_active]
                    n_skipped += n_panels - p
                    continue
                if screen(queries, panels, terms, limits, scores, margins, passed, tile, p) and append_passed(
                    passed,
                    scores,
                    margins,
                    excluded,
                    tile * of_tile + p * ROWS,
                    p * COLUMNS,
                    lows,
                    highs,
                    items,
                    tile * ROWS * capacity,
                    capacity,
                    of_rows,
                    tile * ROWS * N_COUNTS,
                ):
                    for r in range(ROWS):
                        row = tile * ROWS + r
                        count, bound, scale = of_rows[row, N_APPENDED], limits[tile, _BOUND, r], scales[tile, r]
                        if count <= of_rows[row, LIMIT]:
                            continue
                        if start + row >= stop:
                            of_rows[row, N_APPENDED] = 0  # a padding row, whose bound only NaN passes
                            continue
                        if not is_exact(of_rows, row):
                            kept, bound = prune_candidates(lows, highs, items, row, count, k, bound, _TINY * scale)
                            limit_after(of_rows, row, kept, k, full)
                        if is_exact(of_rows, row):
                            bound = min((compact(search, start + row, best, row) - _TINY) * scale, _LARGEST_FINITE)
                        if bound > limits[tile, _BOUND, r]:
                            limits[tile, _BOUND, r], reach[tile, r] = bound, bound / (lengths[tile, r] * scale)
                t += 1
        counts[0] += n_panels * active.size - n_skipped
        counts[1] += n_skipped

    return scan_block


_scan_block_of_floats = _scan_with(_sides_in_floats, _screen_floats)
_scan_block_of_bytes = _scan_with(_sides_in_bytes, _screen_bytes)


@kernel
def scan_floats(
    search: Search, index: ItemIndex, start: Index, stop: Index, block: Block, top: TopK, counts: Int64Array
) -> None:
    """Search an index for the queries ``start:stop``; adds to tiles screened, tiles skipped, pairs scored."""
    for first in range(start, stop, block.reach.size):
        last = min(first + block.reach.size, stop)
        begin_block(search, first, last, block)
        for row in range(block.reach.size):
            round_to_floats(search, first + row, last, block, row // ROWS, row % ROWS)
        _scan_block_of_floats(search, index, first, last, block, counts)
        _select_in_block(first, last, block, search.k)
        counts[2] += finish_rows(search, first, last, block.best, top)


@kernel
def scan_bytes(
    search: Search, index: ItemIndex, start: Index, stop: Index, block: Block, top: TopK, counts: Int64Array
) -> None:
    """Search an index, as `scan_floats`."""
    width = index.bytes.shape[1] * QUAD
    scaled, rounded = np.zeros(width, np.float32), np.zeros(width, np.int32)
    for first in range(start, stop, block.reach.size):
        last = min(first + block.reach.size, stop)
        begin_block(search, first, last, block)
        for row in range(block.reach.size):
            _round_to_bytes(search, first + row, last, block, row // ROWS, row % ROWS, scaled, rounded)
        _scan_block_of_bytes(search, index, first, last, block, counts)
        _select_in_block(first, last, block, search.k)
        counts[2] += finish_rows(search, first, last, block.best, top)


@device
def _select_in_block(start: Index, stop: Index, block: Block, k: Index) -> None:
    """Prune each buffer once more, with its final threshold."""
    best, limits, scales, counts = block.best, block.limits, block.scales, block.best.counts
    lows, highs, items = best.lows, best.highs, best.items
    for row in range(stop - start):
        count, tile, r = counts[row, N_APPENDED], row // ROWS, row % ROWS
        if count > k and not is_exact(counts, row):
            kept, _ = prune_candidates(
                lows, highs, items, row, count, k, limits[tile, _BOUND, r], _TINY * scales[tile, r]
            )
            counts[row, N_APPENDED] = kept


@kernel
def scan_rows(search: Search, start: Index, stop: Index, best: Candidates, top: TopK) -> None:
    """Score every item for the queries ``start:stop``, one after the other; items are in the order of their indices."""
    queries, factors, items, counts, excluded = search.queries, search.factors, best.items, best.counts, best.excluded
    n_factors = factors.shape[1]
    for query in range(start, stop):
        begin_rows(search, query, query + 1, best)
        least = -_INFINITY
        for item in range(factors.shape[0]):
            score = np.float32(exact_product(queries, query * n_factors, factors, item * n_factors, n_factors))
            if score >= least and append(np.int32(item), items, counts, excluded):
                least = compact(search, query, best, 0)
        finish_rows(search, query, query + 1, best, top)


@kernel
def scan_candidates(search: Search, candidates: Rows, start: Index, stop: Index, best: Candidates, top: TopK) -> None:
    """Score the candidates of the queries ``start:stop``."""
    queries, factors, items, counts, excluded = search.queries, search.factors, best.items, best.counts, best.excluded
    indices, n_factors = candidates.indices, factors.shape[1]
    for query in range(start, stop):
        begin_rows(search, query, query + 1, best)
        least = -_INFINITY
        for j in range(candidates.indptr[query], candidates.indptr[query + 1]):
            place = np.int64(indices[j]) * n_factors
            score = np.float32(exact_product(queries, query * n_factors, factors, place, n_factors))
            if score >= least and append(indices[j], items, counts, excluded):
                least = compact(search, query, best, 0)
        finish_rows(search, query, query + 1, best, top)


@device
def begin_block(search: Search, start: Index, stop: Index, block: Block) -> None:
    """Reset the buffers and bounds of a block; padding rows of the last tile get an infinite bound."""
    n_items, n_factors = search.factors.shape
    last_panel = np.uint32(0xFFFFFFFF) << np.uint32(n_items % COLUMNS) if n_items % COLUMNS else np.uint32(0)
    begin_rows(search, start, stop, block.best)
    for tile in range(block.active.size):
        block.active[tile] = tile
        for r in range(ROWS):
            query = start + tile * ROWS + r
            for part in range(_N_LIMITS):
                block.limits[tile, part, r] = np.float32(0)
            block.limits[tile, _BOUND, r] = block.reach[tile, r] = -_INFINITY if query < stop else _INFINITY
            block.best.excluded[tile, n_items // COLUMNS, r] |= last_panel
            if query >= stop:
                block.best.counts[tile * ROWS + r] = 0
            else:
                norm = length(search.queries, query * n_factors, n_factors)
                block.norms[tile, r] = norm if norm < LONGEST else _INFINITY


@device
def round_to_floats(search: Search, query: Index, stop: Index, block: Block, tile: Index, r: Index) -> None:
    """Copy a query's factors into its tile; its slack times an item's norm bounds the rounding error of a score."""
    n_factors = search.queries.shape[1]
    for f in range(n_factors):
        block.floats[tile, f, r] = search.queries[query, f] if query < stop else np.float32(0)
    block.scales[tile, r] = np.float32(1)
    block.limits[tile, _SLACK, r] = block.norms[tile, r] * np.float32((n_factors + 8) * _ROUNDING) + _TINY


@device
def _round_to_bytes(
    search: Search,
    query: Index,
    stop: Index,
    block: Block,
    tile: Index,
    r: Index,
    scaled: Float32Array,
    rounded: Int32Array,
) -> None:
    """Round a query's factors p to a·y; ‖p - ay‖/a and ‖ay‖/a bound the error of its scores."""
    queries, quads, limits, norm = search.queries, block.quads, block.limits, block.norms[tile, r]
    n_factors, n_quads = queries.shape[1], rounded.size // QUAD
    largest = largest_magnitude(queries, query * n_factors, n_factors) if query < stop else np.float32(0)
    usable = largest > SHORTEST and norm < LONGEST
    inverse = np.float32(HIGHEST) / largest if usable else np.float32(0)
    size, total = np.int64(0), np.int64(0)
    if usable:
        error = round_row(queries, query, inverse, scaled, rounded)
        for f in range(rounded.size):
            size += rounded[f] * rounded[f]
            total += rounded[f]
        limits[tile, _SLACK, r] = np.sqrt(error) * np.float32(1.001) + norm * inverse * _LITTLE
        limits[tile, _OTHER_SLACK, r] = np.float32(np.sqrt(np.float64(size)) * 1.001)
    elif query < stop:
        limits[tile, _SLACK, r] = _INFINITY
    for quad in range(n_quads):
        f = quad * QUAD
        low = (rounded[f] & 255) | (rounded[f + 1] & 255) << 8
        high = (rounded[f + 2] & 255) | (rounded[f + 3] & 255) << 8
        quads[tile, quad, r] = np.int32(low | high << 16) if usable else np.int32(0)
    quads[tile, n_quads, r] = np.int32(MIDDLE * total)
    block.scales[tile, r] = inverse


@inlined
def _is_out_of_reach(reach: Float32Array, tile: Index, norm: np.float32) -> bool:
    """Whether no item with at most this norm can reach the bound of any query of a tile: |p·q| ≤ ‖p‖‖q‖."""
    longer = norm * (np.float32(1) + _LITTLE)
    out_of_reach = True
    for r in range(ROWS):
        out_of_reach &= longer < reach[tile, r]
    return out_of_reach
