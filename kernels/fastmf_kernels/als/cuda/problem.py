"""The least-squares problem of a half sweep on a GPU, as its kernels see it.

As on the CPU, vectors q are scaled by √w when they are gathered, and targets t by 1/√w: with q̃ = √w q and t̃ = t/√w a
row's equations are (G + λI + Σ q̃ q̃ᵀ) x = Σ t̃ q̃.

Places of entries are made unsigned: of a signed one, Numba asks in every access whether it counts from the end.
"""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import device, isa
from fastmf_kernels._cuda.memory import DeviceArray
from fastmf_kernels.als.arrays import Weighting

# The least weight: t̃ = t/√w needs one above 0. The q̃ q̃ᵀ of this one is far below rounding.
_SMALLEST_WEIGHT = np.float32(1e-20)


class DeviceSweep(NamedTuple):
    """A `HalfSweep` on the device.

    Attributes
    ----------
    indptr : int64 array, shape (n_rows + 1,)
    indices : int32 array, shape (n_entries,)
    values : float32 array, shape (n_entries,)
    fixed_factors : float32 array, shape (n_fixed·width,)
        Padded rows, one after the other.
    fixed_offsets : float32 array, shape (n_fixed,)
    gram : float32 array, shape (width·width,)
    regularization : float32 array, shape (n_rows,)
    weighting : Weighting
    n_factors : int
        What is left of ``width`` without the padding.
    cutoff : float32
        Relative size below which a pivot, or a curvature, counts as 0.
    """

    indptr: DeviceArray
    indices: DeviceArray
    values: DeviceArray
    fixed_factors: DeviceArray
    fixed_offsets: DeviceArray
    gram: DeviceArray
    regularization: DeviceArray
    weighting: Weighting
    n_factors: int
    cutoff: np.float32


class Solution(NamedTuple):
    """The results of kernels.

    Attributes
    ----------
    factors : float32 array, shape (n_rows·width,)
    losses : float32 array, shape (n_rows,)
    singular : bool array, shape (n_rows,)
        Rows whose equations are singular; their factors are undefined.
    """

    factors: DeviceArray
    losses: DeviceArray
    singular: DeviceArray


@device
def weigh(problem: DeviceSweep, entry: int) -> tuple[np.float32, np.float32]:
    """Return √w and 1/√w of an entry."""
    weight = problem.weighting.weight + problem.weighting.weight_slope * abs(problem.values[np.uint64(entry)])
    weight = max(weight, _SMALLEST_WEIGHT)
    inverse = isa.reciprocal_root(weight)
    return weight * inverse, inverse


@device
def scaled_target(problem: DeviceSweep, entry: int, inverse: np.float32) -> np.float32:
    """Return t̃ of an entry, of which 1/√w is known."""
    at = np.uint64(entry)
    value = problem.values[at]
    target = problem.weighting.target + problem.weighting.target_slope * value
    if value < problem.weighting.disliked_below:
        target = np.float32(0)
    return (target - problem.fixed_offsets[np.uint64(problem.indices[at])]) * inverse  # type: ignore[no-any-return]
