"""Small symmetric systems, solved inside kernels by Cholesky factorisation."""

import numpy as np

from fastmf_kernels._jit import device
from fastmf_kernels._types import Float32Array

_EPSILON = np.finfo(np.float32).eps


@device
def cholesky_solve(matrix: Float32Array, x: Float32Array) -> bool:
    """Factorise ``matrix`` = UᵀU in its upper triangle, in place, and replace ``x`` by the solution.

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
    for j in range(n):
        pivot = matrix[j, j]
        if not pivot > smallest_pivot:  # also catches NaN
            return False
        scale = np.float32(1) / np.sqrt(pivot)
        for g in range(j, n):
            matrix[j, g] *= scale
        for i in range(j + 1, n):
            factor = matrix[j, i]
            for g in range(i, n):
                matrix[i, g] -= factor * matrix[j, g]
    for i in range(n):  # Uᵀ z = x
        x[i] /= matrix[i, i]
        z = x[i]
        for g in range(i + 1, n):
            x[g] -= z * matrix[i, g]
    for i in range(n - 1, -1, -1):  # U x = z
        total = x[i]
        for g in range(i + 1, n):
            total -= matrix[i, g] * x[g]
        x[i] = total / matrix[i, i]
    return True
