"""Rows improved block by block on a GPU: iALS++; G is diagonal.

Rendle, Krichene, Zhang, Koren, "iALS++: Speeding up Matrix Factorization with Subspace Optimization", 2021
(arXiv:2110.14044). As in the paper, and not as on the CPU, all rows are improved along one block of coordinates before
the next: only these columns of the fixed factors are read meanwhile, of which more are in the cache. The errors
t̃ - q̃·x of entries are in memory all the time.

A block of threads works on one row; a row whose columns do not fit into shared memory gets more threads. Its columns
are loaded in chunks, and the last chunk is still in shared memory when the errors are updated.
"""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device, isa, kernel
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.als.cuda.cholesky import make_factorise, make_substitute_back
from fastmf_kernels.als.cuda.equations import (
    TILE,
    RowWorkers,
    make_accumulate,
    make_add_up,
    make_added,
    make_complete,
    make_share,
    make_stage,
    slices_of,
)
from fastmf_kernels.als.cuda.problem import DeviceSweep, Solution, scaled_target, weigh
from fastmf_kernels.als.cuda.sharing import make_gather, make_products

# The host solves wider rows, and blocks of other widths.
WIDEST, BLOCKS = 512, (16, 32, 64)
# Errors that are in memory at the same time, unless one row has more.
MOST_ERRORS = 1 << 26
# Threads of a block, by how many coordinates are solved at a time.
_THREADS_OF_SHORT_ROWS, _THREADS_OF_LONG_ROWS = {16: 64, 32: 64, 64: 160}, {16: 256, 32: 256, 64: 288}
_ALL_LANES = 0xFFFFFFFF
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)


def for_short_rows(block: int) -> RowWorkers:
    """Return the threads for short rows, and the entries in their shared memory, for blocks of some width."""
    return RowWorkers(_THREADS_OF_SHORT_ROWS[block], 2048 // block)


def for_long_rows(block: int) -> RowWorkers:
    """Return the same for longer rows."""
    return RowWorkers(_THREADS_OF_LONG_ROWS[block], 4096 // block)


@functools.cache
def make_begin(width: int, dense: bool, threads: int) -> Any:
    """Return the kernel that makes the errors of rows, and the losses of their present factors.

    Parameters
    ----------
    width : int
        At most `WIDEST`.
    dense : bool
        Whether G is not 0. It is diagonal.
    threads : int
        Of a block, which has a row.
    """
    size, chunks, number, lane_of, mask_of, _ = make_group(width)
    of_a_lane, batch, n_groups = VECTOR * chunks, max(1, min(VECTOR, 256 // width)), threads // size
    in_batch, n_sums, added = of_a_lane * batch, _n_sums(threads), make_added(width, dense)
    gather, products, add_up = make_gather(width), make_products(width, batch), _make_add_up_warps(threads // WARP)

    @kernel
    def begin(
        problem: DeviceSweep, rows: Int32Array, offsets: Int64Array, errors: Float32Array, solution: Solution
    ) -> None:
        sums = cuda.shared.array(n_sums, np.float32, 16)
        x, q = cuda.local.array(of_a_lane, np.float32), cuda.local.array(in_batch, np.float32)
        scores, loss = cuda.local.array(batch, np.float32), _ZERO
        u, lane, mask = np.int64(rows[cuda.blockIdx.x]), lane_of(), mask_of()
        for chunk in range(chunks):
            first = VECTOR * (chunk * size + lane)
            four = isa.load4(solution.factors, u * width + first)
            for i in range(VECTOR):
                x[VECTOR * chunk + i] = four[i]
                if number() == 0:
                    loss += added(problem, u, first + i) * four[i] * four[i]
        start, stop = problem.indptr[u], problem.indptr[u + 1]
        to, entry = offsets[cuda.blockIdx.x] - start, start + number()
        while entry < stop:
            for e in range(batch):
                gather(problem, entry + e * n_groups, stop, q, e * of_a_lane, lane)
            products(q, x, scores, mask)
            for e in range(batch):
                at = entry + e * n_groups
                if lane == 0 and at < stop:
                    target = scaled_target(problem, at, weigh(problem, at)[1])
                    errors[to + at] = target - scores[e]
                    loss += scores[e] * (scores[e] - _TWO * target)  # of ‖t̃ - q̃·x‖²
            entry += batch * n_groups
        total = add_up(loss, sums)
        if cuda.threadIdx.x == 0:
            solution.losses[u], solution.singular[u] = total, False

    return begin


def _n_sums(threads: int) -> int:
    """Count the numbers that warps add up: the compiler reads four at a time, also where there are three."""
    return -(-threads // (WARP * VECTOR)) * VECTOR


@functools.cache
def _make_add_up_warps(n_warps: int) -> Any:
    @device
    def add_up(number: np.float32, sums: Float32Array) -> np.float32:
        """Add up a number of each thread of a block, in the same order in each of them."""
        distance = WARP // 2
        while distance > 0:
            number += cuda.shfl_xor_sync(_ALL_LANES, number, distance)
            distance //= 2
        if cuda.threadIdx.x % WARP == 0:
            sums[cuda.threadIdx.x // WARP] = number
        cuda.syncthreads()
        total: np.float32 = sums[0]
        for warp in range(1, n_warps):
            total += sums[warp]
        return total

    return add_up


@functools.cache
def make_improve(width: int, block: int, dense: bool, workers: RowWorkers) -> Any:
    """Return the kernel that improves rows along a block of coordinates: a block of threads for each.

    Parameters
    ----------
    width : int
        At most `WIDEST`.
    block : int
        Coordinates that are solved at a time; a divisor of the width.
    dense : bool
        Whether G is not 0. It is diagonal.
    workers : RowWorkers
    """
    n_vectors, n_sums, n_shared = (
        workers.n_kept * block,
        workers.threads // WARP * block,
        slices_of(block, workers).n_shared,
    )
    n_columns, n_heads, n_numbers = VECTOR * block, 2 * VECTOR, TILE * TILE
    make_equations, update = _make_equations(width, block, workers), _make_update(width, block, workers)
    complete, add_up = make_complete(width, block, dense, workers), _make_add_up_warps(workers.threads // WARP)
    factorise, substitute_back = make_factorise(block, TILE), make_substitute_back(block)

    @kernel
    def improve(
        problem: DeviceSweep,
        rows: Int32Array,
        offsets: Int64Array,
        column: int,
        errors: Float32Array,
        solution: Solution,
    ) -> None:
        # Solve A_bb δ = (b - Ax)_b for the block from ``column`` on, and x_b += δ.
        vectors = cuda.shared.array(n_vectors, np.float32, 16)
        sums = cuda.shared.array(n_sums, np.float32, 16)
        memory = cuda.shared.array(n_shared, np.float32, 16)
        columns = cuda.shared.array(n_columns, np.float32, 16)
        factorised = cuda.shared.array(n_columns, np.float32, 16)
        heads = cuda.shared.array(n_heads, np.float32, 16)
        step = cuda.shared.array(block, np.float32, 16)
        tile, thread = cuda.local.array(n_numbers, np.float32), cuda.threadIdx.x
        u, base = np.int64(rows[cuda.blockIdx.x]), offsets[cuda.blockIdx.x]
        first = make_equations(problem, u, column, tile, vectors, sums, memory, errors, base)
        right, smallest = complete(problem, u, column, solution.factors, tile, sums, step)
        y, is_regular = factorise(tile, right, columns, factorised, heads, memory, smallest)
        ahead = substitute_back(memory, columns, y)
        gain = _ZERO
        if thread < block:
            step[thread] = ahead
            solution.factors[u * width + column + thread] += ahead
            gain = ahead * right
        # Its barrier is also that of the step. Since complete has read the sums, there has been one.
        gain = add_up(gain, sums)
        if thread == block - 1:
            solution.losses[u] -= gain
            solution.singular[u] = solution.singular[u] or not is_regular
        update(problem, u, column, first, vectors, step, errors, base)

    return improve


def _make_equations(width: int, block: int, workers: RowWorkers) -> Any:
    n_kept, stage, accumulate = workers.n_kept, make_stage(width, block, workers), make_accumulate(block, workers)
    share, add_up, n_numbers = make_share(block, workers), make_add_up(block, workers), TILE * TILE

    @device
    def make_equations(
        problem: DeviceSweep,
        u: int,
        column: int,
        tile: Float32Array,
        vectors: Float32Array,
        sums: Float32Array,
        memory: Float32Array,
        errors: Float32Array,
        base: int,
    ) -> int:
        """Make what a row's entries add to the equations of a block; return the first entry whose columns are kept."""
        part = cuda.local.array(VECTOR, np.float32)
        for e in range(n_numbers):
            tile[e] = _ZERO
        for e in range(VECTOR):
            part[e] = _ZERO
        n, first = problem.indptr[u + 1] - problem.indptr[u], 0
        while True:
            n_staged = min(n_kept, n - first)
            stage(problem, u, column, first, n_staged, vectors, errors, base, part)
            cuda.syncthreads()
            accumulate(tile, vectors, n_staged)
            if first + n_kept >= n:
                break
            first += n_kept
            cuda.syncthreads()
        share(part, sums)
        add_up(tile, memory)
        return first

    return make_equations


def _make_update(width: int, block: int, workers: RowWorkers) -> Any:
    size, _, number, lane_of, mask_of, total = make_group(block)
    n_groups = workers.threads // size

    @device
    def update(
        problem: DeviceSweep,
        u: int,
        column: int,
        first: int,
        vectors: Float32Array,
        step: Float32Array,
        errors: Float32Array,
        base: int,
    ) -> None:
        """Subtract q̃·δ from a row's errors; the columns from entry ``first`` on are in shared memory."""
        lane, mask, start = lane_of(), mask_of(), problem.indptr[u]
        f, t, n = VECTOR * lane, number(), problem.indptr[u + 1] - start
        ahead = isa.load4(step, f)
        while t < n:
            if t >= first:
                q, root = isa.load4(vectors, (t - first) * block + f), _ONE
            else:
                row = np.int64(problem.indices[np.uint64(start + t)]) * width
                q, root = isa.load4(problem.fixed_factors, row + column + f), weigh(problem, start + t)[0]
            product = q[0] * ahead[0] + q[1] * ahead[1] + q[2] * ahead[2] + q[3] * ahead[3]
            product = total(product, mask)
            if lane == 0:
                errors[base + t] -= root * product
            t += n_groups

    return update
