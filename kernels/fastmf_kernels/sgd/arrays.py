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
    """What makes the steps of one row differ from those of another.

    Attributes
    ----------
    user_squares, item_squares : float32 arrays, shape (n_users,) and (n_items,)
        1 + Σ of the mean squares of the error's gradients so far; step sizes are divided by its root.
    user_scales, item_scales : float32 arrays, shape (n_users,) and (n_items,)
        Factor on all L2 strengths of the row.
    """

    user_squares: Float32Array
    item_squares: Float32Array
    user_scales: Float32Array
    item_scales: Float32Array


def first_row_steps(n_users: int, n_items: int) -> RowSteps:
    """Return what rows start with: nothing added up, and regularisation as it is."""
    return RowSteps(*(np.ones(n, np.float32) for n in (n_users, n_items, n_users, n_items)))


class TrainingState(NamedTuple):
    """What epochs work on, where the kernels of a backend have it at hand.

    Attributes
    ----------
    blocks, factors, rows
        What `run_epoch` takes; on a device they are of its own types.
    """

    blocks: Any
    factors: Any
    rows: Any
