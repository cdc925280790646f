"""Signals that ask the command to stop: all of them end it as Ctrl-C does, with everything cleaned up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """The process was asked to end by a signal other than that of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def as_interruptions() -> Iterator[None]:
    """Raise `Terminated` for signals that would end the process at once; those that are ignored or handled stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def status_of(error: KeyboardInterrupt) -> int:
    """Return the exit status that shells expect of a process that a signal has ended."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


def in_words(error: KeyboardInterrupt) -> str:
    """Say what an interruption leaves behind, and where the same call would start."""
    what = "terminated" if isinstance(error, Terminated) else "interrupted"
    notes = getattr(error, "__notes__", [])
    return f"{what}; nothing was left half-written; {'; '.join(notes) or 'the same call starts afresh'}"


def _raise(number: int, _: FrameType | None) -> None:
    raise Terminated(number)
