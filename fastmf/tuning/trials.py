"""Trials of a search, and the file that keeps them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fastmf.common.files import naming, new_file, output_path
from fastmf.common.json_text import to_json
from fastmf.common.leftovers import locked
from fastmf.errors import DataError, OutputError, OutputExistsError, named
from fastmf.reading.parquet import PathLike

OPEN, STOPPED, FINISHED, DIVERGED = "open", "stopped", "finished", "diverged"
"""States of a trial: it may go on; others were better; it has run all epochs, or has ceased to improve; it failed."""

ROUND = 9
"""Trials that begin together: a sampler knows the results of earlier rounds."""

FILE = "trials.parquet"
_METADATA = b"fastmf.tuning"


class Best(NamedTuple):
    """The best score of a trial, and its epoch, from 1."""

    score: float
    epoch: int


class Trial(NamedTuple):
    """A model that is tried.

    Attributes
    ----------
    number : int
        From 0.
    changes : dict
        Parameters that differ from the model as given.
    values : dict
        The value of each parameter of the space.
    scores : tuple of float
        The metric on the validation part after each epoch; NaN where it is undefined.
    seconds : float
        Time of all trainings of the trial, with their evaluations.
    state : str
    """

    number: int
    changes: dict[str, Any]
    values: dict[str, Any]
    scores: tuple[float, ...] = ()
    seconds: float = 0.0
    state: str = OPEN

    @property
    def is_over(self) -> bool:
        """Whether more epochs cannot improve it."""
        return self.state in (FINISHED, DIVERGED)

    def best(self, higher_is_better: bool, n_epochs: int | None = None) -> Best | None:
        """Return the best score of the first epochs, of equal ones the earliest; None if there is none."""
        defined = [Best(score, epoch) for epoch, score in enumerate(self.scores[:n_epochs], 1) if score == score]
        sign = -1 if higher_is_better else 1
        return min(defined, key=lambda found: (sign * found.score, found.epoch), default=None)


def to_table(trials: Sequence[Trial], higher_is_better: bool) -> pa.Table:
    """Return a table with a row for each trial.

    Its columns are ``trial``, ``state``, ``score`` (the best one), ``best_epoch``, ``n_epochs`` (those that were run),
    ``seconds``, a column for each parameter of the space, and ``scores`` by epoch.
    """
    best = [trial.best(higher_is_better) for trial in trials]
    columns: dict[str, pa.Array] = {
        "trial": pa.array([trial.number for trial in trials], pa.int32()),
        "state": pa.array([trial.state for trial in trials], pa.string()),
        "score": pa.array([None if found is None else found.score for found in best], pa.float64()),
        "best_epoch": pa.array([None if found is None else found.epoch for found in best], pa.int32()),
        "n_epochs": pa.array([len(trial.scores) for trial in trials], pa.int32()),
        "seconds": pa.array([trial.seconds for trial in trials], pa.float64()),
    }
    for name in trials[0].values if trials else ():
        columns[name] = _column([trial.values[name] for trial in trials])
    columns["scores"] = pa.array([trial.scores for trial in trials], pa.list_(pa.float64()))
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array:
    """Return values as a column; as JSON text where they are of several types, or too large."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([to_json(value) for value in values], pa.string())


class TrialFile:
    """The trials of a search in a directory: written again, as a whole, whenever there is a new result.

    Parameters
    ----------
    folder : path-like
    arguments : dict
        What the search is made of; trials of another one are refused.
    higher_is_better : bool
    """

    def __init__(self, folder: PathLike, arguments: Mapping[str, Any], higher_is_better: bool) -> None:
        self.folder, self._higher_is_better = folder, higher_is_better
        self._arguments: dict[str, Any] = json.loads(to_json(arguments))
        self._path = output_path(folder) / FILE

    @contextmanager
    def claimed(self, overwrite: bool) -> Iterator[dict[int, Trial]]:
        """Give the directory to one search, and to this search the trials that an interrupted one has left there.

        Raises
        ------
        OutputExistsError
            If the directory has trials of another search and ``overwrite`` is false, or is something else.
        OutputError
            If it cannot be written, or another process is searching there.
        """
        with naming(self.folder):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._path.exists() and any(self._path.parent.iterdir()):
                raise OutputExistsError(
                    f"{self.folder} is not empty, and has no trials to go on with, so nothing in it is "
                    "replaced; choose another output, or empty it first"
                )
        with locked(self._path.parent) as has_lock:
            if not has_lock:
                raise OutputError(
                    f"cannot write {self.folder}: another process is searching there; wait for it, or choose another "
                    "output"
                )
            if overwrite:
                self._path.unlink(missing_ok=True)
            known = self._read() if self._path.exists() else {}
            try:
                yield known
            except (KeyboardInterrupt, SystemExit) as error:
                error.add_note(self._what_remains())
                raise

    def _what_remains(self) -> str:
        n_trials = int(pq.read_metadata(self._path).num_rows) if self._path.exists() else 0
        if n_trials == 0:
            return "no trial was finished: the same call starts afresh"
        return f"{self.folder} keeps {n_trials} trial{'s' * (n_trials > 1)}: the same call goes on with them"

    def save(self, trials: Sequence[Trial]) -> None:
        """Write all trials."""
        table = to_table(trials, self._higher_is_better)
        table = table.replace_schema_metadata({_METADATA: to_json(self._arguments).encode()})
        with new_file(self._path, overwrite=True, part_of=self.folder) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def _read(self) -> dict[int, Trial]:
        try:
            table = pq.read_table(self._path)
            before = json.loads((table.schema.metadata or {})[_METADATA])
            names = table.column_names[6:-1]
            trials = {trial.number: trial for trial in (_as_trial(row, names) for row in table.to_pylist())}
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise self._is_damaged() from error
        if not isinstance(before, dict) or len(trials) < table.num_rows:
            raise self._is_damaged()
        self._require_same(before)
        if not all(self._may_be(trial, table.num_rows) for trial in trials.values()):
            raise self._is_damaged()
        return trials

    def _may_be(self, trial: Trial, n_trials: int) -> bool:
        """Whether a search can have a trial like this: numbers are missing in the last round alone."""
        n_epochs = len(trial.scores)
        return (
            0 <= trial.number < n_trials + ROUND
            and trial.state in (OPEN, STOPPED, FINISHED, DIVERGED)
            and n_epochs <= self._arguments.get("max_epochs", n_epochs)
            and trial.seconds >= 0
        )

    def _is_damaged(self) -> DataError:
        return DataError(
            f"{self._path} is not a file of trials, or is damaged; choose another output, or allow overwriting "
            f"({named('overwrite=True')}) to start anew"
        )

    def _require_same(self, before: dict[str, Any]) -> None:
        before, now = _flat(before), _flat(self._arguments)
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if names:
            name = names[0]
            difference = f"was {to_json(before.get(name))}, and is {to_json(now.get(name))}"
            raise OutputExistsError(
                f"{self.folder} has the trials of another search: {_subject(name)} {difference}; make the same call to "
                f"go on, choose another output, or allow overwriting ({named('overwrite=True')})"
            )


def _subject(name: str) -> str:
    """Name an argument of a search, or what has changed in its ratings."""
    what, _, part = name.partition(": ")
    if what in ("ratings", "validation_ratings"):
        return f"the {what.replace('_', ' ')} have changed: their {part}"
    return named(name)


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is in dicts beside the rest, under names such as ``space: n_factors``."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        flat |= {f"{name}: {inner}": of for inner, of in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _as_trial(row: dict[str, Any], names: Sequence[str]) -> Trial:
    scores = tuple(float(score) for score in row["scores"])
    values = {name: row[name] for name in names}
    return Trial(int(row["trial"]), {}, values, scores, float(row["seconds"]), str(row["state"]))


def has_same_values(stored: Trial, trial: Trial) -> bool:
    """Whether a stored trial is one of the same parameters; tables have lists for tuples and text for what is mixed."""
    for name, value in trial.values.items():
        plain = json.loads(to_json(value))
        if stored.values.get(name) not in (plain, to_json(value)):
            return False
    return stored.values.keys() == trial.values.keys()
