"""NumPy reference of an SGD epoch: the specification of `fastmf_kernels.sgd.cpu`."""

import numpy as np

from fastmf_kernels._types import Int32Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import Step
from fastmf_kernels.sgd.schedule import Blocks


def run_epoch(
    blocks: Blocks, strata: Int32Array, factors: Factors, link: Link, step: Step, n_threads: int | None = None
) -> float:
    """Take one gradient step for every rating, stratum by stratum, changing ``factors`` in place.

    Parameters
    ----------
    blocks : Blocks
        The ratings.
    strata : int32 array, shape (n, n)
        The order, from `fastmf_kernels.sgd.schedule.shuffled_strata`.
    factors : Factors
        Changed in place.
    link : Link
    step : Step
    n_threads : int, optional
        Not used here.

    Returns
    -------
    float
        Σ (r - r̂)², each r̂ taken just before its own step.
    """
    n = len(strata)
    squared_error = 0.0
    for stratum in strata:
        for row in range(n):
            block = row * n + int(stratum[row])
            for j in range(blocks.offsets[block], blocks.offsets[block + 1]):
                squared_error += _step(blocks.users[j], blocks.items[j], blocks.ratings[j], factors, link, step)
    return squared_error


def _step(user: int, item: int, rating: float, factors: Factors, link: Link, step: Step) -> float:
    p = factors.user_factors[user].astype(np.float64)
    q = factors.item_factors[item].astype(np.float64)
    user_bias, item_bias = float(factors.user_biases[user]), float(factors.item_biases[item])
    prediction, scale = float(factors.global_mean) + user_bias + item_bias + p @ q, 1.0
    if link.span != 0:
        sigmoid = 1 / (1 + np.exp(-prediction))
        prediction, scale = link.low + link.span * sigmoid, link.span * sigmoid * (1 - sigmoid)
    error = float(rating) - prediction
    gradient = error * scale
    factors.user_biases[user] += step.bias_learning_rate * (gradient - step.bias_regularization * user_bias)
    factors.item_biases[item] += step.bias_learning_rate * (gradient - step.bias_regularization * item_bias)
    factors.user_factors[user] = p + step.learning_rate * (gradient * q - step.regularization * p)
    factors.item_factors[item] = q + step.learning_rate * (gradient * p - step.regularization * q)
    return float(error**2)
