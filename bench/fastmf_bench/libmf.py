"""LIBMF, a program in C++, driven through its command ``mf-train`` and text files.

Chin, Yuan, Yang, Zhuang, Juan, Lin, "LIBMF: A Library for Parallel Matrix Factorization in Shared-memory Systems", JMLR
17(86), 2016.
"""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv

from fastmf import Interactions
from fastmf.common.files import new_file
from fastmf.common.machine import peak_bytes
from fastmf_bench.pace import Lap, clocks
from fastmf_bench.problems import Problem

# Reading the text takes as long as several epochs, and varies: the time of one epoch is a share of that of many.
_EPOCHS_A_LAP = 20


class Settings(NamedTuple):
    """What `mf-train` is told: λ on both sides as in fastmf, and the first step size of its AdaGrad-like schedule."""

    program: str
    n_factors: int
    n_threads: int
    regularization: float
    learning_rate: float = 0.1


def write_text(problem: Problem) -> tuple[Path, Path]:
    """Write the ratings as LIBMF reads them, ``user item rating`` lines, unless they are there already."""
    return _write(problem.train(), problem.folder / "train.txt"), _write(problem.test(), problem.folder / "test.txt")


def time_epoch(settings: Settings, train: Path) -> Lap:
    """Return the seconds of one epoch: a run of n + 1 epochs less a run of one, so without reading the text."""
    short, long = (_timed(settings, train, n) for n in (1, _EPOCHS_A_LAP + 1))
    return Lap(*((b - a) / _EPOCHS_A_LAP for a, b in zip(short, long, strict=True)))


def test_errors(settings: Settings, train: Path, test: Path, n_epochs: int) -> list[float]:
    """Return the RMSE on the test ratings after each epoch, as LIBMF itself reports it."""
    arguments = [*_arguments(settings, n_epochs), "-p", str(test), str(train), "/dev/null"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    header, *lines = [line.split() for line in done.stdout.splitlines()]
    column = header.index("va_rmse")
    return [float(line[column]) for line in lines if len(line) == len(header) and line[0].isdigit()]


def peak_of_training(settings: Settings, train: Path) -> int:
    """Return the largest resident size of a training of one epoch, in bytes; polled every millisecond."""
    with subprocess.Popen([*_arguments(settings, 1), "--quiet", str(train), "/dev/null"]) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.001)
    return peak


def _timed(settings: Settings, train: Path, n_epochs: int) -> Lap:
    before = clocks()
    subprocess.run([*_arguments(settings, n_epochs), "--quiet", str(train), "/dev/null"], check=True)
    after = clocks()
    return Lap(after.wall - before.wall, after.cpu - before.cpu)


def _arguments(settings: Settings, n_epochs: int) -> Sequence[str]:
    program, n_factors, n_threads, regularization, learning_rate = settings
    options = {"-k": n_factors, "-s": n_threads, "-l2": regularization, "-r": learning_rate, "-t": n_epochs}
    return [program, *(str(part) for option in options.items() for part in option)]


def _write(ratings: Interactions, path: Path) -> Path:
    if not path.exists():
        table = pa.table({"user": ratings.users, "item": ratings.items, "rating": ratings.ratings})
        options = pyarrow.csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
        with new_file(path) as temporary:
            pyarrow.csv.write_csv(table, temporary, options)
    return path
