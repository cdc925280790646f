"""The nightly script: what it makes, what it refuses, and that a second start goes on."""

import dataclasses
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from tests.examples.conftest import EXAMPLES, SECONDS, Running, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks of this kind"),
    pytest.mark.skipif(
        "checkpoint" not in inspect.signature(fastmf.ImplicitALS.fit).parameters, reason="fit writes no checkpoints"
    ),
]
SMALL = ("--factors", 4, "--epochs", 3)
# Stops the training in the middle of an epoch: the process waits there for the signal that kills it.
KILLED = """
import runpy, sys, threading
from fastmf.keeping.run_log import RunLog
call = RunLog.__call__
def call_and_wait(self, model, record):
    call(self, model, record)
    if record["epoch"] == 2:
        threading.Event().wait()
RunLog.__call__ = call_and_wait
sys.argv = {arguments!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def events(tmp_path: Path, clicks: fastmf.Interactions) -> Path:
    table = clicks.to_arrow()
    order = np.random.default_rng(0).permutation(len(table))
    path = tmp_path / "events.parquet"
    pq.write_table(table.append_column("timestamp", pa.array(order)), path)
    return path


def words(*more: object, day: str = "2026-05-01") -> tuple[object, ...]:
    return (EXAMPLES / "nightly.py", "events.parquet", "--folder", "nightly", "--day", day, *SMALL, *more)


def report_of(running: Running, status: int = 0) -> dict[str, Any]:
    output, errors = running.process.communicate(timeout=SECONDS)
    assert (running.process.returncode, errors) == (status, "")
    return json.loads(output)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def times_of(folder: Path) -> dict[str, int]:
    """When each file was changed last; the lock is opened every time."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_night_and_the_next(start: Callable[..., Running], events: Path, tmp_path: Path) -> None:
    first = report_of(start(*words()))

    folder = tmp_path / "nightly"
    day = folder / "2026-05-01"
    assert first["is_accepted"] is True
    recommended = fastmf.load(day / "candidate").recommend(k=10, cold="popular").to_arrow()
    assert pq.read_table(day / "recommendations.parquet").equals(recommended)
    served = fastmf.load(folder / "model", verify=True)
    assert np.array_equal(served.user_factors, fastmf.load(day / "candidate").user_factors)
    before = times_of(folder)

    again = report_of(start(*words()))

    assert again == first
    assert times_of(folder) == before

    second = report_of(start(*words(day="2026-05-02")))
    assert second["is_accepted"] is True
    assert second["yesterday"] == pytest.approx(first["ndcg@10"])


def test_a_worse_candidate_is_refused(start: Callable[..., Running], events: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nightly"
    whole = fastmf.read_parquet(events, timestamp="timestamp")
    seen = fastmf.split.temporal(whole, test_fraction=0.1)[0].by_user
    # Yesterday's model has learned the answers, and nothing takes them out of its lists.
    cheat = fastmf.ImplicitALS(n_factors=24, n_epochs=8, regularization=1e-4, unobserved_weight=0.1).fit(whole)
    kept = type(cheat.fitted.seen)(seen.indptr, seen.indices)
    cheat.restore(dataclasses.replace(cheat.fitted, seen=kept, values=seen.values), cheat.history)
    cheat.save(folder / "model")
    before = times_of(folder)

    report = report_of(start(*words()), status=1)

    assert report["is_accepted"] is False
    assert report["difference"][1] < 0
    assert not (folder / "2026-05-01" / "recommendations.parquet").exists()
    assert {name: time for name, time in times_of(folder).items() if name in before} == before
    assert report_of(start(*words()), status=1) == report


def test_a_killed_training_goes_on(start: Callable[..., Running], events: Path, tmp_path: Path) -> None:
    killed = start("-c", KILLED.format(arguments=[str(word) for word in words()]))
    folder = tmp_path / "nightly"
    until(lambda: [line["epoch"] for line in lines_of(folder) if line["event"] == "epoch"] == [1, 2])
    second = start(*words())
    _, errors = second.process.communicate(timeout=SECONDS)
    assert (second.process.returncode, errors) == (1, "another process works in nightly\n")
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait(SECONDS)

    report = report_of(start(*words()))

    assert report["is_accepted"] is True
    epochs = [line["epoch"] for line in lines_of(folder) if line["event"] == "epoch"]
    assert epochs[:2] == [1, 2]
    assert epochs[2:] in ([2, 3], [3])  # the second epoch counts again if the process died before its checkpoint
    train = fastmf.read_parquet(folder / "2026-05-01" / "train.parquet")
    expected = fastmf.ImplicitALS(n_factors=4, n_epochs=3).fit(train)
    assert np.array_equal(fastmf.load(folder / "model").item_factors, expected.item_factors)


def test_what_cannot_be_read_is_told(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(*words())
    output, errors = running.process.communicate(timeout=SECONDS)

    assert (running.process.returncode, output) == (1, "")
    assert errors.startswith("the night of 2026-05-01 failed: ")
    assert errors.count("\n") == 1
    assert [line["event"] for line in lines_of(tmp_path / "nightly")] == ["start", "end"]
