"""Block coordinate descent on rows (iALS++); G is diagonal.

Rendle, Krichene, Zhang, Koren, "iALS++: Speeding up Matrix Factorization with Subspace Optimization", 2021
(arXiv:2110.14044). The paper's outer loop is over blocks, and it stores the predictions of all entries. Rows are
independent, so here the outer loop is over rows: the predictions and vectors of a row stay in the cache.
"""

import numpy as np

from fastmf_kernels._jit import device, kernel
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.cpu.rows import (
    BATCH,
    PaneledSweep,
    Scratch,
    Solution,
    add_batch,
    dot,
    keep_row,
    multiply_batch,
    start_right_side,
    store_row,
)
from fastmf_kernels.linalg.cpu import cholesky, substitute
from fastmf_kernels.linalg.panels import WIDTH, add_product


@kernel
def solve_chunk(
    problem: PaneledSweep,
    start: int,
    stop: int,
    sizes: tuple[int, int],
    width: int,
    scratch: Scratch,
    solution: Solution,
) -> None:
    """Improve the rows ``start:stop`` whose number of entries lies between the two of ``sizes``."""
    indptr, panels = problem.rows.indptr, (width + WIDTH - 1) // WIDTH
    for u in range(start, stop):
        if sizes[0] <= indptr[u + 1] - indptr[u] <= sizes[1]:
            _improve_row(problem, u, panels, scratch, solution)


@device
def _improve_row(problem: PaneledSweep, u: int, panels: int, scratch: Scratch, solution: Solution) -> None:
    """Solve each block of ``panels`` panels once: A_bb δ = (b - Ax)_b, and x_b += δ."""
    x, diagonal, added, n_panels = scratch.x, scratch.work[0], scratch.work[3], scratch.vectors.shape[1]
    squares, products_with_targets = keep_row(problem, u, scratch, solution)
    start_right_side(problem, u, added)
    loss = squares - 2 * (products_with_targets + float(dot(x, added)))
    for f in range(x.size):
        diagonal[f] = problem.gram[f // WIDTH, f, f % WIDTH] + problem.regularization[u]
        loss += float(diagonal[f] * x[f] * x[f])
    for first in range(0, n_panels, panels):
        count = min(panels, n_panels - first)
        matrix = scratch.matrix.reshape(-1)[: count * count * WIDTH * WIDTH].reshape(count, count * WIDTH, WIDTH)
        right_side, step = scratch.right_side[: count * WIDTH], scratch.work[1][: count * WIDTH]
        _make_block(problem, u, first, matrix, right_side, scratch)
        for f in range(step.size):
            step[f] = right_side[f]
        if not cholesky(matrix, min(count * WIDTH, problem.n_factors - first * WIDTH)):
            solution.singular[u] = True
            return
        substitute(matrix, step, scratch.work[2])
        loss -= float(dot(step, right_side))  # an exact step lowers it by this
        _take_step(problem, u, first, step, scratch)
    store_row(problem, u, loss, scratch, solution)


@device
def _make_block(
    problem: PaneledSweep, u: int, first: int, matrix: Float32Array, right_side: Float32Array, scratch: Scratch
) -> None:
    """Make the equations of the panels from ``first`` on, as many as ``matrix`` has."""
    count, size, _ = matrix.shape
    x, diagonal, added, flat = scratch.x, scratch.work[0], scratch.work[3], matrix.reshape(-1)
    for i in range(flat.size):
        flat[i] = np.float32(0)
    for i in range(size):
        f = first * WIDTH + i
        matrix[i // WIDTH, i, i % WIDTH] = diagonal[f]
        right_side[i] = added[f] - diagonal[f] * x[f]
    n_entries = problem.rows.indptr[u + 1] - problem.rows.indptr[u]
    stride = BATCH * WIDTH
    for entry in range(0, n_entries, BATCH):
        vectors, errors = scratch.vectors[entry // BATCH], scratch.targets[entry // BATCH]
        n = min(BATCH, n_entries - entry)
        add_batch(vectors, first, n, errors, right_side)
        for q in range(count):
            for p in range(q + 1):
                place = (q * size + p * WIDTH) * WIDTH
                add_product(matrix, place, vectors, (first + p) * stride, vectors, (first + q) * stride, n)


@device
def _take_step(problem: PaneledSweep, u: int, first: int, step: Float32Array, scratch: Scratch) -> None:
    """Add ``step`` to the factors from panel ``first`` on, and update the errors."""
    x, products = scratch.x, scratch.products
    for f in range(step.size):
        x[first * WIDTH + f] += step[f]
    n_entries = problem.rows.indptr[u + 1] - problem.rows.indptr[u]
    for entry in range(0, n_entries, BATCH):
        n, errors = min(BATCH, n_entries - entry), scratch.targets[entry // BATCH]
        multiply_batch(scratch.vectors[entry // BATCH], first, n, step, products)
        for t in range(n):
            errors[t] -= products[t]
