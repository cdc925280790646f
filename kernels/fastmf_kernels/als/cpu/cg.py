"""Conjugate gradients on rows, without forming their normal matrix; G is diagonal."""

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
from fastmf_kernels.linalg.cpu import EPSILON
from fastmf_kernels.linalg.panels import WIDTH


@kernel
def solve_chunk(
    problem: PaneledSweep,
    start: int,
    stop: int,
    sizes: tuple[int, int],
    n_steps: int,
    scratch: Scratch,
    solution: Solution,
) -> None:
    """Improve the rows ``start:stop`` whose number of entries lies between the two of ``sizes``."""
    indptr, diagonal = problem.rows.indptr, scratch.work[3]
    for f in range(diagonal.size):
        diagonal[f] = problem.gram[f // WIDTH, f, f % WIDTH]
    for u in range(start, stop):
        if sizes[0] <= indptr[u + 1] - indptr[u] <= sizes[1]:
            _improve_row(problem, u, n_steps, scratch, solution)


@device
def _improve_row(problem: PaneledSweep, u: int, n_steps: int, scratch: Scratch, solution: Solution) -> None:
    """Take steps from the present factors (Hestenes, Stiefel, J. Res. Natl. Bur. Stand. 49(6), 1952).

    A product with the matrix is computed from the row's vectors, one after the other (Takács, Pilászy, Tikk,
    "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering", RecSys 2011).
    """
    x, residual, direction, product = scratch.x, scratch.work[0], scratch.work[1], scratch.work[2]
    squares, products_with_targets = keep_row(problem, u, scratch, solution)
    _multiply_all_cells(problem, u, scratch, x, product)
    squares += float(dot(x, product))  # xᵀAx
    start_right_side(problem, u, residual)
    loss = squares - 2 * (products_with_targets + float(dot(x, residual)))
    size = float(dot(x, x))
    largest = squares / size if size > 0 else 0.0
    for f in range(x.size):
        residual[f] -= product[f]
    count = problem.rows.indptr[u + 1] - problem.rows.indptr[u]
    for first in range(0, count, BATCH):
        batch = first // BATCH
        add_batch(scratch.vectors[batch], 0, min(BATCH, count - first), scratch.targets[batch], residual)
    for f in range(x.size):
        direction[f] = residual[f]
    square = dot(residual, residual)
    for _ in range(n_steps):
        if not square > 0:
            break
        _multiply(problem, u, direction, scratch, product)
        curvature = dot(direction, product)
        # Along a direction in which the matrix is singular, a step would follow rounding errors.
        flatness = float(curvature) / float(dot(direction, direction))
        largest = max(largest, flatness)
        if not flatness > problem.n_factors * EPSILON * largest:
            break
        step = square / curvature
        loss -= float(step) * float(square)  # a step along a conjugate direction lowers it by this
        for f in range(x.size):
            x[f] += step * direction[f]
            residual[f] -= step * product[f]
        after = dot(residual, residual)
        for f in range(x.size):
            direction[f] = residual[f] + after / square * direction[f]
        square = after
    store_row(problem, u, loss, scratch, solution)


@device
def _multiply(problem: PaneledSweep, u: int, x: Float32Array, scratch: Scratch, y: Float32Array) -> None:
    """Set y = (G + λ_u I)x + Σ q̃(q̃·x)."""
    _multiply_all_cells(problem, u, scratch, x, y)
    count, products = problem.rows.indptr[u + 1] - problem.rows.indptr[u], scratch.products
    for first in range(0, count, BATCH):
        vectors, n = scratch.vectors[first // BATCH], min(BATCH, count - first)
        multiply_batch(vectors, 0, n, x, products)
        add_batch(vectors, 0, n, products, y)


@device
def _multiply_all_cells(problem: PaneledSweep, u: int, scratch: Scratch, x: Float32Array, y: Float32Array) -> None:
    """Set y = (G + λ_u I)x, with G diagonal."""
    diagonal, strength = scratch.work[3], problem.regularization[u]
    for f in range(x.size):
        y[f] = (diagonal[f] + strength) * x[f]
