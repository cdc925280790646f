"""What rows are folded in with: the fixed side, the steps, and what is drawn."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array, Int64Array

TRIES = 16
"""A draw is given up after so many columns that the row has."""
GOLDEN_RATIO = 0.6180339887498949
"""Its multiples, without their whole parts, lie in [0, 1) more evenly than random numbers, however many there are."""


class Fixed(NamedTuple):
    """The side that stays: what the columns of rows stand for. `fix` of a variant makes it.

    Attributes
    ----------
    factors : float32 array, shape (n_fixed, at least n_factors)
        A variant may add columns of 0 on the right.
    biases : float32 array, shape (n_fixed,)
    squared_norms : float32 array, shape (n_fixed,)
        ‖q‖² of each row of factors.
    n_factors : int
    """

    factors: Float32Array
    biases: Float32Array
    squared_norms: Float32Array
    n_factors: int


class Descent(NamedTuple):
    """The steps of every row.

    Attributes
    ----------
    n_epochs : int
    learning_rate, bias_learning_rate : float
        Step sizes of the first epoch: γ and γ_b.
    decay : float
        Factor on both after an epoch.
    adaptive : float
        Weight of squared gradients in the accumulator of a row, as in `fastmf_kernels.sgd.arrays.Step`.
    regularization, bias_regularization : float
        λ and λ_b of the side that is folded in.
    key : uint64
        The order of the steps, and what is drawn, follow from it.
    """

    n_epochs: int
    learning_rate: float
    bias_learning_rate: float
    decay: float
    adaptive: float
    regularization: float
    bias_regularization: float
    key: np.uint64


class Weights(NamedTuple):
    """How often each column is drawn: in proportion to its number of positions. `make_weights` makes it.

    Attributes
    ----------
    cumulative : int64 array, shape (n_columns + 1,)
        Column c has the positions from ``cumulative[c]`` to just below ``cumulative[c + 1]``.
    guide : int32 array
        The columns of the positions 0, 2ˢ, 2·2ˢ, …, and of the last position. The search for the column of a position
        runs between two of them.
    shift : int
        s.
    """

    cumulative: Int64Array
    guide: Int32Array
    shift: int


class Draws(NamedTuple):
    """Which columns are drawn for a row: columns that it lacks, by a sequence of low discrepancy.

    Attributes
    ----------
    weights : Weights
        Of the columns, n_fixed in number.
    counts : int64 array, shape (n_rows,)
        Columns drawn in an epoch of each row.
    """

    weights: Weights
    counts: Int64Array


class Rivals(NamedTuple):
    """The items that an item is compared with.

    Attributes
    ----------
    items : Fixed
    indptr, indices : int64 array, shape (n_users + 1,), and int32 array
        What each user has chosen, ascending.
    weights : Weights
        How items that a user has not chosen are drawn.
    n_negatives : int
        Items drawn for each user who has chosen the item, in an epoch.
    """

    items: Fixed
    indptr: Int64Array
    indices: Int32Array
    weights: Weights
    n_negatives: int


class Folded(NamedTuple):
    """Rows that were folded in.

    Attributes
    ----------
    factors : float32 array, shape (n_rows, n_factors)
    biases : float32 array, shape (n_rows,)
    """

    factors: Float32Array
    biases: Float32Array


def make_weights(cumulative: Int64Array) -> Weights:
    """Prepare columns to be drawn.

    The guide has about as many entries as there are columns, so that few columns lie between two of them (Chen, Asau,
    "On Generating Random Variates from an Empirical Distribution", AIIE Transactions 6(2), 1974).

    Parameters
    ----------
    cumulative : int64 array, shape (n_columns + 1,)
        0, then how many positions the columns have up to each of them.
    """
    n_columns, n_positions = len(cumulative) - 1, int(cumulative[-1])
    shift = 0
    while n_positions >> shift > 2 * n_columns:
        shift += 1
    positions = np.append(np.arange(0, n_positions, 1 << shift), max(n_positions - 1, 0))
    guide = np.searchsorted(cumulative, positions, side="right") - 1
    return Weights(cumulative, guide.astype(np.int32), shift)
