"""What a gradient step does to two rows: the specification of `fastmf_kernels.sgd.cpu.rows`."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step


class Norms(NamedTuple):
    """‖p‖² of every user and ‖q‖² of every item, as they are when a block is begun."""

    users: Float64Array
    items: Float64Array


def begin_block(factors: Factors) -> Norms:
    """Find the norms that a block goes by."""
    return Norms(*((table.astype(np.float64) ** 2).sum(axis=1) for table in factors[:2]))


def score_of(user: int, item: int, source: Float32Array | Float64Array, factors: Factors) -> float:
    """Return μ + b_u + b_i + p·q, where ``source`` is p or what stands in its place."""
    product = source.astype(np.float64) @ factors.item_factors[item].astype(np.float64)
    return float(product + factors.global_mean + factors.user_biases[user] + factors.item_biases[item])


def predict(score: float, link: Link) -> tuple[float, float]:
    """Return r̂ and dr̂/ds."""
    if link.span == 0:
        return score, 1.0
    sigmoid = 1 / (1 + np.exp(-score))
    return float(link.low + link.span * sigmoid), float(link.span * sigmoid * (1 - sigmoid))


def descend(
    user: int,
    item: int,
    source: Float32Array | Float64Array,
    error: float,
    factors: Factors,
    norms: Norms,
    step: Step,
    rows: RowSteps,
) -> None:
    """Move two rows and their biases one step, given the derivative of the loss by the score, -e.

    The item moves along ``source``: what it was multiplied with.
    """
    p, q = factors.user_factors[user].astype(np.float64), factors.item_factors[item].astype(np.float64)
    user_rate, item_rate = 1 / np.sqrt(rows.user_squares[user]), 1 / np.sqrt(rows.item_squares[item])
    user_scale, item_scale = float(rows.user_scales[user]), float(rows.item_scales[item])

    user_gradient = error * q - user_scale * step.user_regularization * p
    item_gradient = error * source.astype(np.float64) - item_scale * step.item_regularization * q
    factors.user_factors[user] = p + user_rate * step.learning_rate * user_gradient
    factors.item_factors[item] = q + item_rate * step.learning_rate * item_gradient
    rows.user_squares[user] += step.adaptive * error**2 * norms.items[item] / len(p)
    rows.item_squares[item] += step.adaptive * error**2 * norms.users[user] / len(p)

    for biases, row, rate, regularization in (
        (factors.user_biases, user, user_rate, user_scale * step.user_bias_regularization),
        (factors.item_biases, item, item_rate, item_scale * step.item_bias_regularization),
    ):
        biases[row] += rate * step.bias_learning_rate * (error - regularization * biases[row])
