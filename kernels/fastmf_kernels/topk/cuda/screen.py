"""The screen of top-k on a GPU: products, tile after tile, of which only what may be among the best stays.

A block of threads takes a tile of queries through the catalogue. Scores are in registers and meet the threshold of
their query there: what is above it is appended to the query's buffer. Before a buffer could overflow it is compacted
(`compact.py`), which raises the threshold. No score is ever written that is not a candidate.

Here products are taken in float32; `halves.py` takes them in float16.
"""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa, kernel
from fastmf_kernels._cuda.rows import VECTOR
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.topk.cuda.arrays import Buffers, Catalogue, Queries, Shape
from fastmf_kernels.topk.cuda.compact import drop_excluded, keep_best

_ALL = 0xFFFFFFFF
_ZERO, _NONE, _TOO_HIGH = np.float32(0), np.float32(-np.inf), np.float32(np.inf)
# Between rows of what is in shared memory, so that threads that write to neighbouring rows meet no bank twice.
_GAP = VECTOR


@device
def _thread() -> Any:
    """Return the thread's number: unsigned, for what is computed from it to be known as no negative index."""
    return np.uint32(cuda.threadIdx.x)


@functools.cache
def make_screen(width: int, shape: Shape) -> Any:
    """Return the kernel that finds candidates by products in float32; see `make_search`."""
    down, across = shape.down, shape.across

    @device
    def row_of(i: int) -> Any:
        return i // VECTOR * (VECTOR * down) + _thread() // across * VECTOR + i % VECTOR

    @device
    def column_of(j: int) -> Any:
        return j // VECTOR * (VECTOR * across) + _thread() % across * VECTOR + j % VECTOR

    append = make_append(shape.rows, shape.columns, row_of, column_of)
    for_queries, for_items = (2 * shape.depth * (n + _GAP) for n in (shape.n_queries, shape.n_items))
    return make_search(shape, _make_multiply(width, shape), append, np.float32, for_queries, for_items)


def make_search(shape: Shape, multiply: Any, append: Any, kind: Any, for_queries: int, for_items: int) -> Any:
    """Return the kernel that finds candidates: a block of threads for a tile of queries and a part of the catalogue.

    Of ``n`` parts the p-th has the tiles p, p + n, p + 2n, …: each begins with long vectors.

    Parameters
    ----------
    shape : Shape or WarpShape
    multiply, append : device functions
        What multiplies a tile of queries by a tile of items, and what appends the scores to buffers.
    kind : type
        Of the numbers that are in shared memory.
    for_queries, for_items : int
        How many of these numbers there are.
    """
    n_queries_of_a_tile, n_items_of_a_tile, n_mine = shape.n_queries, shape.n_items, shape.n_queries_of_a_warp
    n_threads, tidy = shape.n_threads, _make_tidy(shape)
    n_sums = n_queries_of_a_tile * n_items_of_a_tile // n_threads

    @kernel
    def screen(
        catalogue: Catalogue, batch: Queries, buffers: Buffers, capacity: int, n_kept: int, n_screened: Int32Array
    ) -> None:
        thresholds = cuda.shared.array(n_queries_of_a_tile, np.float32)
        counts = cuda.shared.array(n_queries_of_a_tile, np.int32)
        n_checked = cuda.shared.array(n_queries_of_a_tile, np.int32)
        of_queries = cuda.shared.array(for_queries, kind, 16)
        of_items = cuda.shared.array(for_items, kind, 16)
        sums = cuda.local.array(n_sums, np.float32)
        held = (thresholds, counts, n_checked)
        n_queries, n_items = batch.norms.size, catalogue.norms.size
        first, part, n_parts = cuda.blockIdx.x * n_queries_of_a_tile, cuda.blockIdx.y, cuda.gridDim.y
        q = cuda.threadIdx.x
        while q < n_queries_of_a_tile:
            thresholds[q] = _NONE if first + q < n_queries else _TOO_HIGH
            counts[q] = 0
            n_checked[q] = 0
            q += n_threads
        cuda.syncthreads()
        begin, n_tiles = part * n_items_of_a_tile, 0
        start = (np.int64(first) * n_parts + part) * capacity
        while begin < n_items:
            # The warp that compacts a query's buffer is alone with its state until the block meets.
            goes_on = tidy(held, catalogue, batch, buffers, capacity, n_kept, n_items_of_a_tile, begin)
            if not cuda.syncthreads_or(np.int32(goes_on)):
                break
            multiply(batch.factors, catalogue.factors, first, begin, of_queries, of_items, sums)
            append(sums, held, buffers, start, n_parts * capacity, begin, n_items)
            cuda.syncthreads()
            begin += n_parts * n_items_of_a_tile
            n_tiles += 1
        tidy(held, catalogue, batch, buffers, capacity, n_kept, capacity, 0)
        q = cuda.threadIdx.x // WARP * n_mine + cuda.laneid
        if cuda.laneid < n_mine and first + q < n_queries:
            slot = np.int64(first + q) * n_parts + part
            buffers.counts[slot] = counts[q]
            buffers.thresholds[slot] = thresholds[q]
        if cuda.threadIdx.x == 0:
            n_screened[cuda.blockIdx.x * n_parts + part] = n_tiles

    return screen


@functools.cache
def _make_tidy(shape: Shape) -> Any:
    n_mine, n_queries_of_a_tile = shape.n_queries_of_a_warp, shape.n_queries

    @device
    def tidy(
        held: Any,
        catalogue: Catalogue,
        batch: Queries,
        buffers: Buffers,
        capacity: int,
        n_kept: int,
        n_more: int,
        begin: int,
    ) -> bool:
        """Compact the buffers that ``n_more`` candidates could overflow, those of the warp's own queries.

        Returns whether any of these queries can find a candidate among the items from ``begin`` on.
        """
        thresholds, counts, n_checked = held
        own = cuda.threadIdx.x // WARP * n_mine
        count = counts[own + cuda.laneid] if cuda.laneid < n_mine else 0
        full = cuda.ballot_sync(_ALL, count > 0 and count + n_more > capacity)
        first, n_parts, part = cuda.blockIdx.x * n_queries_of_a_tile, cuda.gridDim.y, cuda.blockIdx.y
        i = 0
        while i < n_mine:
            if full >> i & 1:
                q, query = own + i, np.int64(first + own + i)
                start = (query * n_parts + part) * capacity
                low, high = batch.indptr[query], batch.indptr[query + 1]
                count = drop_excluded(
                    buffers, start, n_checked[q], counts[q], catalogue.order, batch.excluded, low, high
                )
                threshold = thresholds[q]
                if count > n_kept:
                    threshold = keep_best(buffers, start, count, n_kept, threshold)
                    count = n_kept
                cuda.syncwarp()
                if cuda.laneid == 0:
                    thresholds[q], counts[q], n_checked[q] = threshold, count, count
            i += 1
        cuda.syncwarp()
        query = first + own + cuda.laneid
        if cuda.laneid < n_mine and query < batch.norms.size:
            # |p·q| ≤ ‖p‖‖q‖; what is not a number is not known to be too low.
            return not batch.norms[query] * catalogue.norms[begin] <= thresholds[own + cuda.laneid]
        return False

    return tidy


def make_append(rows: int, columns: int, row_of: Any, column_of: Any) -> Any:
    """Return what appends scores of a tile, of which each thread has ``rows`` × ``columns``.

    Score (i, j) of a thread is that of query ``row_of(i)`` and item ``column_of(j)`` of the tile.
    """

    @device
    def append(
        sums: Float32Array, held: Any, buffers: Buffers, start: Any, pitch: int, begin: int, n_items: int
    ) -> None:
        """Append the scores of a tile that are above their query's threshold to its buffer."""
        thresholds, counts, _ = held
        for i in range(rows):
            q = row_of(i)
            threshold, above = thresholds[q], False
            for j in range(columns):
                above |= sums[i * columns + j] > threshold
            if above:
                for j in range(columns):
                    column = column_of(j)
                    if sums[i * columns + j] > threshold and begin + column < n_items:
                        at = np.uint64(start + q * pitch + cuda.atomic.add(counts, q, 1))
                        buffers.scores[at] = sums[i * columns + j]
                        buffers.places[at] = begin + column

    return append


def _make_multiply(width: int, shape: Shape) -> Any:
    across, depth, n_sums, n_slices = shape.across, shape.depth, shape.rows * shape.columns, width // shape.depth
    read_queries, write_queries = _make_slices(width, shape.n_queries, shape)
    read_items, write_items = _make_slices(width, shape.n_items, shape)
    from_queries, from_items = (depth * shape.n_queries // shape.n_threads, depth * shape.n_items // shape.n_threads)
    accumulate = _make_accumulate(shape)

    @device
    def multiply(
        queries: Float32Array,
        items: Float32Array,
        first: int,
        begin: int,
        of_queries: Float32Array,
        of_items: Float32Array,
        sums: Float32Array,
    ) -> None:
        """Multiply a tile of queries by a tile of items.

        A slice of factors is read while the one before is worked on. It goes where the one before that was, which all
        have left: there is one barrier to a slice.
        """
        ahead_of_queries = cuda.local.array(from_queries, np.float32)
        ahead_of_items = cuda.local.array(from_items, np.float32)
        y, x = _thread() // across * VECTOR, _thread() % across * VECTOR
        for i in range(n_sums):
            sums[i] = _ZERO
        read_queries(queries, first, 0, ahead_of_queries)
        read_items(items, begin, 0, ahead_of_items)
        write_queries(ahead_of_queries, of_queries, 0)
        write_items(ahead_of_items, of_items, 0)
        cuda.syncthreads()
        piece = 1
        while piece < n_slices:
            read_queries(queries, first, piece, ahead_of_queries)
            read_items(items, begin, piece, ahead_of_items)
            accumulate(of_queries, of_items, 1 - (piece & 1), y, x, sums)
            write_queries(ahead_of_queries, of_queries, piece & 1)
            write_items(ahead_of_items, of_items, piece & 1)
            cuda.syncthreads()
            piece += 1
        accumulate(of_queries, of_items, 1 - (n_slices & 1), y, x, sums)

    return multiply


@functools.cache
def _make_slices(width: int, n_rows_of_a_tile: int, shape: Shape) -> Any:
    """Return what reads a slice of a tile's factors into registers, and what writes it, factor after factor."""
    depth, n_threads = shape.depth, shape.n_threads
    n_quads, stride = depth // VECTOR, n_rows_of_a_tile + _GAP
    n_reads = n_rows_of_a_tile * n_quads // n_threads

    @device
    def read(table: Float32Array, first: int, piece: int, ahead: Float32Array) -> None:
        """Read rows from ``first`` on; beyond the last one, that one again."""
        last = table.size // width - 1
        for i in range(n_reads):
            at = i * n_threads + _thread()
            row = np.int64(min(first + at // n_quads, last))
            four = isa.load4(table, row * width + piece * depth + at % n_quads * VECTOR)
            for j in range(VECTOR):
                ahead[i * VECTOR + j] = four[j]

    @device
    def write(ahead: Float32Array, shared: Float32Array, half: int) -> None:
        for i in range(n_reads):
            at = i * n_threads + _thread()
            to = (half * depth + at % n_quads * VECTOR) * stride + at // n_quads
            for j in range(VECTOR):
                shared[to + j * stride] = ahead[i * VECTOR + j]

    return read, write


@functools.cache
def _make_accumulate(shape: Shape) -> Any:
    rows, columns, down, across, depth = shape
    stride_of_queries, stride_of_items = shape.n_queries + _GAP, shape.n_items + _GAP
    # Two factors at a time, so that there are few other instructions; four would take more than 128 registers.
    n_rounds = depth // 2

    @device
    def add(of_queries: Float32Array, of_items: Float32Array, y: int, x: int, sums: Float32Array) -> None:
        p, q = cuda.local.array(rows, np.float32), cuda.local.array(columns, np.float32)
        for i in range(0, rows, VECTOR):
            p[i], p[i + 1], p[i + 2], p[i + 3] = isa.load4(of_queries, y + i * down)
        for j in range(0, columns, VECTOR):
            q[j], q[j + 1], q[j + 2], q[j + 3] = isa.load4(of_items, x + j * across)
        for i in range(rows):
            for j in range(columns):
                sums[i * columns + j] += p[i] * q[j]

    @device
    def accumulate(
        of_queries: Float32Array, of_items: Float32Array, half: int, y: int, x: int, sums: Float32Array
    ) -> None:
        """Add the products of a slice: sums[i, j] += Σ p[i] q[j]."""
        y += half * (depth * stride_of_queries)
        x += half * (depth * stride_of_items)
        for _ in range(n_rounds):
            add(of_queries, of_items, y, x, sums)
            add(of_queries, of_items, y + stride_of_queries, x + stride_of_items, sums)
            y += 2 * stride_of_queries
            x += 2 * stride_of_items

    return accumulate
