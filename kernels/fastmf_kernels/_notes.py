"""What a user is told once in a process."""

import sys
import warnings

_PACKAGES = ("fastmf", "fastmf_kernels")
_said: set[str] = set()


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
