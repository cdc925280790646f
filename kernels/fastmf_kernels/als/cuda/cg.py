"""Rows improved by conjugate gradients on a GPU, without ever forming their normal matrix.

A group of threads holds a row's vectors x, r and d in registers, four numbers of each at a time. A short row has a
group to itself, and no barrier; on a longer one all groups of a block work together, each on its share of the entries
and of G, and add up their products. As many gathered vectors as shared memory has room for are kept there for all
steps; what does not fit is gathered again in each. Each thread reads only what it has written itself.

G is in shared memory while a block of threads goes through its rows, if it has at most 64 columns. Of 128 columns it
would fill 64 KiB, more than a kernel may have: it is then read through the caches, for every row and step.
"""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import cuda, device, isa, kernel
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.als.cuda.problem import DeviceSweep, Solution, scaled_target, weigh
from fastmf_kernels.als.cuda.sharing import (
    RowSharing,
    make_add_all_cells,
    make_dot,
    make_gather,
    make_products,
    make_share,
    plan_for,
)

# Wider rows than this do not fit into registers.
WIDEST = 512
# Blocks of threads that rows are shared out among: enough for any device, few enough to read G once for many rows.
MOST_BLOCKS = 1024
# For rows whose vectors fit into the shared memory of a group, and for longer ones.
ALONE, TOGETHER = RowSharing(128, False), RowSharing(256, True)
_ZERO = np.float32(0)


@functools.cache
def make_improve(width: int, dense: bool, sharing: RowSharing) -> Any:
    """Return the kernel that improves rows: blocks of threads take them in turn.

    Parameters
    ----------
    width : int
        At most `WIDEST`.
    dense : bool
        Whether G is not 0.
    sharing : RowSharing
    """
    number, threads, n_square = make_group(width).number, sharing.threads, width * width
    n_gram, n_sums, n_groups, n_helpers, n_kept, _ = plan_for(width, dense, sharing)
    # A shared array must have at least one number.
    n_vectors, n_gram_or_one, n_sums_or_one = max(1, n_kept * n_groups * width), max(1, n_gram), max(1, n_sums)
    rows_of_block, improve_row = n_groups // n_helpers, _make_improve_row(width, dense, sharing)

    @kernel
    def improve(problem: DeviceSweep, rows: Int32Array, n_steps: int, solution: Solution) -> None:
        vectors = cuda.shared.array(n_vectors, np.float32, 16)
        sums = cuda.shared.array(n_sums_or_one, np.float32, 16)
        shared_gram = cuda.shared.array(n_gram_or_one, np.float32, 16)
        gram = problem.gram
        if n_gram > 0:
            at = cuda.threadIdx.x * VECTOR
            while at < n_square:
                isa.store4(shared_gram, at, isa.load4(problem.gram, at))
                at += threads * VECTOR
            cuda.syncthreads()
            gram = shared_gram
        place = cuda.blockIdx.x * rows_of_block + number() // n_helpers
        while place < rows.size:
            improve_row(problem, np.int64(rows[place]), n_steps, gram, vectors, sums, solution)
            place += cuda.gridDim.x * rows_of_block

    return improve


def _make_improve_row(width: int, dense: bool, sharing: RowSharing) -> Any:
    size, chunks, number, lane_of, mask_of, _ = make_group(width)
    begin, multiply, dot = _make_begin(width, dense, sharing), _make_multiply(width, dense, sharing), make_dot(width)
    of_a_lane, together = VECTOR * chunks, sharing.together

    @device
    def improve_row(
        problem: DeviceSweep,
        u: int,
        n_steps: int,
        gram: Float32Array,
        vectors: Float32Array,
        sums: Float32Array,
        solution: Solution,
    ) -> None:
        """Take steps from the present factors (Hestenes, Stiefel, J. Res. Natl. Bur. Stand. 49(6), 1952)."""
        lane, mask = lane_of(), mask_of()
        x, right = cuda.local.array(of_a_lane, np.float32), cuda.local.array(of_a_lane, np.float32)
        residual, direction = cuda.local.array(of_a_lane, np.float32), cuda.local.array(of_a_lane, np.float32)
        product = cuda.local.array(of_a_lane, np.float32)
        for chunk in range(chunks):
            four = isa.load4(solution.factors, u * width + VECTOR * (chunk * size + lane))
            for i in range(VECTOR):
                x[VECTOR * chunk + i] = four[i]
        begin(problem, u, x, right, residual, gram, vectors, sums)
        square, length = dot(residual, residual, mask), dot(x, x, mask)
        largest = _ZERO
        if length > _ZERO:
            largest = (dot(x, right, mask) - dot(x, residual, mask)) / length  # xᵀAx / xᵀx
        for f in range(of_a_lane):
            direction[f] = residual[f]
        step = 0
        while step < n_steps and square > _ZERO:
            multiply(problem, u, direction, product, gram, vectors, sums)
            curvature, length = dot(direction, product, mask), dot(direction, direction, mask)
            # Along a direction in which the matrix is singular, a step would follow rounding errors.
            largest = max(largest, curvature / length)
            if not curvature > problem.cutoff * largest * length:
                break
            ahead = square / curvature
            for f in range(of_a_lane):
                x[f] += ahead * direction[f]
                residual[f] -= ahead * product[f]
            after = dot(residual, residual, mask)
            ratio = after / square
            for f in range(of_a_lane):
                direction[f] = residual[f] + ratio * direction[f]
            square = after
            step += 1
        loss = -dot(x, right, mask) - dot(x, residual, mask)  # xᵀAx - 2bᵀx, with r = b - Ax
        if not together or number() == 0:
            for chunk in range(chunks):
                at = VECTOR * chunk
                four = (x[at], x[at + 1], x[at + 2], x[at + 3])
                isa.store4(solution.factors, u * width + VECTOR * (chunk * size + lane), four)
            if lane == 0:
                solution.losses[u] = loss

    return improve_row


def _make_begin(width: int, dense: bool, sharing: RowSharing) -> Any:
    size, chunks, number, lane_of, mask_of, _ = make_group(width)
    _, _, _, n_helpers, n_kept, batch = plan_for(width, dense, sharing)
    gather, products, share = make_gather(width), make_products(width, batch), make_share(width, sharing)
    add_all_cells = make_add_all_cells(width, dense, sharing)
    of_a_lane = VECTOR * chunks
    in_batch = of_a_lane * batch

    @device
    def begin(
        problem: DeviceSweep,
        u: int,
        x: Float32Array,
        right: Float32Array,
        residual: Float32Array,
        gram: Float32Array,
        vectors: Float32Array,
        sums: Float32Array,
    ) -> None:
        """Gather a row: b = Σ t̃ q̃, and r = b - Ax."""
        lane, mask, first = lane_of(), mask_of(), number() * n_kept * width
        q, scores = cuda.local.array(in_batch, np.float32), cuda.local.array(batch, np.float32)
        for f in range(of_a_lane):
            right[f], residual[f] = _ZERO, _ZERO
        stop, t, entry = problem.indptr[u + 1], np.int32(0), problem.indptr[u] + number() % n_helpers
        while entry < stop:
            for e in range(batch):
                gather(problem, entry + e * n_helpers, stop, q, e * of_a_lane, lane)
            if t < n_kept:
                for e in range(batch):
                    for chunk in range(chunks):
                        f = e * of_a_lane + VECTOR * chunk
                        place = first + (t + e) * width + VECTOR * (chunk * size + lane)
                        isa.store4(vectors, place, (q[f], q[f + 1], q[f + 2], q[f + 3]))
            products(q, x, scores, mask)
            for e in range(batch):
                at = entry + e * n_helpers
                if at < stop:
                    target = scaled_target(problem, at, weigh(problem, at)[1])
                    for f in range(of_a_lane):
                        right[f] += target * q[e * of_a_lane + f]
                        residual[f] -= scores[e] * q[e * of_a_lane + f]
            t = np.int32(t + batch)
            entry += batch * n_helpers
        product = cuda.local.array(of_a_lane, np.float32)
        for f in range(of_a_lane):
            product[f] = _ZERO
        add_all_cells(x, product, gram, mask)
        for f in range(of_a_lane):
            residual[f] -= product[f]
        share(right, sums)
        share(residual, sums)
        for f in range(of_a_lane):
            residual[f] += right[f] - problem.regularization[u] * x[f]

    return begin


def _make_multiply(width: int, dense: bool, sharing: RowSharing) -> Any:
    size, chunks, number, lane_of, mask_of, _ = make_group(width)
    _, _, _, n_helpers, n_kept, batch = plan_for(width, dense, sharing)
    gather, products, share = make_gather(width), make_products(width, batch), make_share(width, sharing)
    add_all_cells = make_add_all_cells(width, dense, sharing)
    of_a_lane = VECTOR * chunks
    in_batch = of_a_lane * batch

    @device
    def multiply(
        problem: DeviceSweep,
        u: int,
        x: Float32Array,
        product: Float32Array,
        gram: Float32Array,
        vectors: Float32Array,
        sums: Float32Array,
    ) -> None:
        """Set product = (G + λI)x + Σ q̃(q̃·x)."""
        lane, mask, first = lane_of(), mask_of(), number() * n_kept * width
        q, scores = cuda.local.array(in_batch, np.float32), cuda.local.array(batch, np.float32)
        for f in range(of_a_lane):
            product[f] = _ZERO
        stop, t, entry = problem.indptr[u + 1], np.int32(0), problem.indptr[u] + number() % n_helpers
        while entry < stop:
            if t < n_kept:
                for e in range(batch):
                    for chunk in range(chunks):
                        four = isa.load4(vectors, first + (t + e) * width + VECTOR * (chunk * size + lane))
                        for i in range(VECTOR):
                            q[e * of_a_lane + VECTOR * chunk + i] = four[i]
            else:
                for e in range(batch):
                    gather(problem, entry + e * n_helpers, stop, q, e * of_a_lane, lane)
            products(q, x, scores, mask)
            for e in range(batch):
                for f in range(of_a_lane):
                    product[f] += scores[e] * q[e * of_a_lane + f]
            t = np.int32(t + batch)
            entry += batch * n_helpers
        add_all_cells(x, product, gram, mask)
        share(product, sums)
        for f in range(of_a_lane):
            product[f] += problem.regularization[u] * x[f]

    return multiply
