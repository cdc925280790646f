"""Small symmetric systems, solved inside kernels by Cholesky factorisation."""

import numpy as np

from fastmf_kernels._jit import device
from fastmf_kernels._types import Float32Array

_EPSILON = np.finfo(np.float32).eps

# Vectors that are added to a row of a matrix in one go. Adding one costs a load and a store of the row however cheap
# the arithmetic: eight at a time run 3 to 5 times as fast as one.
BATCH = 8
Coefficients = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]
Vectors = tuple[
    Float32Array, Float32Array, Float32Array, Float32Array, Float32Array, Float32Array, Float32Array, Float32Array
]


@device
def add_multiples(row: Float32Array, coefficients: Coefficients, vectors: Vectors, start: int) -> None:
    """row[g] += Σ_s coefficients[s]·vectors[s][g] for g from ``start`` on, with eight vectors as long as ``row``."""
    c0, c1, c2, c3, c4, c5, c6, c7 = coefficients
    v0, v1, v2, v3, v4, v5, v6, v7 = vectors
    for g in range(np.uint64(start), np.uint64(row.size)):
        first = (c0 * v0[g] + c1 * v1[g]) + (c2 * v2[g] + c3 * v3[g])
        row[g] += first + ((c4 * v4[g] + c5 * v5[g]) + (c6 * v6[g] + c7 * v7[g]))


@device
def eight_rows(matrix: Float32Array, first: int) -> Vectors:
    """Return the rows ``first`` to ``first + 7`` of a matrix as a tuple."""
    return (
        matrix[first],
        matrix[first + 1],
        matrix[first + 2],
        matrix[first + 3],
        matrix[first + 4],
        matrix[first + 5],
        matrix[first + 6],
        matrix[first + 7],
    )


@device
def column_of(vectors: Vectors, position: int, scale: np.float32) -> Coefficients:
    """Return ``scale`` times element ``position`` of each of eight vectors."""
    v0, v1, v2, v3, v4, v5, v6, v7 = vectors
    i = np.uint64(position)
    return (
        scale * v0[i],
        scale * v1[i],
        scale * v2[i],
        scale * v3[i],
        scale * v4[i],
        scale * v5[i],
        scale * v6[i],
        scale * v7[i],
    )


@device
def cholesky_solve(matrix: Float32Array, x: Float32Array) -> bool:
    """Factorise ``matrix`` = UᵀU in its upper triangle, in place, and replace ``x`` by the solution.

    Right-looking, eight rows at a time (Golub, Van Loan, "Matrix Computations", 4th edition, section 4.2.9).

    Parameters
    ----------
    matrix : float32 array, shape (n, n), C order
        Only the upper triangle is read.
    x : float32 array, shape (n,)
        The right side on entry, the solution on exit.

    Returns
    -------
    bool
        False where the matrix is numerically singular: a pivot fell below n·ε of the largest diagonal element. The
        contents of both arguments are then of no use.
    """
    n = x.size
    largest = matrix[0, 0]
    for i in range(n):
        largest = max(largest, matrix[i, i])
    smallest_pivot = np.float32(n) * np.float32(_EPSILON) * largest
    for start in range(0, n, BATCH):
        stop = min(start + BATCH, n)
        if not _factorise_panel(matrix, start, stop, smallest_pivot):
            return False
        if stop < n:
            panel = eight_rows(matrix, start)
            for i in range(stop, n):
                add_multiples(matrix[i], column_of(panel, i, np.float32(-1)), panel, i)
    _substitute(matrix, x)
    return True


@device
def _factorise_panel(matrix: Float32Array, start: int, stop: int, smallest_pivot: np.float32) -> bool:
    """Finish the rows ``start:stop``, to which all rows above have been applied already."""
    n = matrix.shape[0]
    for j in range(start, stop):
        row = matrix[j]
        pivot = row[j]
        if not pivot > smallest_pivot:  # also catches NaN
            return False
        scale = np.float32(1) / np.sqrt(pivot)
        for g in range(j, n):
            row[g] *= scale
        for i in range(j + 1, stop):
            factor, below = row[i], matrix[i]
            for g in range(i, n):
                below[g] -= factor * row[g]
    return True


@device
def _substitute(factor: Float32Array, x: Float32Array) -> None:
    """Replace ``x`` by the solution of UᵀU x, with U the upper triangle of ``factor``."""
    n = x.size
    for i in range(n):  # Uᵀ z = x
        row = factor[i]
        x[i] /= row[i]
        z = x[i]
        for g in range(i + 1, n):
            x[g] -= z * row[g]
    for i in range(n - 1, -1, -1):  # U x = z
        row = factor[i]
        total = x[i]
        for g in range(i + 1, n):
            total -= row[g] * x[g]
        x[i] = total / row[i]
