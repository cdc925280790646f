"""Normal matrices and their solution inside kernels, on panels of 16 columns (see `fastmf_kernels.linalg.panels`).

A symmetric matrix of n rows is an array (n / 16, n, 16), n a multiple of 16; only its blocks on and above the diagonal
are used.
"""

import numpy as np

from fastmf_kernels._jit import device, kernel
from fastmf_kernels._types import Float32Array
from fastmf_kernels.linalg.panels import (
    WIDTH,
    add_combination,
    add_product,
    factorise_block,
    multiply_rows,
    solve_block,
    substitute_block,
    substitute_block_back,
    subtract_product,
)

# Spacing of float32 numbers at 1.
EPSILON = np.float32(np.finfo(np.float32).eps)


def n_panels_for(n_columns: int) -> int:
    """Count the panels that hold a number of columns."""
    return -(-n_columns // WIDTH)


def to_panels(matrix: Float32Array) -> Float32Array:
    """Copy a matrix, shape (n_rows, n_columns), to panels, shape (n_panels, n_rows, 16), the last filled up with 0."""
    n_rows, n_columns = matrix.shape
    panels = np.zeros((n_panels_for(n_columns), n_rows, WIDTH), np.float32)
    for p, panel in enumerate(panels):
        columns = matrix[:, p * WIDTH : (p + 1) * WIDTH]
        panel[:, : columns.shape[1]] = columns
    return panels


def from_panels(panels: Float32Array) -> Float32Array:
    """Copy panels, shape (n_panels, n_rows, 16), to a matrix, shape (n_rows, 16·n_panels)."""
    return np.ascontiguousarray(panels.transpose(1, 0, 2)).reshape(panels.shape[1], -1)


@device
def add_gram(matrix: Float32Array, vectors: Float32Array, n: int) -> None:
    """Add VᵀV to a matrix, with V the first n rows of ``vectors``.

    Parameters
    ----------
    matrix : float32 array, shape (n_panels, 16·n_panels, 16)
    vectors : float32 array, shape (n_panels, at least n, 16)
    n : int
    """
    n_panels, size, _ = matrix.shape
    stride = vectors.shape[1] * WIDTH
    for q in range(n_panels):
        for p in range(q + 1):
            add_product(matrix, (q * size + p * WIDTH) * WIDTH, vectors, p * stride, vectors, q * stride, n)


@device
def cholesky(matrix: Float32Array, n: int) -> bool:
    """Factorise a matrix = UᵀU in place, with the reciprocals of U's diagonal on the diagonal.

    Left-looking, 16 rows at a time: the contribution of the rows above is one product of panels a block (Golub, Van
    Loan, "Matrix Computations", 4th edition, section 4.2.9).

    Parameters
    ----------
    matrix : float32 array, shape (n_panels, 16·n_panels, 16)
    n : int
        Rows of the matrix. The padding of its last panel must be 0, except on the diagonal, which is overwritten.

    Returns
    -------
    bool
        False if the matrix is numerically singular: a pivot is not above n·ε times the largest diagonal element. The
        contents of the matrix are then undefined.
    """
    n_panels, size, _ = matrix.shape
    largest = largest_diagonal(matrix, n)
    for i in range(n, size):
        matrix[i // WIDTH, i, i % WIDTH] = largest
    for p in range(n_panels):
        top = p * WIDTH * WIDTH
        diagonal = p * size * WIDTH + top
        for q in range(p, n_panels):
            panel = q * size * WIDTH
            subtract_product(matrix, panel + top, matrix, p * size * WIDTH, matrix, panel, p * WIDTH)
        if not factorise_block(matrix, diagonal, np.float32(n) * EPSILON * largest):
            return False
        for q in range(p + 1, n_panels):
            solve_block(matrix, diagonal, q * size * WIDTH + top)
    return True


@device
def largest_diagonal(matrix: Float32Array, n: int) -> np.float32:
    """Return the largest of the first n elements of a matrix's diagonal."""
    largest: np.float32 = matrix[0, 0, 0]
    for i in range(1, n):
        largest = max(largest, matrix[i // WIDTH, i, i % WIDTH])
    return largest


@device
def fill_lower_half(matrix: Float32Array) -> None:
    """Copy the blocks above the diagonal to those below it."""
    for q in range(matrix.shape[0]):
        for p in range(q):
            for f in range(WIDTH):
                for g in range(WIDTH):
                    matrix[p, q * WIDTH + g, f] = matrix[q, p * WIDTH + f, g]


@device
def substitute(factor: Float32Array, x: Float32Array, scratch: Float32Array) -> None:
    """Replace ``x`` by the solution of UᵀU z = x, with U from `cholesky`.

    Parameters
    ----------
    factor : float32 array, shape (n_panels, n, 16)
    x, scratch : float32 array, shape (n,)
    """
    n_panels, size, _ = factor.shape
    for p in range(n_panels):  # Uᵀ z = x, and scratch = -z
        first = p * WIDTH
        add_combination(x, first, scratch, 0, factor, p * size * WIDTH, first)
        substitute_block(factor, (p * size + first) * WIDTH, x, first, scratch, first)
    for p in range(n_panels - 1, -1, -1):  # U x = z
        first = p * WIDTH
        above = (p + 1) * size * WIDTH + first * WIDTH
        multiply_rows(x, first, factor, above, size * WIDTH, n_panels - 1 - p, x, first + WIDTH)
        substitute_block_back(factor, (p * size + first) * WIDTH, x, first, scratch, first)


@kernel
def rotate(rows: Float32Array, start: int, stop: int, basis: Float32Array, rotated: Float32Array) -> None:
    """Set rotated[r] = rows[r]·B for r from ``start`` to before ``stop``.

    Parameters
    ----------
    rows : float32 array, shape (n_rows, n)
    start, stop : int
    basis : float32 array, shape (n_panels, n, 16)
        B, in panels.
    rotated : float32 array, shape (n_rows, at most 16·n_panels)
        May be ``rows``.
    """
    n_panels, n, _ = basis.shape
    columns = np.empty((n, WIDTH), np.float32)
    block = np.empty((n_panels, WIDTH, WIDTH), np.float32)
    flat = block.reshape(-1)
    for first in range(start, stop, WIDTH):
        count = min(WIDTH, stop - first)
        for f in range(n):
            for r in range(count):
                columns[f, r] = rows[first + r, f]
        for i in range(flat.size):
            flat[i] = np.float32(0)
        for q in range(n_panels):
            add_product(block, q * WIDTH * WIDTH, columns, 0, basis, q * n * WIDTH, n)
        for q in range(n_panels):
            width = min(WIDTH, rotated.shape[1] - q * WIDTH)
            for r in range(count):
                for g in range(width):
                    rotated[first + r, q * WIDTH + g] = block[q, r, g]
