"""The one place of the CUDA variants that compiles, and that knows whether there is a device or a simulator.

Kernels take ``cuda`` and ``isa`` from here: where the environment asks for Numba's simulator (``NUMBA_ENABLE_CUDASIM``
is 1 before Numba is loaded), both are those of `simulated`.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")

SIMULATED = bool(numba.config.ENABLE_CUDASIM)

if SIMULATED:
    from fastmf_kernels._cuda.simulated import SimulatedCuda, SimulatedInstructions

    cuda: Any = SimulatedCuda()
    isa: Any = SimulatedInstructions
else:
    from numba import cuda  # type: ignore[no-redef]

    from fastmf_kernels._cuda import isa

__all__ = ["SIMULATED", "WARP", "cuda", "device", "isa", "kernel", "vector_atomics"]

WARP = 32
# A small problem is no mistake.
numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
# The first compute capability with atomic additions of four numbers at once.
_VECTOR_ATOMICS = (9, 0)


def kernel(function: Callable[P, None]) -> Any:
    """Compile a kernel when it is first launched: ``kernel[blocks, threads](*arguments)``.

    No fastmath: a score that is NaN or infinite has to be told from one that is not. Products and sums are still
    contracted to one instruction.
    """
    return cuda.jit(function)


def device(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that kernels call, into each of them."""
    return function if SIMULATED else cuda.jit(function, device=True, forceinline=True)


@functools.cache
def vector_atomics() -> bool:
    """Whether the device adds four numbers to memory with one instruction."""
    return SIMULATED or cuda.get_current_device().compute_capability >= _VECTOR_ATOMICS
