"""What rows are folded in with: the fixed side, the steps, and what is drawn."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array, Int64Array

TRIES = 16
"""How often a column that a row does not have is drawn, before there is taken to be none."""
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


class Draws(NamedTuple):
    """How columns that a row does not have are drawn, one after the other at even distances.

    Attributes
    ----------
    cumulative : int64 array, shape (n_fixed + 1,)
        Column c is drawn as often as ``cumulative[c + 1] - cumulative[c]`` says.
    counts : int64 array, shape (n_rows,)
        Columns drawn in an epoch of each row.
    """

    cumulative: Int64Array
    counts: Int64Array


class Rivals(NamedTuple):
    """The items that an item is compared with.

    Attributes
    ----------
    items : Fixed
    indptr, indices : int64 array, shape (n_users + 1,), and int32 array
        What each user has chosen, ascending.
    cumulative : int64 array, shape (n_items + 1,)
        How items that a user has not chosen are drawn, as in `Draws`.
    n_negatives : int
        Items drawn for each user who has chosen the item, in an epoch.
    """

    items: Fixed
    indptr: Int64Array
    indices: Int32Array
    cumulative: Int64Array
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
