"""Run logs are whole lines of JSON, whatever happens to the run or to the disk."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf.errors import DivergenceError, OutputError, OutputExistsError
from fastmf.keeping import run_log
from fastmf.keeping.run_log import RunLogWarning

SMALL = {"n_factors": 2, "n_epochs": 2, "n_threads": 1}


@pytest.fixture(scope="module")
def ratings() -> fastmf.Interactions:
    return fastmf.testing.low_rank(n_users=40, n_items=20, density=0.4, seed=0)


def lines_of(path: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    text = path.read_text(encoding="ascii")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def events_of(path: Path) -> list[str]:
    return [line["event"] for line in lines_of(path)]


def test_a_log_has_the_start_each_epoch_and_the_end(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    train, validation = fastmf.split.random(ratings, test_fraction=0.2)
    path = tmp_path / "logs" / "run.jsonl"

    with fastmf.log_to(path, purpose="nightly", day=3) as log:
        model = fastmf.ALS(**SMALL).fit(train, validation=validation, callbacks=[log])
        log.result["rmse"] = np.float32(0.5)

    start, fit, *epochs, end = lines_of(path)
    assert [start["event"], fit["event"], end["event"]] == ["start", "fit", "end"]
    assert (start["purpose"], start["day"], start["process"]) == ("nightly", 3, os.getpid())
    assert start["versions"]["fastmf"] == fastmf.__version__
    assert start["machine"]["cpu"]
    assert start["machine"]["cores"] >= 1
    assert (fit["model"], fit["n_threads"], fit["parameters"]["n_factors"]) == ("ALS", 1, 2)
    assert fit["chosen"] == model.chosen
    assert fit["data"] == model.fitted.data
    own = {"event", "run", "time", "ratings_per_second", "peak_memory_bytes"}
    assert [{name: line[name] for name in line if name not in own} for line in epochs] == model.history
    for line in epochs:
        assert line["ratings_per_second"] == pytest.approx(train.n_ratings / line["seconds"])
        assert line["peak_memory_bytes"] > 10**6 or sys.platform != "linux"
    assert (end["status"], end["result"]) == ("done", {"rmse": 0.5})
    assert len({line["run"] for line in lines_of(path)}) == 1
    times = [line["time"] for line in lines_of(path)]
    assert times == sorted(times)


def test_lines_are_there_as_soon_as_they_are_written(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    path = tmp_path / "run.jsonl"
    log = fastmf.log_to(path)
    seen.append(events_of(path))

    fastmf.ALS(**SMALL).fit(ratings, callbacks=[log, lambda *_: seen.append(events_of(path))])

    assert seen == [["start"], ["start", "fit", "epoch"], ["start", "fit", "epoch", "epoch"]]


def test_each_fit_of_a_run_has_a_line(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    model = fastmf.SGD(**SMALL)

    with fastmf.log_to(path) as log:
        for _ in range(2):
            model.fit(ratings, callbacks=[log])
        fastmf.refit(model, ratings, callbacks=[log])

    assert events_of(path) == ["start", *["fit", "epoch", "epoch"] * 3, "end"]


def test_runs_follow_each_other_in_one_file(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    for _ in range(2):
        with fastmf.log_to(path):
            pass

    assert events_of(path) == ["start", "end"] * 2
    assert len({line["run"] for line in lines_of(path)}) == 2


def test_what_is_undefined_is_null(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    fastmf.log_to(path, share=float("nan")).write("epoch", rmse=float("inf"), name="\ud800 ünd\n", path=tmp_path)

    start, epoch = lines_of(path)
    assert (start["share"], epoch["rmse"], epoch["path"]) == (None, None, str(tmp_path))


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (DivergenceError("factors ran off"), "failed")]
)
def test_the_last_line_says_how_a_run_failed(error: BaseException, status: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    with pytest.raises(type(error)), fastmf.log_to(path) as log:
        raise error
    log.write("epoch", epoch=1)

    start, end = lines_of(path)
    assert (start["event"], end["event"], end["status"]) == ("start", "end", status)
    assert end["error"] == {"type": type(error).__name__, "message": str(error)}


@pytest.mark.parametrize("content", [b"\x93NUMPY\0", b"[1, 2]\n", b'{"epoch": 1}\n', b"\n", b"[" * 100_000])
def test_another_file_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.npy"
    path.write_bytes(content)

    with pytest.raises(OutputExistsError, match=r"model\.npy exists and is not a run log"):
        fastmf.log_to(path)

    assert path.read_bytes() == content


def test_a_directory_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="is a directory; expected the name of a file"):
        fastmf.log_to(tmp_path)


def test_what_a_killed_process_has_left_unfinished_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    fastmf.log_to(path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])

    fastmf.log_to(path)

    assert events_of(path) == ["start", "start"]
    assert path.read_bytes().startswith(whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_log_that_cannot_start_is_an_error() -> None:
    with pytest.raises(OutputError, match="cannot write /dev/full: No space left on device; make room"):
        fastmf.log_to("/dev/full")


@pytest.mark.parametrize("n_written", [0, 20])
def test_a_disk_that_is_full_later_is_told_once_and_costs_no_epoch(
    n_written: int, ratings: fastmf.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    log = fastmf.log_to(path)
    before = path.read_bytes()
    room, write = [n_written], os.write

    def write_on_full_disk(file: int, line: bytes) -> int:
        n_bytes = room.pop() if room else 0
        if n_bytes == 0:
            raise OSError(28, "No space left on device")
        return write(file, line[:n_bytes])

    monkeypatch.setattr(run_log.os, "write", write_on_full_disk)
    with pytest.warns(RunLogWarning, match="run log .*run.jsonl: .*; the run goes on without it") as warned:
        model = fastmf.ALS(**SMALL).fit(ratings, callbacks=[log])
    log.end()
    monkeypatch.undo()

    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert len(model.history) == 2
    assert path.read_bytes() == before


LIMITED = """
import resource, sys, warnings
import fastmf
size = int(sys.argv[1])
log = fastmf.log_to("run.jsonl")
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
ratings = fastmf.testing.low_rank(n_users=40, n_items=20, density=0.4, seed=0)
fastmf.ALS(n_factors=2, n_epochs=9, n_threads=1).fit(ratings, callbacks=[log]).save("model")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the size of files")
def test_a_limit_that_is_met_within_a_line_leaves_whole_lines_and_the_model(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"event": "start", "padding": "x" * 200_000}) + "\n")

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "203000"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RunLogWarning: cannot write to the run log") == 1
    assert 1 <= events_of(path).count("epoch") < 9
    assert len(fastmf.load(tmp_path / "model").history) == 9


KILLED = """
import os, signal
import fastmf
ratings = fastmf.testing.low_rank(n_users=40, n_items=20, density=0.4, seed=0)

def die(model, record):
    if record["epoch"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

fastmf.ALS(n_factors=2, n_epochs=9, n_threads=1).fit(ratings, callbacks=[fastmf.log_to("run.jsonl"), die])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_log_of_a_process_that_is_killed_has_its_epochs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True, check=False)

    assert events_of(tmp_path / "run.jsonl") == ["start", "fit", "epoch", "epoch", "epoch"]
