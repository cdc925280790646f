"""What a gradient step does to rows and biases: the specification of `fastmf_kernels.sgd.cpu.rows`."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step


class Norms(NamedTuple):
    """‖p‖² of every user and ‖q‖² of every item, as they are when a block begins."""

    users: Float64Array
    items: Float64Array


class Side(NamedTuple):
    """Users or items as a step sees them.

    Attributes
    ----------
    factors : float32 array, shape (n_rows, n_factors)
    biases, accumulator, scales : float32 arrays, shape (n_rows,)
        As in `RowSteps`.
    regularization, bias_regularization : float
    step : Step
        Its step sizes, which are those of both sides.
    """

    factors: Float32Array
    biases: Float32Array
    accumulator: Float32Array
    scales: Float32Array
    regularization: float
    bias_regularization: float
    step: Step


def sides(factors: Factors, step: Step, rows: RowSteps) -> tuple[Side, Side]:
    """Return users and items."""
    p, q, user_biases, item_biases, _ = factors
    user_strengths = float(step.user_regularization), float(step.user_bias_regularization)
    item_strengths = float(step.item_regularization), float(step.item_bias_regularization)
    return (
        Side(p, user_biases, rows.user_accumulator, rows.user_scales, *user_strengths, step),
        Side(q, item_biases, rows.item_accumulator, rows.item_scales, *item_strengths, step),
    )


def begin_block(factors: Factors) -> Norms:
    """Return the norms that the accumulators of a block grow by."""
    return Norms(*((table.astype(np.float64) ** 2).sum(axis=1) for table in factors[:2]))


def score_of(user: int, item: int, source: Float32Array | Float64Array, factors: Factors) -> float:
    """Return μ + b_u + b_i + p·q, where ``source`` is p, or p + z in SVD++."""
    product = source.astype(np.float64) @ factors.item_factors[item].astype(np.float64)
    return float(product + factors.global_mean + factors.user_biases[user] + factors.item_biases[item])


def predict(score: float, link: Link) -> tuple[float, float]:
    """Return r̂ and dr̂/ds."""
    if link.span == 0:
        return score, 1.0
    share = sigmoid(score)
    return float(link.low + link.span * share), float(link.span * share * (1 - share))


def sigmoid(score: float) -> float:
    """Return 1/(1 + e^-s), also where e^-s is too large for a number."""
    return float(np.exp(-np.logaddexp(0, -score)))


def move(table: Float32Array, row: int, gradient: Float64Array | float, rate: float, regularization: float) -> None:
    """Take a step: x ← (x + γg)/(1 + γλ), for a row of factors or a bias x and the error's gradient -g."""
    table[row] = (table[row].astype(np.float64) + rate * gradient) / (1 + rate * regularization)


def move_row(side: Side, row: int, gradient: Float64Array, mean_square: float) -> float:
    """Take the step of a row of factors, and let its accumulator grow; returns its 1/√G before that."""
    root = 1 / float(np.sqrt(side.accumulator[row], dtype=np.float64))
    regularization = float(side.scales[row]) * side.regularization
    move(side.factors, row, gradient, root * float(side.step.learning_rate), regularization)
    side.accumulator[row] += side.step.adaptive * mean_square
    return root


def move_bias(side: Side, row: int, error: float, root: float) -> None:
    """Take the step of a row's bias; ``root`` is the 1/√G of its factors."""
    regularization = float(side.scales[row]) * side.bias_regularization
    move(side.biases, row, error, root * float(side.step.bias_learning_rate), regularization)


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

    The item moves along ``source``, the vector that it was multiplied with.
    """
    users, items = sides(factors, step, rows)
    k = factors.item_factors.shape[1]
    user_gradient, item_gradient = error * items.factors[item].astype(np.float64), error * source.astype(np.float64)
    user_root = move_row(users, user, user_gradient, error**2 * norms.items[item] / k)
    item_root = move_row(items, item, item_gradient, error**2 * norms.users[user] / k)
    move_bias(users, user, error, user_root)
    move_bias(items, item, error, item_root)
