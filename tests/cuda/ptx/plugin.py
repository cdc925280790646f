"""Runs CUDA kernels as they were compiled, in an interpreter: ``pytest -p tests.cuda.ptx.plugin``.

It has to be loaded before the kernels are.
"""

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import cuda
from numba.core import types

from fastmf_kernels._cuda import jit, memory, probe
from tests.cuda.compiler import Device, compile_to
from tests.cuda.ptx.instructions import make_step
from tests.cuda.ptx.machine import Machine
from tests.cuda.ptx.memory import DeviceArray, GlobalMemory
from tests.cuda.ptx.program import Program, parse

_memory = GlobalMemory()
_interpreted: set[str] = set()


class InterpretedKernel:
    """Stands in for `fastmf_kernels._cuda.jit.Kernel`."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.py_func, self.__doc__ = function, function.__doc__
        self._programs: dict[Any, Program] = {}

    def __getitem__(self, shape: tuple[Any, int]) -> Callable[..., None]:
        return functools.partial(self._launch, *shape)

    def _launch(self, grid: Any, n_threads: int, *arguments: Any) -> None:
        _interpreted.add(name_of(self.py_func))
        kinds = tuple(_type_of(argument) for argument in arguments)
        if kinds not in self._programs:
            code = compile_to("ptx", self.py_func, kinds)
            self._programs[kinds] = parse(code if isinstance(code, str) else code.decode())
        program = self._programs[kinds]
        blocks = np.append(grid, np.ones(3, np.int64))[:3].tolist()
        assert min(blocks) > 0, f"a grid of {grid} blocks"
        numbers = [number for argument in arguments for number in _flat(argument)]
        named = {name: number for (name, _), number in zip(program.parameters, numbers, strict=True)}
        Machine(program, int(n_threads), named, _memory, make_step).run(tuple(blocks))


def name_of(function: Callable[..., None]) -> str:
    """Name a kernel by its module and the function that it is."""
    return f"{function.__module__}.{function.__name__}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell which kernels were run."""
    terminalreporter.write_line(f"interpreted: {' '.join(sorted(_interpreted))}")


def _type_of(argument: Any) -> Any:
    """Return the type by which Numba compiles for an argument."""
    if isinstance(argument, DeviceArray):
        return types.Array(numba.from_dtype(argument.dtype), argument.ndim, "C")
    if isinstance(argument, tuple):
        return types.NamedTuple([_type_of(member) for member in argument], type(argument))
    return numba.typeof(argument)


def _flat(argument: Any) -> list[Any]:
    """Return the numbers that a kernel gets for an argument; for an array: nothing, nothing, its sizes, where it is."""
    if isinstance(argument, DeviceArray):
        host = argument.host
        return [0, 0, host.size, host.itemsize, argument.address, *host.shape, *host.strides]
    if isinstance(argument, tuple):
        return [number for member in argument for number in _flat(member)]
    return [argument]


def _put(array: Any) -> DeviceArray:
    return array if isinstance(array, DeviceArray) else _memory.hold(array)


jit.Kernel = jit.kernel = InterpretedKernel  # type: ignore[misc, assignment]
memory.put = _put
memory.zeros = lambda shape, dtype: _memory.hold(np.zeros(shape, dtype))
memory.free_bytes = lambda: 1 << 40
probe.obstacle = lambda: None
probe.describe_device = lambda: "an interpreter of PTX, for tests"
cuda.get_current_device = Device
