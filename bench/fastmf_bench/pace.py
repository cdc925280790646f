"""The clock of a contestant: seconds of wall and of CPU, lap by lap."""

import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Lap(NamedTuple):
    """Seconds of one round of work."""

    wall: float
    cpu: float


class Pace(Protocol):
    """Ends a lap and waits for the next to be started; false when there is none.

    A contestant warms up, then calls it before every round of work: ``while pace(): work()``. Inside a training that
    reports after each epoch, the report calls it, and everything up to the first call is warm-up. A contestant with
    a clock of its own passes the lap.
    """

    def __call__(self, lap: Lap | None = None) -> bool: ...  # noqa: D102


Task = Callable[..., dict[str, Any]]


def averaged(pace: Pace, n_rounds: int) -> Callable[[], bool]:
    """Return a pace for laps of several rounds: it reports the seconds of one."""
    started: Lap | None = None

    def end_lap() -> bool:
        nonlocal started
        now = clocks()
        lap = started and Lap((now.wall - started.wall) / n_rounds, (now.cpu - started.cpu) / n_rounds)
        goes_on = pace(lap)
        started = clocks()
        return goes_on

    return end_lap


def clocks() -> Lap:
    """Read both clocks: seconds of wall, and of CPU of this process with the children that it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Lap(time.perf_counter(), own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime)
