"""NumPy reference of an ALS half sweep: the specification of `fastmf_kernels.als.cpu`."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import EXACTLY, HalfSweep, Solver, Table, block_width, longest_row
from fastmf_kernels.linalg.reference import cutoff, solve_symmetric
from fastmf_kernels.predict.arrays import Factors


class _Equations(NamedTuple):
    """The normal equations Ax = b of a row, and the number of its entries."""

    matrix: Float64Array
    right_side: Float64Array
    n_entries: int


def to_device(factors: Float32Array, solver: Solver = EXACTLY) -> Table:
    """Return rows of factors where kernels work on them: on the CPU, and here, the same array.

    Parameters
    ----------
    factors : float32 array, shape (n_rows, n_factors), C order
    solver : Solver
        The solver of the half sweeps that will use the table.
    """
    return factors


def to_host(table: Table, factors: Float32Array) -> None:
    """Write a table to an array of its shape, which is the array that it was made of or another one."""
    if table is not factors:
        factors[:] = table


def split_biases(table: Table, unit: float) -> tuple[Table, Float32Array]:
    """Return rows [q, c] and offsets c·b of a table of rows [q, b]: what the other side is solved against.

    Since [p, b_u]·[q, c] = p·q + c·b_u, the target of a rating r is r - μ - c·b_i.

    Parameters
    ----------
    table : Table
    unit : float
        c: what biases in the table are measured in.

    Returns
    -------
    Table
        A copy.
    float32 array, shape (n_rows,)
        Where the table is.
    """
    fixed = table.copy()
    fixed[:, -1] = unit
    return fixed, table[:, -1] * np.float32(unit)


def squared_norms(factors: Table, n_threads: int | None = None) -> Float64Array:
    """Return ‖x‖² of each row, summed in float64."""
    return np.asarray(np.einsum("nf,nf->n", factors, factors, dtype=np.float64))


def as_terms(users: Table, items: Table, factors: Factors, unit: float) -> Factors:
    """Return the terms of the prediction that two tables stand for, as ``squared_error`` takes them.

    Parameters
    ----------
    users, items : Table
        Rows p and q; or [p, b_u] and [q, b_i], of one number more than rows of ``factors``.
    factors : Factors
        Overwritten, unless the tables are on a device.
    unit : float
        What biases in the tables are measured in.

    Returns
    -------
    Factors
        ``factors``, or on a device other terms of the same predictions.
    """
    n_factors = factors.user_factors.shape[1]
    for table, rows, biases in (
        (users, factors.user_factors, factors.user_biases),
        (items, factors.item_factors, factors.item_biases),
    ):
        if table is not rows:
            rows[:] = table[:, :n_factors]
        if table.shape[1] > n_factors:
            biases[:] = table[:, n_factors] * np.float32(unit)
    return factors


def gram(factors: Table, n_threads: int | None = None) -> Float64Array:
    """Return FᵀF, float64, shape (n_factors, n_factors)."""
    wide = factors.astype(np.float64)
    return np.asarray(wide.T @ wide)


def run_half_sweep(
    problem: HalfSweep, target_factors: Table, n_threads: int | None = None, solver: Solver = EXACTLY
) -> Float64Array:
    """Solve the least-squares problem of every row, or improve its solution.

    Parameters
    ----------
    problem : HalfSweep
    target_factors : Table
        Of n_rows rows. Overwritten. A row without observations becomes 0; one whose matrix is singular, or a block of
        it, gets the solution of minimum norm (or any solution, "nonnegative"). "cg" and "subspace" start from what is
        there. All become NaN where G is not finite.
    n_threads : int, optional
        Not used here.
    solver : Solver

    Returns
    -------
    float64 array, shape (n_rows,)
        xᵀAx - 2bᵀx of each row, with the new factors x and the row's equations Ax = b: the row's part of the objective,
        up to a constant.
    """
    losses = np.zeros(len(target_factors))
    if not np.isfinite(problem.gram).all():
        target_factors[:] = np.nan
        return losses
    basis = np.linalg.eigh(problem.gram.astype(np.float64))[1]
    for u in range(len(target_factors)):
        equations = _make_equations(problem, u)
        x = _solve(equations, target_factors[u].astype(np.float64), basis, solver)
        target_factors[u] = x
        losses[u] = x @ equations.matrix @ x - 2 * equations.right_side @ x
    return losses


def solve_row(problem: HalfSweep, u: int) -> tuple[Float64Array, float]:
    """Solve the least-squares problem of row ``u``: the solution of minimum norm, and its loss."""
    equations = _make_equations(problem, u)
    x = _solve_exactly(equations)
    return x, float(-equations.right_side @ x)


def _make_equations(problem: HalfSweep, u: int) -> _Equations:
    rows, weighting = problem.rows, problem.weighting
    entries = slice(rows.indptr[u], rows.indptr[u + 1])
    q = problem.fixed_factors[rows.indices[entries]].astype(np.float64)
    value = rows.values[entries].astype(np.float64)
    weight = weighting.weight + weighting.weight_slope * np.abs(value)
    target = np.where(value < weighting.disliked_below, 0, weighting.target + weighting.target_slope * value)
    target = target - problem.fixed_offsets[rows.indices[entries]]
    matrix = problem.gram + (q.T * weight) @ q + problem.regularization[u] * np.eye(q.shape[1])
    right_side = q.T @ target
    if len(problem.added):
        right_side = right_side + problem.added[u]
    return _Equations(matrix, right_side, len(q))


def _solve(equations: _Equations, x: Float64Array, basis: Float64Array, solver: Solver) -> Float64Array:
    if equations.n_entries == 0:
        return np.zeros_like(x)
    if solver.name == "nonnegative":
        return _solve_nonnegative(equations, solver.setting)
    if solver.name == "cholesky" or equations.n_entries > longest_row(len(x)):
        return _solve_exactly(equations)
    if solver.name == "cg":
        return _step_along_gradients(equations, x, solver.setting)
    return _solve_blocks(equations, x, basis, block_width(solver.setting))


def _solve_exactly(equations: _Equations) -> Float64Array:
    if equations.n_entries == 0:
        return np.zeros_like(equations.right_side)
    if not np.isfinite(equations.matrix).all():
        return np.full_like(equations.right_side, np.nan)
    return solve_symmetric(equations.matrix, equations.right_side)


def _step_along_gradients(equations: _Equations, x: Float64Array, n_steps: int) -> Float64Array:
    """Conjugate gradients (Hestenes, Stiefel, J. Res. Natl. Bur. Stand. 49(6), 1952).

    Stop where the matrix is numerically singular along the next direction.
    """
    residual = equations.right_side - equations.matrix @ x
    direction = residual
    largest = x @ equations.matrix @ x / (x @ x) if x.any() else 0.0
    for _ in range(n_steps):
        if not residual.any():
            break
        product = equations.matrix @ direction
        curvature = direction @ product
        largest = max(largest, curvature / (direction @ direction))
        if not curvature > cutoff(len(x)) * largest * (direction @ direction):
            break
        square = residual @ residual
        x = x + square / curvature * direction
        residual = residual - square / curvature * product
        direction = residual + residual @ residual / square * direction
    return x


def _solve_blocks(equations: _Equations, x: Float64Array, basis: Float64Array, width: int) -> Float64Array:
    """One pass over blocks of coordinates along the eigenvectors of G; exactly where a block is singular (iALS++)."""
    matrix, right_side = basis.T @ equations.matrix @ basis, basis.T @ equations.right_side
    x = basis.T @ x
    for start in range(0, len(x), width):
        block = slice(start, start + width)
        values = np.linalg.eigvalsh(matrix[block, block])
        if values[0] <= cutoff(len(values)) * values[-1]:
            return _solve_exactly(equations)
        x[block] += np.linalg.solve(matrix[block, block], right_side[block] - matrix[block] @ x)
    return np.asarray(basis @ x)


def _solve_nonnegative(equations: _Equations, n_free: int) -> Float64Array:
    """Minimise ‖Rx - R⁻ᵀb‖ with A = RᵀR, all but the last ``n_free`` coordinates of x at least 0."""
    from scipy.optimize import lsq_linear  # takes longer to import than all kernels

    values, vectors = np.linalg.eigh(equations.matrix)
    kept = values > cutoff(len(values)) * values[-1]
    if not kept.any():
        return np.zeros_like(equations.right_side)
    roots = np.sqrt(values[kept])
    factor = roots[:, None] * vectors[:, kept].T
    target = vectors[:, kept].T @ equations.right_side / roots
    lower = np.zeros(len(values))
    lower[len(values) - n_free :] = -np.inf
    return np.asarray(lsq_linear(factor, target, (lower, np.inf), method="bvls", tol=1e-12).x)
