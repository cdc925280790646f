"""What a user is told once: that something is not done on the GPU although it was asked to. Loads nothing."""

from fastmf_kernels import _notes
from fastmf_kernels._notes import forget as forget


class OnHostWarning(_notes.Note):
    """Something runs on the CPU although the backend is "cuda"; results are the same."""


def say_once(reason: str, text: str) -> None:
    """Warn of a reason to work on the CPU, the first time that it comes up in this process; see `_notes.say_once`."""
    _notes.say_once(reason, text, OnHostWarning)
