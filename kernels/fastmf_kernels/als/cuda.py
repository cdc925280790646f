"""ALS half sweeps on a GPU; the contract is that of `fastmf_kernels.als.reference`.

"cholesky", up to 128 factors: a block of threads for each row, in `cuda_cholesky`. "cg", up to 512: in `cuda_cg`.
"subspace", up to 512, in blocks of 16, 32 or 64 coordinates, or all of up to 128: in `cuda_subspace`. The CPU solves
rows whose equations turn out to be singular, and all rows for "nonnegative", with more factors or with other blocks.
Results do not depend on how threads happen to run, nor on how much memory is free.

Observed values stay on the device between half sweeps, and must not be changed meanwhile (see `cuda_held`); factors go
there and come back in each.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._cuda.memory import DeviceArray, fetch, free_bytes, put, zeros
from fastmf_kernels._cuda.rows import fetch_rows, padded_width, put_rows
from fastmf_kernels._types import Float32Array, Float64Array, Int64Array
from fastmf_kernels.als import cpu, cuda_cg, cuda_cholesky, cuda_gram, cuda_held, cuda_subspace
from fastmf_kernels.als.arrays import EXACTLY, HalfSweep, Solver, Weighting, block_width, longest_row
from fastmf_kernels.als.cuda_basis import Basis, find_basis, turn
from fastmf_kernels.als.cuda_held import HeldRows
from fastmf_kernels.als.cuda_problem import Problem, Solution
from fastmf_kernels.als.cuda_teams import longest_alone, rows_at_once
from fastmf_kernels.als.reference import solve_row as solve_row
from fastmf_kernels.layout.arrays import CSR

_WIDEST_EXACT = 128
# Entries of the longest row that one block of threads solves. On one multiprocessor, a row of 80 000 entries would keep
# the others waiting. In equations of so many entries, errors of float32 sums do not add up either.
LONGEST_UNCUT = 4096
# Parts of long rows whose equations are in memory at the same time, unless one row has more.
_MOST_PARTS = 4096
_MOST_CHUNKS = 1024


class _Sweep(NamedTuple):
    """What the ranges of a half sweep have in common.

    Attributes
    ----------
    problem : HalfSweep
    width : int
    dense : bool
        Whether G is not 0.
    fixed_factors, fixed_offsets, gram : arrays on the device
    basis : Basis or None
        What fixed factors and G are turned into, and rows have to be.
    """

    problem: HalfSweep
    width: int
    dense: bool
    fixed_factors: DeviceArray
    fixed_offsets: DeviceArray
    gram: DeviceArray
    basis: Basis | None


def gram(factors: Float32Array, n_threads: int | None = None) -> Float64Array:
    """Return FᵀF; see the reference. Chunks of rows are multiplied in float32 and added up in float64."""
    n_factors = factors.shape[1]
    width = padded_width(n_factors)
    panels, numbers, chunk = cuda_gram.panels_for(width), width * width, cuda_gram.CHUNK
    total = zeros(numbers, np.float64)
    of_chunk = 4 * (chunk * width + numbers)
    step = chunk * max(1, min(_MOST_CHUNKS, free_bytes() // 2 // of_chunk))
    multiply, add_up = cuda_gram.make_multiply(width, panels, chunk), cuda_gram.make_add_up()
    for start in range(0, len(factors), step):
        rows = factors[start : start + step]
        n_chunks = -(-len(rows) // chunk)
        products = zeros(n_chunks * numbers, np.float32)
        across = width // panels.width
        multiply[(n_chunks, across, across), panels.threads](put_rows(rows), products)
        add_up[-(-numbers // cuda_gram.THREADS), cuda_gram.THREADS](products, total)
    return fetch(total).reshape(width, width)[:n_factors, :n_factors].copy()


def run_half_sweep(
    problem: HalfSweep, target_factors: Float32Array, n_threads: int | None = None, solver: Solver = EXACTLY
) -> Float64Array:
    """Solve every row of one side; see the reference."""
    n_factors = target_factors.shape[1]
    asked = solver
    if solver.name == "subspace" and block_width(solver.setting) >= n_factors:
        solver = EXACTLY  # one block of all coordinates
    width = _width(n_factors, solver)
    if width > _widest(solver):
        return cpu.run_half_sweep(problem, target_factors, n_threads, asked)
    losses = np.zeros(len(target_factors))
    if not np.isfinite(problem.gram).all():
        target_factors[:] = np.nan
        return losses
    target_factors[np.diff(problem.rows.indptr) == 0] = 0
    ranges = _find_ranges(problem, width, solver)
    sweep, left = _begin(problem, width, solver), np.zeros(len(losses), np.bool_)
    for start, stop in ranges:
        part = slice(start, stop)
        # No name for the rows on the device: they are gone before the next ones come.
        losses[part], left[part] = _run(
            sweep, _bring(problem.rows, start, stop), problem.regularization[part], target_factors[part], solver
        )
    _solve_on_host(problem, np.flatnonzero(left), target_factors, losses, n_threads)
    return losses


def _width(n_factors: int, solver: Solver) -> int:
    """Return how many numbers a row has on the device: 96 too, where that spares matrices half of their products.

    65 are common: 64 factors and a bias.
    """
    return 96 if solver.name == "cholesky" and 64 < n_factors <= 96 else padded_width(n_factors)


def _widest(solver: Solver) -> int:
    """Return how wide rows may be for a solver."""
    if solver.name == "subspace":
        return cuda_subspace.WIDEST if block_width(solver.setting) in cuda_subspace.BLOCKS else 0
    return {"cholesky": _WIDEST_EXACT, "cg": cuda_cg.WIDEST}.get(solver.name, 0)


def _find_ranges(problem: HalfSweep, width: int, solver: Solver) -> list[tuple[int, int]]:
    """Cut the rows into what there is memory for, beside tables and parts of long rows; one range, if possible."""
    indptr, held = problem.rows.indptr, cuda_held.is_held(problem.rows)
    longest = int(np.diff(indptr).max(initial=0))
    n_parts = max(_MOST_PARTS, -(-longest // LONGEST_UNCUT))
    n_parts = min(n_parts, int(indptr[-1]) // LONGEST_UNCUT * 2)
    parts = n_parts * cuda_cholesky.part_size(width) if width <= _WIDEST_EXACT else 0
    tables = 4 * (len(problem.fixed_factors) * (width + 1) + width * width + parts)
    if solver.name == "subspace":
        errors = max(longest, min(cuda_subspace.MOST_ERRORS, int(indptr[-1])))
        tables += 4 * (2 * width * width + errors) + 8 * len(indptr)
    try:
        ranges = cuda_held.cut_into_ranges(indptr, width, tables, free_bytes(), held)
    except MemoryError:
        ranges = []
    if len(ranges) == 1 or not len(indptr) > 1:
        return ranges
    cuda_held.release()
    return cuda_held.cut_into_ranges(indptr, width, tables, free_bytes())


def _bring(rows: CSR, start: int, stop: int) -> HeldRows:
    """Return rows on the device: all of them stay there, some of them do not."""
    if (start, stop) == (0, len(rows.indptr) - 1):
        return cuda_held.held_rows(rows)
    return cuda_held.put_rows_of(cuda_held.cut_out(rows, start, stop))


def _begin(problem: HalfSweep, width: int, solver: Solver) -> _Sweep:
    padding, dense, basis = width - problem.fixed_factors.shape[1], bool(problem.gram.any()), None
    fixed_factors, gram = put_rows(problem.fixed_factors, width=width), problem.gram
    if solver.name == "subspace" and dense:
        basis = find_basis(gram, width)
        gram = basis.gram
        turn(fixed_factors, basis.there, width)
    padded = put(np.pad(gram, ((0, padding), (0, padding))).ravel())
    return _Sweep(problem, width, dense, fixed_factors, put(problem.fixed_offsets), padded, basis)


def _run(
    sweep: _Sweep, held: HeldRows, regularization: Float32Array, factors: Float32Array, solver: Solver
) -> tuple[Float64Array, npt.NDArray[np.bool_]]:
    """Solve rows, all of which are on the device; return their losses, and which are left to the host."""
    n_rows, n_factors = factors.shape
    problem = Problem(
        held.indptr,
        held.indices,
        held.values,
        sweep.fixed_factors,
        sweep.fixed_offsets,
        sweep.gram,
        put(regularization),
        Weighting(*(np.float32(term) for term in sweep.problem.weighting)),
        n_factors,
        np.float32(n_factors * np.finfo(np.float32).eps),
    )
    improves = solver.name in ("cg", "subspace")
    kept = longest_row(n_factors) if improves else 0
    # Where a solver starts from nothing, nothing has to go there.
    new_factors = put_rows(factors, width=sweep.width) if improves else zeros(n_rows * sweep.width, np.float32)
    if sweep.basis is not None:
        turn(new_factors, sweep.basis.there, sweep.width)
    solution = Solution(new_factors, zeros(n_rows, np.float32), zeros(n_rows, np.bool_))
    first_short, end = _places(held.counts, [kept, 0])
    left = np.zeros(n_rows, np.bool_)
    if sweep.width <= _WIDEST_EXACT:
        _solve(sweep, problem, held, first_short, solution)
    else:
        left[held.rows[:first_short]] = True
    if improves:
        improve = _improve if solver.name == "cg" else _improve_blocks
        improve(sweep, problem, held, (first_short, end), solver.setting, solution)
    if sweep.basis is not None:
        turn(solution.factors, sweep.basis.back, sweep.width)
    fetch_rows(solution.factors, factors)
    return fetch(solution.losses).astype(np.float64), fetch(solution.singular) | left


def _places(counts: Int64Array, lengths: list[int]) -> list[int]:
    """Return where the rows of at most so many entries begin, among rows the longest of which comes first."""
    return [int(place) for place in np.searchsorted(-counts, np.negative(lengths), side="left")]


def _solve(sweep: _Sweep, problem: Problem, held: HeldRows, stop: int, solution: Solution) -> None:
    """Solve the longest rows, those before place ``stop``, exactly; the very long ones in parts."""
    width, dense = sweep.width, sweep.dense
    n_cut = min(stop, _places(held.counts, [LONGEST_UNCUT])[0])
    n_parts = -(-held.counts[:n_cut] // LONGEST_UNCUT)
    threads, first = cuda_cholesky.n_threads_for(width), 0
    while first < n_cut:
        last = max(first + 1, int(np.searchsorted(np.cumsum(n_parts[first:]), _MOST_PARTS, side="right")) + first)
        offsets = np.concatenate([[0], np.cumsum(n_parts[first:last])]).astype(np.int64)
        starts, stops = _cut(held, slice(first, last), n_parts[first:last])
        parts = zeros(int(offsets[-1]) * cuda_cholesky.part_size(width), np.float32)
        cuda_cholesky.make_part(width)[len(starts), threads](problem, put(starts), put(stops), parts)
        rows = held.order[first:last]
        cuda_cholesky.make_join(width, dense)[last - first, threads](problem, rows, put(offsets), parts, solution)
        first = last
    if n_cut < stop:
        cuda_cholesky.make_solve(width, dense)[stop - n_cut, threads](problem, held.order[n_cut:stop], solution)


def _cut(held: HeldRows, places: slice, n_parts: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the first entry of every part of some rows, and the one after its last."""
    number = np.arange(n_parts.sum()) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    starts = np.repeat(held.starts[places], n_parts) + number * LONGEST_UNCUT
    return starts, np.minimum(starts + LONGEST_UNCUT, np.repeat(held.starts[places] + held.counts[places], n_parts))


def _improve(
    sweep: _Sweep, problem: Problem, held: HeldRows, places: tuple[int, int], n_steps: int, solution: Solution
) -> None:
    """Improve rows by conjugate gradients: those that a group of threads keeps at hand, and the longer ones."""
    width, dense = sweep.width, sweep.dense
    start, stop = places
    middle = min(max(start, _places(held.counts, [longest_alone(width, dense, cuda_cg.ALONE)])[0]), stop)
    for first, last, team in ((start, middle, cuda_cg.TOGETHER), (middle, stop, cuda_cg.ALONE)):
        if first < last:
            n_blocks = min(cuda_cg.MOST_BLOCKS, -(-(last - first) // rows_at_once(width, team)))
            improve = cuda_cg.make_improve(width, dense, team)
            improve[n_blocks, team.threads](problem, held.order[first:last], n_steps, solution)


def _improve_blocks(
    sweep: _Sweep, problem: Problem, held: HeldRows, places: tuple[int, int], block_size: int, solution: Solution
) -> None:
    """Improve rows block by block: many threads those that do not fit into shared memory, few the others."""
    width, dense, block, (start, stop) = sweep.width, sweep.dense, block_width(block_size), places
    few, many = cuda_subspace.few(block), cuda_subspace.many(block)
    middle = min(max(start, _places(held.counts, [few.n_kept])[0]), stop)
    for first, end, team in ((start, middle, many), (middle, stop, few)):
        begin = cuda_subspace.make_begin(width, dense, team.threads)
        improve = cuda_subspace.make_improve(width, block, dense, team)
        while first < end:
            offsets = np.concatenate([[0], np.cumsum(held.counts[first:end])]).astype(np.int64)
            n_rows = max(1, int(np.searchsorted(offsets, cuda_subspace.MOST_ERRORS, side="right")) - 1)
            rows, places_of_errors = held.order[first : first + n_rows], put(offsets[:n_rows])
            errors = zeros(int(offsets[n_rows]), np.float32)
            begin[n_rows, team.threads](problem, rows, places_of_errors, errors, solution)
            for column in range(0, problem.n_factors, block):
                improve[n_rows, team.threads](problem, rows, places_of_errors, column, errors, solution)
            first += n_rows


def _solve_on_host(
    problem: HalfSweep, rows: Int64Array, factors: Float32Array, losses: Float64Array, n_threads: int | None
) -> None:
    """Solve some of the rows exactly on the CPU."""
    if len(rows):
        indptr, indices, values = problem.rows
        counts = np.diff(indptr)[rows]
        ends = np.concatenate([[0], np.cumsum(counts)])
        entries = np.arange(ends[-1]) + np.repeat(indptr[rows] - ends[:-1], counts)
        alone = problem._replace(
            rows=CSR(ends.astype(np.int64), indices[entries], values[entries]),
            regularization=problem.regularization[rows],
        )
        solution = factors[rows]
        losses[rows] = cpu.run_half_sweep(alone, solution, n_threads)
        factors[rows] = solution
