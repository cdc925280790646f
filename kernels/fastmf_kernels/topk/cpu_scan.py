"""Queries meet items: a block of queries goes through the panels of an index, or a query through rows of factors."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._jit import device, inlined, kernel
from fastmf_kernels._types import Float32Array, Index, Int32Array, Int64Array
from fastmf_kernels.linalg.panels import prefetch
from fastmf_kernels.topk.arrays import ItemIndex, Rows, TopK
from fastmf_kernels.topk.cpu_best import (
    N_APPENDED,
    Best,
    Search,
    append,
    begin_row,
    is_excluded,
    make_best,
    settle,
    settle_all,
    settle_roughly,
    write_row,
)
from fastmf_kernels.topk.cpu_index import HIGHEST, LONGEST, MIDDLE, SHORTEST, length, round_row
from fastmf_kernels.topk.tiles import (
    COLUMNS,
    QUAD,
    ROWS,
    VECTOR,
    exact_product,
    lowest_bit,
    screen_bytes,
    screen_floats,
)

_BOUND, _SLACK, _OTHER_SLACK, _OFFSET = range(4)
# More than float32 rounding can change, as a share of ‖p‖‖q‖: for a sum over n factors, and for a few operations.
_ROUNDING, _LITTLE = 2.0**-23, np.float32(2.0**-20)
# More than rounding to denormal numbers can change.
_TINY = np.float32(1e-40)
_INFINITY = np.float32(np.inf)


class Block(NamedTuple):
    """A block of queries, in tiles of 8, as the panels of an index meet it, and its buffers.

    Attributes
    ----------
    floats : float32 array, shape (n_tiles, n_factors, 8)
    quads : int32 array, shape (n_tiles, n_quads, 8)
        Factors rounded to a·y, four bytes y in a number.
    limits : float32 array, shape (n_tiles, 4, 8)
        What `tiles.screen_floats` and `tiles.screen_bytes` ask for.
    scales : float32 array, shape (n_tiles, 8)
        What a score that must be reached is multiplied with to be compared: 1, or 1/a.
    norms : float32 array, shape (n_tiles, 8)
        ‖p‖, rounded up.
    reach : float32 array, shape (n_tiles, 8)
        How long the vector of an item must be to be of interest.
    passed : int32 array, shape (8,)
    scores : float32 array, shape (8, 32)
    active : int64 array, shape (n_tiles,)
    best : Best
    """

    floats: Float32Array
    quads: Int32Array
    limits: Float32Array
    scales: Float32Array
    norms: Float32Array
    reach: Float32Array
    passed: Int32Array
    scores: Float32Array
    active: Int64Array
    best: Best


def make_block(n_rows: int, k: int, index: ItemIndex) -> Block:
    """Return space for a block of so many queries."""
    n_tiles, n_factors = -(-n_rows // ROWS), index.factors.shape[1]
    return Block(
        np.zeros((n_tiles, n_factors, ROWS), np.float32),
        np.zeros((n_tiles, index.bytes.shape[1], ROWS), np.int32),
        np.zeros((n_tiles, 4, ROWS), np.float32),
        np.zeros((n_tiles, ROWS), np.float32),
        np.zeros((n_tiles, ROWS), np.float32),
        np.zeros((n_tiles, ROWS), np.float32),
        np.zeros(ROWS, np.int32),
        np.zeros((ROWS, COLUMNS), np.float32),
        np.zeros(n_tiles, np.int64),
        make_best(n_tiles * ROWS, k, len(index.factors), len(index.factors)),
    )


@kernel
def scan_floats(
    search: Search, index: ItemIndex, start: Index, stop: Index, block: Block, top: TopK, counts: Int64Array
) -> None:
    """Search an index for the queries ``start:stop``; adds to tiles screened, tiles skipped, pairs scored."""
    longest = largest(index.norms)
    for first in range(start, stop, block.reach.size):
        last = min(first + block.reach.size, stop)
        begin_block(search, first, last, block)
        for row in range(block.reach.size):
            round_to_floats(search, first + row, last, block, row // ROWS, row % ROWS)
        _scan_block_of_floats(search, index, first, last, block, longest, counts)
        for query in range(first, last):
            row = query - first
            settle_roughly(
                search, query, block.best, row, block.limits[row // ROWS, _SLACK, row % ROWS] * longest + _TINY
            )
            settle_all(search, query, block.best, row)
            write_row(search, query, block.best, row, top)


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
        for query in range(first, last):
            settle(search, query, block.best, query - first)
            write_row(search, query, block.best, query - first, top)


@device
def _scan_block_of_floats(
    search: Search, index: ItemIndex, start: Index, stop: Index, block: Block, longest: np.float32, counts: Int64Array
) -> None:
    passed, active, reach, limits = block.passed, block.active, block.reach, block.limits
    order, norms, scales, lengths = index.order, index.norms, block.scales, block.norms
    items, counted, excluded, scores = block.best.items, block.best.counts, block.best.excluded, block.best.scores
    panels, of_queries, of_tile = index.floats, block.floats, block.scores
    n_panels, n_factors, n_active, n_rows, full = norms.size, panels.shape[1], active.size, stop - start, search.full
    pruning, n_skipped, n_scored = index.pruning, 0, 0
    for p in range(n_panels):
        t, norm = 0, norms[p]
        while t < n_active:
            tile = active[t]
            if pruning and _is_out_of_reach(reach, tile, norm):
                n_active -= 1
                active[t] = active[n_active]
                n_skipped += n_panels - p
                continue
            if screen_floats(
                of_queries,
                tile * n_factors * ROWS,
                panels,
                p * n_factors * COLUMNS,
                n_factors,
                limits,
                tile * 4 * ROWS,
                norm,
                of_tile,
                passed,
            ):
                for r in range(ROWS):
                    row = tile * ROWS + r
                    if passed[r] != 0 and row < n_rows:
                        bits, count = np.int64(passed[r]) & np.int64(0xFFFFFFFF), counted[row, N_APPENDED]
                        while bits != 0:
                            position = lowest_bit(bits)
                            item = order[p * COLUMNS + position]
                            bits &= bits - 1
                            if item >= 0 and not is_excluded(excluded, row, item):
                                items[row, count], scores[row, count] = item, of_tile[r, position]
                                count += 1
                        n_scored += count - counted[row, N_APPENDED]
                        counted[row, N_APPENDED] = count
                        if count > full:
                            least = settle_roughly(
                                search, start + row, block.best, row, limits[tile, _SLACK, r] * longest + _TINY
                            )
                            if least > -_INFINITY:
                                limits[tile, _BOUND, r] = (least - _TINY) * scales[tile, r]
                                reach[tile, r] = least / lengths[tile, r]
            t += 1
    counts[0] += n_panels * block.active.size - n_skipped
    counts[1] += n_skipped
    counts[2] += n_scored


@device
def _scan_block_of_bytes(
    search: Search, index: ItemIndex, start: Index, stop: Index, block: Block, counts: Int64Array
) -> None:
    passed, active, reach, limits = block.passed, block.active, block.reach, block.limits
    order, norms, scales, lengths = index.order, index.norms, block.scales, block.norms
    items, counted, excluded, factors = block.best.items, block.best.counts, block.best.excluded, search.factors
    panels, of_queries, terms = index.bytes, block.quads, index.terms
    n_panels, n_quads, n_active, n_rows, full = norms.size, panels.shape[1], active.size, stop - start, search.full
    n_skipped, n_scored, n_factors = 0, 0, factors.shape[1]
    n_lines = (n_factors + VECTOR - 1) // VECTOR
    for p in range(n_panels):
        t, norm = 0, norms[p]
        while t < n_active:
            tile = active[t]
            if _is_out_of_reach(reach, tile, norm):
                n_active -= 1
                active[t] = active[n_active]
                n_skipped += n_panels - p
                continue
            if screen_bytes(
                of_queries,
                tile * n_quads * ROWS,
                panels,
                p * n_quads * COLUMNS * QUAD,
                n_quads,
                limits,
                tile * 4 * ROWS,
                terms,
                p * 4,
                passed,
            ):
                for r in range(ROWS):
                    row = tile * ROWS + r
                    if passed[r] != 0 and row < n_rows:
                        bits, count = np.int64(passed[r]) & np.int64(0xFFFFFFFF), counted[row, N_APPENDED]
                        while bits != 0:
                            item = np.int64(order[p * COLUMNS + lowest_bit(bits)])
                            bits &= bits - 1
                            if item >= 0 and not is_excluded(excluded, row, item):
                                items[row, count] = item
                                prefetch(factors, item * n_factors, n_lines)
                                count += 1
                        n_scored += count - counted[row, N_APPENDED]
                        counted[row, N_APPENDED] = count
                        if count > full:
                            least = settle(search, start + row, block.best, row)
                            if least > -_INFINITY:
                                limits[tile, _BOUND, r] = (least - _TINY) * scales[tile, r]
                                reach[tile, r] = least / lengths[tile, r]
            t += 1
    counts[0] += n_panels * block.active.size - n_skipped
    counts[1] += n_skipped
    counts[2] += n_scored


@kernel
def scan_rows(search: Search, start: Index, stop: Index, best: Best, top: TopK) -> None:
    """Score every item for the queries ``start:stop``, one query after the other, in no other layout than theirs."""
    queries, factors, items, counts, excluded = search.queries, search.factors, best.items, best.counts, best.excluded
    n_factors = factors.shape[1]
    for query in range(start, stop):
        begin_row(search.exclude, query, best, 0)
        least = -_INFINITY
        for item in range(factors.shape[0]):
            score = np.float32(exact_product(queries, query * n_factors, factors, item * n_factors, n_factors))
            if score >= least and append(np.int32(item), items, counts, excluded, 0) > search.full:
                least = settle(search, query, best, 0)
        settle(search, query, best, 0)
        write_row(search, query, best, 0, top)


@kernel
def scan_candidates(search: Search, candidates: Rows, start: Index, stop: Index, best: Best, top: TopK) -> None:
    """Score the candidates of the queries ``start:stop``."""
    queries, factors, items, counts, excluded = search.queries, search.factors, best.items, best.counts, best.excluded
    indices, n_factors = candidates.indices, factors.shape[1]
    for query in range(start, stop):
        begin_row(search.exclude, query, best, 0)
        least = -_INFINITY
        for j in range(candidates.indptr[query], candidates.indptr[query + 1]):
            place = np.int64(indices[j]) * n_factors
            score = np.float32(exact_product(queries, query * n_factors, factors, place, n_factors))
            if score >= least and append(indices[j], items, counts, excluded, 0) > search.full:
                least = settle(search, query, best, 0)
        settle(search, query, best, 0)
        write_row(search, query, best, 0, top)


@device
def begin_block(search: Search, start: Index, stop: Index, block: Block) -> None:
    """Begin the queries of a block; what fills up the last tile asks for what nothing reaches."""
    for tile in range(block.active.size):
        block.active[tile] = tile
        for r in range(ROWS):
            query = start + tile * ROWS + r
            for part in range(4):
                block.limits[tile, part, r] = np.float32(0)
            block.limits[tile, _BOUND, r] = block.reach[tile, r] = -_INFINITY if query < stop else _INFINITY
            if query < stop:
                begin_row(search.exclude, query, block.best, tile * ROWS + r)
                n_factors = search.queries.shape[1]
                norm = length(search.queries, query * n_factors, n_factors)
                block.norms[tile, r] = norm if norm < LONGEST else _INFINITY


@device
def round_to_floats(search: Search, query: Index, stop: Index, block: Block, tile: Index, r: Index) -> None:
    """Lay a query's factors out; what rounding of its scores may cost is its slack times an item's norm."""
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
    """Round a query's factors p to a·y, and find what rounding may cost: ‖p - ay‖/a and ‖ay‖/a."""
    queries, quads, limits, norm = search.queries, block.quads, block.limits, block.norms[tile, r]
    largest = np.float32(0)
    if query < stop:
        for f in range(queries.shape[1]):
            largest = max(largest, abs(queries[query, f]))
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
    for quad in range(quads.shape[1]):
        f = quad * QUAD
        low = (rounded[f] & 255) | (rounded[f + 1] & 255) << 8
        high = (rounded[f + 2] & 255) | (rounded[f + 3] & 255) << 8
        quads[tile, quad, r] = np.int32(low | high << 16) if usable else np.int32(0)
    block.scales[tile, r] = inverse
    # Rounded down, if need be: of too low a limit nothing comes but work.
    offset = np.float64(MIDDLE * total)
    limits[tile, _OFFSET, r] = np.float32(offset if abs(offset) < 2**24 else offset - abs(offset) * 2.0**-22)


@inlined
def _is_out_of_reach(reach: Float32Array, tile: Index, norm: np.float32) -> bool:
    """Whether no query of a tile has use for vectors that are not longer than this: |p·q| ≤ ‖p‖‖q‖."""
    longer = norm * (np.float32(1) + _LITTLE)
    out_of_reach = True
    for r in range(ROWS):
        out_of_reach &= longer < reach[tile, r]
    return out_of_reach


@device
def largest(numbers: Float32Array) -> np.float32:
    """Return the largest of some numbers that are not below 0."""
    most = np.float32(0)
    for number in numbers:
        most = max(most, number)
    return most
