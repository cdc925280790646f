"""Rows that a kernel keeps in registers while it works through the rows of another table.

A row is a number of whole panels of 16 numbers, filled up with zeros. A kernel is compiled once for each number of
panels, which is part of the type of an array that `count` makes. As in `fastmf_kernels.linalg.panels`, these are plain
loops, in which a held row is an array; kernels get explicit vector code instead, in which it is in registers.
"""

import math
from types import ModuleType

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import Float32Array, Index
from fastmf_kernels._vectors import in_vectors, trial

Count = npt.NDArray[np.void]


def count(n: int) -> Count:
    """Return an empty array whose type says ``n``: the compiler knows types, but no values."""
    return np.empty(0, [("count", np.int8, (n,))])


def _emitters() -> ModuleType:
    from fastmf_kernels.linalg import rows_simd

    return rows_simd


@in_vectors(_emitters)
def hold_row(table: Float32Array, i: Index, panels: Count) -> Float32Array:
    """Load the row that starts at ``i``, of so many panels, into registers."""
    return table.reshape(-1)[i : i + table.shape[1]].copy()


@in_vectors(_emitters)
def put_row(row: Float32Array, table: Float32Array, i: Index) -> None:
    """Store a held row at ``i``."""
    numbers = table.reshape(-1)
    for f in range(len(row)):
        numbers[i + f] = row[f]


@in_vectors(_emitters)
def multiply_row(row: Float32Array, table: Float32Array, i: Index) -> np.float32:
    """Return the product x·y of a held row x with the row y that starts at ``i``."""
    numbers = table.reshape(-1)
    total = np.float32(0)
    for f in range(len(row)):
        total += row[f] * numbers[i + f]
    return total


@in_vectors(_emitters)
def move_row(
    row: Float32Array,
    source: Float32Array,
    table: Float32Array,
    i: Index,
    keep_row: np.float32,
    add_to_row: np.float32,
    keep_other: np.float32,
    add_to_other: np.float32,
) -> Float32Array:
    """Return keep_row·x + add_to_row·y, and replace y by keep_other·y + add_to_other·z, both with the old y.

    x is ``row``, z is ``source``, which may be ``row`` too, and y is the row of ``table`` that starts at ``i``.
    """
    numbers = table.reshape(-1)
    moved = row.copy()
    for f in range(len(row)):
        y = numbers[i + f]
        moved[f] = keep_row * row[f] + add_to_row * y
        numbers[i + f] = keep_other * y + add_to_other * source[f]
    return moved


@in_vectors(_emitters)
def combine_rows(row: Float32Array, other: Float32Array, keep: np.float32, add: np.float32) -> Float32Array:
    """Return keep·x + add·y of two held rows x and y."""
    combined = np.empty_like(row)
    for f in range(len(row)):
        combined[f] = keep * row[f] + add * other[f]
    return combined


@in_vectors(_emitters)
def inverse_roots(x: np.float32, y: np.float32) -> tuple[np.float32, np.float32]:
    """Return 1/√x and 1/√y, in the time of one."""
    return np.float32(1) / np.sqrt(x), np.float32(1) / np.sqrt(y)


@in_vectors(_emitters)
def exponential(x: np.float32) -> np.float32:
    """Return eˣ without a call, which would move held rows out of their registers."""
    return np.float32(math.exp(x))


_TWO_PANELS = count(2)


@trial
def try_all(numbers: Float32Array, results: Float32Array) -> None:
    """Move two rows of 32 numbers: every loop once."""
    table, width = numbers.reshape(-1, 32), 32
    row, other = hold_row(table, width, _TWO_PANELS), hold_row(table, 2 * width, _TWO_PANELS)
    product = multiply_row(row, table, 3 * width)
    first, second = inverse_roots(np.float32(0.3), np.float32(2))
    source = combine_rows(row, other, first, second)
    row = move_row(row, source, table, 3 * width, product, first, second, exponential(np.float32(-0.7)))
    put_row(row, results, 0)
