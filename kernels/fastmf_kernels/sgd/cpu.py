"""SGD on all cores; the contract is that of `fastmf_kernels.sgd.reference`.

The blocks of a stratum run side by side and walk their ratings in a fixed order, so the factors have the same bits
for every number of threads. Unsigned indices spare each access Numba's test for negative ones.
"""

import numpy as np

from fastmf_kernels._jit import device, parallel, prange, threads
from fastmf_kernels._types import Float64Array, Int32Array
from fastmf_kernels.predict import point as predict_point
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd import point
from fastmf_kernels.sgd.arrays import Step
from fastmf_kernels.sgd.schedule import Blocks

_dot = device(predict_point.dot)
_apply_link = device(predict_point.apply_link)
_gradient_scale = device(point.gradient_scale)
_update_factors = device(point.update_factors)
_updated_bias = device(point.updated_bias)


def run_epoch(
    blocks: Blocks, strata: Int32Array, factors: Factors, link: Link, step: Step, n_threads: int | None = None
) -> float:
    """Take one gradient step for every rating; see the reference."""
    squared_errors = np.zeros(strata.size, np.float64)
    with threads(n_threads):
        _run_epoch(blocks, strata, factors, link, step, squared_errors)
    return float(squared_errors.sum())


@parallel
def _run_epoch(
    blocks: Blocks, strata: Int32Array, factors: Factors, link: Link, step: Step, squared_errors: Float64Array
) -> None:
    """Run every stratum; fills the squared error of each block, shape (n * n,)."""
    n = strata.shape[0]
    for s in range(n):
        for row in prange(n):
            block = row * n + strata[s, row]
            squared_errors[block] = _walk_block(
                blocks, blocks.offsets[block], blocks.offsets[block + 1], factors, link, step
            )


@device
def _walk_block(blocks: Blocks, start: int, stop: int, factors: Factors, link: Link, step: Step) -> float:
    squared_error = np.float64(0)
    for j in range(np.uint64(start), np.uint64(stop)):
        user, item = np.uint64(blocks.users[j]), np.uint64(blocks.items[j])
        p, q = factors.user_factors[user], factors.item_factors[item]
        user_bias, item_bias = factors.user_biases[user], factors.item_biases[item]
        score = _dot(p, q, factors.global_mean + user_bias + item_bias)
        prediction = _apply_link(score, link.low, link.span)
        error = blocks.ratings[j] - prediction
        gradient = error * _gradient_scale(prediction, link)
        factors.user_biases[user] = _updated_bias(user_bias, gradient, step)
        factors.item_biases[item] = _updated_bias(item_bias, gradient, step)
        _update_factors(p, q, gradient, step)
        squared_error += np.float64(error) * np.float64(error)
    return squared_error
