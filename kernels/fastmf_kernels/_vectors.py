"""Explicit vector code in place of plain loops, where it can be used and agrees with them.

A module of plain loops (`linalg/panels.py`) decorates each of them with `in_vectors`, and a function that calls all of
them with `trial`. When the first kernel that calls one of the loops is compiled, the trial runs twice on the same
numbers: interpreted, with the plain loops, and compiled, with the vector code. The outcome is stored beside the machine
code, so that later processes need no trial.
"""

import functools
import hashlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from fastmf_kernels._cache import folder_of, read, write
from fastmf_kernels._jit import COMPILER, IS_COMPILING, PLAIN_LOOPS, compiler_lock, device
from fastmf_kernels._notes import PlainLoopsWarning, say_once
from fastmf_kernels._types import Float32Array

P = ParamSpec("P")
R = TypeVar("R")
Trial = Callable[[Float32Array, Float32Array], None]

# What results may differ by where sums are taken in another order, absolutely and relative to the result.
_TOLERANCE = 1e-4
_AGREE, _DIFFER = b"agree", b"differ"


class _Loops:
    """A module of plain loops, and whether its vector code is used."""

    def __init__(self, module: str, load: Callable[[], ModuleType]) -> None:
        self.module, self.load = module, load
        self.trial: Trial | None = None
        self._are_in_vectors: bool | None = None

    def are_in_vectors(self) -> bool:
        """Whether kernels get vector code: if it can be made here, and agrees with the plain loops."""
        with compiler_lock:
            if self._are_in_vectors is None:
                self._are_in_vectors = not PLAIN_LOOPS and self._can_be_made()
                if self._are_in_vectors and self.trial is not None:
                    self._are_in_vectors = self._agree(self.trial)
            return self._are_in_vectors

    def _can_be_made(self) -> bool:
        try:
            from fastmf_kernels import _builder  # noqa: F401

            self.load()
        except (ImportError, AttributeError):  # the compiler's interface has changed
            return False
        return True

    def _agree(self, trial: Trial) -> bool:
        folder = folder_of(self.module, COMPILER)
        path = None if folder is None else folder / f"{_processor()}.trial"
        outcome = None if path is None else read(path)
        if outcome is None:
            self._are_in_vectors = True  # while the trial is compiled
            outcome = _AGREE if _gives_the_same(trial) else _DIFFER
            if path is not None:
                write(path, outcome)
        if outcome != _AGREE:
            say_once(
                self.module,
                f"the vector code of {self.module} gives other numbers than its plain loops with {COMPILER}: the plain "
                "loops are used, which take 2 to 25 times as long; install a version of Numba that fastmf asks for",
                PlainLoopsWarning,
            )
        return outcome == _AGREE


_all_loops: dict[str, _Loops] = {}


class VectorCode(Generic[P, R]):
    """A plain loop that vector code may stand for in kernels; called from Python, it is the plain loop."""

    def __init__(self, plain: Callable[P, R], loops: _Loops) -> None:
        functools.update_wrapper(self, plain)
        self.plain, self._loops = plain, loops
        self._in_vectors: Any = None
        self._compiled: Any = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.plain(*args, **kwargs)

    @property
    def _numba_type_(self) -> Any:
        """Tell Numba, which asks while it compiles a caller, what a call of this is."""
        if not self._loops.are_in_vectors():
            self._compiled = self._compiled or device(self.plain)
            return self._compiled._numba_type_
        from fastmf_kernels import _builder

        if self._in_vectors is None:
            emit = getattr(self._loops.load(), self.plain.__name__)
            self._in_vectors = _builder.compiled_as(emit)(self.plain)
        return _builder.type_of(self._in_vectors)


def in_vectors(load: Callable[[], ModuleType]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let explicit vector code take a function's place in kernels; where it cannot be used, compile like `device`.

    It is what the function of the same name emits in the module that ``load`` imports. It is not used where nothing is
    compiled (``NUMBA_DISABLE_JIT``), where ``FASTMF_PLAIN_LOOPS`` is set, with a compiler whose interface has changed,
    and where the module's `trial` shows that it gives other numbers.
    """

    def decorate(plain: Callable[P, R]) -> Callable[P, R]:
        loops = _all_loops.setdefault(plain.__module__, _Loops(plain.__module__, load))
        return VectorCode(plain, loops) if IS_COMPILING else device(plain)

    return decorate


def trial(function: Trial) -> Trial:
    """Make a function the trial of its module: it calls each of the loops, and stands behind them.

    It gets 1024 float32 numbers from -1 to 1, which it may change, and 1024 zeros, in which it leaves its results.
    """
    _all_loops[function.__module__].trial = function
    return function


def in_use() -> dict[str, bool]:
    """Return, for each module of plain loops that was imported, whether kernels use its vector code."""
    return {name.partition(".")[2]: loops.are_in_vectors() for name, loops in _all_loops.items()}


@functools.cache
def has_byte_products() -> bool:
    """Whether this processor multiplies and adds bytes several times as fast as float32 numbers."""
    try:
        from fastmf_kernels import _builder
    except (ImportError, AttributeError):
        return False
    return not PLAIN_LOOPS and IS_COMPILING and _builder.has_byte_products()


def _gives_the_same(trial: Trial) -> bool:
    try:
        found = _results(device(trial))
    except Exception:  # it cannot be compiled
        return False
    with np.errstate(all="ignore"):
        expected = _results(trial)
    return np.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE)


def _results(trial: Trial) -> Float32Array:
    numbers = np.random.default_rng(0).uniform(-1, 1, 1024).astype(np.float32)
    results = np.zeros_like(numbers)
    trial(numbers, results)
    return np.concatenate((numbers, results))


def _processor() -> str:
    """Return a hash of what code is made for: vector code that is right on one processor may not be on another."""
    from fastmf_kernels import _builder

    return hashlib.sha256(_builder.processor().encode()).hexdigest()[:16]
