"""Arrays of other libraries that are in the memory of a GPU: by ``__cuda_array_interface__`` or DLPack."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

# The number of CUDA among DLPack's kinds of devices.
_DLPACK_CUDA = 2


def is_on_gpu(array: Any) -> bool:
    """Whether an array, of whatever library, is in the memory of a GPU; nothing is loaded to find out."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[0]) == _DLPACK_CUDA
    return hasattr(array, "__cuda_array_interface__")


def to_host(array: Any) -> npt.NDArray[Any]:
    """Copy an array that is on a GPU to a NumPy array."""
    import cupy

    there = cupy.asarray(array) if hasattr(array, "__cuda_array_interface__") else cupy.from_dlpack(array)
    return np.asarray(cupy.asnumpy(there))


def to_kind_of(given: Any, host: npt.NDArray[Any]) -> Any:
    """Copy a NumPy array to the GPU, as an array of the library that ``given`` is of; of CuPy if that one cannot."""
    import cupy

    there = cupy.asarray(host)
    library = sys.modules.get(type(given).__module__.partition(".")[0])
    return library.from_dlpack(there) if library is not None and hasattr(library, "from_dlpack") else there
