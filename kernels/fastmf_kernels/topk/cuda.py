"""Top-k on a GPU; the contract is that of `fastmf_kernels.topk.reference`.

All products are taken in float32, and few are kept (`cuda_screen`, `cuda_settle`): somewhat more than k for a query.
Only these are scored exactly, and the k best of them are the answer where a bound on the rounding proves it
(`cuda_rescore`). What is not proven is answered on the host: queries with ties at the border, with vectors of zeros,
with numbers that are infinite or none.
"""

import numpy as np

from fastmf_kernels._cuda.jit import SIMULATED, WARP, cuda
from fastmf_kernels._cuda.memory import fetch, put, zeros
from fastmf_kernels._cuda.rows import make_group, padded_width, put_rows
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from fastmf_kernels.topk import cpu
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Pairs, Rows, Scan, TopK, without_layout
from fastmf_kernels.topk.cuda_arrays import Best, Buffers, Catalogue, Questions, Shape
from fastmf_kernels.topk.cuda_rescore import make_measure, make_rescore
from fastmf_kernels.topk.cuda_screen import make_screen
from fastmf_kernels.topk.cuda_settle import make_merge

SHAPE = Shape(rows=8, columns=8, down=16, across=16, depth=8)
"""A tile of 128 queries × 128 items."""
MARGIN = 32
"""Candidates that are kept beyond k: the k-th score and that of what is dropped differ by more than rounding."""
ROOM = 256
"""Candidates beyond those until a buffer is settled; at least as many as a tile has items."""
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


def index_items(items: Float32Array, pruning: bool = True, n_threads: int | None = None) -> ItemIndex:
    """Lay items out for `top_k`, on the device; see the reference."""
    if not len(items):
        return without_layout(items)
    _require_memory(items)
    norms = np.sqrt(np.einsum("ij,ij->i", items, items, dtype=np.float64)) * (1 + 2**-20) + 2.0**-149
    with np.errstate(over="ignore"):  # too long for float32: infinite
        norms = norms.astype(np.float32)
    norms[np.isnan(norms)] = np.inf
    longest = np.full((1, 4), norms.max(), np.float32)
    order = np.argsort(-norms, kind="stable") if pruning else np.arange(len(items))
    bounds = norms[order] if pruning else np.full(len(items), np.inf, np.float32)
    return ItemIndex(
        items,
        pruning,
        put(order.astype(np.int32)),
        np.empty(0, np.int32),
        put(bounds),
        put_rows(items[order] if pruning else items),
        np.empty((0, 0, WARP, 4), np.uint8),
        longest,
    )


def top_k(queries: Float32Array, index: ItemIndex, k: int, exclude: Rows, n_threads: int | None = None) -> Found:
    """Find the k items with the largest dot product for every query; see the reference."""
    if not len(queries) or not len(index.norms) or k > _MOST:
        return cpu.top_k(queries, _on_the_host(index, len(queries)), k, exclude, n_threads)
    top = TopK(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int32))
    proven, scans, start = np.zeros(len(queries), np.bool_), [], 0
    while start < len(queries):
        n, n_parts = _batch(len(queries) - start, index, k)
        scans.append(_answer(queries, index, exclude, start, n, n_parts, top, proven))
        start += n
    left = np.flatnonzero(~proven)
    if len(left):
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
    return cpu.top_k_among(queries, items, k, candidates, exclude, n_threads)


def count_better(
    queries: Float32Array, index: ItemIndex, wanted: Rows, exclude: Rows, n_threads: int | None = None
) -> Counts:
    """Count, for some items of each query, how many others score higher, on the host; see the reference."""
    return cpu.count_better(queries, cpu.index_items(index.factors, False), wanted, exclude, n_threads)


def rank_figures(indices: Int32Array, k: int, wanted: Pairs, n_threads: int | None = None) -> Float64Array:
    """Measure, for every query, how well the first k items found agree with those wanted, on the host."""
    return cpu.rank_figures(indices, k, wanted, n_threads)


def _answer(
    queries: Float32Array,
    index: ItemIndex,
    exclude: Rows,
    start: int,
    n: int,
    n_parts: int,
    top: TopK,
    proven: BoolArray,
) -> tuple[int, int, int]:
    """Answer the n queries from ``start`` on as far as it can be proven; returns what `Scan` has."""
    k, width, rows = top.scores.shape[1], padded_width(queries.shape[1]), slice(start, start + n)
    n_kept, capacity = k + MARGIN, _capacity(k)
    catalogue = Catalogue(index.floats, index.norms, index.order)
    questions = _put_questions(queries[rows], exclude, start)
    buffers = Buffers(
        zeros(n * n_parts * capacity, np.float32),
        zeros(n * n_parts * capacity, np.int32),
        zeros(n * n_parts, np.int32),
        zeros(n * n_parts, np.float32),
    )
    best = Best(zeros(n * k, np.float32), zeros(n * k, np.int32), zeros(n, np.int32))
    n_tiles = -(-n // SHAPE.n_queries)
    n_screened = zeros(n_tiles * n_parts, np.int32)
    screen = make_screen(width, SHAPE)
    screen[(n_tiles, n_parts), SHAPE.n_threads](catalogue, questions, buffers, capacity, n_kept, n_screened)
    if n_parts > 1:
        make_merge(THREADS)[-(-n // (THREADS // WARP)), THREADS](buffers, n, n_parts, capacity, n_kept)
    rescore = make_rescore(width, max(64, 1 << (n_kept - 1).bit_length()), THREADS)
    longest = float(index.terms[0, 0])
    rescore[n, THREADS](catalogue, questions, buffers, n_parts * capacity, n_parts, k, longest, best)
    top.scores[rows], top.indices[rows] = fetch(best.scores).reshape(n, k), fetch(best.items).reshape(n, k)
    proven[rows] = fetch(best.proven) != 0
    n_scored = int(fetch(buffers.counts)[::n_parts].sum(dtype=np.int64))
    return (*_count_tiles(fetch(n_screened).reshape(n_tiles, n_parts), n, len(index.factors)), n_scored)


def _put_questions(queries: Float32Array, exclude: Rows, start: int) -> Questions:
    width, n = padded_width(queries.shape[1]), len(queries)
    indptr = exclude.indptr[start : start + n + 1]
    excluded = exclude.indices[indptr[0] : indptr[-1]]
    # An array that is empty has no place on the device.
    held = put(excluded if len(excluded) else np.full(1, -1, np.int32))
    questions = Questions(put_rows(queries), zeros(n, np.float32), put(indptr - indptr[0]), held)
    groups = THREADS // make_group(width).size
    make_measure(width, THREADS)[-(-n // groups), THREADS](questions.factors, questions.norms)
    return questions


def _count_tiles(n_screened: Int32Array, n_queries: int, n_items: int) -> tuple[int, int]:
    """Return how many tiles of a `Scan` were screened, and how many skipped; whole ones, where the last is not."""
    rows, columns = _TILE_OF_SCAN
    last = n_queries - (len(n_screened) - 1) * SHAPE.n_queries
    of_queries = np.full(len(n_screened), -(-SHAPE.n_queries // rows))
    of_queries[-1] = -(-last // rows)
    of_items = -(-np.minimum(n_screened.sum(axis=1, dtype=np.int64) * SHAPE.n_items, n_items) // columns)
    total, screened = int(of_queries.sum()) * -(-n_items // columns), int(of_queries @ of_items)
    return screened, total - screened


def _batch(n_queries: int, index: ItemIndex, k: int) -> tuple[int, int]:
    """Return how many queries to answer together, and into how many parts to divide the catalogue for them."""
    n_tiles, n_blocks = -(-n_queries // SHAPE.n_queries), _BLOCKS * _n_multiprocessors()
    n_parts = max(1, min(n_blocks // n_tiles, -(-len(index.factors) // (SHAPE.n_items * _TILES_OF_A_PART))))
    bytes_of_a_query = 8 * n_parts * _capacity(k) + 4 * padded_width(index.factors.shape[1]) + 8 * k + 32
    by_memory = _free_memory() / 2 / bytes_of_a_query / SHAPE.n_queries
    return min(n_queries, SHAPE.n_queries * int(max(1, min(_TIMES * n_blocks, by_memory)))), n_parts


def _capacity(k: int) -> int:
    return k + MARGIN + max(ROOM, SHAPE.n_items)


def _n_multiprocessors() -> int:
    return 1 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def _free_memory() -> float:
    """Return how many bytes can still be had, what CuPy's pool holds and does not use included."""
    free = float(cuda.current_context().get_memory_info().free)
    if SIMULATED:
        return free
    import cupy

    return free + float(cupy.get_default_memory_pool().free_bytes())


def _require_memory(items: Float32Array) -> None:
    needed, free = 4 * len(items) * (padded_width(items.shape[1]) + 2), _free_memory()
    if needed > free:
        raise MemoryError(
            f"{len(items)} items of {items.shape[1]} factors take {needed / 2**30:.1f} GiB on the GPU, of which "
            f'{free / 2**30:.1f} GiB are free; expected a smaller catalogue, or backend "cpu"'
        )


def _on_the_host(index: ItemIndex, n_queries: int) -> ItemIndex:
    if n_queries <= _FEW or not len(index.norms):
        return without_layout(index.factors)
    return cpu.index_items(index.factors, index.pruning)


def _answer_on_the_host(
    queries: Float32Array, index: ItemIndex, exclude: Rows, left: Int64Array, top: TopK, n_threads: int | None
) -> Scan:
    """Answer the queries that are left."""
    starts, stops = exclude.indptr[left], exclude.indptr[left + 1]
    rows = [exclude.indices[low:high] for low, high in zip(starts, stops, strict=True)]
    own = Rows(np.append(0, np.cumsum(stops - starts)), np.concatenate(rows))
    found = cpu.top_k(queries[left], _on_the_host(index, len(left)), top.scores.shape[1], own, n_threads)
    top.scores[left], top.indices[left] = found.top
    return found.scan
