"""Numba's CUDA simulator, with warps, checks of alignment, and memory that starts with nonsense.

It runs kernels as they are, a Python thread for each thread of a block: slowly, one block after the other, and without
checking types. Races between threads do not show.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda as numba_cuda
from numba.cuda.simulator import kernel as launches
from numba.np.numpy_support import as_dtype

_WARP, _ALL = 32, 0xFFFFFFFF
# Seconds. No thread works longer between two barriers: after that, another one has failed or missed the barrier.
_PATIENCE = 60.0
_lock = threading.Lock()


class _Warp(NamedTuple):
    """The barrier of a warp, and the value that each thread exchanges there."""

    barrier: threading.Barrier
    brought: list[Any]


def _block() -> dict[Any, Any]:
    """Return what belongs to the calling thread's block."""
    manager: Any = threading.current_thread()._manager  # type: ignore[attr-defined]
    return vars(manager).setdefault("of_fastmf", {})  # type: ignore[no-any-return]


def _remembered(key: Any, make: Callable[[], Any]) -> Any:
    block = _block()
    with _lock:
        if key not in block:
            block[key] = make()
        return block[key]


def _exchanged(mask: int, value: Any) -> list[Any]:
    """Let the threads of a warp that the mask names show each other a value each."""
    thread, mask = threading.current_thread(), int(mask) & _ALL
    number, lane = divmod(thread.thread_id, _WARP)  # type: ignore[attr-defined]
    if not mask >> lane & 1:
        raise RuntimeError(f"lane {lane} is not in the mask {mask:#x} that it waits with")
    n_threads = int(np.prod(thread._manager._block_dim))  # type: ignore[attr-defined]
    size = (mask & (1 << min(_WARP, n_threads - number * _WARP)) - 1).bit_count()
    warp = _remembered(("warp", number, mask), lambda: _Warp(threading.Barrier(size), [None] * _WARP))
    warp.brought[lane] = value
    warp.barrier.wait(_PATIENCE)
    brought = list(warp.brought)
    warp.barrier.wait(_PATIENCE)
    return brought


def _poisoned(shape: Any, dtype: Any) -> Any:
    kind = np.dtype(dtype if isinstance(dtype, type | np.dtype) else as_dtype(dtype))
    return np.full(shape, np.nan if kind.kind == "f" else np.iinfo(kind).max, kind)


class _Shared:
    """Shared memory: one array for a block and a place in the source."""

    def array(self, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
        frame = sys._getframe(1)
        return _remembered((frame.f_code.co_filename, frame.f_lineno), lambda: _poisoned(shape, dtype))


class _Local:
    """Memory of one thread."""

    def array(self, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
        return _poisoned(shape, dtype)


class SimulatedCuda:
    """What kernels know as ``cuda``; outside of kernels, the module itself."""

    shared, local = _Shared(), _Local()

    def __getattr__(self, name: str) -> Any:
        inside = launches._get_kernel_context()
        return getattr(numba_cuda if inside is None else inside, name)

    def syncwarp(self, mask: int = _ALL) -> None:
        """Wait for the warp."""
        _exchanged(mask, None)

    def shfl_sync(self, mask: int, value: Any, lane: int) -> Any:
        """Return the value that a lane has brought."""
        return _exchanged(mask, value)[lane]

    def shfl_xor_sync(self, mask: int, value: Any, distance: int) -> Any:
        """Return the value of the lane whose number differs in some bits."""
        brought = _exchanged(mask, value)
        return brought[self.laneid ^ distance]

    def ballot_sync(self, mask: int, predicate: bool) -> int:
        """Return a bit for each lane for which something holds."""
        return sum(1 << lane for lane, holds in enumerate(_exchanged(mask, bool(predicate))) if holds)


class SimulatedInstructions:
    """What kernels know as ``isa``, in plain Python; see the module of that name."""

    @staticmethod
    def load4(array: Any, i: int) -> tuple[Any, Any, Any, Any]:
        """Read ``array[i : i + 4]``."""
        _require_aligned(i)
        return array[i], array[i + 1], array[i + 2], array[i + 3]

    load4_shared = load4

    @staticmethod
    def store4(array: Any, i: int, values: tuple[Any, Any, Any, Any]) -> None:
        """Write ``array[i : i + 4]``."""
        _require_aligned(i)
        for lane in range(4):
            array[i + lane] = values[lane]

    @staticmethod
    def add4(array: Any, i: int, values: tuple[Any, Any, Any, Any]) -> None:
        """Add to ``array[i : i + 4]``."""
        _require_aligned(i)
        for lane in range(4):
            launches._get_kernel_context().atomic.add(array, i + lane, values[lane])

    add4_one_by_one = add4

    @staticmethod
    def load4_halves(array: Any, i: int) -> tuple[Any, ...]:
        """Read ``array[i : i + 4]`` of float16 as float32."""
        _require_aligned(i)
        return tuple(np.float32(array[i + lane]) for lane in range(4))

    load4_shared_halves = load4_halves
    store4_halves = store4

    @staticmethod
    def add4_halves(array: Any, i: int, values: tuple[Any, Any, Any, Any]) -> None:
        """Add to ``array[i : i + 4]`` of float16."""
        _require_aligned(i)
        for lane in range(4):
            launches._get_kernel_context().atomic.add(array, i + lane, np.float16(values[lane]))

    add4_halves_by_two = add4_halves

    @staticmethod
    def reciprocal_root(x: Any) -> Any:
        """Return 1/√x."""
        return np.float32(1) / np.sqrt(np.float32(x))

    @staticmethod
    def pair_of_halves(first: Any, second: Any) -> Any:
        """Return two numbers as a pair of float16 numbers."""
        with np.errstate(over="ignore"):  # too large: infinite
            return np.array([first, second], np.float32).astype(np.float16).view(np.int32)[0]

    @staticmethod
    def copy4(shared: Any, i: int, array: Any, j: int) -> None:
        """Copy ``array[j : j + 4]`` to ``shared[i : i + 4]``, which waits for nothing here."""
        _require_aligned(i)
        _require_aligned(j)
        for lane in range(4):
            shared[i + lane] = array[j + lane]

    @staticmethod
    def await_copies() -> None:
        """Return: all is copied."""

    @staticmethod
    def load_matrices(shared: Any, i: int) -> tuple[Any, ...]:
        """Read the lane's pairs of four matrices of 8 × 8 float16 numbers."""
        _require_aligned(i)
        places = _exchanged(_ALL, i)
        row, pair = divmod(launches._get_kernel_context().laneid, 4)
        return tuple(shared[places[8 * matrix + row] + pair] for matrix in range(4))

    @staticmethod
    def multiply_halves(a: Any, b: Any, c: Any) -> tuple[Any, ...]:
        """Return the lane's part of AB + C, in float32."""
        left, right = zip(*_exchanged(_ALL, (a, b)), strict=True)
        # The axes before they are put in order: row, pair, half of the columns, half of the rows, number of a pair.
        of_a = np.array(left, np.int32).view(np.float16).reshape(8, 4, 2, 2, 2).transpose(3, 0, 2, 1, 4)
        of_b = np.array(right, np.int32).view(np.float16).reshape(8, 4, 2, 2).transpose(2, 1, 3, 0)
        products = of_a.reshape(16, 16).astype(np.float32) @ of_b.reshape(16, 8).astype(np.float32)
        row, column = divmod(launches._get_kernel_context().laneid, 4)
        places = [(row + down, 2 * column + across) for down in (0, 8) for across in (0, 1)]
        return tuple(sums + products[place] for sums, place in zip(c, places, strict=True))


def _require_aligned(i: int) -> None:
    if i % 4:
        raise IndexError(f"the place is {i}; expected a multiple of 4: vectors are aligned to their size")
