"""Products of panels: the inner loops of all dense arithmetic in the kernels.

A *panel* is 16 columns of a matrix, stored row by row. A matrix of n columns is an array (n / 16, rows, 16): panel
after panel, the last one filled up with zeros. Every loop below then reads memory in order, 64 bytes a row, however
wide the matrix is, and a block of 16 × 16 sums stays in registers while the loop runs over the rows. Offsets count
elements from the start of an array.

The functions are plain loops. Kernels get the explicit vector code of the same name in
`fastmf_kernels.linalg.panels_simd` instead, which is 2 to 25 times as fast; see `fastmf_kernels._vectors`.
"""

from types import ModuleType

import numpy as np

from fastmf_kernels._types import Float32Array
from fastmf_kernels._vectors import in_vectors, trial

WIDTH = 16


def _emitters() -> ModuleType:
    from fastmf_kernels.linalg import panels_simd

    return panels_simd


@in_vectors(_emitters)
def add_product(
    matrix: Float32Array, place: int, left: Float32Array, i: int, right: Float32Array, j: int, n: int
) -> None:
    """Add LᵀR to a block of 16 × 16: block[f, g] += Σ_t left[t, f]·right[t, g] over n rows of two panels.

    Parameters
    ----------
    matrix : float32 array
    place : int
        Where the block starts; its rows follow one another.
    left, right : float32 array
    i, j : int
        Where the panels start.
    n : int
        The sums start at 0 and are added to the block at the end, so that rounding errors grow with n plus the number
        of calls, not with their product.
    """
    a, b, c = left.reshape(-1), right.reshape(-1), matrix.reshape(-1)
    for t in range(n):
        for f in range(WIDTH):
            scale = a[i + WIDTH * t + f]
            for g in range(WIDTH):
                c[place + WIDTH * f + g] += scale * b[j + WIDTH * t + g]


@in_vectors(_emitters)
def subtract_product(
    matrix: Float32Array, place: int, left: Float32Array, i: int, right: Float32Array, j: int, n: int
) -> None:
    """Subtract LᵀR from a block of 16 × 16; see `add_product`."""
    a, b, c = left.reshape(-1), right.reshape(-1), matrix.reshape(-1)
    for t in range(n):
        for f in range(WIDTH):
            scale = a[i + WIDTH * t + f]
            for g in range(WIDTH):
                c[place + WIDTH * f + g] -= scale * b[j + WIDTH * t + g]


@in_vectors(_emitters)
def add_combination(
    target: Float32Array, i: int, weights: Float32Array, j: int, panel: Float32Array, k: int, n: int
) -> None:
    """Add a combination of n rows of a panel to 16 numbers: target[g] += Σ_t weights[t]·panel[t, g]."""
    x, w, rows = target.reshape(-1), weights.reshape(-1), panel.reshape(-1)
    for t in range(n):
        for g in range(WIDTH):
            x[i + g] += w[j + t] * rows[k + WIDTH * t + g]


@in_vectors(_emitters)
def add_combinations(
    target: Float32Array, weights: Float32Array, panels: Float32Array, i: int, stride: int, n_panels: int, n: int
) -> None:
    """Add a combination of n rows of several panels, ``stride`` apart: target[f] += Σ_t weights[t]·row_t[f]."""
    x, w, rows = target.reshape(-1), weights.reshape(-1), panels.reshape(-1)
    for p in range(n_panels):
        for t in range(n):
            for g in range(WIDTH):
                x[p * WIDTH + g] += w[t] * rows[i + p * stride + WIDTH * t + g]


@in_vectors(_emitters)
def multiply_rows(
    products: Float32Array,
    i: int,
    panels: Float32Array,
    j: int,
    stride: int,
    n_panels: int,
    vector: Float32Array,
    k: int,
) -> None:
    """Multiply 16 rows with a vector: products[r] = Σ_g row_r[g]·vector[g].

    Parameters
    ----------
    products : float32 array
        16 numbers from ``i`` on are overwritten.
    panels : float32 array
    j : int
        Where the first of the rows starts in the first panel.
    stride : int
        From a panel to the next.
    n_panels : int
    vector : float32 array
        16·n_panels numbers from ``k`` on.
    """
    out, rows, x = products.reshape(-1), panels.reshape(-1), vector.reshape(-1)
    for r in range(WIDTH):
        total = np.float32(0)
        for p in range(n_panels):
            for g in range(WIDTH):
                total += rows[j + p * stride + WIDTH * r + g] * x[k + WIDTH * p + g]
        out[i + r] = total


@in_vectors(_emitters)
def factorise_block(matrix: Float32Array, place: int, smallest_pivot: np.float32) -> bool:
    """Factorise a symmetric block of 16 × 16 = UᵀU in place (Cholesky); only its upper triangle is read.

    U replaces the block, with 0 below the diagonal and, on it, the reciprocals of U's diagonal.

    Returns
    -------
    bool
        False if a pivot is not above ``smallest_pivot``; the contents of the block are then undefined.
    """
    block = matrix.reshape(-1)[place : place + WIDTH * WIDTH].reshape(WIDTH, WIDTH)
    regular = True
    for j in range(WIDTH):
        pivot = block[j, j]
        if not pivot > smallest_pivot:  # also catches NaN
            regular = False
        reciprocal = np.float32(1) / np.sqrt(pivot)
        for g in range(j + 1, WIDTH):
            block[j, g] *= reciprocal
        for i in range(j + 1, WIDTH):
            for g in range(i, WIDTH):
                block[i, g] -= block[j, i] * block[j, g]
            block[i, j] = np.float32(0)
        block[j, j] = reciprocal
    return regular


@in_vectors(_emitters)
def solve_block(matrix: Float32Array, factor: int, place: int) -> None:
    """Replace a block B of 16 × 16 by U⁻ᵀB, with U a result of `factorise_block` at ``factor``."""
    c = matrix.reshape(-1)
    for j in range(WIDTH):
        for g in range(WIDTH):
            c[place + WIDTH * j + g] *= c[factor + WIDTH * j + j]
        for i in range(j + 1, WIDTH):
            for g in range(WIDTH):
                c[place + WIDTH * i + g] -= c[factor + WIDTH * j + i] * c[place + WIDTH * j + g]


@in_vectors(_emitters)
def substitute_block(
    matrix: Float32Array, factor: int, x: Float32Array, i: int, negative: Float32Array, j: int
) -> None:
    """Solve Uᵀz = x for 16 numbers, with U a result of `factorise_block` at ``factor``; keep -z.

    Parameters
    ----------
    matrix : float32 array
    factor : int
    x : float32 array
        16 numbers from ``i`` on.
    i : int
    negative : float32 array
        Its 16 numbers from ``j`` on become -z.
    j : int
    """
    u, right_side, out = matrix.reshape(-1), x.reshape(-1), negative.reshape(-1)
    for r in range(WIDTH):
        total = right_side[i + r]
        for t in range(r):
            total += out[j + t] * u[factor + WIDTH * t + r]
        out[j + r] = -total * u[factor + WIDTH * r + r]


@in_vectors(_emitters)
def substitute_block_back(
    matrix: Float32Array, factor: int, x: Float32Array, i: int, negative: Float32Array, j: int
) -> None:
    """Solve Ux = z - x for 16 numbers in place, given -z as `substitute_block` leaves it."""
    u, out, z = matrix.reshape(-1), x.reshape(-1), negative.reshape(-1)
    for r in range(WIDTH - 1, -1, -1):
        total = z[j + r] + out[i + r]
        for t in range(r + 1, WIDTH):
            total += u[factor + WIDTH * r + t] * out[i + t]
        out[i + r] = -total * u[factor + WIDTH * r + r]


@in_vectors(_emitters)
def dot_product(x: Float32Array, i: int, y: Float32Array, j: int, n: int) -> np.float32:
    """Return the product of n numbers of x, from ``i`` on, with those of y, from ``j`` on."""
    a, b = x.reshape(-1), y.reshape(-1)
    total = np.float32(0)
    for f in range(n):
        total += a[i + f] * b[j + f]
    return total


@in_vectors(_emitters)
def copy_row(
    panels: Float32Array, i: int, stride: int, n_panels: int, row: Float32Array, j: int, scale: np.float32
) -> None:
    """Copy a row times ``scale`` into panels that are ``stride`` apart."""
    out, x = panels.reshape(-1), row.reshape(-1)
    for p in range(n_panels):
        for g in range(WIDTH):
            out[i + p * stride + g] = scale * x[j + p * WIDTH + g]


@in_vectors(_emitters)
def prefetch(array: Float32Array, i: int, n: int) -> None:
    """Prefetch n times 16 numbers of an array."""


@trial
def try_all(numbers: Float32Array, results: Float32Array) -> None:
    """Make, factorise and solve a system of 16 equations, and multiply rows: every loop once."""
    size = WIDTH * WIDTH
    add_product(results, 0, numbers, 0, numbers, 0, WIDTH)
    subtract_product(results, 2 * size, numbers, 0, numbers, size, 2 * WIDTH)
    for f in range(WIDTH):
        results[f * WIDTH + f] += np.float32(4)
    results[1000] = factorise_block(results, 0, np.float32(1e-3))
    copy_row(results, size, WIDTH, WIDTH, numbers, size, np.float32(0.5))
    solve_block(results, 0, size)
    substitute_block(results, 0, numbers, 2 * size, results, 3 * size)
    substitute_block_back(results, 0, numbers, 2 * size, results, 3 * size)
    prefetch(numbers, 0, 2)
    add_combination(results, 800, numbers, 600, numbers, 700, 9)
    add_combinations(results[816:], numbers, numbers, 0, 160, 5, 9)
    multiply_rows(results, 900, numbers, 2 * size, size // 2, 3, numbers, 7)
    results[1001] = dot_product(numbers, 3, numbers, 200, 77)
