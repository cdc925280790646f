"""Nonnegative least squares for rows, by coordinate descent."""

import numpy as np

from fastmf_kernels._jit import device, kernel
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.cpu.rows import PaneledSweep, Scratch, Solution, dot, make_equations, store_row
from fastmf_kernels.linalg.cpu import fill_lower_half
from fastmf_kernels.linalg.panels import WIDTH

# A row is done when a pass over its coordinates lowers its loss by less than this share of what all passes did.
_TOLERANCE = 1e-12
_MAX_PASSES = 1000


@kernel
def solve_chunk(
    problem: PaneledSweep,
    start: int,
    stop: int,
    sizes: tuple[int, int],
    n_free: int,
    scratch: Scratch,
    solution: Solution,
) -> None:
    """Solve the rows ``start:stop`` whose number of entries lies between the two of ``sizes``."""
    indptr = problem.rows.indptr
    for u in range(start, stop):
        if sizes[0] <= indptr[u + 1] - indptr[u] <= sizes[1]:
            make_equations(problem, u, scratch)
            _solve_equations(problem, u, n_free, scratch, solution)


@kernel
def solve_long_row(problem: PaneledSweep, u: int, n_free: int, scratch: Scratch, solution: Solution) -> None:
    """Solve a row whose equations have been made."""
    _solve_equations(problem, u, n_free, scratch, solution)


@device
def _solve_equations(problem: PaneledSweep, u: int, n_free: int, scratch: Scratch, solution: Solution) -> None:
    """Minimise xᵀAx - 2bᵀx, all but the last ``n_free`` factors at least 0.

    Franc, Hlaváč, Navara, "Sequential Coordinate-Wise Algorithm for the Non-negative Least Squares Problem", CAIP 2005;
    from 0, so that the solution does not depend on what was there.
    """
    x, gradient = scratch.x, scratch.work[0]
    for f in range(x.size):
        x[f] = np.float32(0)
        gradient[f] = -scratch.right_side[f]  # Ax - b
    fill_lower_half(scratch.matrix)
    total = 0.0
    for _ in range(_MAX_PASSES):
        gain = _pass_over_coordinates(scratch.matrix, problem.n_factors, n_free, x, gradient)
        total += gain
        if gain <= _TOLERANCE * total:
            break
    store_row(problem, u, float(dot(x, gradient)) - float(dot(x, scratch.right_side)), scratch, solution)


@device
def _pass_over_coordinates(
    matrix: Float32Array, n_factors: int, n_free: int, x: Float32Array, gradient: Float32Array
) -> float:
    """Set each coordinate to its best value while the others stay; returns by how much the loss sank."""
    gain = 0.0
    for f in range(n_factors):
        curvature = matrix[f // WIDTH, f, f % WIDTH]
        if not curvature > 0:
            continue
        value = x[f] - gradient[f] / curvature
        if f < n_factors - n_free:
            value = max(value, np.float32(0))
        step = value - x[f]
        if step != 0:
            gain -= step * (np.float32(2) * gradient[f] + step * curvature)
            x[f] = value
            for q in range(matrix.shape[0]):
                for g in range(WIDTH):
                    gradient[q * WIDTH + g] += step * matrix[q, f, g]
    return gain
