"""Run logs: what a run was, how each epoch went and how it ended, as lines of JSON at the end of a file."""

import importlib.metadata
import json
import os
import platform
import time
import uuid
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from fastmf._version import __version__
from fastmf.common.files import naming, output_path
from fastmf.common.json_text import to_json
from fastmf.common.machine import count_cores, cpu_model, memory_gib, peak_bytes
from fastmf.errors import OutputExistsError
from fastmf.reading.parquet import PathLike
from fastmf_kernels._notes import Note, level_of_user

_PACKAGES = ("numba", "numpy", "scipy", "pyarrow")
# The first line of another file may be longer than any of a run log.
_MOST_BYTES_OF_A_LINE = 1 << 20


class RunLogWarning(Note):
    """A run log cannot be written any more; the run goes on without it."""


class _Fit(NamedTuple):
    """A training that is logged: two of them may follow each other in one run."""

    model: int
    last_epoch: int


class RunLog:
    """A log of a run; see `fastmf.log_to`.

    Attributes
    ----------
    result : dict
        What the last line says of a run that is done.
    status : str
        How such a run has ended: ``done``, unless somebody says otherwise.
    """

    def __init__(self, path: PathLike, **details: Any) -> None:
        self.result: dict[str, Any] = {}
        self.status = "done"
        self._path = output_path(path)
        self._run = uuid.uuid4().hex[:12]
        self._started = time.perf_counter()
        self._fit = _Fit(0, 0)
        self._ends = False
        with naming(path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _require_run_log(self._path)
            self._append(self._line("start", {**details, **_describe_machine()}))

    def __call__(self, model: Any, record: dict[str, Any]) -> None:
        """Log an epoch: a callback of `fit`."""
        fit = _Fit(id(model), record["epoch"])
        if fit.model != self._fit.model or fit.last_epoch <= self._fit.last_epoch:
            self.write("fit", model=type(model).__name__, **_describe_fit(model))
        self._fit = fit
        seconds, n_ratings = record["seconds"], model.fitted.data["n_ratings"]
        self.write(
            "epoch",
            **record,
            ratings_per_second=n_ratings / seconds if seconds > 0 else None,
            peak_memory_bytes=peak_bytes() or None,
        )

    def write(self, event: str, **values: Any) -> None:
        """Append a line.

        A file that takes no more, on a full disk for example, ends the log and not the run: there is one warning.

        Parameters
        ----------
        event : str
            What has happened. Those of fastmf are ``start``, ``data``, ``fit``, ``epoch`` and ``end``.
        **values
            More fields of the line: numbers (NaN becomes null), text, and lists and dictionaries of them.

        Warns
        -----
        RunLogWarning
            The first time that the line cannot be written.
        """
        if self._ends:
            return
        try:
            self._append(self._line(event, values))
        except OSError as error:
            self._ends = True
            text = f"cannot write to the run log {self._path}: {error.strerror or error}; the run goes on without it"
            warnings.warn(text, RunLogWarning, stacklevel=level_of_user())

    def end(self, status: str = "done", **values: Any) -> None:
        """Append the last line; nothing is written after it.

        Parameters
        ----------
        status : str
            Those of fastmf are ``done``, ``failed`` and ``interrupted``.
        **values
            More fields of the line.
        """
        seconds = time.perf_counter() - self._started
        self.write("end", status=status, seconds=seconds, peak_memory_bytes=peak_bytes() or None, **values)
        self._ends = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end(self.status, result=self.result)
        else:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self.end(status, error={"type": type(error).__name__, "message": str(error)})

    def _line(self, event: str, values: dict[str, Any]) -> bytes:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return f"{to_json({'event': event, 'run': self._run, 'time': now, **values})}\n".encode("ascii")

    def _append(self, line: bytes) -> None:
        """Write a line in one step; one of which only a part was written is taken away again."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            before = os.fstat(file).st_size
            written = _write(file, line)
            if written != len(line):
                with suppress(OSError):
                    if os.fstat(file).st_size == before + written:
                        os.ftruncate(file, before)
                raise OSError(f"{written} of {len(line)} bytes were written")
        finally:
            os.close(file)


def log_to(path: PathLike, **details: Any) -> RunLog:
    """Start a run log: a callback of `fit` that appends a line of JSON to a file after every epoch.

    A line is an object with the fields ``event``, ``run`` (which tells runs in one file apart) and ``time``. The first
    one, ``start``, has the versions and the machine. ``fit`` has a model's parameters and the size of its data, each
    ``epoch`` its record from `history` with ratings a second and the peak memory so far. As a context manager, the log
    ends in a line ``end``, with the status ``done``, ``failed`` or ``interrupted``. Lines are written one by one: those
    that are there are whole, also after the process was killed.

    Parameters
    ----------
    path : path-like
        A file that does not exist yet, or a run log, which goes on.
    **details
        More fields of the first line.

    Returns
    -------
    RunLog

    Raises
    ------
    OutputExistsError
        If ``path`` exists and is no run log.
    OutputError
        If it cannot be written. If this happens later, there is a warning, and the run goes on.

    Examples
    --------
    >>> import fastmf, json, pathlib
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> with fastmf.log_to("run.jsonl", purpose="example") as log:
    ...     model = fastmf.ALS(n_factors=2, n_epochs=2).fit(ratings, callbacks=[log])
    >>> [json.loads(line)["event"] for line in pathlib.Path("run.jsonl").read_text().splitlines()]
    ['start', 'fit', 'epoch', 'epoch', 'end']
    """
    return RunLog(path, **details)


def _write(file: int, line: bytes) -> int:
    """Return how many bytes of a line were written: fewer than all if the disk is full."""
    written = os.write(file, line)
    while 0 < written < len(line):
        try:
            more = os.write(file, line[written:])
        except OSError:
            break
        if more == 0:
            break
        written += more
    return written


def _require_run_log(path: Path) -> None:
    """Check that a file is a run log, and remove an unfinished line at its end.

    Raises
    ------
    OutputExistsError
        If it is not.
    """
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    if path.is_dir():
        raise OutputExistsError(f"{path} is a directory; expected the name of a file to write")
    if not path.is_file():  # a device or a pipe takes lines as well
        return
    with path.open("rb") as file:
        first = file.readline(_MOST_BYTES_OF_A_LINE)
    if not _is_line(first):
        raise OutputExistsError(
            f"{path} exists and is not a run log, which alone is continued; choose another file, or delete it first"
        )
    _remove_unfinished_line(path)


def _is_line(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict) and "event" in json.loads(line)
    except (ValueError, RecursionError):
        return False


def _remove_unfinished_line(path: Path) -> None:
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - _MOST_BYTES_OF_A_LINE))
        unfinished = len(file.read().rpartition(b"\n")[2])
        if unfinished:
            file.truncate(end - unfinished)


def _describe_machine() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "versions": {"fastmf": __version__, "python": platform.python_version(), **_versions()},
        "machine": {
            "cpu": cpu_model(),
            "cores": count_cores(),
            "memory_gib": memory_gib(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def _describe_fit(model: Any) -> dict[str, Any]:
    """Describe a model in training: its parameters, what it has chosen, its threads, and its data."""
    from fastmf_kernels import _jit

    n_threads = _jit.resolve_threads(model.n_threads)
    return {"n_threads": n_threads, "parameters": model.get_params(), "chosen": model.chosen, "data": model.fitted.data}
