"""The data that is raced on: generated in the shapes of known data sets, or read from a file.

A problem lies in a folder as plain ``.npy`` files, so that every contestant, each in a process of its own, maps the
very same ratings within milliseconds.
"""

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fastmf
from fastmf import Interactions
from fastmf.errors import FastMFError
from fastmf.testing import from_indices, power_law
from fastmf_bench.pace import Pace

TEST_FRACTION = 0.1
_PARTS = ("train", "test")
# Of memory, at the peak of generating. The contestant that needs most (two sparse layouts) takes as much, and factors.
_BYTES_PER_RATING = 90
_BYTES_AT_LEAST = 1 << 30


class TooLargeError(FastMFError):
    """A problem needs more memory than the machine has left."""


@dataclass(frozen=True)
class Shape:
    """How many users, items and ratings a problem has."""

    name: str
    n_users: int
    n_items: int
    n_ratings: int

    def __str__(self) -> str:
        return f"{self.name} ({self.n_users:,} users × {self.n_items:,} items, {self.n_ratings:,} ratings)"


# Users, items and ratings as the data sets of these names have them (GroupLens; Netflix Prize, 2006).
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("ml-1m", 6_040, 3_706, 1_000_209),
        Shape("ml-10m", 69_878, 10_677, 10_000_054),
        Shape("ml-20m", 138_493, 26_744, 20_000_263),
        Shape("netflix", 480_189, 17_770, 100_480_507),
        Shape("many-items", 200_000, 500_000, 10_000_000),
    )
}


@dataclass(frozen=True)
class Problem:
    """Ratings on disk, a tenth of them held out."""

    shape: Shape
    folder: Path

    @property
    def name(self) -> str:
        """Name of the shape."""
        return self.shape.name

    @property
    def n_train(self) -> int:
        """Number of ratings to train on."""
        return len(np.load(self.folder / "train-users.npy", mmap_mode="r"))

    def train(self) -> Interactions:
        """Map the ratings to train on."""
        return self._load("train")

    def test(self) -> Interactions:
        """Map the ratings held out."""
        return self._load("test")

    def _load(self, part: str) -> Interactions:
        # Copy-on-write: Numba would compile every kernel once more for read-only arrays.
        users, items, ratings = (
            np.asarray(np.load(self.folder / f"{part}-{column}.npy", mmap_mode="c"))
            for column in ("users", "items", "ratings")
        )
        return from_indices(users, items, ratings, self.shape.n_users, self.shape.n_items)


def generate(shape: Shape, folder: Path, seed: int) -> Problem:
    """Generate a problem with `fastmf.testing.power_law`, unless ``folder`` holds it already."""
    target = folder / f"{shape.name}-{shape.n_users}x{shape.n_items}-{shape.n_ratings}-seed{seed}"
    if not (target / "shape.json").exists():
        require_memory(shape)
        ratings = power_law(shape.n_users, shape.n_items, shape.n_ratings, seed=seed)
        _store(shape, fastmf.split.random(ratings, TEST_FRACTION, seed), target)
    return Problem(shape, target)


def from_file(path: Path, folder: Path, seed: int) -> Problem:
    """Read a problem from a Parquet file of ratings."""
    ratings = fastmf.read_parquet(path)
    shape = Shape(path.stem, ratings.n_users, ratings.n_items, ratings.n_ratings)
    target = folder / f"file-{path.stem}-{_fingerprint(path)}-seed{seed}"
    _store(shape, fastmf.split.random(ratings, TEST_FRACTION, seed), target)
    return Problem(shape, target)


def from_split(name: str, train: Path, test: Path, folder: Path) -> Problem:
    """Read a problem whose split is given, as two Parquet files."""
    columns = ["user_id", "item_id"] + ["rating"] * ("rating" in pq.read_schema(train).names)
    parts = [pq.read_table(path, columns=columns) for path in (train, test)]
    ratings = Interactions.from_arrow(pa.concat_tables(parts), rating=columns[2] if len(columns) > 2 else None)
    shape = Shape(name, ratings.n_users, ratings.n_items, ratings.n_ratings)
    n_train = len(parts[0])
    positions = np.arange(n_train), np.arange(n_train, ratings.n_ratings)
    target = folder / f"split-{name}-{_fingerprint(train, test)}"
    _store(shape, [ratings.take(part) for part in positions], target)
    return Problem(shape, target)


def open_problem(folder: str) -> Problem:
    """Open the folder that `generate` or `from_file` has filled."""
    return Problem(Shape(**json.loads((Path(folder) / "shape.json").read_text())), Path(folder))


def generate_in_worker(_: Pace, shape: dict[str, Any], folder: str, seed: int) -> dict[str, Any]:
    """Do what `generate` does, as a task: its memory goes back when the process ends."""
    return {"folder": str(generate(Shape(**shape), Path(folder), seed).folder)}


def require_memory(shape: Shape) -> None:
    """Raise `TooLargeError` unless a problem of this shape can be generated and trained on here."""
    needed, there = _BYTES_AT_LEAST + _BYTES_PER_RATING * shape.n_ratings, available_memory()
    if needed > there:
        raise TooLargeError(
            f"{shape} needs about {needed / 2**30:.1f} GiB of memory, and {there / 2**30:.1f} GiB are available; take "
            "a smaller shape, or a machine with more"
        )


def available_memory() -> int:
    """Return the memory that is left, in bytes: of the machine, or of this control group where that is less."""
    left = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        left = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        left = min(left, int(limit.read_text()) - int(used.read_text()))
    return left


def _fingerprint(*paths: Path) -> str:
    """Identify files by path, size and time of change: a problem that was kept is used for the same files only."""
    told = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return f"{zlib.crc32(repr(told).encode()):08x}"


def _store(shape: Shape, parts: Iterable[Interactions], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for part, interactions in zip(_PARTS, parts, strict=True):
        for column in ("users", "items", "ratings"):
            np.save(target / f"{part}-{column}.npy", getattr(interactions, column))
    (target / "shape.json").write_text(json.dumps(asdict(shape)))
