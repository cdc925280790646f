"""NumPy reference of an ALS half sweep: the specification of `fastmf_kernels.als.cpu`."""

import numpy as np

from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import HalfSweep
from fastmf_kernels.linalg.reference import solve_symmetric


def gram(factors: Float32Array) -> Float32Array:
    """Return FᵀF, shape (n_factors, n_factors), accumulated in float64."""
    wide = factors.astype(np.float64)
    return np.asarray(wide.T @ wide, np.float32)


def run_half_sweep(problem: HalfSweep, target_factors: Float32Array, n_threads: int | None = None) -> None:
    """Replace every row of ``target_factors`` by the solution of its least-squares problem.

    Parameters
    ----------
    problem : HalfSweep
    target_factors : float32 array, shape (n_rows, n_factors)
        Overwritten. A row without observations becomes 0; a row whose matrix is singular gets the solution of
        minimum norm.
    n_threads : int, optional
        Not used here.
    """
    for u in range(len(target_factors)):
        target_factors[u] = solve_row(problem, u)


def solve_row(problem: HalfSweep, u: int) -> Float64Array:
    """Solve the least-squares problem of row ``u``; shape (n_factors,)."""
    rows, weighting = problem.rows, problem.weighting
    entries = slice(rows.indptr[u], rows.indptr[u + 1])
    q = problem.fixed_factors[rows.indices[entries]].astype(np.float64)
    if not len(q):
        return np.zeros(q.shape[1])
    value = rows.values[entries].astype(np.float64)
    weight = weighting.weight + weighting.weight_slope * value
    target = weighting.target + weighting.target_slope * value - problem.fixed_offsets[rows.indices[entries]]
    matrix = problem.gram + (q.T * weight) @ q + problem.regularization[u] * np.eye(q.shape[1])
    return solve_symmetric(matrix, q.T @ target)
