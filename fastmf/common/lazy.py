"""Attributes of an instance that are computed once, when they are first asked for.

`functools.cached_property` of Python 3.11 holds one lock for all instances of a class: one that is being computed makes
all others wait, and a process forked meanwhile waits for ever. Here the lock belongs to an instance and a process.
"""

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")

_LOCK = "_lock_of_process_"


def compute_once(instance: Any, name: str, compute: Callable[[], T]) -> T:
    """Return ``instance.__dict__[name]``, after computing and storing it if it does not exist yet.

    Threads that ask at the same time wait for the one that computes. A child process that was forked in the meantime
    computes the value for itself. ``compute`` may ask for other lazy attributes of the same instance.

    Parameters
    ----------
    instance : object with a ``__dict__``
    name : str
        Where the value is stored.
    compute : function without parameters
    """
    stored = instance.__dict__
    if name in stored:
        return cast(T, stored[name])
    lock_name = f"{_LOCK}{os.getpid()}"
    lock = stored.setdefault(lock_name, threading.RLock())
    with lock:
        try:
            if name not in stored:
                stored[name] = compute()
            return cast(T, stored[name])
        finally:
            stored.pop(lock_name, None)


def state_without_locks(instance: Any) -> dict[str, Any]:
    """Return ``instance.__dict__`` without the locks of `compute_once`, which cannot be pickled."""
    stored = dict(instance.__dict__)  # a copy, for another thread may store a value meanwhile
    return {name: value for name, value in stored.items() if not name.startswith(_LOCK)}
