"""Ingest: a Parquet file of integer or string ids to ratings with dense indices, beside reading the file alone."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import fastmf
from fastmf.reading.parquet import write_table
from fastmf_bench.contest import Contestant
from fastmf_bench.pace import Pace, Task
from fastmf_bench.problems import SHAPES, Shape, open_problem
from fastmf_bench.results import OURS
from fastmf_bench.session import Session, Work
from fastmf_bench.suites.ceilings import COPY
from fastmf_kernels._types import Int32Array

KINDS = ("int64 ids", "string ids")
READ = "pyarrow, read alone"
ENCODE = "pyarrow, read and dictionary_encode"
# What must at least be moved for a row: two ids (13 characters and an offset each, where they are strings) and a rating
# in, two int32 indices and a rating out.
_BYTES_A_ROW = {KINDS[0]: 2 * 8 + 4 + 12, KINDS[1]: 2 * (13 + 4) + 4 + 12}
_COLUMNS = ("user_id", "item_id", "rating")


def run(session: Session) -> None:
    """Race the ways from a file to dense ids."""
    if session.options.file is not None:
        _race(session, session.options.file.stem, str(session.options.file), {})
        return
    for shape in session.options.shapes or (SHAPES["ml-1m" if session.options.quick else "ml-20m"],):
        with session.noting(shape.name):
            _race_kinds_of_ids(session, shape)


def _race_kinds_of_ids(session: Session, shape: Shape) -> None:
    problem = session.problem(shape)
    for kind in KINDS:
        path = problem.folder / f"{kind.replace(' ', '-')}.parquet"
        if not path.exists():
            session.work("ingest.write", {"folder": str(problem.folder), "path": str(path), "kind": kind})
        _race(session, shape.name, str(path), {"ids": kind})


def _race(session: Session, problem: str, path: str, settings: dict[str, Any]) -> None:
    contestants = [
        Contestant(OURS, "ingest.fastmf", {"path": path}),
        Contestant(READ, "ingest.read", {"path": path}),
        Contestant(ENCODE, "ingest.encode", {"path": path}),
    ]
    if settings.get("ids") != KINDS[1]:
        contestants.append(Contestant("pyarrow, and numpy.unique", "ingest.unique", {"path": path}))
    work = Work(pq.read_metadata(path).num_rows, "rows")
    if "ids" in settings:
        work = work._replace(ceiling=COPY, cost=_BYTES_A_ROW[settings["ids"]])
    session.race("ingest", "Parquet to dense ids", problem, settings, contestants, work)


def write(_: Pace, folder: str, path: str, kind: str) -> dict[str, Any]:
    """Write the ratings of a problem, train and test, to one Parquet file with outside ids."""
    problem = open_problem(folder)
    parts = problem.train(), problem.test()
    columns = {
        "user_id": np.concatenate([part.users for part in parts]),
        "item_id": np.concatenate([part.items for part in parts]),
    }
    table = {name: _outside_ids(name[:4], indices, kind) for name, indices in columns.items()}
    table["rating"] = pa.array(np.concatenate([part.ratings for part in parts]))
    write_table(pa.table(table), path)
    return {}


def _outside_ids(prefix: str, indices: Int32Array, kind: str) -> pa.Array:
    """Make ids that are neither dense nor in the order of the indices."""
    numbers = (np.arange(indices.max() + 1, dtype=np.int64) * 7919) % 15_485_863
    if kind == KINDS[0]:
        return pa.array(numbers[indices])
    return pa.array([f"{prefix}-{number:08}" for number in numbers]).take(pa.array(indices))


def read_fastmf(pace: Pace, path: str) -> dict[str, Any]:
    """Read with `fastmf.read_parquet`, which also looks for pairs that come up twice."""
    fastmf.read_parquet(path)
    while pace():
        fastmf.read_parquet(path)
    return {"note": "finds repeated pairs, too"}


def read_alone(pace: Pace, path: str) -> dict[str, Any]:
    """Read the columns into Arrow memory."""
    pq.read_table(path, columns=list(_COLUMNS))
    while pace():
        pq.read_table(path, columns=list(_COLUMNS))
    return {"note": "no dense ids come of it"}


def read_and_encode(pace: Pace, path: str) -> dict[str, Any]:
    """Read, and encode both id columns with Arrow's hash tables."""

    def work() -> None:
        table = pq.read_table(path, columns=list(_COLUMNS))
        for column in _COLUMNS[:2]:
            pc.dictionary_encode(table[column].combine_chunks())

    work()
    while pace():
        work()
    return {}


def read_and_unique(pace: Pace, path: str) -> dict[str, Any]:
    """Read, and find the distinct ids of both columns with NumPy."""

    def work() -> None:
        table = pq.read_table(path, columns=list(_COLUMNS))
        for column in _COLUMNS[:2]:
            np.unique(table[column].to_numpy(), return_inverse=True)

    work()
    while pace():
        work()
    return {}


TASKS: dict[str, Task] = {
    "ingest.write": write,
    "ingest.fastmf": read_fastmf,
    "ingest.read": read_alone,
    "ingest.encode": read_and_encode,
    "ingest.unique": read_and_unique,
}
