"""What a user is told once: that something is not done on the GPU although it was asked to. Loads nothing."""

import sys
import warnings

_PACKAGES = ("fastmf", "fastmf_kernels")
_said: set[str] = set()


class OnHostWarning(UserWarning):
    """Something runs on the CPU although the backend is "cuda"; results are the same."""


def say_once(reason: str, text: str) -> None:
    """Warn of a reason to work on the CPU, the first time that it comes up in this process.

    Parameters
    ----------
    reason : str
        What tells one reason from another.
    text : str
        What runs on the CPU, why, and what to do about it.
    """
    if reason not in _said:
        _said.add(reason)
        warnings.warn(text, OnHostWarning, stacklevel=_level_of_user())


def forget() -> None:
    """Forget which warnings were given, so that each is given again: for tests."""
    _said.clear()


def _level_of_user() -> int:
    """Return the ``stacklevel`` of the code that has called this library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES:
        level, frame = level + 1, frame.f_back
    return level
