"""Where output goes: results to standard output; progress to standard error, drawn or in lines, or not at all."""

import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from fastmf.common.progress import Progress
from fastmf.models.training import in_narrower_lines, in_one_line

Done = CompletedProcess[str]
TRAIN = ("--model", "als", "--output", "model", "--factors", 4, "--epochs", 3)


def read_to_the_end(descriptor: int) -> str:
    parts = []
    try:
        while part := os.read(descriptor, 4096):
            parts.append(part)
    except OSError:
        pass  # what Linux answers once the other side of a terminal is closed
    return b"".join(parts).decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_progress_is_a_bar_on_a_terminal(data: Any, start_fastmf: Callable[..., Any]) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))

    process = start_fastmf("train", data.ratings, *TRAIN, "--json", stderr=theirs)
    os.close(theirs)
    shown = read_to_the_end(ours)
    os.close(ours)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 0, shown
    assert json.loads(output)["epoch"] == 3
    assert "ALS:   0%|" in shown
    assert "ALS: 100%|" in shown
    assert "train_rmse" in shown.rpartition("3/3")[2]
    assert "epochs train_rmse" not in shown  # no plain lines beside the bar


def test_progress_is_plain_lines_elsewhere(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("train", data.ratings, *TRAIN)

    first, *epochs, last = done.stderr.splitlines()
    assert first.startswith("read ")
    assert last.startswith("chose regularization=")
    assert [line.split(" train_rmse ")[0] for line in epochs] == [f"ALS: {epoch}/3 epochs" for epoch in (1, 2, 3)]
    assert "\r" not in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "model",
        "n_ratings",
        "epoch",
        "seconds",
        "train_rmse",
        "objective",
    ]


@pytest.mark.slow
def test_quiet_is_silent(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    model = data.models["als"]
    calls: dict[str, tuple[object, ...]] = {
        "train": (data.ratings, *TRAIN),
        "tune": (data.ratings, "--model", "als", "--output", "tuned", "--factors", 2, "--epochs", 1, "--trials", 2),
        "recommend": (model, "--output", "recs.parquet"),
        "evaluate": (model, data.test),
        "similar": (model, "--item", "film-001"),
        "explain": (model, "--user", "user-0001", "--item", "film-001"),
        "onboarding": (model,),
        "info": (model,),
        "doctor": (),
        "warmup": (),
    }

    said = {command: call_fastmf(command, *arguments, "--quiet").stderr for command, arguments in calls.items()}

    assert set(said.values()) == {""}, said


def test_recommend_tells_what_it_does(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("recommend", data.models["als"], "--output", "recs.parquet", "-k", 3)

    first, second = done.stderr.splitlines()
    assert first == "recommending 3 of 30 items to 60 users"
    assert re.fullmatch(r"recommend: 60/60 users [\d,]+ users/s(, \d+% of the tiles skipped)?", second)


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_traceback_is_for_debugging(debug: bool, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("info", "nothing", *(["--debug"] if debug else []), status=1)

    assert ("Traceback (most recent call last)" in done.stderr) is debug
    assert "no such file: nothing; expected" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("width", "shown", "hidden"),
    [
        (140, ["train_rmse", "objective", "validation_rmse", "seconds"], []),
        (112, ["train_rmse", "validation_rmse", "seconds"], ["objective"]),
        (93, ["train_rmse", "validation_rmse"], ["objective", "seconds"]),
        (77, ["validation_rmse"], ["train_rmse", "objective", "seconds"]),
    ],
)
def test_a_narrow_bar_shows_validation_before_all_else(
    width: int, shown: list[str], hidden: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    record = {"epoch": 1, "seconds": 0.0123, "train_rmse": 0.9, "objective": 12345.6, "validation_rmse": 0.91}

    with Progress("ALS", 3, "epoch", shown=True) as progress:
        assert progress._bar is not None
        progress._bar.dynamic_ncols, progress._bar.ncols = None, width
        progress.advance(1, in_one_line(record), in_narrower_lines(record))
        line = str(progress._bar)

    assert len(line) <= width
    assert [name for name in (*shown, *hidden) if f" {name} " in line] == shown
    assert "validation_rmse 0.91" in line


@pytest.mark.slow
def test_what_a_first_call_waits_for_is_said_once(data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]) -> None:
    words = ("evaluate", data.models["als"], data.test, "--metrics", "rmse", "--no-baseline")
    prelude = f"import os; os.environ['FASTMF_CACHE_DIR'] = {str(tmp_path / 'cache')!r}"
    text = "compiling kernels: the first call takes some seconds\n"

    told = [run_fastmf(*words, prelude=prelude).stderr for _ in range(2)]
    silent = run_fastmf(*words, "--quiet", prelude=prelude.replace("cache'", "other'")).stderr

    assert told == [text, ""]
    assert silent == ""
