"""Arrays from callers, as kernels take them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fastmf.errors import ParameterError
from fastmf_kernels._types import Float32Array


def as_plain_array(values: Any, name: str) -> npt.NDArray[Any]:
    """Return an array-like as an array.

    Raises
    ------
    ParameterError
        If its rows are of different lengths, numbers are masked, or something else makes it no array.
    """
    if np.ma.is_masked(values):
        raise ParameterError(
            f"{name} has {np.count_nonzero(values.mask)} masked values; expected numbers: leave them out, or fill them"
        )
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise ParameterError(f"{name} cannot be turned into an array: {error}") from error


def as_numbers(values: Any, name: str) -> Float32Array:
    """Return numbers as a float32 array in C order; one that is such an array already, also read-only, is no copy.

    Raises
    ------
    ParameterError
        If they are no numbers, or a finite one is beyond float32.
    """
    array = as_plain_array(values, name)
    if array.dtype.kind not in "biuf":
        raise ParameterError(f"{name} has type {array.dtype}; expected numbers, such as float32")
    with np.errstate(over="ignore", under="ignore"):
        numbers = np.require(array, np.float32, ["C", "A"])
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        beyond = np.isinf(numbers) & np.isfinite(array)
        if beyond.any():
            raise ParameterError(
                f"{name} has {np.count_nonzero(beyond)} numbers beyond float32, for example {array[beyond][0]:g}; "
                "expected at most 3.4e38 in magnitude: scale them"
            )
    return numbers
