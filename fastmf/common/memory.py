"""Errors for want of memory, in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fastmf.errors import FastMFError, OutOfMemoryError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the system gave no memory, whichever library raises it."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error) for words in _WORDS_OF_ARROW)


# Arrow wraps what C++ raises in errors of its own; a thread cannot start without memory for its stack.
_WORDS_OF_ARROW = ("std::bad_alloc", "Failed to launch worker thread")


@contextmanager
def needing(n_bytes: int, work: str) -> Iterator[None]:
    """Turn errors for want of memory into an `OutOfMemoryError` that says how much the work needs.

    Parameters
    ----------
    n_bytes : int
        About what the work needs.
    work : str
        What is being done: "reading 5 ratings".
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error) or (isinstance(error, FastMFError) and not isinstance(error, OutOfMemoryError)):
            raise
        reason = (str(error).strip() or "allocation failed").splitlines()[0]
        raise OutOfMemoryError(
            f"{work} needs about {in_words(n_bytes)} of memory, and there was less ({reason}); free some, lift the "
            "limit of the process, or use a larger machine"
        ) from error


def in_words(n_bytes: float) -> str:
    """Word a number of bytes with three digits or fewer."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" or n_bytes >= 10 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.0f} TB" if n_bytes >= 10 else f"{n_bytes:.1f} TB"
