"""The clock of a contestant, and the program that runs one contestant in a process of its own.

The other end is `fastmf_bench.contest`: it starts ``python -m fastmf_bench.pace``, sends the task as one line of JSON,
and then ``go`` for every lap. A process of its own gives each contestant its own thread pools, its own peak memory and
its own CPU clock; and a contestant that is killed does not take the others with it.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO


class Lap(NamedTuple):
    """Seconds of one round of work."""

    wall: float
    cpu: float


class Pace(Protocol):
    """Ends a lap and waits for the next to be started; false when there is none.

    A contestant warms up, then calls it before every round of work: ``while pace(): work()``. Inside a training that
    reports after each epoch, the report calls it, and everything up to the first call is warm-up. A contestant who has
    his own clock passes the lap.
    """

    def __call__(self, lap: Lap | None = None) -> bool: ...  # noqa: D102


Task = Callable[..., dict[str, Any]]


class _Pace:
    def __init__(self, orders: TextIO, reports: TextIO) -> None:
        self._orders, self._reports = orders, reports
        self._started: Lap | None = None
        self._stopped = False
        self.peak_bytes = 0

    def __call__(self, lap: Lap | None = None) -> bool:
        now = clocks()
        if self._stopped:
            return False
        if self._started is None:
            self.report({"ready": True})
        else:
            lap = lap or Lap(now.wall - self._started.wall, now.cpu - self._started.cpu)
            self.report({"lap": lap})
        self.peak_bytes = peak_bytes()
        self._stopped = self._orders.readline().strip() != "go"
        self._started = clocks()
        return not self._stopped

    def report(self, message: dict[str, Any]) -> None:
        self._reports.write(json.dumps(message) + "\n")
        self._reports.flush()


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


def peak_bytes(process: int | None = None) -> int:
    """Return the largest resident size so far of a process, this one if None; 0 where the system does not tell.

    Not `getrusage`, which counts what the parent held when it started the process.
    """
    try:
        status = Path("/proc", "self" if process is None else str(process), "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main() -> int:
    """Run the task named on standard input, and report on standard output."""
    # What libraries print goes to standard error: standard output is the channel of reports.
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from fastmf_bench.suites import TASKS  # before the order comes: all contestants start up at the same time

    order = json.loads(sys.stdin.readline())
    pace = _Pace(sys.stdin, reports)
    try:
        figures = TASKS[order["task"]](pace, **order["arguments"])
    except Exception as error:
        # Whatever a contestant stumbles over is his result; the contest goes on without him.
        pace.report({"error": f"{type(error).__name__}: {error}"})
        return 1
    pace.report({"figures": figures, "peak_bytes": pace.peak_bytes or peak_bytes()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
