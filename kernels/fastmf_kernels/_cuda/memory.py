"""Arrays on the device: NumPy arrays go there and come back; what is there already stays.

Memory comes from CuPy's pool, so that a program that uses CuPy, or RMM through it, shares one with fastmf.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastmf_kernels._cuda.jit import SIMULATED, cuda

DeviceArray = Any
T = TypeVar("T", bound=tuple[Any, ...])


def is_on_device(array: Any) -> bool:
    """Whether an array is in the memory of a device: of this library, CuPy, PyTorch or another."""
    return hasattr(array, "__cuda_array_interface__")


def put(array: Any) -> DeviceArray:
    """Return an array on the device; a copy, unless it is there already."""
    if is_on_device(array):
        return array if SIMULATED else cuda.as_cuda_array(array, sync=False)
    host = np.ascontiguousarray(array)
    if SIMULATED:
        return cuda.to_device(host)
    import cupy

    return cuda.as_cuda_array(cupy.asarray(host), sync=False)


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
    """Return an array of zeros on the device."""
    if SIMULATED:
        return cuda.to_device(np.zeros(shape, dtype))
    import cupy

    return cuda.as_cuda_array(cupy.zeros(shape, dtype), sync=False)


def fetch(array: DeviceArray) -> npt.NDArray[Any]:
    """Return a copy on the host, when all kernels before have run."""
    return np.asarray(array.copy_to_host())
