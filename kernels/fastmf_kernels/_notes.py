"""What a user is told once in a process."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PACKAGES = ("fastmf", "fastmf_kernels")
_said: set[str] = set()
_COMPILING = "compiling"
_tell_of_compiling: Callable[[str], object] | None = None


class Note(UserWarning):
    """A warning that the command prints as one line."""


class KernelCacheWarning(Note):
    """Kernels are compiled in this process and forgotten with it: their cache cannot be used."""


class PlainLoopsWarning(Note):
    """Explicit vector code does not agree with the plain loops that it stands for, and is not used."""


def say_once(reason: str, text: str, category: type[Note]) -> None:
    """Warn of something the first time that it comes up in this process.

    Parameters
    ----------
    reason : str
        What tells one reason from another.
    text : str
        What happens, why, and what to do about it.
    category : type of Note
    """
    if reason not in _said:
        _said.add(reason)
        warnings.warn(text, category, stacklevel=level_of_user())


@contextmanager
def telling_of_compiling(tell: Callable[[str], object] | None) -> Iterator[None]:
    """Tell whoever waits in the block, on any thread, that kernels are about to be compiled: once in a process.

    Parameters
    ----------
    tell : callable or None
        Takes the text. None: nothing is told.
    """
    global _tell_of_compiling
    before, _tell_of_compiling = _tell_of_compiling, tell
    try:
        yield
    finally:
        _tell_of_compiling = before


def about_to_compile() -> None:
    """Say that kernels are compiled, to whoever has asked for it by `telling_of_compiling`."""
    if _tell_of_compiling is not None and _COMPILING not in _said:
        _said.add(_COMPILING)
        _tell_of_compiling("compiling kernels: the first call takes some seconds")


def never_tell_of_compiling() -> None:
    """Do as if it had been said: for tests, which do not depend on what a cache has."""
    _said.add(_COMPILING)


def forget() -> None:
    """Forget which warnings were given, so that each is given again: for tests."""
    _said.clear()


def level_of_user() -> int:
    """Return the ``stacklevel`` of the code that has called this library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and not _is_of_user(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_of_user(module: str) -> bool:
    # Numba stands between a kernel that is called and its cache.
    return module.partition(".")[0] not in (*_PACKAGES, "numba", "contextlib", "functools")
