"""Blocks of four columns of a Cholesky factor L, in the registers of every thread that needs one.

Every thread factorises the diagonal block, which takes less time than waiting for one thread to do it. L's diagonal is
stored as its reciprocals.
"""

from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import device, isa
from fastmf_kernels._cuda.rows import VECTOR
from fastmf_kernels._types import Float32Array

Four = tuple[np.float32, np.float32, np.float32, np.float32]


@device
def packed(row: int) -> int:
    """Return where a row of a lower half begins, when rows lie one after the other."""
    return row * (row + 1) // 2


@device
def factorise_block(columns: Float32Array, at: int, width: int, smallest: np.float32) -> tuple[Any, bool]:
    """Factorise the block whose four columns lie ``width`` apart.

    Returns
    -------
    tuple of float32
        1/L₀₀, L₁₀, L₂₀, L₃₀; 1/L₁₁, L₂₁, L₃₁; 1/L₂₂, L₃₂; 1/L₃₃.
    bool
        Whether every pivot is above ``smallest``, which stands in for those that are not; NaN is not.
    """
    _, a10, a20, a30 = isa.load4(columns, at)
    _, a11, a21, a31 = isa.load4(columns, at + width)
    _, _, a22, a32 = isa.load4(columns, at + 2 * width)
    pivot0, pivot3 = columns[at], columns[at + 3 * width + 3]
    s0 = isa.reciprocal_root(max(pivot0, smallest))
    l10, l20, l30 = a10 * s0, a20 * s0, a30 * s0
    pivot1 = a11 - l10 * l10
    s1 = isa.reciprocal_root(max(pivot1, smallest))
    l21, l31 = (a21 - l20 * l10) * s1, (a31 - l30 * l10) * s1
    pivot2 = a22 - l20 * l20 - l21 * l21
    s2 = isa.reciprocal_root(max(pivot2, smallest))
    l32 = (a32 - l30 * l20 - l31 * l21) * s2
    pivot3 -= l30 * l30 + l31 * l31 + l32 * l32
    s3 = isa.reciprocal_root(max(pivot3, smallest))
    is_regular = pivot0 > smallest and pivot1 > smallest and pivot2 > smallest and pivot3 > smallest
    return (s0, l10, l20, l30, s1, l21, l31, s2, l32, s3), is_regular


@device
def solve_row(block: Any, columns: Float32Array, at: int, width: int) -> Four:
    """Return a row of L, below a block or in it: l with l Lᵀ = a, four numbers ``width`` apart."""
    s0, l10, l20, l30, s1, l21, l31, s2, l32, s3 = block
    l0 = columns[at] * s0
    l1 = (columns[at + width] - l0 * l10) * s1
    l2 = (columns[at + 2 * width] - l0 * l20 - l1 * l21) * s2
    return l0, l1, l2, (columns[at + 3 * width] - l0 * l30 - l1 * l31 - l2 * l32) * s3


@device
def eliminate(block: Any, heads: Four, four: Four, below: int, right: np.float32) -> np.float32:
    """Return the right side of the row that is so far below a block's first, when the block's y are known: Ly = b."""
    s0, l10, l20, l30, s1, l21, l31, s2, l32, s3 = block
    y0 = heads[0] * s0
    y1 = (heads[1] - l10 * y0) * s1
    y2 = (heads[2] - l20 * y0 - l21 * y1) * s2
    y3 = (heads[3] - l30 * y0 - l31 * y1 - l32 * y2) * s3
    if below < VECTOR:
        return _pick((y0, y1, y2, y3), below)
    return right - four[0] * y0 - four[1] * y1 - four[2] * y2 - four[3] * y3  # type: ignore[no-any-return]


@device
def keep(block: Any, four: Four, factor: Float32Array, row: int, start: int) -> None:
    """Write what a row has in the four columns from ``start`` on to the packed factor."""
    first, below = packed(row) + start, row - start
    if below < VECTOR:
        factor[first + below] = _pick((block[0], block[4], block[7], block[9]), below)
    for c in range(VECTOR):
        if c < below:
            factor[first + c] = four[c]


@device
def substitute_block_back(factor: Float32Array, start: int, y: Four) -> Four:
    """Solve Lᵀx = y for the block on the diagonal from row ``start`` on."""
    row1, row2, row3 = packed(start + 1) + start, packed(start + 2) + start, packed(start + 3) + start
    x3 = y[3] * factor[row3 + 3]
    x2 = (y[2] - factor[row3 + 2] * x3) * factor[row2 + 2]
    x1 = (y[1] - factor[row2 + 1] * x2 - factor[row3 + 1] * x3) * factor[row1 + 1]
    x0 = (y[0] - factor[row1] * x1 - factor[row2] * x2 - factor[row3] * x3) * factor[packed(start) + start]
    return x0, x1, x2, x3


@device
def take_block(factor: Float32Array, start: int, x: Four, row: int, y: np.float32) -> np.float32:
    """Return what a row has left of its y when the block of four unknowns below it, or its own, is known."""
    if row >= start:
        return _pick(x, row - start)
    for c in range(VECTOR):
        y -= factor[packed(start + c) + row] * x[c]
    return y


@device
def _pick(four: Four, number: int) -> np.float32:
    """Return one of four numbers in registers, which cannot be counted."""
    low, high = four[0] if number == 0 else four[1], four[2] if number == 2 else four[3]
    return low if number < 2 else high
