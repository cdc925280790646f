"""One run of benchmarks: its options, its problems, and the races of its suites."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fastmf.errors import FastMFError
from fastmf_bench import problems
from fastmf_bench.contest import Contestant, run_contest
from fastmf_bench.problems import SHAPES, Problem, Shape
from fastmf_bench.results import Measurement, Run


@dataclass(frozen=True)
class Options:
    """What a run was asked for; the command explains each."""

    folder: Path
    n_threads: int
    n_laps: int = 5
    seed: int = 0
    quick: bool = False
    factors: tuple[int, ...] = ()
    shapes: tuple[Shape, ...] = ()
    file: Path | None = None
    peers: tuple[str, ...] = ()
    libmf: Path | None = None
    data: Path | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    minutes: float = math.inf
    asked: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


class Work(NamedTuple):
    """How much a lap does, and which ceiling of the machine bounds it.

    Attributes
    ----------
    amount : float
        Of ``unit`` in a lap.
    unit : str
    ceiling : str, optional
        Name of the ceiling, a task of the suite "ceilings".
    cost : float
        Units of the ceiling that a unit of work takes: bytes a row, say, where the ceiling is in bytes a second.
    """

    amount: float
    unit: str
    ceiling: str | None = None
    cost: float = 1.0


@dataclass
class Session:
    """The state of a run: suites ask it for problems and hand it their races."""

    options: Options
    run: Run
    keep: Callable[[], None] = lambda: None
    _problems: dict[Shape, Problem] = field(default_factory=dict)
    _files: dict[Path, Problem] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    @property
    def _until(self) -> float:
        """When nothing more is begun."""
        return self._started + 60 * self.options.minutes

    @property
    def _has_time(self) -> bool:
        return time.perf_counter() <= self._until

    def has(self, peer: str) -> bool:
        """Whether a peer takes part."""
        return peer in self.options.peers

    @property
    def runs_usual_problems(self) -> bool:
        """Whether the usual problems are run: neither other shapes nor a file nor a quick run was asked for."""
        return not (self.options.quick or self.options.shapes or self.options.file)

    @property
    def fewer_threads(self) -> range:
        """The numbers of threads to try besides that of the run: none in a quick one."""
        return range(1, 1 if self.options.quick else self.options.n_threads)

    def factors(self, usual: Sequence[int]) -> Sequence[int]:
        """Return the numbers of factors to try: those asked for, or the usual ones of a suite."""
        return self.options.factors or usual

    def training_problems(self) -> Iterator[Problem]:
        """Open the problems that training suites run on; one that cannot be made or read is noted and left out."""
        options = self.options
        shapes = options.shapes or (SHAPES["ml-1m" if options.quick else "ml-10m"],)
        for source in shapes if options.file is None else (options.file,):
            problem = None
            with self.noting(source.name):
                problem = self.problem(source) if isinstance(source, Shape) else self._read(source)
            if problem is not None:
                yield problem

    def _read(self, file: Path) -> Problem:
        if file not in self._files:
            self._files[file] = problems.from_file(file, self.options.folder, self.options.seed)
        return self._files[file]

    def problem(self, shape: Shape) -> Problem:
        """Generate a problem, once a run, in a process of its own that gives its memory back."""
        if shape not in self._problems:
            problems.require_memory(shape)
            arguments = {"shape": vars(shape), "folder": str(self.options.folder), "seed": self.options.seed}
            self.say(f"making {shape}")
            metrics = self.work("problems.generate", arguments)
            self._problems[shape] = problems.open_problem(metrics["folder"])
        return self._problems[shape]

    def work(self, task: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run a task in a process of its own, and return its metrics.

        Raises
        ------
        FastMFError
            If no time is left to begin it, or it fails.
        """
        if not self._has_time:
            raise FastMFError(f"no time was left for {task}")
        (outcome,) = run_contest([Contestant(task, task, arguments)], 0, self.options.n_threads, self._until).values()
        if outcome.error is not None:
            raise FastMFError(f"{task} failed: {outcome.error}")
        return outcome.metrics

    def race(
        self,
        suite: str,
        task: str,
        problem: str,
        settings: dict[str, Any],
        contestants: Sequence[Contestant],
        work: Work = Work(0, ""),  # noqa: B008 - it is immutable
        n_laps: int | None = None,
    ) -> None:
        """Run contestants in turn and keep what they did.

        Parameters
        ----------
        suite, task, problem, settings
            What the race is about; see `fastmf_bench.results.Measurement`.
        contestants : sequence of Contestant
        work : Work
            What a lap does. A contestant whose metrics have ``work`` did that much of it instead; likewise
            ``peak_bytes`` and ``note``.
        n_laps : int, optional
            As in the options if None.
        """
        if not self._has_time:
            self.note(f"{suite}: no time was left for {task}, {problem}")
            return
        shown = [f"{name} {value}" for name, value in settings.items()]
        self.say(f"{suite}: " + ", ".join(filter(None, [task, problem, *shown])))
        settings = {"n_threads": self.options.n_threads, **settings}
        n_laps = self.options.n_laps if n_laps is None else n_laps
        for name, outcome in run_contest(contestants, n_laps, settings["n_threads"], self._until).items():
            error = outcome.error or ("no time was left" if len(outcome.laps) < min(1, n_laps) else None)
            if error is not None:
                self.note(f"{suite}: {name} was left out of {task}, {problem}: {error}")
                continue
            metrics = outcome.metrics
            self.add(
                Measurement(
                    suite,
                    task,
                    problem,
                    name,
                    settings,
                    wall=[lap.wall for lap in outcome.laps],
                    cpu=[lap.cpu for lap in outcome.laps],
                    peak_bytes=metrics.pop("peak_bytes", outcome.peak_bytes),
                    work=metrics.pop("work", work.amount),
                    unit=work.unit,
                    ceiling=work.ceiling,
                    ceiling_rate=self._ceiling_rate(work, settings["n_threads"]),
                    note=metrics.pop("note", ""),
                    blas=outcome.blas,
                    figures=metrics,
                )
            )

    def add(self, measurement: Measurement) -> None:
        """Keep what a contestant did."""
        self.run.measurements.append(measurement)
        self.keep()

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Note an error of the library, or one of the file system, and go on."""
        try:
            yield
        except (FastMFError, OSError, MemoryError) as error:
            self.note(f"{what}: {error}")

    def note(self, problem: str) -> None:
        """Keep and say what could not be run: the exit status will tell."""
        self.run.problems.append(problem)
        self.say(problem)

    def leave_out(self, suite: str, why: str) -> None:
        """Say why a suite is left out; that is a failure where it was asked for by name."""
        (self.note if suite in self.options.asked else self.say)(f"{suite}: left out; {why}")

    def say(self, line: str) -> None:
        """Tell what is going on, after how many seconds."""
        print(f"[{time.perf_counter() - self._started:5.0f} s] {line}", file=sys.stderr, flush=True)

    def _ceiling_rate(self, work: Work, n_threads: int) -> float | None:
        """Return the ceiling on as many threads, in units of the work a second."""
        found = self.run.select(suite="ceilings", task=work.ceiling, n_threads=n_threads)
        return found[0].rate / work.cost if found and found[0].rate else None
