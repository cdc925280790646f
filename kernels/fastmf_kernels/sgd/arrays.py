"""What an epoch of SGD needs besides ratings and factors."""

from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array


class Step(NamedTuple):
    """Size and damping of gradient steps.

    Attributes
    ----------
    learning_rate : float32
    bias_learning_rate : float32
        0 where a model has no biases.
    adaptive : float32
        1 for AdaGrad: a row's steps become smaller as its squared gradients add up. 0 for steps of one size.
    user_regularization, item_regularization : float32
        L2 strength on the factors.
    user_bias_regularization, item_bias_regularization : float32
        L2 strength on the biases.
    """

    learning_rate: np.float32
    bias_learning_rate: np.float32
    adaptive: np.float32
    user_regularization: np.float32
    item_regularization: np.float32
    user_bias_regularization: np.float32
    item_bias_regularization: np.float32


class RowSteps(NamedTuple):
    """What differs between the steps of one row and those of another.

    Attributes
    ----------
    user_accumulator, item_accumulator : float32 arrays, shape (n_users,) and (n_items,)
        G of AdaGrad: 1 + Σ of the mean squares of the row's gradients so far; step sizes are divided by its root.
    user_scales, item_scales : float32 arrays, shape (n_users,) and (n_items,)
        Factor on all L2 strengths of the row.
    """

    user_accumulator: Float32Array
    item_accumulator: Float32Array
    user_scales: Float32Array
    item_scales: Float32Array


def first_row_steps(n_users: int, n_items: int) -> RowSteps:
    """Return the first `RowSteps`: accumulators of 1, and scales of 1."""
    return RowSteps(*(np.ones(n, np.float32) for n in (n_users, n_items, n_users, n_items)))


class TrainingState(NamedTuple):
    """The arguments of `run_epoch` that stay on the device from epoch to epoch.

    Attributes
    ----------
    blocks, factors, rows
        On the CPU the arrays themselves; on a GPU objects of the backend's own types.
    """

    blocks: Any
    factors: Any
    rows: Any
