"""Signals that ask the command to stop: all of them end it as Ctrl-C does, with everything cleaned up."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_ENDING = b"\nending after this epoch, with a model of the epochs that are done; once more ends at once\n"


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


class Request:
    """Whether a signal has asked a training to end after its epoch.

    Attributes
    ----------
    number : int or None
        That of the first signal.
    callbacks : list of callable
        What to give to `fit`: empty if signals end it at once.
    """

    def __init__(self, is_heard: bool) -> None:
        self.number: int | None = None
        self.callbacks = [self._callback] if is_heard else []

    @property
    def was_made(self) -> bool:
        """Whether there was a signal."""
        return self.number is not None

    @property
    def status(self) -> int:
        """The exit status that shells expect after the signal; 0 if there was none."""
        return 0 if self.number is None else 128 + self.number

    def _callback(self, *_: object) -> str:
        """End a fit after this epoch if a signal has asked for it."""
        return "" if self.number is None else "pause"

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            _raise(number, frame)
        self.number = number
        with suppress(OSError):  # not print: it may have been interrupted in the middle of a line
            os.write(2, _ENDING)


@contextmanager
def letting_epochs_end(is_wanted: bool) -> Iterator[Request]:
    """Let the first signal ask for an end, and the second one end at once; those that are ignored stay so.

    Parameters
    ----------
    is_wanted : bool
        Whether to do so, or to let the first signal end at once.
    """
    request = Request(is_wanted)
    if not is_wanted or threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *_SIGNALS)}
    handled = {n: handler for n, handler in handlers.items() if handler in (_raise, signal.default_int_handler)}
    for number in handled:
        signal.signal(number, request._take)
    try:
        yield request
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


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
