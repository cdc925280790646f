"""ALS by Cholesky factorisation on all cores; the contract is that of `fastmf_kernels.als.reference`.

Rows are independent, so the result does not depend on the number of threads. Each thread gathers a few of the fixed
vectors at a time, adds their outer products to the upper triangle of the row's matrix, and factorises it in place.
No BLAS: its threads would fight these. The few rows whose matrix is singular are left to NumPy afterwards.

Copies are spelled out as loops: assigning one array to a slice of another makes Numba compile its error message about
shapes, 4 s of string handling.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._jit import device, inlined, parallel, prange, threads
from fastmf_kernels._types import Float32Array, Int64Array
from fastmf_kernels.als.arrays import HalfSweep, Weighting
from fastmf_kernels.als.balance import cut_by_work
from fastmf_kernels.als.reference import solve_row
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.linalg.cpu import BATCH, EPSILON, add_outer_products, cholesky_solve

_GRAM_CHUNK = 4096


class _Workspaces(NamedTuple):
    """Scratch space of each chunk: a row's matrix, and the vectors that are being added to it.

    Two arrays, not one: with both in one, sweeps were measured a quarter to a half slower at 64 factors, most likely
    because stores to the matrix and loads of the vectors then are a multiple of 4 KiB apart so often.
    """

    matrices: Float32Array
    vectors: Float32Array


def gram(factors: Float32Array) -> Float32Array:
    """Return FᵀF; see the reference. Chunks of rows are multiplied in float32 and added up in float64."""
    total = np.zeros((factors.shape[1], factors.shape[1]), np.float64)
    for start in range(0, len(factors), _GRAM_CHUNK):
        chunk = factors[start : start + _GRAM_CHUNK]
        total += chunk.T @ chunk
    return total.astype(np.float32)


def run_half_sweep(problem: HalfSweep, target_factors: Float32Array, n_threads: int | None = None) -> None:
    """Solve every row of one side; see the reference."""
    with threads(n_threads) as count:
        n_rows, n_factors = target_factors.shape
        chunks = cut_by_work(problem.rows.indptr, n_factors, 8 * count)
        n_chunks = len(chunks) - 1
        workspaces = _Workspaces(
            np.empty((n_chunks, n_factors, n_factors), np.float32), np.empty((n_chunks, BATCH, n_factors), np.float32)
        )
        singular = np.zeros(n_rows, np.bool_)
        _run_half_sweep(*problem, chunks, workspaces, target_factors, singular)
    for u in np.flatnonzero(singular):
        target_factors[u] = solve_row(problem, int(u))


@parallel
def _run_half_sweep(
    rows: CSR,
    fixed_factors: Float32Array,
    fixed_offsets: Float32Array,
    gram: Float32Array,
    regularization: Float32Array,
    weighting: Weighting,
    chunks: Int64Array,
    workspaces: _Workspaces,
    target_factors: Float32Array,
    singular: npt.NDArray[np.bool_],
) -> None:
    # Numba passes tuples of arrays into parallel loops, but no tuples of tuples: the problem is put together inside.
    for c in prange(len(chunks) - 1):
        problem = HalfSweep(rows, fixed_factors, fixed_offsets, gram, regularization, weighting)
        _solve_rows(
            problem, chunks[c], chunks[c + 1], workspaces.matrices[c], workspaces.vectors[c], target_factors, singular
        )


@device
def _solve_rows(
    problem: HalfSweep,
    start: int,
    stop: int,
    matrix: Float32Array,
    vectors: Float32Array,
    target_factors: Float32Array,
    singular: npt.NDArray[np.bool_],
) -> None:
    """Solve the rows ``start:stop``; mark those whose matrix is singular and leave them for later."""
    n_factors = target_factors.shape[1]
    indptr = problem.rows.indptr
    for u in range(start, stop):
        x = target_factors[u]
        for f in range(n_factors):
            x[f] = np.float32(0)
        if indptr[u] < indptr[u + 1]:
            base = np.float32(0)
            for f in range(n_factors):
                for g in range(f, n_factors):
                    matrix[f, g] = problem.gram[f, g]
                matrix[f, f] += problem.regularization[u]
                base = max(base, matrix[f, f])
            _add_observations(problem, indptr[u], indptr[u + 1], matrix, vectors, x)
            few = indptr[u + 1] - indptr[u] < n_factors
            singular[u] = (few and _outweighs(matrix, base)) or not cholesky_solve(matrix, x)


@inlined
def _outweighs(matrix: Float32Array, base: np.float32) -> bool:
    """Whether the observations drown what they were added to, whose largest diagonal element was ``base``.

    Of fewer observations than factors nothing but a singular matrix is left then. The pivots cannot be trusted to show
    it: after a small one, the rounding errors in those that should be 0 are far above n·ε.
    """
    n = matrix.shape[0]
    largest = np.float32(0)
    for f in range(n):
        largest = max(largest, matrix[f, f])
    return bool(base <= np.float32(n) * EPSILON * largest)


@inlined
def _add_observations(
    problem: HalfSweep, start: int, stop: int, matrix: Float32Array, vectors: Float32Array, x: Float32Array
) -> None:
    """Add Σ w q qᵀ to the upper triangle of ``matrix`` and Σ t q to ``x``, eight entries at a time.

    The vectors are scaled by √w as they are gathered, so that one copy serves both sides of the product.
    """
    for first in range(start, stop, BATCH):
        for slot in range(BATCH):
            _gather_observation(problem, first + slot, stop, x, vectors[slot])
        for f in range(x.size):
            add_outer_products(matrix[f], vectors, 0, f, np.float32(1))


@inlined
def _gather_observation(problem: HalfSweep, position: int, stop: int, x: Float32Array, q: Float32Array) -> None:
    """Add t times the vector of an entry to ``x`` and put √w times it in ``q``; past the end, 0."""
    if position >= stop:
        for f in range(q.size):
            q[f] = np.float32(0)
        return
    entry = np.uint64(position)
    fixed = np.uint64(problem.rows.indices[entry])
    value = problem.rows.values[entry]
    weighting = problem.weighting
    target = weighting.target + weighting.target_slope * value - problem.fixed_offsets[fixed]
    root = np.sqrt(weighting.weight + weighting.weight_slope * value)
    vector = problem.fixed_factors[fixed]
    for f in range(q.size):
        x[f] += target * vector[f]
        q[f] = root * vector[f]
