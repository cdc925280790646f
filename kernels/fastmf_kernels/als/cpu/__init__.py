"""ALS half sweeps on all cores; the contract is that of `fastmf_kernels.als.reference`.

Rows are independent. They are cut into tasks in a way that does not depend on the number of threads, so the results do
not either. A row too long for one task is cut into parts; each part makes a normal matrix of its own entries. BLAS is
not used, because its threads would compete with these. NumPy solves the few rows whose matrix is singular afterwards.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastmf_kernels._jit import kernel, run_tasks
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import EXACTLY, HalfSweep, Solver, Table, longest_row
from fastmf_kernels.als.cpu import cg, cholesky, nonnegative, subspace
from fastmf_kernels.als.cpu.balance import cut_into_tasks
from fastmf_kernels.als.cpu.basis import rotate_rows, to_eigenbasis
from fastmf_kernels.als.cpu.rows import (
    BATCH,
    PaneledSweep,
    Scratch,
    Solution,
    add_part,
    in_panels,
    make_part,
    make_scratch,
    start_long_row,
)
from fastmf_kernels.als.reference import as_terms as as_terms
from fastmf_kernels.als.reference import solve_row
from fastmf_kernels.als.reference import split_biases as split_biases
from fastmf_kernels.als.reference import squared_norms as squared_norms
from fastmf_kernels.als.reference import to_device as to_device
from fastmf_kernels.als.reference import to_host as to_host
from fastmf_kernels.linalg.cpu import add_gram, n_panels_for
from fastmf_kernels.linalg.panels import WIDTH

# Rows whose products are added up in float32.
_ROWS_OF_A_CHUNK = 4096


def gram(factors: Table, n_threads: int | None = None) -> Float64Array:
    """Return FᵀF; see the reference. Chunks of rows are multiplied in float32 and added up in float64."""
    n_rows, n_factors = factors.shape
    n_panels = n_panels_for(n_factors)
    n_chunks = -(-n_rows // _ROWS_OF_A_CHUNK)
    partial = np.zeros((n_chunks, n_panels, n_panels * WIDTH, WIDTH), np.float32)

    def add_chunk(chunk: int, _: None) -> None:
        _add_chunk(factors[chunk * _ROWS_OF_A_CHUNK : (chunk + 1) * _ROWS_OF_A_CHUNK], partial[chunk])

    run_tasks(add_chunk, n_chunks, n_threads, lambda: None)
    total = partial.sum(axis=0, dtype=np.float64).transpose(1, 0, 2).reshape(n_panels * WIDTH, -1)
    upper = np.triu(total[:n_factors, :n_factors])
    return np.asarray(upper + np.triu(upper, 1).T)


@kernel
def _add_chunk(factors: Float32Array, matrix: Float32Array) -> None:
    n_rows, n_factors = factors.shape
    vectors = np.zeros((matrix.shape[0], BATCH, WIDTH), np.float32)
    for first in range(0, n_rows, BATCH):
        n = min(BATCH, n_rows - first)
        for t in range(n):
            for f in range(n_factors):
                vectors[f // WIDTH, t, f % WIDTH] = factors[first + t, f]
        add_gram(matrix, vectors, n)


class _Method(NamedTuple):
    """The kernels of a solver: for the rows of a chunk, and for a row whose equations have been made."""

    solve_chunk: Callable[[PaneledSweep, int, int, tuple[int, int], int, Scratch, Solution], None]
    solve_equations: Callable[[PaneledSweep, int, int, Scratch, Solution], None] = cholesky.solve_long_row
    keeps_vectors: bool = False


_METHODS = {
    "cholesky": _Method(cholesky.solve_chunk),
    "cg": _Method(cg.solve_chunk, keeps_vectors=True),
    "subspace": _Method(subspace.solve_chunk, keeps_vectors=True),
    "nonnegative": _Method(nonnegative.solve_chunk, nonnegative.solve_long_row),
}


def run_half_sweep(
    problem: HalfSweep, target_factors: Table, n_threads: int | None = None, solver: Solver = EXACTLY
) -> Float64Array:
    """Solve every row of one side; see the reference."""
    n_rows = len(target_factors)
    solution = Solution(target_factors, np.zeros(n_rows), np.zeros(n_rows, np.bool_))
    target_factors[np.diff(problem.rows.indptr) == 0] = 0
    ready = in_panels(problem)
    if not np.isfinite(problem.gram).all():
        target_factors[:] = np.nan  # the fixed side has diverged; LAPACK would raise an error of its own
        return solution.losses
    if solver.name in ("cg", "subspace") and problem.gram.any():
        basis = to_eigenbasis(ready, target_factors, n_threads)
        _run(ready, solver, solution, n_threads)
        rotate_rows(target_factors, basis.T, n_threads)
    else:
        _run(ready, solver, solution, n_threads)
    for u in np.flatnonzero(solution.singular):
        target_factors[u], solution.losses[u] = solve_row(problem, int(u))
    return solution.losses


def _run(problem: PaneledSweep, solver: Solver, solution: Solution, n_threads: int | None) -> None:
    """Solve all rows but the singular ones: those that fit a task, then those that were cut into parts."""
    method, exactly, n_factors = _METHODS[solver.name], _METHODS["cholesky"], problem.n_factors
    kept = longest_row(n_factors) if method.keeps_vectors else 0
    tasks = cut_into_tasks(problem.rows.indptr, n_factors, kept)
    parts = [make_scratch(n_factors) for _ in tasks.parts]
    longest = kept or tasks.longest
    has_longer = longest < np.diff(problem.rows.indptr).max(initial=0)

    def run_task(number: int, scratch: Scratch) -> None:
        if number < len(parts):
            _, start, stop = tasks.parts[number]
            make_part(problem, start, stop, parts[number])
        else:
            start, stop = tasks.chunks[number - len(parts)]
            method.solve_chunk(problem, start, stop, (1, longest), solver.setting, scratch, solution)
            if has_longer:
                exactly.solve_chunk(problem, start, stop, (longest + 1, tasks.longest), 0, scratch, solution)

    def make_space() -> Scratch:
        return make_scratch(n_factors, kept or BATCH)

    run_tasks(run_task, len(parts) + len(tasks.chunks), n_threads, make_space)
    for place, u in enumerate(tasks.long_rows):
        whole = make_scratch(n_factors)
        start_long_row(problem, u, whole)
        for number in np.flatnonzero(tasks.parts[:, 0] == place):
            add_part(whole, parts[number])
        method.solve_equations(problem, u, solver.setting, whole, solution)
