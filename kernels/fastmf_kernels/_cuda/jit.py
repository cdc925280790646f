"""Compiling for CUDA, on a device or in Numba's simulator: nothing else of the CUDA variants knows which.

Kernels take ``cuda`` and ``isa`` from here: where the environment asks for Numba's simulator (``NUMBA_ENABLE_CUDASIM``
is 1 before Numba is loaded), both are those of `simulated`.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

import numba

from fastmf_kernels._cuda.cache import KernelCache

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

__all__ = ["SIMULATED", "WARP", "cuda", "device", "isa", "kernel", "timed", "vector_atomics"]

WARP = 32
# Numba would warn of small problems.
numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
# The first compute capability with atomic additions of four numbers at once.
_VECTOR_ATOMICS = (9, 0)


class Kernel:
    """A kernel, compiled when it is first launched: ``kernel[blocks, threads](*arguments)``.

    No fastmath, because kernels test for NaN and infinity. Products and sums are still contracted to one instruction.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.py_func, self.__doc__ = function, function.__doc__
        self._compiled = cuda.jit(function)
        if not SIMULATED:
            self._compiled._cache = _cache_of(function)

    def __getitem__(self, shape: tuple[Any, int]) -> Callable[..., None]:
        return functools.partial(self._launch, self._compiled[shape])

    def _launch(self, launch: Callable[..., None], *arguments: Any) -> None:
        if _clock is None:
            launch(*arguments)
        else:
            with _clock.timing(self.py_func):
                launch(*arguments)


kernel = Kernel


def _cache_of(function: Callable[..., None]) -> KernelCache:
    from numba.cuda.dispatcher import _Kernel

    return KernelCache(function, lambda states: _Kernel._rebuild(**states), _target)


def _target() -> str:
    """Name the device that kernels are compiled for, and the compiler."""
    return f"{cuda.get_current_device().compute_capability}, numba-cuda {version('numba-cuda')}"


class Clock:
    """Adds up the time that kernels take on the device, while it is the one of `timed`."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def timing(self, function: Callable[..., None]) -> Iterator[None]:
        """Time the kernel that is launched in the block."""
        begin, end = cuda.event(), cuda.event()
        begin.record()
        yield
        end.record()
        self._events.append((f"{function.__module__}.{function.__name__}", begin, end))

    def seconds(self) -> dict[str, float]:
        """Wait for all kernels, and return what they took, by name."""
        cuda.synchronize()
        seconds: dict[str, float] = {}
        for name, begin, end in self._events:
            seconds[name] = seconds.get(name, 0.0) + begin.elapsed_time(end) / 1000
        return seconds


_clock: Clock | None = None


@contextmanager
def timed() -> Iterator[Clock]:
    """Time the kernels that are launched in the block, by any thread."""
    global _clock
    before, _clock = _clock, Clock()
    try:
        yield _clock
    finally:
        _clock = before


def device(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that kernels call, into each of them."""
    return function if SIMULATED else cuda.jit(function, device=True, forceinline=True)


@functools.cache
def vector_atomics() -> bool:
    """Whether the device adds four numbers to memory with one instruction."""
    return SIMULATED or cuda.get_current_device().compute_capability >= _VECTOR_ATOMICS
