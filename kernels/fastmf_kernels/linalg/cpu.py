"""Small symmetric systems, solved inside kernels by Cholesky factorisation."""

import numpy as np

from fastmf_kernels._jit import device, inlined
from fastmf_kernels._types import Float32Array

# Spacing of float32 numbers at 1.
EPSILON = np.float32(np.finfo(np.float32).eps)

# Vectors that are added to a row of a matrix in one go. Adding one costs a load and a store of the row however cheap
# the arithmetic: eight at a time were measured 2 to 2.6 times as fast as four, with 64 to 192 factors.
BATCH = 8


@device
def add_outer_products(row: Float32Array, vectors: Float32Array, first: int, position: int, sign: np.float32) -> None:
    """Add to a matrix's row ``position``, from its diagonal on, sign·Σ v vᵀ over eight rows v of ``vectors``.

    Parameters
    ----------
    row : float32 array, shape (n,)
        row[g] += sign·Σ_s v_s[position]·v_s[g] for g from ``position`` on.
    vectors : float32 array, shape (at least first + 8, n)
        v_s is row ``first + s``.
    first, position : int
    sign : float32
        1 or -1.
    """
    v0, v1, v2, v3 = vectors[first], vectors[first + 1], vectors[first + 2], vectors[first + 3]
    v4, v5, v6, v7 = vectors[first + 4], vectors[first + 5], vectors[first + 6], vectors[first + 7]
    i = np.uint64(position)
    c0, c1, c2, c3 = sign * v0[i], sign * v1[i], sign * v2[i], sign * v3[i]
    c4, c5, c6, c7 = sign * v4[i], sign * v5[i], sign * v6[i], sign * v7[i]
    for g in range(i, np.uint64(row.size)):
        half = (c0 * v0[g] + c1 * v1[g]) + (c2 * v2[g] + c3 * v3[g])
        row[g] += half + ((c4 * v4[g] + c5 * v5[g]) + (c6 * v6[g] + c7 * v7[g]))


@device
def cholesky_solve(matrix: Float32Array, x: Float32Array) -> bool:
    """Factorise ``matrix`` = UᵀU in its upper triangle, in place, and replace ``x`` by the solution.

    Right-looking, eight rows at a time (Golub, Van Loan, "Matrix Computations", 4th edition, section 4.2.9).

    Parameters
    ----------
    matrix : float32 array, shape (at least n, n), C order
        Only the upper triangle of the first n rows is read.
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
    smallest_pivot = np.float32(n) * EPSILON * largest
    for start in range(0, n, BATCH):
        stop = min(start + BATCH, n)
        if not _factorise_panel(matrix, start, stop, n, smallest_pivot):
            return False
        if stop < n:
            for i in range(stop, n):
                add_outer_products(matrix[i], matrix, start, i, np.float32(-1))
    _substitute(matrix, x)
    return True


@inlined
def _factorise_panel(matrix: Float32Array, start: int, stop: int, n: int, smallest_pivot: np.float32) -> bool:
    """Finish the rows ``start:stop``, to which all rows above have been applied already."""
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


@inlined
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
