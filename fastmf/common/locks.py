"""A lock that a forked process finds free."""

import os
import threading


class ProcessLock:
    """A lock for the threads of one process: in a forked child it is free, whoever held it in the parent.

    Examples
    --------
    >>> from fastmf.common.locks import ProcessLock
    >>> lock = ProcessLock()
    >>> with lock.of_this_process:
    ...     pass
    """

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    @property
    def of_this_process(self) -> threading.Lock:
        """The lock of this process, to be used in a ``with`` statement."""
        # One step of the interpreter: two threads get the same lock.
        return self._locks.setdefault(os.getpid(), threading.Lock())
