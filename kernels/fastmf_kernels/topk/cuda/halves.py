"""The screen of top-k on a GPU by tensor cores: float16 factors, sums in float32; and how far its scores may be off.

Factors are scaled by powers of two so that the screen's numbers P = 2ᵃp and Q = 2ᵇq are no longer than 2¹⁵: none
overflows. There is an ``a`` for each query, and one ``b`` for all items, of the longest. Scores on the screen, and the
thresholds that come of them, are 2ᵃ⁺ᵇ times too large.

*Rounding.* A number of float16 is off by at most u|Pᵢ| + η, u = 2⁻¹¹, η = 2⁻²⁵, the latter where it is denormal; tensor
cores take such numbers as they are. So P̂ = P + δ with ‖δ‖ ≤ u‖P‖ + η√n, and ‖P̂‖ ≤ α = (1 + u)‖P‖ + η√n. With
β for Q in the same way, Cauchy and Schwarz have

    |P̂·Q̂ - P·Q| ≤ ‖δ‖‖Q‖ + ‖P‖‖ε‖ + ‖δ‖‖ε‖ ≤ αβ - ‖P‖‖Q‖.

*Sums.* Products of float16 numbers are exact in float32. A tensor core adds m ≥ 4 of them and the sum so far at a time:
it aligns all to the largest, cuts each below the last of 24 bits, and the sum again (Fasi, Higham, Mikaitis, Pranesh,
"Numerical behavior of NVIDIA tensor cores", 2021; NVIDIA says nothing of it). Each cut loses at most 2⁻²³Σ|P̂ᵢQ̂ᵢ|, and
there are m + 2 of them n/m times: together no more than 1.5 n 2⁻²³ of it. Twice n 2⁻²³ is taken, γ = n 2⁻²²: once more
by Cauchy and Schwarz, γαβ.

Together a score is off by no more than (1 + γ)αβ - ‖P‖‖Q‖, which rises with both lengths: the query's own and that of
the longest item. What was dropped is not above T plus that; so much is put on the thresholds before `rescore.py` sees
them, which does not know by what they were found.
"""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa, kernel
from fastmf_kernels._cuda.memory import DeviceArray, zeros
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.topk.cuda.arrays import Buffers, Queries, WarpShape
from fastmf_kernels.topk.cuda.screen import make_append, make_search

SIDE = 16
"""Factors that an instruction multiplies at a time, and queries; items are half as many."""

# Words between rows in shared memory: the eight rows of a matrix, of 4 words each, then are in 32 different banks.
_GAP = VECTOR
_HALF = SIDE // 2
# Lanes that share a row of a matrix.
_LANES = 4
_ZERO, _NONE = np.float32(0), np.float32(-np.inf)
# A float32 number is 2ᵉ⁻¹²⁷ or more, e its bits from the 23rd on; what is longer than 2⁻⁵⁰ is scaled to 2¹⁴ or more.
_FIRST, _BITS, _BIAS, _HIGHEST, _MOST = 23, 0xFF, 127, 14, 64
_ONE, _UP, _LEAST = np.float64(1), np.float64(2.0**-22), np.float64(2.0**-149)
# What float64 itself rounds, of a difference that is at least 2⁻¹⁰ of its terms.
_MORE = np.float64(1 + 2**-20)


def width_in_halves(width: int) -> int:
    """Return how many numbers a row has as float16, of one that is padded to some width as float32."""
    return max(SIDE, width)


@device
def scale_of(length: np.float32) -> Any:
    """Return the power of two that makes a length one of 2¹⁴ to 2¹⁵, or shorter if it is below 2⁻⁵⁰."""
    exponent: Any = ((np.float32(length).view(np.int32) >> _FIRST) & _BITS) - _BIAS
    return np.int32((min(_HIGHEST - exponent, _MOST) + _BIAS) << _FIRST).view(np.float32)


@functools.cache
def make_halve(width: int, n_threads: int) -> Any:
    """Return the kernel that writes rows as pairs of float16 numbers: a group of threads for each row.

    It scales each by its length; or all by one length, if there is one only, of the longest.
    """
    size, chunks, number, lane_of, _, _ = make_group(width)
    pitch = width_in_halves(width) // 2

    @kernel
    def halve(rows: Float32Array, lengths: Float32Array, halves: Int32Array) -> None:
        row, lane = np.int64(cuda.blockIdx.x * (n_threads // size) + number()), lane_of()
        if row < rows.size // width:
            scale = scale_of(lengths[row if row < lengths.size else 0])
            for chunk in range(chunks):
                four = VECTOR * (chunk * size + lane)
                p = isa.load4(rows, row * width + four)
                to = row * pitch + four // 2
                halves[to] = isa.pair_of_halves(p[0] * scale, p[1] * scale)
                halves[to + 1] = isa.pair_of_halves(p[2] * scale, p[3] * scale)

    return halve


def halve_rows(rows: DeviceArray, lengths: DeviceArray, width: int, n_threads: int) -> DeviceArray:
    """Return padded rows on the device as pairs of float16 numbers; see `make_halve`."""
    n_rows = rows.size // width
    halves = zeros(n_rows * width_in_halves(width) // 2, np.int32)
    groups = n_threads // make_group(width).size
    make_halve(width, n_threads)[-(-n_rows // groups), n_threads](rows, lengths, halves)
    return halves


@functools.cache
def make_scale(n_threads: int) -> Any:
    """Return the kernel that scales queries' lengths by both powers, for `screen.py` to multiply by an item's own."""

    @kernel
    def scale(norms: Float32Array, longest: np.float32, scaled: Float32Array) -> None:
        query = np.int64(cuda.blockIdx.x * n_threads + cuda.threadIdx.x)
        if query < norms.size:
            # Exact: powers of two, of 2⁻¹¹⁴ to 2⁶⁴, and a length that is below 2¹⁵ after the first.
            scaled[query] = norms[query] * scale_of(norms[query]) * scale_of(longest)

    return scale


def halve_queries(batch: Queries, longest: np.float32, width: int, n_threads: int) -> Queries:
    """Return queries as the screen wants them."""
    n_queries = batch.norms.size
    scaled = zeros(n_queries, np.float32)
    make_scale(n_threads)[-(-n_queries // n_threads), n_threads](batch.norms, longest, scaled)
    halves = halve_rows(batch.factors, batch.norms, width, n_threads)
    return Queries(halves, scaled, batch.indptr, batch.excluded)


@functools.cache
def make_widen(width: int, n_threads: int) -> Any:
    """Return the kernel that makes true bounds of thresholds: what was dropped scores no more than this, exactly."""
    n = width_in_halves(width)
    growth = np.float64(1 + 2.0**-11)  # 1 + u
    lost = np.float64(2.0**-25 * (1 + 2**-20) * n**0.5)  # η√n
    sums = np.float64(1 + n * 2.0**-22)  # 1 + γ

    @kernel
    def widen(buffers: Buffers, norms: Float32Array, n_parts: int, longest: np.float32) -> None:
        query = np.int64(cuda.blockIdx.x * n_threads + cuda.threadIdx.x)
        if query < norms.size:
            threshold = buffers.thresholds[query * n_parts]
            if threshold > _NONE:
                of_query, of_item = np.float64(scale_of(norms[query])), np.float64(scale_of(longest))
                p, q = np.float64(norms[query]) * of_query, np.float64(longest) * of_item
                # (1 + γ)αβ - ‖P‖‖Q‖
                off = sums * (p * growth + lost) * (q * growth + lost) - p * q
                bound = (np.float64(threshold) + off * _MORE) * (_ONE / (of_query * of_item))
                buffers.thresholds[query * n_parts] = np.float32(bound + abs(bound) * _UP + _LEAST)

    return widen


@functools.cache
def make_screen(width: int, shape: WarpShape) -> Any:
    """Return the kernel that finds candidates by products in float16; see `screen.make_search`."""
    width = width_in_halves(width)
    depth, rows, columns, across = min(shape.depth, width), shape.rows, shape.columns, shape.across

    @device
    def row_of(i: int) -> Any:
        lane, warp = np.uint32(cuda.laneid), np.uint32(cuda.threadIdx.x) // WARP
        return warp // across * rows + i * _HALF + lane // _LANES

    @device
    def column_of(j: int) -> Any:
        lane, warp = np.uint32(cuda.laneid), np.uint32(cuda.threadIdx.x) // WARP
        return warp % across * columns + j // 2 * _HALF + lane % _LANES * 2 + j % 2

    append = make_append(rows // _HALF, columns // _LANES, row_of, column_of)
    for_queries, for_items = (2 * n * (depth // 2 + _GAP) for n in (shape.n_queries, shape.n_items))
    return make_search(shape, _make_multiply(width, depth, shape), append, np.int32, for_queries, for_items)


def _make_multiply(width: int, depth: int, shape: WarpShape) -> Any:
    n_slices, n_sums = width // depth, shape.rows * shape.columns // WARP
    copy_queries = _make_copy(width, depth, shape.n_queries, shape.n_threads)
    copy_items = _make_copy(width, depth, shape.n_items, shape.n_threads)
    accumulate = _make_accumulate(depth, shape)

    @device
    def multiply(
        queries: Int32Array,
        items: Int32Array,
        first: int,
        begin: int,
        of_queries: Int32Array,
        of_items: Int32Array,
        sums: Float32Array,
    ) -> None:
        """Multiply a tile of queries by a tile of items.

        A slice of factors is copied while the one before is worked on, to where the one before that was: it begins
        after the barrier that shows all to have left that, and to have their part of the next.
        """
        for i in range(n_sums):
            sums[i] = _ZERO
        copy_queries(queries, first, 0, of_queries)
        copy_items(items, begin, 0, of_items)
        # A bound that the compiler cannot know: addresses of a loop that it unrolls take 40 registers more.
        piece, stop = 0, min(n_slices, queries.size)
        while piece < stop:
            isa.await_copies()
            cuda.syncthreads()
            if piece + 1 < stop:
                copy_queries(queries, first, piece + 1, of_queries)
                copy_items(items, begin, piece + 1, of_items)
            accumulate(of_queries, of_items, piece & 1, sums)
            piece += 1

    return multiply


@functools.cache
def _make_copy(width: int, depth: int, n_rows_of_a_tile: int, n_threads: int) -> Any:
    """Return what begins to copy a slice of a tile's factors to shared memory, row after row."""
    n_quads, pitch, words = depth // (2 * VECTOR), depth // 2 + _GAP, width // 2
    n_copies = n_rows_of_a_tile * n_quads // n_threads

    @device
    def copy(table: Int32Array, first: int, piece: int, shared: Int32Array) -> None:
        """Copy rows from ``first`` on; beyond the last one, that one again."""
        last = table.size // words - 1
        for i in range(n_copies):
            at: Any = i * n_threads + np.uint32(cuda.threadIdx.x)
            row: Any = min(first + at // n_quads, last)
            to = ((piece & 1) * n_rows_of_a_tile + at // n_quads) * pitch + at % n_quads * VECTOR
            isa.copy4(shared, to, table, np.int64(row) * words + piece * (depth // 2) + at % n_quads * VECTOR)

    return copy


@functools.cache
def _make_accumulate(depth: int, shape: WarpShape) -> Any:
    rows, columns, across, pitch = shape.rows, shape.columns, shape.across, depth // 2 + _GAP
    n_down, n_across, n_rounds = rows // SIDE, columns // _HALF, depth // SIDE
    in_a_row = columns // _LANES  # scores of a thread
    half_of_queries, half_of_items = shape.n_queries * pitch, shape.n_items * pitch
    for_a, for_b = n_down * 4, n_across * 2

    @device
    def multiply(a: Int32Array, b: Int32Array, i: int, j: int, sums: Float32Array) -> None:
        """Add the products of 16 queries and 8 items."""
        upper, lower = 2 * i * in_a_row + 2 * j, (2 * i + 1) * in_a_row + 2 * j
        of_a, of_b = (a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3]), (b[2 * j], b[2 * j + 1])
        before = (sums[upper], sums[upper + 1], sums[lower], sums[lower + 1])
        after = isa.multiply_halves(of_a, of_b, before)
        sums[upper], sums[upper + 1], sums[lower], sums[lower + 1] = after

    @device
    def accumulate(of_queries: Int32Array, of_items: Int32Array, half: int, sums: Float32Array) -> None:
        """Add the products of a slice: sums[i, j] += Σ p[i] q[j]."""
        a, b = cuda.local.array(for_a, np.int32), cuda.local.array(for_b, np.int32)
        lane, warp = np.uint32(cuda.laneid), np.uint32(cuda.threadIdx.x) // WARP
        # Matrices of queries: down first, then across. Of items: across first.
        y = warp // across * rows + lane % SIDE
        x = warp % across * columns + lane % _HALF + lane // SIDE * _HALF
        y = half * half_of_queries + y * pitch + lane // SIDE * VECTOR
        x = half * half_of_items + x * pitch + lane // _HALF % 2 * VECTOR
        for _ in range(n_rounds):
            for i in range(n_down):
                four = isa.load_matrices(of_queries, y + i * (SIDE * pitch))
                a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3] = four
            for j in range(0, n_across, 2):
                four = isa.load_matrices(of_items, x + j * (_HALF * pitch))
                b[2 * j], b[2 * j + 1], b[2 * j + 2], b[2 * j + 3] = four
            for i in range(n_down):
                for j in range(n_across):
                    multiply(a, b, i, j, sums)
            y += SIDE // 2
            x += SIDE // 2

    return accumulate
