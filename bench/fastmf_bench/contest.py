"""Races: contestants in processes of their own take laps in turn, so that a slow minute hits them all."""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

from fastmf_bench.pace import Lap

# These make OpenBLAS use the kernels of another processor: contestants run with those of this one.
_BLAS_KERNEL_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# Seconds after which a warm-up or a lap counts as hanging.
_PATIENCE = 1800.0
# Seconds that a lap may go on after the time of the run is over.
_GRACE = 30.0


class Contestant(NamedTuple):
    """Who runs, and how.

    Attributes
    ----------
    name : str
        As shown.
    task : str
        Its function in `fastmf_bench.suites.TASKS`.
    arguments : dict
        Its arguments, as JSON can hold them.
    blas_threads : int, optional
        1 for peers whose own threads call BLAS. None: as many as everybody has.
    """

    name: str
    task: str
    arguments: dict[str, Any]
    blas_threads: int | None = None


class Outcome(NamedTuple):
    """What one contestant did.

    Attributes
    ----------
    laps : list of Lap
    metrics : dict
        What the task reports besides times.
    peak_bytes : int
        Largest resident size of its process until the last lap ended.
    blas : str
        The BLAS libraries in its process, with the processor that their kernels are for.
    error : str, optional
        Why it was left out.
    """

    laps: list[Lap]
    metrics: dict[str, Any]
    peak_bytes: int
    blas: str = ""
    error: str | None = None


def run_contest(
    contestants: Sequence[Contestant], n_laps: int, n_threads: int, until: float = math.inf
) -> dict[str, Outcome]:
    """Run contestants in processes of their own, which take laps in turn: no two run at the same time.

    Parameters
    ----------
    contestants : sequence of Contestant
        Of different names.
    n_laps : int
        Timed laps of each, after its warm-up.
    n_threads : int
        Set for their libraries by environment variables.
    until : float
        When, by `time.perf_counter`, no further lap is begun. A lap under way may take half a minute more.

    Returns
    -------
    dict of str to Outcome
        By name, in the order given.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(contestant, n_threads, until)) for contestant in contestants]
        for worker in workers:
            worker.warm_up()
        for lap in range(n_laps):
            turn = lap % max(len(workers), 1)
            for worker in workers[turn:] + workers[:turn]:
                if time.perf_counter() < until:
                    worker.run_lap()
        return {worker.contestant.name: worker.finish() for worker in workers}


class _Worker:
    def __init__(self, contestant: Contestant, n_threads: int, until: float) -> None:
        self.contestant = contestant
        self._laps: list[Lap] = []
        self._n_threads, self._until = n_threads, until
        self._error: str | None = None
        self._finished: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        blas_threads = self.contestant.blas_threads or self._n_threads
        environment = {
            **{name: value for name, value in os.environ.items() if name not in _BLAS_KERNEL_VARIABLES},
            **dict.fromkeys(_THREAD_VARIABLES, str(self._n_threads)),
            "OPENBLAS_NUM_THREADS": str(blas_threads),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastmf_bench.worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def warm_up(self) -> None:
        self._send(json.dumps({"task": self.contestant.task, "arguments": self.contestant.arguments}))
        self._receive()

    def run_lap(self) -> None:
        if self._error is None and self._finished is None:
            self._send("go")
            self._receive()

    def finish(self) -> Outcome:
        if self._error is None and self._finished is None:
            self._send("stop")
            self._receive()
        if self._finished is None:
            return Outcome(self._laps, {}, 0, error=self._error)
        finished = self._finished
        return Outcome(self._laps, finished["metrics"], finished["peak_bytes"], finished["blas"])

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended, which `_receive` reports

    def _receive(self) -> None:
        assert self._process.stdout is not None
        patience = min(_PATIENCE, max(0.0, self._until + _GRACE - time.perf_counter()))
        impatience = threading.Timer(patience, self._process.kill)
        impatience.start()
        line = self._process.stdout.readline()
        impatience.cancel()
        if not line:
            self._error = self._last_words()
            return
        message = json.loads(line)
        if "lap" in message:
            self._laps.append(Lap(*message["lap"]))
        elif "error" in message:
            self._error = message["error"]
        elif "metrics" in message:
            self._finished = message

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        reason = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
        if status == -9:
            reason += " (out of memory, or no answer?)"
        return f"{reason}: {lines[-1]}" if lines else reason
