"""Arrays on the device: NumPy arrays go there and come back; what is there already stays.

Memory comes from CuPy's pool, so that a program that uses CuPy, or RMM through it, shares one with fastmf.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastmf_kernels._cuda.jit import SIMULATED, cuda

DeviceArray = Any
_SIMULATED_BYTES = 1 << 40
T = TypeVar("T", bound=tuple[Any, ...])


def is_on_device(array: Any) -> bool:
    """Whether an array is in the memory of a device: of this library, CuPy, PyTorch or another."""
    # The simulator's arrays have no interface.
    return hasattr(array, "__cuda_array_interface__") or hasattr(array, "copy_to_host")


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


def free_bytes() -> int:
    """Return how much memory the device has left, with what CuPy's pool holds in store."""
    if SIMULATED:
        return _SIMULATED_BYTES
    import cupy

    return int(cupy.cuda.Device().mem_info[0] + cupy.get_default_memory_pool().free_bytes())


def require_room(n_bytes: int, what: str) -> None:
    """Make sure that something which cannot be cut into parts fits into memory.

    Raises
    ------
    MemoryError
        If it does not.
    """
    free = free_bytes()
    if n_bytes > free:
        raise MemoryError(
            f"{what} take {n_bytes:,} bytes of the GPU's memory, of which {free:,} are free; choose fewer factors, "
            'free memory that others use, or use backend "cpu"'
        )
