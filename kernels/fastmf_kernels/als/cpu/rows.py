"""What all solvers use: the problem in panels, scratch space, and the vectors and normal equations of a row.

Vectors q are scaled by √w as they are gathered, and targets t by 1/√w: with q̃ = √w q and t̃ = t/√w a row's equations are
(G + λI + Σ q̃ q̃ᵀ) x = Σ t̃ q̃, and solvers need no weights.

Copies are spelled out as loops: assigning one array to a slice of another makes Numba compile its error message about
shapes, 4 s of string handling.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._jit import device, kernel
from fastmf_kernels._memory import in_huge_pages
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import HalfSweep, Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.linalg.cpu import EPSILON, add_gram, largest_diagonal, n_panels_for, to_panels
from fastmf_kernels.linalg.panels import WIDTH, add_combinations, copy_row, dot_product, multiply_rows, prefetch

# Vectors that are gathered and multiplied at a time; they fit into the first-level cache. Exact sweeps took 3 to 10 %
# longer with 64 or 128 of them (64 and 128 factors).
BATCH = 32
# The least weight: t̃ = t/√w needs one above 0. The q̃ q̃ᵀ of this one is far below rounding.
_SMALLEST_WEIGHT = np.float32(1e-20)


class PaneledSweep(NamedTuple):
    """A `HalfSweep` with its matrices in whole panels: rows of ``fixed_factors`` and ``added`` are filled up with 0.

    ``n_factors`` is what they were before.
    """

    rows: CSR
    fixed_factors: Float32Array
    fixed_offsets: Float32Array
    gram: Float32Array
    regularization: Float32Array
    weighting: Weighting
    added: Float32Array
    n_factors: int


class Scratch(NamedTuple):
    """Space for one row at a time.

    Attributes
    ----------
    matrix : float32 array, shape (n_panels, 16·n_panels, 16)
    vectors : float32 array, shape (n_batches, n_panels, BATCH, 16)
        Gathered vectors q̃.
    targets : float32 array, shape (n_batches, BATCH)
        t̃ of each; solvers that improve a row keep the errors t̃ - q̃·x there.
    products : float32 array, shape (BATCH,)
    right_side, x : float32 array, shape (16·n_panels,)
    work : float32 array, shape (4, 16·n_panels)
    """

    matrix: Float32Array
    vectors: Float32Array
    targets: Float32Array
    products: Float32Array
    right_side: Float32Array
    x: Float32Array
    work: Float32Array


class Solution(NamedTuple):
    """The results of a half sweep, one element a row.

    Attributes
    ----------
    factors : float32 array, shape (n_rows, n_factors)
    losses : float64 array, shape (n_rows,)
        xᵀAx - 2bᵀx, with A and b of the normal equations Ax = b.
    singular : bool array, shape (n_rows,)
        Rows that were left alone because A cannot be inverted.
    """

    factors: Float32Array
    losses: Float64Array
    singular: npt.NDArray[np.bool_]


def in_panels(problem: HalfSweep) -> PaneledSweep:
    """Copy a problem to the form that kernels take."""
    n_factors = problem.fixed_factors.shape[1]
    size = n_panels_for(n_factors) * WIDTH
    gram = np.pad(problem.gram, ((0, size - n_factors), (0, size - n_factors)))
    fixed_factors = in_huge_pages(problem.fixed_factors, size)
    added = np.pad(problem.added, ((0, 0), (0, size - problem.added.shape[1])))
    return PaneledSweep(*problem._replace(fixed_factors=fixed_factors, gram=to_panels(gram), added=added), n_factors)


def make_scratch(n_factors: int, n_vectors: int = BATCH) -> Scratch:
    """Return scratch space with room for ``n_vectors`` vectors of a row."""
    n_panels, n_batches = n_panels_for(n_factors), -(-n_vectors // BATCH)
    size = n_panels * WIDTH
    return Scratch(
        np.empty((n_panels, size, WIDTH), np.float32),
        np.empty((n_batches, n_panels, BATCH, WIDTH), np.float32),
        np.empty((n_batches, BATCH), np.float32),
        np.empty(BATCH, np.float32),
        np.zeros(size, np.float32),
        np.zeros(size, np.float32),
        np.zeros((4, size), np.float32),
    )


@device
def gather(
    problem: PaneledSweep, first: int, n: int, vectors: Float32Array, targets: Float32Array, roots: Float32Array
) -> None:
    """Gather q̃ and t̃ of the n entries from ``first`` on, and √w.

    The entries of the next batch are prefetched. With 128 factors, where vectors come from memory, this made exact
    sweeps a fifth faster.
    """
    indices, values, weighting = problem.rows.indices, problem.rows.values, problem.weighting
    n_panels, last = vectors.shape[0], np.uint64(indices.size - 1)
    for t in range(n):
        entry = np.uint64(first + t)
        fixed, value = indices[entry], values[entry]
        weight = max(weighting.weight + weighting.weight_slope * abs(value), _SMALLEST_WEIGHT)
        target = weighting.target + weighting.target_slope * value
        if value < weighting.disliked_below:
            target = np.float32(0)
        targets[t], roots[t] = target - problem.fixed_offsets[np.uint64(fixed)], weight
    for t in range(n):  # a loop of its own: sixteen at a time
        roots[t] = np.sqrt(roots[t])
        targets[t] /= roots[t]
    for t in range(n):
        entry = np.uint64(first + t)
        row = np.int64(indices[entry]) * n_panels * WIDTH
        copy_row(vectors, t * WIDTH, BATCH * WIDTH, n_panels, problem.fixed_factors, row, roots[t])
        later = np.int64(indices[min(entry + np.uint64(BATCH), last)])
        prefetch(problem.fixed_factors, later * n_panels * WIDTH, n_panels)


@device
def multiply_batch(vectors: Float32Array, panel: int, n: int, x: Float32Array, products: Float32Array) -> None:
    """Set products[t] = q̃_t·x for the n vectors of a batch, from ``panel`` on over as many panels as x fills."""
    for t in range(0, n, WIDTH):
        place = (panel * BATCH + t) * WIDTH
        multiply_rows(products, t, vectors, place, BATCH * WIDTH, x.size // WIDTH, x, 0)


@device
def add_batch(vectors: Float32Array, panel: int, n: int, weights: Float32Array, total: Float32Array) -> None:
    """Add Σ weights[t] q̃_t over the n vectors of a batch, from ``panel`` on over as many panels as ``total`` fills."""
    add_combinations(total, weights, vectors, panel * BATCH * WIDTH, BATCH * WIDTH, total.size // WIDTH, n)


@device
def make_equations(problem: PaneledSweep, u: int, scratch: Scratch) -> bool:
    """Make the equations of a row, and return False if their matrix is known to be singular."""
    start, stop, n = problem.rows.indptr[u], problem.rows.indptr[u + 1], problem.n_factors
    _start_equations(problem, u, scratch)
    base = largest_diagonal(scratch.matrix, n)
    _add_entries(problem, start, stop, scratch)
    return stop - start >= n or not _is_drowned(scratch.matrix, base, n)


@device
def _start_equations(problem: PaneledSweep, u: int, scratch: Scratch) -> None:
    """Set the matrix to G + λ_u I and the right side to a_u."""
    matrix, gram, right_side = scratch.matrix, problem.gram, scratch.right_side
    n_panels, size, _ = matrix.shape
    for q in range(n_panels):
        for i in range((q + 1) * WIDTH):
            for g in range(WIDTH):
                matrix[q, i, g] = gram[q, i, g]
    for i in range(size):
        matrix[i // WIDTH, i, i % WIDTH] += problem.regularization[u]
    start_right_side(problem, u, right_side)


@device
def start_right_side(problem: PaneledSweep, u: int, right_side: Float32Array) -> None:
    """Set the right side of a row to a_u: 0, unless something is added to it."""
    for f in range(right_side.size):
        right_side[f] = problem.added[u, f] if problem.added.shape[0] > 0 else np.float32(0)


@device
def _add_entries(problem: PaneledSweep, start: int, stop: int, scratch: Scratch) -> None:
    """Add Σ q̃ q̃ᵀ to the matrix and Σ t̃ q̃ to the right side, a batch of entries at a time."""
    vectors, targets = scratch.vectors[0], scratch.targets[0]
    for first in range(start, stop, BATCH):
        n = min(BATCH, stop - first)
        gather(problem, first, n, vectors, targets, scratch.products)
        add_gram(scratch.matrix, vectors, n)
        add_batch(vectors, 0, n, targets, scratch.right_side)


@device
def _is_drowned(matrix: Float32Array, base: np.float32, n: int) -> bool:
    """Whether G + λI, whose largest diagonal element was ``base``, is below the rounding errors of the matrix.

    With fewer observations than factors the matrix is then numerically singular. Its pivots do not show this reliably:
    after a small pivot, rounding errors in the pivots that should be 0 are far above n·ε.
    """
    return bool(base <= np.float32(n) * EPSILON * largest_diagonal(matrix, n))


@kernel
def make_part(problem: PaneledSweep, start: int, stop: int, scratch: Scratch) -> None:
    """Make the equations of some of a long row's entries alone."""
    matrix, right_side = scratch.matrix.reshape(-1), scratch.right_side
    for i in range(matrix.size):
        matrix[i] = np.float32(0)
    for i in range(right_side.size):
        right_side[i] = np.float32(0)
    _add_entries(problem, start, stop, scratch)


@kernel
def start_long_row(problem: PaneledSweep, u: int, scratch: Scratch) -> None:
    """Make the equations of a row without its entries."""
    _start_equations(problem, u, scratch)


@kernel
def add_part(scratch: Scratch, part: Scratch) -> None:
    """Add the equations of a part of a row."""
    total, matrix = scratch.matrix.reshape(-1), part.matrix.reshape(-1)
    for i in range(total.size):
        total[i] += matrix[i]
    for i in range(scratch.right_side.size):
        scratch.right_side[i] += part.right_side[i]


@device
def keep_row(problem: PaneledSweep, u: int, scratch: Scratch, solution: Solution) -> tuple[float, float]:
    """Load a row's present factors x, its vectors q̃ and errors t̃ - q̃·x into the scratch space.

    Returns
    -------
    float, float
        Σ (q̃·x)² and Σ t̃(q̃·x).
    """
    x, n_factors = scratch.x, problem.n_factors
    for f in range(n_factors):
        x[f] = solution.factors[u, f]
    for f in range(n_factors, x.size):
        x[f] = np.float32(0)
    start, stop, products = problem.rows.indptr[u], problem.rows.indptr[u + 1], scratch.products
    squares, products_with_targets = 0.0, 0.0
    for first in range(start, stop, BATCH):
        batch = (first - start) // BATCH
        vectors, errors = scratch.vectors[batch], scratch.targets[batch]
        n = min(BATCH, stop - first)
        gather(problem, first, n, vectors, errors, products)
        multiply_batch(vectors, 0, n, x, products)
        squares += float(dot_product(products, 0, products, 0, n))
        products_with_targets += float(dot_product(products, 0, errors, 0, n))
        for t in range(n):
            errors[t] -= products[t]
    return squares, products_with_targets


@device
def store_row(problem: PaneledSweep, u: int, loss: float, scratch: Scratch, solution: Solution) -> None:
    """Store a row's new factors and its loss."""
    for f in range(problem.n_factors):
        solution.factors[u, f] = scratch.x[f]
    solution.losses[u] = loss


@device
def dot(x: Float32Array, y: Float32Array) -> np.float32:
    """Return x·y."""
    return dot_product(x, 0, y, 0, x.size)
