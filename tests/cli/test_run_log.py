"""``--log``: what the lines say of a run of the command."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import fastmf

Done = CompletedProcess[str]
SMALL = ("--factors", 4, "--epochs", 2)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_train_logs_options_data_epochs_and_metrics(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    words = ("train", data.ratings, "--model", "sgd", "--output", "model", *SMALL, "--validation-fraction", 0.1)
    done = call_fastmf(*words, "--refit", "--log", "run.jsonl", "--json", "--no-biases")

    start, sizes, *middle, end = lines_of(tmp_path / "run.jsonl")
    assert start["event"] == "start"
    assert start["command"] == "train"
    assert start["arguments"][:2] == ["train", str(data.ratings)]
    options = start["options"]
    assert options["ratings"] == [str(data.ratings)]
    assert (options["factors"], options["no-biases"], options["seed"], options["refit"]) == (4, True, 0, True)
    assert not {"debug", "config", "no-rating-column", "patience", "quiet", "checkpoint"} & set(options)
    result = json.loads(done.stdout)
    n_ratings = {"n_ratings": result["n_ratings"], "validation": result["validation"]}
    assert {name: sizes[name] for name in ("event", *n_ratings)} == {"event": "data", **n_ratings}
    n_refitted = result["refit"]["n_epochs"]
    assert [line["event"] for line in middle] == ["fit", "epoch", "epoch", "fit", *["epoch"] * n_refitted]
    assert [line["validation_rmse"] for line in middle[1:3]] == [line["validation_rmse"] for line in result["history"]]
    kept = fastmf.load(tmp_path / "model").fitted.data
    assert middle[3]["data"] == {name: kept[name] for name in middle[3]["data"]}
    assert end["status"] == "done"
    del result["history"]
    assert end["result"] == result


def test_each_command_appends_its_run(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    log = ("--log", "run.jsonl", "--json", "--quiet")
    evaluated = call_fastmf("evaluate", data.models["als"], data.test, *log)
    recommended = call_fastmf("recommend", data.models["als"], "--output", "recs.parquet", *log)
    search = ("--trials", 1, "--max-epochs", 2, "--factors", 2, "--parallel", 1)
    tuned = call_fastmf("tune", data.ratings, "--model", "als", "--output", "tuned", *search, *log)

    lines = lines_of(tmp_path / "run.jsonl")
    assert [line["command"] for line in lines if line["event"] == "start"] == ["evaluate", "recommend", "tune"]
    results = [line["result"] for line in lines if line["event"] == "end"]
    assert results == [json.loads(done.stdout) for done in (evaluated, recommended, tuned)]


def test_a_run_that_fails_says_so_in_its_log(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    call_fastmf("train", "absent.parquet", "--model", "als", "--output", "m", "--log", "run.jsonl", status=1)
    call_fastmf(
        *("train", data.ratings, "--model", "als", "--output", "m", "--patience", 1, "--log", "run.jsonl"), status=2
    )

    ends = [line for line in lines_of(tmp_path / "run.jsonl") if line["event"] == "end"]
    assert [(end["status"], end["error"]["type"]) for end in ends] == [
        ("failed", "DataError"),
        ("failed", "ParameterError"),
    ]
    assert "absent.parquet" in ends[0]["error"]["message"]


def test_another_file_is_not_appended_to(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Callable[[], dict[str, bytes | None]]
) -> None:
    (tmp_path / "notes.txt").write_text("mine\n")
    before = contents()

    done = call_fastmf("train", data.ratings, "--model", "als", "--output", "m", "--log", "notes.txt", status=1)

    assert "notes.txt exists and is not a run log, which alone is continued" in done.stderr
    assert contents() == before


# Background jobs of a shell ignore it.
HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
INTERRUPTED = """
import os, signal
from fastmf.keeping.run_log import RunLog
write = RunLog.write
def write_and_interrupt(self, event, **values):
    write(self, event, **values)
    if event == "epoch":
        os.kill(os.getpid(), signal.{signal})
RunLog.write = write_and_interrupt
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_says_so_in_its_log(
    name: str, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    words = ("train", data.ratings, "--model", "als", "--output", "m", *SMALL, "--log", "run.jsonl")
    run_fastmf(*words, prelude=HEED_CTRL_C + INTERRUPTED.format(signal=name), status=128 + getattr(signal, name))

    lines = lines_of(tmp_path / "run.jsonl")
    assert [line["event"] for line in lines] == ["start", "data", "fit", "epoch", "end"]
    assert lines[-1]["status"] == "interrupted"
    assert not os.path.exists(tmp_path / "m")


FULL = """
import os
import fastmf.keeping.run_log as run_log
def write_line(self, line):
    if b'"epoch"' in line:
        raise OSError(28, "No space left on device")
run_log.RunLog._append = write_line
"""


@pytest.mark.slow
def test_a_full_disk_costs_the_log_and_not_the_model(
    data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    words = ("train", data.ratings, "--model", "als", "--output", "m", *SMALL, "--log", "run.jsonl", "--quiet")
    done = run_fastmf(*words, prelude=FULL)

    note = f"fastmf: note: cannot write to the run log {tmp_path}/run.jsonl: No space left on device; the run goes on"
    assert done.stderr == f"{note} without it\n"
    assert len(fastmf.load(tmp_path / "m").history) == 2
