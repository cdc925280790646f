"""What the library tells of its work: messages of Python's `logging` under the name ``fastmf``.

Nothing is printed unless a program sets logging up, by ``logging.basicConfig(level=logging.INFO)`` for example. Work
that takes long tells its begin and its end at the level INFO, and its steps at DEBUG.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("fastmf")
LOG.addHandler(logging.NullHandler())


@contextmanager
def logged(work: str) -> Iterator[None]:
    """Tell when some work begins, and how long it took or why it ended early.

    Parameters
    ----------
    work : str
        What is being done: "training ALS".

    Examples
    --------
    >>> with logged("training ALS"):
    ...     pass
    """
    LOG.info("%s: begins", work)
    started = time.perf_counter()
    try:
        yield
    except BaseException as error:
        LOG.info("%s: ended after %.3f s by %s: %s", work, time.perf_counter() - started, type(error).__name__, error)
        raise
    LOG.info("%s: done in %.3f s", work, time.perf_counter() - started)
