"""ALS half sweeps on a GPU; the contract is that of `fastmf_kernels.als.reference`.

"cholesky", up to 128 factors: a block of threads for each row, in `cholesky.py`. "cg", up to 512: in `cg.py`.
"subspace", up to 512, in blocks of 16, 32 or 64 coordinates, or all of up to 128: in `subspace.py`. The CPU solves
rows whose equations turn out to be singular, and all rows for "nonnegative", with more factors or with other blocks, or
where something is added to right sides; a warning says so once in a process. Results do not depend on how threads
happen to run, nor on how much memory is free.

Tables that `to_device` has made stay on the device: a half sweep reads one and changes the other there. Arrays of the
host go there and come back in each. Observed values, offsets and strengths stay on the device between half sweeps, and
must not be changed meanwhile (see `_cuda/observed.py`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._cuda import observed
from fastmf_kernels._cuda.memory import DeviceArray, fetch, free_bytes, is_on_device, put, require_room, zeros
from fastmf_kernels._cuda.observed import ObservedRows
from fastmf_kernels._cuda.rows import DeviceTable, fetch_rows, padded_width, put_rows, put_table
from fastmf_kernels._types import Float32Array, Float64Array, Int64Array
from fastmf_kernels.als import cpu, reference
from fastmf_kernels.als.arrays import EXACTLY, HalfSweep, Solver, Table, Weighting, block_width, longest_row
from fastmf_kernels.als.cuda import cg, cholesky, gram_matrix, subspace, tables, widths
from fastmf_kernels.als.cuda.basis import Basis, find_basis, rotate_rows
from fastmf_kernels.als.cuda.problem import DeviceSweep, Solution
from fastmf_kernels.als.cuda.sharing import longest_alone, rows_at_once
from fastmf_kernels.als.cuda.widths import WIDEST_EXACT
from fastmf_kernels.als.reference import solve_row as solve_row
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors

# Entries of the longest row that one block of threads solves; longer rows are cut into parts. A row of 80 000 entries
# on one multiprocessor would keep the others waiting, and its float32 sums would be less accurate.
LONGEST_UNCUT = 4096
# Parts of long rows whose equations are in memory at the same time, unless one row has more.
_MOST_PARTS = 4096
_MOST_CHUNKS = 1024


class _Sweep(NamedTuple):
    """The data that all ranges of a half sweep use.

    Attributes
    ----------
    problem : HalfSweep
    width : int
    dense : bool
        Whether G is not 0.
    fixed_factors, fixed_offsets, gram : arrays on the device
    basis : Basis or None
        The basis of fixed factors and G; rows have to be rotated into it.
    """

    problem: HalfSweep
    width: int
    dense: bool
    fixed_factors: DeviceArray
    fixed_offsets: DeviceArray
    gram: DeviceArray
    basis: Basis | None


def to_device(factors: Float32Array, solver: Solver = EXACTLY) -> Table:
    """Return a table on the device; see the reference. If the CPU is going to solve its rows, it stays an array.

    Raises
    ------
    MemoryError
        If there is no room for it.
    """
    n_rows, n_factors = factors.shape
    width = widths.width_for(n_factors, solver)
    if width == 0:
        return factors
    require_room(4 * n_rows * width, f"{n_rows} rows of {n_factors} factors")
    return put_table(factors, width)


def to_host(table: Table, factors: Float32Array) -> None:
    """Write a table to an array of its shape; see the reference."""
    if isinstance(table, DeviceTable):
        fetch_rows(table.numbers, factors)
    else:
        reference.to_host(table, factors)


def split_biases(table: Table, unit: float) -> tuple[Table, Float32Array]:
    """Return rows [q, c] and offsets c·b of a table of rows [q, b]; see the reference."""
    if isinstance(table, DeviceTable):
        return tables.split_table(table, np.float32(unit))
    return reference.split_biases(table, unit)


def squared_norms(factors: Table, n_threads: int | None = None) -> Float64Array:
    """Return ‖x‖² of each row; see the reference."""
    if isinstance(factors, DeviceTable):
        return tables.squared_norms_of(factors)
    return reference.squared_norms(factors, n_threads)


def as_terms(users: Table, items: Table, factors: Factors, unit: float) -> Factors:
    """Return the terms of the prediction that two tables stand for; see the reference.

    On the device with biases in units of c: p·q + c·b_u + c·b_i + μ = [p, c]·[q, b_i] + c·b_u + μ, so that one table
    serves as it is.
    """
    on_device = isinstance(users, DeviceTable)
    if not on_device:
        return reference.as_terms(users, items, factors, unit)
    if users.shape[1] == factors.user_factors.shape[1]:
        return factors._replace(user_factors=users, item_factors=items)
    fixed, biases = split_biases(users, unit)
    return Factors(fixed, items, biases, zeros(items.shape[0], np.float32), factors.global_mean)


def gram(factors: Table, n_threads: int | None = None) -> Float64Array:
    """Return FᵀF; see the reference. Chunks of rows are multiplied in float32 and added up in float64."""
    n_rows, n_factors = factors.shape
    width = factors.width if isinstance(factors, DeviceTable) else padded_width(n_factors)
    panels, numbers, chunk = gram_matrix.panels_for(width), width * width, gram_matrix.CHUNK
    total = zeros(numbers, np.float64)
    of_chunk = 4 * (chunk * width + numbers)
    step = chunk * max(1, min(_MOST_CHUNKS, free_bytes() // 2 // of_chunk))
    multiply, add_up = gram_matrix.make_multiply(width, panels, chunk), gram_matrix.make_add_up()
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        n_chunks, across = -(-(stop - start) // chunk), width // panels.width
        products, rows = zeros(n_chunks * numbers, np.float32), _rows_on_device(factors, start, stop, width)
        multiply[(n_chunks, across, across), panels.threads](rows, products)
        add_up[-(-numbers // gram_matrix.THREADS), gram_matrix.THREADS](products, total)
    return fetch(total).reshape(width, width)[:n_factors, :n_factors].copy()


def _rows_on_device(table: Table, start: int, stop: int, width: int) -> DeviceArray:
    """Return some rows on the device: where they are, or a copy."""
    if isinstance(table, DeviceTable):
        return tables.part_of(table, start, stop).numbers
    return put_rows(table[start:stop], width=width)


def run_half_sweep(
    problem: HalfSweep, target_factors: Table, n_threads: int | None = None, solver: Solver = EXACTLY
) -> Float64Array:
    """Solve every row of one side; see the reference.

    Raises
    ------
    MemoryError
        If there is no room for the fixed factors, where they are an array, and the longest row.
    ValueError
        If a table was made for a solver that pads its rows otherwise.
    """
    n_rows, n_factors = target_factors.shape
    width = widths.width_for(n_factors, solver)
    for table in (problem.fixed_factors, target_factors):
        if isinstance(table, DeviceTable) and table.width != width:
            raise ValueError(f"a table was made for another solver than {solver.name!r}; expected one made for it")
    if width == 0:
        widths.say_why(n_factors, solver)
        return cpu.run_half_sweep(problem, target_factors, n_threads, solver)
    if len(problem.added):
        widths.say_why_added()
        return _solve_all_on_host(problem, target_factors, n_threads, solver)
    solver = widths.simplified(solver, n_factors)
    losses = np.zeros(n_rows)
    if not np.isfinite(problem.gram).all():
        _fill_with_nan(target_factors)
        return losses
    ranges = _find_ranges(problem, target_factors, width, solver)
    sweep, left = _begin(problem, width, solver), np.zeros(n_rows, np.bool_)
    for start, stop in ranges:
        losses[start:stop], left[start:stop] = _solve_range(sweep, start, stop, target_factors, solver)
    _solve_on_host(problem, np.flatnonzero(left), target_factors, losses, n_threads)
    return losses


def _fill_with_nan(table: Table) -> None:
    if isinstance(table, DeviceTable):
        tables.fill_with_nan(table)
    else:
        table[:] = np.nan


def _find_ranges(problem: HalfSweep, target: Table, width: int, solver: Solver) -> list[tuple[int, int]]:
    """Cut the rows into ranges that fit into memory beside tables and parts of long rows; into one, if possible."""
    indptr, rows_there = problem.rows.indptr, observed.are_on_device(problem.rows)
    longest = int(np.diff(indptr).max(initial=0))
    n_parts = max(_MOST_PARTS, -(-longest // LONGEST_UNCUT))
    n_parts = min(n_parts, int(indptr[-1]) // LONGEST_UNCUT * 2)
    parts = n_parts * cholesky.part_size(width) if width <= WIDEST_EXACT else 0
    # Memory of what is on the device already is not counted as free.
    rotated = solver.name == "subspace" and bool(problem.gram.any())
    of_fixed = 0 if isinstance(problem.fixed_factors, DeviceTable) and not rotated else width
    of_row = 0 if isinstance(target, DeviceTable) else width
    of_tables = 4 * (problem.fixed_factors.shape[0] * (of_fixed + 1) + width * width + parts)
    if solver.name == "subspace":
        errors = max(longest, min(subspace.MOST_ERRORS, int(indptr[-1])))
        of_tables += 4 * (2 * width * width + errors) + 8 * len(indptr)
    try:
        ranges = observed.cut_into_ranges(indptr, of_row, of_tables, free_bytes(), rows_there)
    except MemoryError:
        ranges = []
    if len(ranges) == 1 or not len(indptr) > 1:
        return ranges
    observed.release()
    return observed.cut_into_ranges(indptr, of_row, of_tables, free_bytes())


def _rows_to_device(rows: CSR, start: int, stop: int) -> ObservedRows:
    """Return rows on the device: all of them stay there, some of them do not."""
    if (start, stop) == (0, len(rows.indptr) - 1):
        return observed.rows_on_device(rows)
    return observed.put_rows_of(observed.cut_out(rows, start, stop))


def _begin(problem: HalfSweep, width: int, solver: Solver) -> _Sweep:
    (n_fixed, n_factors), basis, gram = problem.fixed_factors.shape, None, problem.gram
    padding, dense = width - n_factors, bool(gram.any())
    fixed_factors = _rows_on_device(problem.fixed_factors, 0, n_fixed, width)
    if solver.name == "subspace" and dense:
        basis = find_basis(gram, width)
        gram, in_place = basis.gram, not isinstance(problem.fixed_factors, DeviceTable)
        rotated = fixed_factors if in_place else zeros(n_fixed * width, np.float32)
        rotate_rows(fixed_factors, basis.there, width, rotated)
        fixed_factors = rotated
    padded = put(np.pad(gram, ((0, padding), (0, padding))).ravel())
    offsets = observed.vector_on_device(problem.fixed_offsets)
    return _Sweep(problem, width, dense, fixed_factors, offsets, padded, basis)


def _solve_range(
    sweep: _Sweep, start: int, stop: int, target: Table, solver: Solver
) -> tuple[Float64Array, npt.NDArray[np.bool_]]:
    """Copy some rows to the device and solve them; return their losses, and which rows the host has to solve.

    Rows that were copied for this range are freed before the next range.
    """
    rows_there = _rows_to_device(sweep.problem.rows, start, stop)
    strengths = observed.vector_on_device(sweep.problem.regularization)[start:stop]
    if isinstance(target, DeviceTable):
        return _run(sweep, rows_there, strengths, tables.part_of(target, start, stop), solver)
    rows = target[start:stop]
    # Solvers that do not start from the present factors need no copy of them.
    numbers = put_rows(rows, width=sweep.width) if _improves(solver) else zeros(len(rows) * sweep.width, np.float32)
    found = _run(sweep, rows_there, strengths, DeviceTable(numbers, rows.shape, sweep.width), solver)
    fetch_rows(numbers, rows)
    return found


def _improves(solver: Solver) -> bool:
    """Whether a solver starts from the present factors."""
    return solver.name in ("cg", "subspace")


def _run(
    sweep: _Sweep, rows_there: ObservedRows, strengths: DeviceArray, table: DeviceTable, solver: Solver
) -> tuple[Float64Array, npt.NDArray[np.bool_]]:
    """Solve rows that are on the device; return their losses, and which rows the host has to solve."""
    n_rows, n_factors = table.shape
    problem = DeviceSweep(
        rows_there.indptr,
        rows_there.indices,
        rows_there.values,
        sweep.fixed_factors,
        sweep.fixed_offsets,
        sweep.gram,
        strengths,
        Weighting(*(np.float32(term) for term in sweep.problem.weighting)),
        n_factors,
        np.float32(n_factors * np.finfo(np.float32).eps),
    )
    improves = _improves(solver)
    kept = longest_row(n_factors) if improves else 0
    first_short, end = _places(rows_there.counts, [kept, 0])
    if end < n_rows:
        tables.clear_rows(table, rows_there.order[end:])
    if sweep.basis is not None:
        rotate_rows(table.numbers, sweep.basis.there, sweep.width, table.numbers)
    solution = Solution(table.numbers, zeros(n_rows, np.float32), zeros(n_rows, np.bool_))
    left = np.zeros(n_rows, np.bool_)
    if sweep.width <= WIDEST_EXACT:
        _solve(sweep, problem, rows_there, first_short, solution)
    else:
        left[rows_there.rows[:first_short]] = True
    if improves:
        improve = _improve if solver.name == "cg" else _improve_blocks
        improve(sweep, problem, rows_there, (first_short, end), solver.setting, solution)
    if sweep.basis is not None:
        rotate_rows(table.numbers, sweep.basis.back, sweep.width, table.numbers)
    return fetch(solution.losses).astype(np.float64), fetch(solution.singular) | left


def _places(counts: Int64Array, lengths: list[int]) -> list[int]:
    """Return where the rows of at most so many entries begin, among rows the longest of which comes first."""
    return [int(place) for place in np.searchsorted(-counts, np.negative(lengths), side="left")]


def _solve(sweep: _Sweep, problem: DeviceSweep, rows_there: ObservedRows, stop: int, solution: Solution) -> None:
    """Solve the longest rows, those before place ``stop``, exactly; the very long ones in parts."""
    width, dense = sweep.width, sweep.dense
    n_cut = min(stop, _places(rows_there.counts, [LONGEST_UNCUT])[0])
    n_parts = -(-rows_there.counts[:n_cut] // LONGEST_UNCUT)
    threads, first = cholesky.n_threads_for(width), 0
    while first < n_cut:
        last = max(first + 1, int(np.searchsorted(np.cumsum(n_parts[first:]), _MOST_PARTS, side="right")) + first)
        offsets = np.concatenate([[0], np.cumsum(n_parts[first:last])]).astype(np.int64)
        starts, stops = _cut(rows_there, slice(first, last), n_parts[first:last])
        parts = zeros(int(offsets[-1]) * cholesky.part_size(width), np.float32)
        cholesky.make_part(width)[len(starts), threads](problem, put(starts), put(stops), parts)
        rows = rows_there.order[first:last]
        cholesky.make_join(width, dense)[last - first, threads](problem, rows, put(offsets), parts, solution)
        first = last
    if n_cut < stop:
        cholesky.make_solve(width, dense)[stop - n_cut, threads](problem, rows_there.order[n_cut:stop], solution)


def _cut(rows_there: ObservedRows, places: slice, n_parts: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the first entry of every part of some rows, and the entry after its last."""
    number = np.arange(n_parts.sum()) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    starts = np.repeat(rows_there.starts[places], n_parts) + number * LONGEST_UNCUT
    return starts, np.minimum(
        starts + LONGEST_UNCUT, np.repeat(rows_there.starts[places] + rows_there.counts[places], n_parts)
    )


def _improve(
    sweep: _Sweep,
    problem: DeviceSweep,
    rows_there: ObservedRows,
    places: tuple[int, int],
    n_steps: int,
    solution: Solution,
) -> None:
    """Improve rows by conjugate gradients: rows that fit into the memory of a group of threads, and longer rows."""
    width, dense = sweep.width, sweep.dense
    start, stop = places
    middle = min(max(start, _places(rows_there.counts, [longest_alone(width, dense, cg.ALONE)])[0]), stop)
    for first, last, sharing in ((start, middle, cg.TOGETHER), (middle, stop, cg.ALONE)):
        if first < last:
            n_blocks = min(cg.MOST_BLOCKS, -(-(last - first) // rows_at_once(width, sharing)))
            improve = cg.make_improve(width, dense, sharing)
            improve[n_blocks, sharing.threads](problem, rows_there.order[first:last], n_steps, solution)


def _improve_blocks(
    sweep: _Sweep,
    problem: DeviceSweep,
    rows_there: ObservedRows,
    places: tuple[int, int],
    block_size: int,
    solution: Solution,
) -> None:
    """Improve rows block by block: rows that do not fit into shared memory get more threads than the others."""
    width, dense, block, (start, stop) = sweep.width, sweep.dense, block_width(block_size), places
    for_short, for_long = subspace.for_short_rows(block), subspace.for_long_rows(block)
    middle = min(max(start, _places(rows_there.counts, [for_short.n_kept])[0]), stop)
    for first, end, workers in ((start, middle, for_long), (middle, stop, for_short)):
        begin = subspace.make_begin(width, dense, workers.threads)
        improve = subspace.make_improve(width, block, dense, workers)
        while first < end:
            offsets = np.concatenate([[0], np.cumsum(rows_there.counts[first:end])]).astype(np.int64)
            n_rows = max(1, int(np.searchsorted(offsets, subspace.MOST_ERRORS, side="right")) - 1)
            rows, places_of_errors = rows_there.order[first : first + n_rows], put(offsets[:n_rows])
            errors = zeros(int(offsets[n_rows]), np.float32)
            begin[n_rows, workers.threads](problem, rows, places_of_errors, errors, solution)
            for column in range(0, problem.n_factors, block):
                improve[n_rows, workers.threads](problem, rows, places_of_errors, column, errors, solution)
            first += n_rows


def _solve_all_on_host(problem: HalfSweep, target: Table, n_threads: int | None, solver: Solver) -> Float64Array:
    """Solve all rows on the CPU, and bring them back to the device if they were there."""
    fixed_factors, offsets = problem.fixed_factors, problem.fixed_offsets
    if isinstance(fixed_factors, DeviceTable):
        fixed_factors = np.empty(fixed_factors.shape, np.float32)
        to_host(problem.fixed_factors, fixed_factors)
    on_host = problem._replace(
        fixed_factors=fixed_factors, fixed_offsets=fetch(offsets) if is_on_device(offsets) else offsets
    )
    if not isinstance(target, DeviceTable):
        return cpu.run_half_sweep(on_host, target, n_threads, solver)
    solution = np.empty(target.shape, np.float32)
    to_host(target, solution)
    losses = cpu.run_half_sweep(on_host, solution, n_threads, solver)
    tables.write_rows(target, np.arange(len(solution)), solution)
    return losses


def _solve_on_host(
    problem: HalfSweep, rows: Int64Array, target: Table, losses: Float64Array, n_threads: int | None
) -> None:
    """Solve some rows exactly on the CPU; of tables on the device, only the rows that these need are copied."""
    if not len(rows):
        return
    widths.say_why_rows(len(rows), target.shape[1])
    indptr, indices, values = problem.rows
    counts = np.diff(indptr)[rows]
    ends = np.concatenate([[0], np.cumsum(counts)])
    entries = np.arange(ends[-1]) + np.repeat(indptr[rows] - ends[:-1], counts)
    fixed_factors, offsets, columns = problem.fixed_factors, problem.fixed_offsets, indices[entries]
    if is_on_device(offsets):
        offsets = fetch(offsets)
    if isinstance(fixed_factors, DeviceTable):
        met, columns = np.unique(columns, return_inverse=True)
        fixed_factors, offsets = tables.take_rows(fixed_factors, met), offsets[met]
    alone = HalfSweep(
        CSR(ends.astype(np.int64), columns.astype(np.int32), values[entries]),
        fixed_factors,
        offsets,
        problem.gram,
        problem.regularization[rows],
        problem.weighting,
    )
    solution = np.zeros((len(rows), target.shape[1]), np.float32)
    losses[rows] = cpu.run_half_sweep(alone, solution, n_threads)
    if isinstance(target, DeviceTable):
        tables.write_rows(target, rows, solution)
    else:
        target[rows] = solution
