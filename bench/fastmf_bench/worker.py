"""The program that runs one contestant in a process of its own.

`fastmf_bench.contest` starts ``python -m fastmf_bench.worker``, sends the task as one line of JSON, and then ``go`` for
every lap. A process of its own gives each contestant its own thread pools, its own peak memory and its own CPU clock;
and a contestant that is killed does not take the others with it.
"""

import json
import os
import sys
from typing import Any, TextIO

from threadpoolctl import threadpool_info

from fastmf.common.machine import peak_bytes
from fastmf_bench.pace import Lap, clocks
from fastmf_bench.suites import TASKS


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


def main() -> int:
    """Run the task named on standard input, and report on standard output."""
    # What libraries print goes to standard error: standard output is the channel of reports.
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    pace = _Pace(sys.stdin, reports)
    try:
        metrics = TASKS[order["task"]](pace, **order["arguments"])
    except Exception as error:
        # An error ends this contestant alone; the contest goes on.
        pace.report({"error": f"{type(error).__name__}: {error}"})
        return 1
    pace.report({"metrics": metrics, "peak_bytes": pace.peak_bytes or peak_bytes(), "blas": _blas()})
    return 0


def _blas() -> str:
    """Name the BLAS libraries that are loaded, with the processor that their kernels are for."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return ", ".join(sorted({f"{b['internal_api']} {b['version']} {b.get('architecture', '')}" for b in libraries}))


if __name__ == "__main__":
    sys.exit(main())
