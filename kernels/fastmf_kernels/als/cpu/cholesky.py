"""Exact solution of rows: the normal matrix is formed and factorised."""

from fastmf_kernels._jit import device, kernel
from fastmf_kernels.als.cpu.rows import PaneledSweep, Scratch, Solution, dot, make_equations, store_row
from fastmf_kernels.linalg.cpu import cholesky, substitute


@kernel
def solve_chunk(
    problem: PaneledSweep, start: int, stop: int, sizes: tuple[int, int], _: int, scratch: Scratch, solution: Solution
) -> None:
    """Solve the rows ``start:stop`` whose number of entries lies between the two of ``sizes``."""
    indptr = problem.rows.indptr
    for u in range(start, stop):
        if sizes[0] <= indptr[u + 1] - indptr[u] <= sizes[1]:
            if make_equations(problem, u, scratch):
                _solve_equations(problem, u, scratch, solution)
            else:
                solution.singular[u] = True


@kernel
def solve_long_row(problem: PaneledSweep, u: int, _: int, scratch: Scratch, solution: Solution) -> None:
    """Solve a row whose equations have been made."""
    _solve_equations(problem, u, scratch, solution)


@device
def _solve_equations(problem: PaneledSweep, u: int, scratch: Scratch, solution: Solution) -> None:
    x, right_side = scratch.x, scratch.right_side
    for f in range(x.size):
        x[f] = right_side[f]
    if cholesky(scratch.matrix, problem.n_factors):
        substitute(scratch.matrix, x, scratch.work[0])
        store_row(problem, u, -float(dot(x, right_side)), scratch, solution)
    else:
        solution.singular[u] = True
