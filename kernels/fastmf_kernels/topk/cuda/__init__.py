"""Top-k on a GPU; the contract is that of `fastmf_kernels.topk.reference`.

All products are taken, in float16 (`halves.py`, on devices that it was tested on) or float32 (`screen.py`), and few
are kept (`compact.py`): somewhat more than k for a query. Only these are scored exactly, and the k best of them are
the answer where a bound on the rounding proves it (`rescore.py`). What float16 does not prove is searched again in
float32. What that does not, either, is answered on the host: queries with ties at the border, or with numbers that are
infinite or none. Vectors of zeros need no search.
"""

import numpy as np

from fastmf_kernels._cuda.jit import SIMULATED, WARP, cuda
from fastmf_kernels._cuda.memory import DeviceArray, fetch, free_bytes, put, require_room, zeros
from fastmf_kernels._cuda.rows import make_group, padded_width, put_rows
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array, Int64Array
from fastmf_kernels.topk import cpu
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Pairs, Rows, Scan, TopK, without_layout
from fastmf_kernels.topk.cuda.arrays import Best, Buffers, Catalogue, Queries, Screen, Shape, WarpShape
from fastmf_kernels.topk.cuda.compact import make_merge
from fastmf_kernels.topk.cuda.fallback import host_layout, say_among, say_counting, say_if_many, say_k_is_large
from fastmf_kernels.topk.cuda.halves import halve_queries, halve_rows, make_widen, width_in_halves
from fastmf_kernels.topk.cuda.halves import make_screen as make_screen_by_halves
from fastmf_kernels.topk.cuda.rescore import make_measure, make_rescore
from fastmf_kernels.topk.cuda.screen import make_screen

SHAPE = Shape(rows=8, columns=8, down=16, across=16, depth=8)
"""A tile of 128 queries × 128 items."""
MARGIN = 32
"""Candidates that are kept beyond k: the k-th score and that of what is dropped differ by more than rounding."""
SHAPE_OF_HALVES = WarpShape(rows=64, columns=32, down=2, across=4, depth=32)
"""The same tile, in float16."""
MARGIN_OF_HALVES = 64
"""The least margin there, or k/2.

Scores are off by some 2⁻¹⁰‖p‖‖q‖: of 128 factors a few hundredths of their standard deviation. Among a million normal
scores, lowering the threshold of the best hundred by a tenth of the standard deviation admits 50 % more candidates
(ln 1.5 over the 3.7 standard deviations where they begin).
"""
HALVES = True
"""Whether items are laid out in float16, too, on devices whose tensor cores were tested."""
ROOM = 256
"""Candidates beyond those until a buffer is compacted; at least as many as a tile has items."""
THREADS = 128
"""Of a block that does anything but screen."""

# Of more, the exact scores of a query would not fit into shared memory.
_MOST = 1024
# Blocks that each multiprocessor has at a time, and times that it is to have them: the last one waits for none.
_BLOCKS, _TIMES = 2, 4
# Tiles of the catalogue that are worth a block: each begins without a threshold.
_TILES_OF_A_PART = 16
# Queries on the host that are not worth a layout of the catalogue.
_FEW = 8
_TILE_OF_SCAN = (8, 32)
# Compute capabilities on which `tests/cuda/parity/test_topk_halves.py` has passed: that answers are exact rests on how
# tensor cores add up, which NVIDIA does not say.
_TESTED_TENSOR_CORES = ((9, 0),)


def index_items(items: Float32Array, pruning: bool = True, n_threads: int | None = None) -> ItemIndex:
    """Lay items out for `top_k`, on the device; see the reference."""
    if not len(items):
        return without_layout(items)
    n_items, n_factors = items.shape
    require_room(4 * n_items * (padded_width(n_factors) + 2), f"{n_items} items of {n_factors} factors")
    norms = np.sqrt(np.einsum("ij,ij->i", items, items, dtype=np.float64)) * (1 + 2**-20) + 2.0**-149
    with np.errstate(over="ignore"):  # too long for float32: infinite
        norms = norms.astype(np.float32)
    norms[np.isnan(norms)] = np.inf
    longest = np.full((1, 4), norms.max(), np.float32)
    order = np.argsort(-norms, kind="stable") if pruning else np.arange(len(items))
    bounds = norms[order] if pruning else np.full(len(items), np.inf, np.float32)
    factors = put_rows(items[order] if pruning else items)
    return ItemIndex(
        items,
        pruning,
        put(order.astype(np.int32)),
        np.empty(0, np.int32),
        put(bounds),
        factors,
        _halves_of(factors, longest[0, :1], padded_width(items.shape[1])),
        longest,
    )


def top_k(queries: Float32Array, index: ItemIndex, k: int, exclude: Rows, n_threads: int | None = None) -> Found:
    """Find the k items with the largest dot product for every query; see the reference."""
    if not len(queries) or not len(index.norms) or k > _MOST:
        if k > _MOST:
            say_k_is_large(k, _MOST)
        return cpu.top_k(queries, _on_the_host(index, len(queries)), k, exclude, n_threads)
    top = TopK(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int32))
    scans = [(0, 0, 0)]
    proven = _answer_zeros(queries, index, exclude, top)
    for screen in _screens(index, k):
        left, start = np.flatnonzero(~proven), 0
        while start < len(left):
            n, n_parts = _batch(len(left) - start, index, k, screen)
            scans.append(_answer(queries, index, exclude, left[start : start + n], n_parts, screen, top, proven))
            start += n
    left = np.flatnonzero(~proven)
    if len(left):
        say_if_many(len(left), len(queries))
        scans.append(_answer_on_the_host(queries, index, exclude, left, top, n_threads))
    return Found(top, Scan(*np.sum(scans, axis=0).tolist()))


def top_k_among(
    queries: Float32Array,
    items: Float32Array,
    k: int,
    candidates: Rows,
    exclude: Rows,
    n_threads: int | None = None,
) -> TopK:
    """Find the k best among each query's own candidates, on the host; see the reference."""
    say_among()
    return cpu.top_k_among(queries, items, k, candidates, exclude, n_threads)


def count_better(
    queries: Float32Array, index: ItemIndex, relevant: Rows, exclude: Rows, n_threads: int | None = None
) -> Counts:
    """Count, for some items of each query, how many others score higher, on the host; see the reference."""
    say_counting()
    return cpu.count_better(queries, host_layout(index, False), relevant, exclude, n_threads)


def mark_hits(indices: Int32Array, k: int, relevant: Pairs, n_threads: int | None = None) -> BoolArray:
    """Tell which of the first k items found for each query are relevant, on the host; see the reference."""
    return cpu.mark_hits(indices, k, relevant, n_threads)


def _screens(index: ItemIndex, k: int) -> list[Screen]:
    """Return how to find candidates, one way after the other for what has not been proven."""

    def with_margin(margin: int, shape: Shape) -> Screen:
        return Screen(shape, k + margin, k + margin + max(ROOM, shape.n_items))

    by_floats = with_margin(MARGIN, SHAPE)
    return [with_margin(max(MARGIN_OF_HALVES, k // 2), SHAPE_OF_HALVES), by_floats] if index.bytes.size else [by_floats]


def _answer_zeros(queries: Float32Array, index: ItemIndex, exclude: Rows, top: TopK) -> BoolArray:
    """Answer the queries that score every item 0, of users without any ratings say; returns which they are.

    All items tie: the first ones are the best, as far as they are not excluded.
    """
    k, all_tie = top.scores.shape[1], np.zeros(len(queries), np.bool_)
    if np.isfinite(index.terms[0, 0]):  # 0 times infinity is no number
        all_tie[:] = ~queries.any(axis=1)
    for query in np.flatnonzero(all_tie):
        excluded = exclude.indices[exclude.indptr[query] : exclude.indptr[query + 1]]
        first = np.setdiff1d(np.arange(min(len(index.norms), k + len(excluded)), dtype=np.int32), excluded)[:k]
        top.scores[query], top.indices[query] = -np.inf, -1
        top.scores[query, : len(first)], top.indices[query, : len(first)] = 0, first
    return all_tie


def _answer(
    queries: Float32Array,
    index: ItemIndex,
    exclude: Rows,
    left: Int64Array,
    n_parts: int,
    screen: Screen,
    top: TopK,
    proven: BoolArray,
) -> tuple[int, int, int]:
    """Answer the queries that are left as far as it can be proven; returns what `Scan` has."""
    n, k, width = len(left), top.scores.shape[1], padded_width(queries.shape[1])
    rows = slice(int(left[0]), int(left[-1]) + 1) if left[-1] - left[0] == n - 1 else left
    batch = _put_queries(queries[rows], _rows_of(exclude, rows))
    n_slots = n * n_parts
    buffers = Buffers(
        zeros(n_slots * screen.capacity, np.float32),
        zeros(n_slots * screen.capacity, np.int32),
        zeros(n_slots, np.int32),
        zeros(n_slots, np.float32),
    )
    best = Best(zeros(n * k, np.float32), zeros(n * k, np.int32), zeros(n, np.int32))
    n_screened = _find(index, batch, buffers, screen, n_parts)
    rescore = make_rescore(width, max(64, 1 << (screen.n_kept - 1).bit_length()), THREADS)
    catalogue, longest = Catalogue(index.floats, index.norms, index.order), float(index.terms[0, 0])
    rescore[n, THREADS](catalogue, batch, buffers, n_parts * screen.capacity, n_parts, k, longest, best)
    top.scores[rows], top.indices[rows] = fetch(best.scores).reshape(n, k), fetch(best.items).reshape(n, k)
    proven[rows] = fetch(best.proven) != 0
    n_scored = int(fetch(buffers.counts)[::n_parts].sum(dtype=np.int64))
    return (*_count_tiles(fetch(n_screened).reshape(-1, n_parts), n, len(index.factors), screen.shape), n_scored)


def _find(index: ItemIndex, batch: Queries, buffers: Buffers, screen: Screen, n_parts: int) -> DeviceArray:
    """Put candidates into the first buffer of each query, with a threshold that bounds what was dropped.

    Returns how many tiles were screened, for each tile of queries and part of the catalogue.
    """
    n, width, longest = batch.norms.size, padded_width(index.factors.shape[1]), index.terms[0, 0]
    n_tiles, by_halves = -(-n // screen.shape.n_queries), isinstance(screen.shape, WarpShape)
    n_screened = zeros(n_tiles * n_parts, np.int32)
    make = make_screen_by_halves if by_halves else make_screen
    make(width, screen.shape)[(n_tiles, n_parts), screen.shape.n_threads](
        Catalogue(index.bytes if by_halves else index.floats, index.norms, index.order),
        halve_queries(batch, longest, width, THREADS) if by_halves else batch,
        buffers,
        screen.capacity,
        screen.n_kept,
        n_screened,
    )
    if n_parts > 1:
        blocks = -(-n // (THREADS // WARP))
        make_merge(THREADS)[blocks, THREADS](buffers, n, n_parts, screen.capacity, screen.n_kept)
    if by_halves:
        make_widen(width, THREADS)[-(-n // THREADS), THREADS](buffers, batch.norms, n_parts, longest)
    return n_screened


def _put_queries(queries: Float32Array, exclude: Rows) -> Queries:
    width, n = padded_width(queries.shape[1]), len(queries)
    # An array that is empty has no place on the device.
    excluded = put(exclude.indices if len(exclude.indices) else np.full(1, -1, np.int32))
    batch = Queries(put_rows(queries), zeros(n, np.float32), put(exclude.indptr), excluded)
    groups = THREADS // make_group(width).size
    make_measure(width, THREADS)[-(-n // groups), THREADS](batch.factors, batch.norms)
    return batch


def _rows_of(rows: Rows, taken: slice | Int64Array) -> Rows:
    """Return the lists of some queries."""
    if isinstance(taken, slice):
        indptr = rows.indptr[taken.start : taken.stop + 1]
        return Rows(indptr - indptr[0], rows.indices[indptr[0] : indptr[-1]])
    starts, lengths = rows.indptr[taken], rows.indptr[taken + 1] - rows.indptr[taken]
    indptr = np.append(0, np.cumsum(lengths))
    return Rows(indptr, rows.indices[np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)])


def _halves_of(factors: DeviceArray, longest: Float32Array, width: int) -> DeviceArray:
    """Return items as float16 numbers on the device, or nothing if it is not for them, or none of its memory left."""
    wanted = HALVES and _has_tested_tensor_cores()
    n_bytes = 2 * (factors.size // width) * width_in_halves(width)
    if not wanted or not np.isfinite(longest[0]) or n_bytes > free_bytes() / 2:
        return np.empty((0, 0, WARP, 4), np.uint8)
    return halve_rows(factors, put(longest), width, THREADS)


def _count_tiles(n_screened: Int32Array, n_queries: int, n_items: int, shape: Shape) -> tuple[int, int]:
    """Return how many tiles of a `Scan` were screened, and how many skipped; whole ones, where the last is not."""
    rows, columns = _TILE_OF_SCAN
    last = n_queries - (len(n_screened) - 1) * shape.n_queries
    of_queries = np.full(len(n_screened), -(-shape.n_queries // rows))
    of_queries[-1] = -(-last // rows)
    of_items = -(-np.minimum(n_screened.sum(axis=1, dtype=np.int64) * shape.n_items, n_items) // columns)
    total, screened = int(of_queries.sum()) * -(-n_items // columns), int(of_queries @ of_items)
    return screened, total - screened


def _batch(n_queries: int, index: ItemIndex, k: int, screen: Screen) -> tuple[int, int]:
    """Return how many queries to answer together, and into how many parts to divide the catalogue for them."""
    shape, width = screen.shape, padded_width(index.factors.shape[1])
    n_tiles, n_blocks = -(-n_queries // shape.n_queries), _BLOCKS * _n_multiprocessors()
    n_parts = max(1, min(n_blocks // n_tiles, -(-len(index.factors) // (shape.n_items * _TILES_OF_A_PART))))
    of_factors = 4 * width + 2 * width_in_halves(width)
    bytes_of_a_query = 8 * n_parts * screen.capacity + of_factors + 8 * k + 32
    by_memory = free_bytes() / 2 / bytes_of_a_query / shape.n_queries
    return min(n_queries, shape.n_queries * int(max(1, min(_TIMES * n_blocks, by_memory)))), n_parts


def _has_tested_tensor_cores() -> bool:
    return SIMULATED or tuple(cuda.get_current_device().compute_capability) in _TESTED_TENSOR_CORES


def _n_multiprocessors() -> int:
    return 1 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def _on_the_host(index: ItemIndex, n_queries: int) -> ItemIndex:
    if n_queries <= _FEW or not len(index.norms):
        return without_layout(index.factors)
    return host_layout(index, index.pruning)


def _answer_on_the_host(
    queries: Float32Array, index: ItemIndex, exclude: Rows, left: Int64Array, top: TopK, n_threads: int | None
) -> Scan:
    """Answer the queries that are left."""
    own = _rows_of(exclude, left)
    found = cpu.top_k(queries[left], _on_the_host(index, len(left)), top.scores.shape[1], own, n_threads)
    top.scores[left], top.indices[left] = found.top
    return found.scan
