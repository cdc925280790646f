"""Step sizes of two rows and their biases, as plain code; `step_sizes_simd` is the vector code in its place."""

from types import ModuleType

import numpy as np

from fastmf_kernels._jit import device
from fastmf_kernels._types import Float32Array
from fastmf_kernels._vectors import in_vectors, trial
from fastmf_kernels.sgd import point

_damped_rate = device(point.damped_rate)

Eight = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]


def _emitters() -> ModuleType:
    from fastmf_kernels.sgd.cpu import step_sizes_simd

    return step_sizes_simd


@in_vectors(_emitters)
def step_sizes(
    user_accumulator: np.float32,
    item_accumulator: np.float32,
    user_scale: np.float32,
    item_scale: np.float32,
    rates: Float32Array,
) -> Eight:
    """Return the `point.damped_rate` of two rows and their biases, at the cost of one of them.

    Parameters
    ----------
    user_accumulator, item_accumulator : float32
        G of both rows.
    user_scale, item_scale : float32
        Factors on the strengths of both rows.
    rates : float32 array, shape (16,)
        γ, γ_b, γλ and γ_b λ_b, four numbers for each: the user's, the item's, and two zeros.

    Returns
    -------
    eight float32
        1 - ηλ of the same four, then their η.
    """
    user_row = _damped_rate(user_accumulator, rates[0], user_scale * rates[8])
    item_row = _damped_rate(item_accumulator, rates[1], item_scale * rates[9])
    user_bias = _damped_rate(user_accumulator, rates[4], user_scale * rates[12])
    item_bias = _damped_rate(item_accumulator, rates[5], item_scale * rates[13])
    return user_row[0], item_row[0], user_bias[0], item_bias[0], user_row[1], item_row[1], user_bias[1], item_bias[1]


@trial
def try_all(numbers: Float32Array, results: Float32Array) -> None:
    """Find the sizes of a step of two rows."""
    two = np.float32(2)
    sizes = step_sizes(two + numbers[0], two + numbers[1], two + numbers[2], two + numbers[3], two + numbers[16:32])
    for i in range(8):
        results[i] = sizes[i]
