"""Drawing columns that a row does not have, on the CPU; see `_Row.draw` of the reference.

The row's columns are marked before they are asked for many times. The weights' guide says where a column is sought.
"""

from typing import Any

import numpy as np

from fastmf_kernels._jit import device, inlined
from fastmf_kernels._types import Index, Int32Array, UInt64Array
from fastmf_kernels.fold_in.arrays import GOLDEN_RATIO, TRIES, Weights


@device
def mark(marks: UInt64Array, columns: Int32Array, start: Index, stop: Index) -> None:
    """Set the bits of ``columns[start:stop]``."""
    for j in range(start, stop):
        column = np.uint64(columns[j])
        marks[column >> np.uint64(6)] |= np.uint64(1) << (column & np.uint64(63))


@device
def unmark(marks: UInt64Array, columns: Int32Array, start: Index, stop: Index) -> None:
    """Clear the bits of ``columns[start:stop]``, when all others are clear."""
    for j in range(start, stop):
        marks[np.uint64(columns[j]) >> np.uint64(6)] = np.uint64(0)


@inlined
def draw(weights: Weights, marks: UInt64Array, offset: float, n_drawn: np.int64) -> tuple[np.int64, np.int64, np.int64]:
    """Draw a column that is not marked; returns it, the position, and the number of draws."""
    for _ in range(TRIES):
        n_drawn += np.int64(1)
        column, position = _place(weights, offset, n_drawn)
        bit = np.uint64(column) & np.uint64(63)
        if (marks[np.uint64(column) >> np.uint64(6)] >> bit) & np.uint64(1) == 0:
            return column, position, n_drawn
    return np.int64(-1), np.int64(-1), n_drawn


@inlined
def draw_beside(
    weights: Weights, excluded: Int32Array, start: Index, stop: Index, offset: float, n_drawn: np.int64
) -> tuple[np.int64, np.int64, np.int64]:
    """Draw a column that is not in ``excluded[start:stop]``; returns what `draw` does."""
    for _ in range(TRIES):
        n_drawn += np.int64(1)
        column, position = _place(weights, offset, n_drawn)
        entry = _first_above(excluded, np.int64(start), np.int64(stop), column - 1)
        if entry == np.int64(stop) or excluded[np.uint64(entry)] != column:
            return column, position, n_drawn
    return np.int64(-1), np.int64(-1), n_drawn


@inlined
def _place(weights: Weights, offset: float, n_drawn: np.int64) -> tuple[np.int64, np.int64]:
    """Return the column and the position that a draw is at."""
    place = offset + np.float64(n_drawn) * GOLDEN_RATIO
    n_positions = weights.cumulative[np.uint64(len(weights.cumulative) - 1)]
    position = min(np.int64((place - np.floor(place)) * n_positions), n_positions - np.int64(1))
    near = np.uint64(position >> np.int64(weights.shift))
    first, last = np.int64(weights.guide[near]), np.int64(weights.guide[near + np.uint64(1)])
    return _first_above(weights.cumulative, first + 1, last + 1, position) - 1, position


@inlined
def _first_above(ascending: Any, low: np.int64, high: np.int64, value: np.int64) -> np.int64:
    """Return the place of the first number above a value from ``low`` on, ``high`` if there is none before it."""
    while low < high:
        middle = (low + high) >> 1
        if ascending[np.uint64(middle)] <= value:
            low = middle + 1
        else:
            high = middle
    return low
