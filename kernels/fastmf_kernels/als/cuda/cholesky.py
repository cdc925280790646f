"""Rows solved exactly on a GPU: a block of threads makes the normal equations of a row and factorises them.

The matrix stays in registers from its first entry to its last pivot: only the four columns that are being factorised,
and those that have been, are in shared memory. Right-looking (Golub, Van Loan, "Matrix Computations", 4th edition,
section 4.2.9): what four columns of L take from the rest of the matrix is four products v vᵀ, as of ratings.
"""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa, kernel
from fastmf_kernels._cuda.rows import VECTOR
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.als.cuda.blocks import (
    eliminate,
    factorise_block,
    keep,
    solve_row,
    substitute_block_back,
    take_block,
)
from fastmf_kernels.als.cuda.problem import DeviceSweep, Solution
from fastmf_kernels.als.cuda.tiles import chunk_of, make_accumulate, make_largest, make_tiles, tile_size

# A pivot this small is singular in any case: there is nothing to compare it with.
_SMALLEST_PIVOT = np.float32(1e-30)
_ZERO = np.float32(0)
_ALL_LANES = 0xFFFFFFFF


def n_threads_for(width: int, size: int | None = None) -> int:
    """Count the threads of a block."""
    return make_tiles(width, size or tile_size(width)).threads


def part_size(width: int) -> int:
    """Count the numbers that a part of a long row's equations takes in memory."""
    return n_threads_for(width) * tile_size(width) ** 2 + width


def _room(width: int, n_vectors: int) -> int:
    """Count the numbers in shared memory for so many vectors, and later for L, whose rows lie packed."""
    return max(n_vectors * width, width * (width + 1) // 2)


@functools.cache
def make_solve(width: int, dense: bool, size: int | None = None) -> Any:
    """Return the kernel that solves rows: a block of threads for each.

    Parameters
    ----------
    width : int
        At most 128.
    dense : bool
        Whether G is not 0.
    size : int, optional
        Width of a tile: 4 or 8.
    """
    size = size or tile_size(width)
    n_numbers, n_targets = size * size, 2 * chunk_of(width, size).size
    room = _room(width, n_targets)
    accumulate, finish = make_accumulate(width, size), _make_finish(width, size, dense)

    @kernel
    def solve(problem: DeviceSweep, rows: Int32Array, solution: Solution) -> None:
        memory = cuda.shared.array(room, np.float32, 16)
        targets = cuda.shared.array(n_targets, np.float32, 16)
        tile, u = cuda.local.array(n_numbers, np.float32), np.int64(rows[cuda.blockIdx.x])
        for e in range(n_numbers):
            tile[e] = _ZERO
        right = accumulate(problem, problem.indptr[u], problem.indptr[u + 1], tile, _ZERO, memory, targets)
        finish(problem, u, tile, right, memory, solution)

    return solve


@functools.cache
def make_part(width: int, size: int | None = None) -> Any:
    """Return the kernel that makes parts of long rows' equations: a block of threads for some of a row's entries."""
    size = size or tile_size(width)
    n_numbers, n_targets, threads = size * size, 2 * chunk_of(width, size).size, n_threads_for(width, size)
    accumulate, length, room = make_accumulate(width, size), n_numbers * threads + width, n_targets * width

    @kernel
    def part(problem: DeviceSweep, starts: Int64Array, stops: Int64Array, parts: Float32Array) -> None:
        memory = cuda.shared.array(room, np.float32, 16)
        targets = cuda.shared.array(n_targets, np.float32, 16)
        tile, block, thread = cuda.local.array(n_numbers, np.float32), cuda.blockIdx.x, cuda.threadIdx.x
        for e in range(n_numbers):
            tile[e] = _ZERO
        right = accumulate(problem, starts[block], stops[block], tile, _ZERO, memory, targets)
        first = np.int64(block) * length + thread
        for e in range(n_numbers):
            parts[np.uint64(first + e * threads)] = tile[e]
        if thread < width:
            parts[first + n_numbers * threads] = right

    return part


@functools.cache
def make_join(width: int, dense: bool, size: int | None = None) -> Any:
    """Return the kernel that adds up the parts of long rows, one after the other, and solves them."""
    size = size or tile_size(width)
    n_numbers, room, threads = size * size, _room(width, 0), n_threads_for(width, size)
    finish, length = _make_finish(width, size, dense), n_numbers * threads + width

    @kernel
    def join(
        problem: DeviceSweep, rows: Int32Array, offsets: Int64Array, parts: Float32Array, solution: Solution
    ) -> None:
        memory = cuda.shared.array(room, np.float32, 16)
        tile, right, thread = cuda.local.array(n_numbers, np.float32), _ZERO, cuda.threadIdx.x
        for e in range(n_numbers):
            tile[e] = _ZERO
        for number in range(offsets[cuda.blockIdx.x], offsets[cuda.blockIdx.x + 1]):
            first = number * length + thread
            for e in range(n_numbers):
                tile[e] += parts[np.uint64(first + e * threads)]
            if thread < width:
                right += parts[first + n_numbers * threads]
        finish(problem, np.int64(rows[cuda.blockIdx.x]), tile, right, memory, solution)

    return join


@functools.cache
def _make_finish(width: int, size: int, dense: bool) -> Any:
    complete, factorise = _make_complete(width, size, dense), make_factorise(width, size)
    substitute_back, n_columns, n_heads = make_substitute_back(width), VECTOR * width, 2 * VECTOR

    @device
    def finish(
        problem: DeviceSweep, u: int, tile: Float32Array, right: np.float32, factor: Float32Array, solution: Solution
    ) -> None:
        """Solve the equations of row u, of which what its entries add is there."""
        columns = cuda.shared.array(n_columns, np.float32, 16)
        factorised = cuda.shared.array(n_columns, np.float32, 16)
        heads = cuda.shared.array(n_heads, np.float32, 16)
        row = cuda.threadIdx.x
        largest = complete(problem, u, tile, columns)
        smallest = max(problem.cutoff * largest, _SMALLEST_PIVOT)
        y, is_regular = factorise(tile, right, columns, factorised, heads, factor, smallest)
        # xᵀAx - 2bᵀx = -bᵀx = -‖y‖², with Ly = b
        square = y * y if row < width else _ZERO
        distance = WARP // 2
        while distance > 0:
            square += cuda.shfl_xor_sync(_ALL_LANES, square, distance)
            distance //= 2
        if row % WARP == 0:
            heads[row // WARP] = square
        x = substitute_back(factor, columns, y)
        if row < width:
            solution.factors[u * width + row] = x
        if row == width - 1:
            total = heads[0]
            for warp in range(1, (width + WARP - 1) // WARP):
                total += heads[warp]
            solution.losses[u] = -total
            solution.singular[u] = not is_regular

    return finish


@functools.cache
def _make_complete(width: int, size: int, dense: bool) -> Any:
    own, largest_of, parts = make_tiles(width, size).own, make_largest(width), size // VECTOR

    @device
    def complete(problem: DeviceSweep, u: int, tile: Float32Array, diagonal: Float32Array) -> np.float32:
        """Add G + λI to the matrix; return the largest element of its diagonal, and put it where rows are padding."""
        i, j = own()
        if dense and j >= 0:
            for a in range(size):
                for part in range(parts):
                    four = isa.load4(problem.gram, (i * size + a) * width + j * size + part * VECTOR)
                    for e in range(VECTOR):
                        tile[a * size + part * VECTOR + e] += four[e]
        if i == j:
            for a in range(size):
                if i * size + a < problem.n_factors:
                    tile[a * size + a] += problem.regularization[u]
                diagonal[i * size + a] = tile[a * size + a]
        cuda.syncthreads()
        largest: np.float32 = largest_of(diagonal)
        if i == j:
            for a in range(size):
                if i * size + a >= problem.n_factors:
                    tile[a * size + a] = largest
        cuda.syncthreads()
        return largest

    return complete


@functools.cache
def make_factorise(width: int, size: int) -> Any:
    """Return what makes the factor L of a block of threads' own matrix, and solves Ly = b on the way."""
    tiles, parts = make_tiles(width, size), size // VECTOR
    across, own, place, subtract, stride = tiles.across, tiles.own, tiles.place, tiles.subtract, width // parts

    @device
    def factorise(
        tile: Float32Array,
        right: np.float32,
        columns: Float32Array,
        factorised: Float32Array,
        heads: Float32Array,
        factor: Float32Array,
        smallest: np.float32,
    ) -> tuple[np.float32, bool]:
        """Write L, with the reciprocals of its diagonal, to ``factor``; return the thread's number of y with Ly = b.

        Also whether all pivots are above ``smallest``, which the thread of the last row knows. Between the first
        barrier and the second threads read ``columns`` and ``heads``, and write ``factorised``; after it the other way
        round.
        """
        i, j = own()
        row, is_regular = cuda.threadIdx.x, True
        at = place(min(row, width - 1))
        for m in range(across):
            for part in range(parts):
                start = m * size + part * VECTOR
                if j == m:
                    for c in range(VECTOR):
                        for s in range(parts):
                            e = s * VECTOR * size + part * VECTOR + c
                            four = (tile[e], tile[e + size], tile[e + 2 * size], tile[e + 3 * size])
                            isa.store4(columns, c * width + s * stride + i * VECTOR, four)
                if start <= row < start + VECTOR:
                    heads[row - start] = right
                cuda.syncthreads()
                if start <= row < width:
                    block, are_regular = factorise_block(columns, part * stride + m * VECTOR, width, smallest)
                    is_regular = is_regular and are_regular
                    four = solve_row(block, columns, at, width)
                    right = eliminate(block, isa.load4(heads, 0), four, row - start, right)
                    for c in range(VECTOR):
                        factorised[c * width + at] = four[c]
                    keep(block, four, factor, row, start)
                cuda.syncthreads()
                if j >= m:
                    subtract(tile, factorised, factorised, 0, VECTOR, i, j)
        return right, is_regular

    return factorise


@functools.cache
def make_substitute_back(width: int) -> Any:
    """Return what solves Lᵀx = y."""

    @device
    def substitute_back(factor: Float32Array, solved: Float32Array, y: np.float32) -> np.float32:
        """Return the thread's number of x with Lᵀx = y: four unknowns at a time, the last ones first.

        Each four have places of their own in ``solved``, so that one barrier is enough for them.
        """
        row, start = cuda.threadIdx.x, width - VECTOR
        while start >= 0:
            if start <= row < start + VECTOR:
                solved[row] = y
            cuda.syncthreads()
            if row < start + VECTOR:
                x = substitute_block_back(factor, start, isa.load4(solved, start))
                y = take_block(factor, start, x, row, y)
            start -= VECTOR
        return y

    return substitute_back
