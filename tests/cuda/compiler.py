"""CUDA kernels compiled without a GPU."""

from typing import Any, NamedTuple

import numba
from numba import cuda
from numba.cuda import dispatcher

CAPABILITY = (9, 0)


class Device(NamedTuple):
    """Stands in for the device that Numba asks for when a kernel calls other functions."""

    compute_capability: tuple[int, int] = CAPABILITY
    MULTIPROCESSOR_COUNT: int = 2


def compile_to(output: str, function: Any, types: tuple[Any, ...]) -> Any:
    """Compile a kernel for arguments of some types, to "ptx" or "ltoir"."""
    before = dispatcher.get_current_device
    dispatcher.get_current_device = Device
    try:
        signature = numba.void(*types)
        code, _ = cuda.compile(function, signature, cc=CAPABILITY, output=output, abi="numba", device=False)
    finally:
        dispatcher.get_current_device = before
    return code
