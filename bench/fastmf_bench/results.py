"""Results of a run of benchmarks as JSON: measurements, with the machine, the versions and the settings."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from fastmf.errors import DataError

FORMAT = 1
# Laps were disturbed if the slowest takes longer than the fastest by more than this share of the median.
_MOST_SPREAD = 0.5
OURS = "fastmf"
# How the names of contestants end that solve every row of ALS exactly.
EXACT = ", cholesky"


@dataclass(frozen=True)
class Measurement:
    """What one contestant did in one race.

    Attributes
    ----------
    suite, task, problem, contestant : str
        The contestants of the same suite, task, problem and settings ran in turn.
    settings : dict
        ``n_threads``, ``n_factors`` and whatever else the race was set to.
    wall, cpu : list of float
        Seconds, lap by lap; empty where only ``figures`` were asked for.
    peak_bytes : int
        Largest resident size of the contestant's process.
    work : float
        Amount of ``unit`` in a lap.
    unit : str
        "ratings", "flop", "rows" and so on.
    ceiling : str, optional
        The ceiling of the machine that bounds it.
    ceiling_rate : float, optional
        Of that ceiling, in ``unit`` a second.
    figures : dict
        Metrics of quality, and what else the task reports; "curve" is a list of (seconds, metric).
    note : str
        What a reader must know to interpret it.
    blas : str
        The BLAS libraries in the contestant's process, with the processor that their kernels are for.
    """

    suite: str
    task: str
    problem: str
    contestant: str
    settings: dict[str, Any]
    wall: list[float]
    cpu: list[float]
    peak_bytes: int
    work: float = 0.0
    unit: str = ""
    ceiling: str | None = None
    ceiling_rate: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    blas: str = ""

    @property
    def race(self) -> tuple[Any, ...]:
        """What all contestants of one race have in common."""
        return (self.suite, self.task, self.problem, *sorted(self.settings.items()))

    @property
    def rate(self) -> float | None:
        """Work a second of wall, by the median lap."""
        return self.work / statistics.median(self.wall) if self.wall and self.work else None

    @property
    def ceiling_fraction(self) -> float | None:
        """The rate as a fraction of the ceiling that bounds it."""
        return self.rate / self.ceiling_rate if self.rate and self.ceiling_rate else None

    def seconds(self, clock: str) -> float:
        """Median of a lap on a clock, "wall" or "cpu", for a unit of work where contestants did different amounts."""
        laps: list[float] = getattr(self, clock)
        return statistics.median(laps) / (self.work or 1)


@dataclass
class Run:
    """A whole run.

    Attributes
    ----------
    command : str
    machine : dict
        From `fastmf_bench.machine.describe`.
    n_threads : int
    measurements : list of Measurement
    proofs : dict of str to str
        For each operation that was held against its reference: "" or what was wrong.
    problems : list of str
        What could not be run, and why.
    seconds : float
        How long it all took.
    """

    command: str
    machine: dict[str, Any]
    n_threads: int
    measurements: list[Measurement] = field(default_factory=list)
    proofs: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def select(self, **wanted: Any) -> list[Measurement]:
        """Return the measurements whose attributes or settings are as given."""
        return [m for m in self.measurements if all(_value(m, name) == value for name, value in wanted.items())]

    def races(self) -> list[list[Measurement]]:
        """Return the measurements, those of one race together, in order."""
        races: dict[tuple[Any, ...], list[Measurement]] = {}
        for measurement in self.measurements:
            races.setdefault(measurement.race, []).append(measurement)
        return list(races.values())

    def to_json(self) -> str:
        """Return the run as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `to_json` made.

        Raises
        ------
        DataError
            If the file holds something else.
        """
        try:
            stored = json.loads(path.read_text())
            version = stored.pop("format")
            if version != FORMAT:
                raise DataError(f"{path} has results of format {version}; expected {FORMAT}: measure again")
            measurements = [Measurement(**m) for m in stored.pop("measurements")]
            return cls(**stored, measurements=measurements)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} holds no results of `fastmf bench --output`: {error}") from error


def disturbances(run: Run) -> list[str]:
    """Return what shows that another program, or a change of the clock rate, disturbed a run.

    That is laps whose times spread by more than half of their median, and a ceiling below what a contestant reaches.
    A ceiling is a strict bound for those alone who solve every row of ALS exactly: SGD and conjugate gradients read
    most rows from caches, the products of small catalogues stay there too, and top-k skips products.
    """
    found = []
    for m in run.measurements:
        what = f"{m.contestant} in {m.task}, {m.problem}".rstrip(", ")
        if m.wall and _spread(m.wall) > _MOST_SPREAD:
            found.append(f"{what}: laps took from {min(m.wall):.3g} s to {max(m.wall):.3g} s")
        if m.suite == "als" and m.contestant.endswith(EXACT) and (m.ceiling_fraction or 0) > 1:
            found.append(f"{what}: reached {m.ceiling_fraction:.2f} × its ceiling, {m.ceiling}")
    return found


def _spread(laps: Sequence[float]) -> float:
    """Return by how much the slowest lap exceeds the fastest, as a share of the median."""
    return (max(laps) - min(laps)) / statistics.median(laps)


def ratio(first: Measurement, second: Measurement, clock: str = "cpu") -> float:
    """Return how many times the seconds of ``second`` the ``first`` takes, for the same amount of work."""
    return first.seconds(clock) / second.seconds(clock)


def ours(race: Iterable[Measurement]) -> Measurement | None:
    """Return fastmf's entry in a race: the one that the others are compared with."""
    return next((m for m in race if m.contestant.split(",")[0] == OURS and m.wall), None)


def compare_runs(runs: Sequence[Run]) -> list[tuple[Measurement, str, list[float]]]:
    """Return, for each peer of each race that several runs have, the ratio of CPU time to fastmf's in each run."""
    found: dict[tuple[Any, ...], tuple[Measurement, str, list[float]]] = {}
    for run in runs:
        for race in run.races():
            own = ours(race)
            for other in race:
                if own is None or other.contestant.split(",")[0] == OURS or not other.wall:
                    continue
                entry = found.setdefault((*other.race, other.contestant), (other, own.contestant, []))
                entry[2].append(ratio(other, own))
    return [entry for entry in found.values() if len(entry[2]) > 1]


def _value(measurement: Measurement, name: str) -> Any:
    return getattr(measurement, name) if hasattr(measurement, name) else measurement.settings.get(name)
