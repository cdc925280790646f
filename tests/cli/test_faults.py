"""Killed, interrupted, out of space: what is at the final path is the old output or the new one, never a half."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import numpy as np
import pytest

import fastmf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of Unix"),
]

Done = CompletedProcess[str]
Contents = Callable[[], dict[str, bytes | None]]

# A shell may have started the tests with Ctrl-C ignored, which children inherit.
HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
# No file may grow beyond this size: to the program, the disk is full.
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
"""
# What is said of each.
SIGNALS = {
    signal.SIGINT: "interrupted; nothing was left half-written; ",
    signal.SIGTERM: "terminated; nothing was left half-written; ",
    signal.SIGHUP: "terminated; nothing was left half-written; ",
}
ENDLESS = ("--model", "als", "--factors", 4, "--epochs", 1_000_000)


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of so many users that recommending to all of them goes on long after its first line of progress."""
    folder = tmp_path_factory.mktemp("crowd") / "model"
    users = np.arange(500_000)
    ratings = fastmf.Interactions.from_arrays(users, users % 50)
    fastmf.ImplicitALS(n_factors=2, n_epochs=1).fit(ratings).save(folder)
    return folder


def wait_for_line(process: "Popen[str]", beginning: str) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if line.startswith(beginning):
            return
        said.append(line)
    raise AssertionError(f"ended before {beginning!r}: {said}")


def end(process: "Popen[str]", number: signal.Signals) -> tuple[str, str]:
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    return output, errors


def test_killed_while_training(data: Any, tmp_path: Path, start_fastmf: Callable[..., Any]) -> None:
    process = start_fastmf("train", data.ratings, *ENDLESS, "--output", "model")
    wait_for_line(process, "ALS: 1/")

    end(process, signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()


def test_killed_while_recommending(crowd: Path, tmp_path: Path, start_fastmf: Callable[..., Any]) -> None:
    (tmp_path / "recs.parquet").write_text("earlier")
    process = start_fastmf("recommend", crowd, "--output", "recs.parquet", "-k", 20, "--overwrite")
    wait_for_line(process, "recommend: 8192/")

    end(process, signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "recs.parquet").read_text() == "earlier"
    (parts,) = set(tmp_path.iterdir()) - {tmp_path / "recs.parquet"}
    assert parts.name.startswith(".recs.parquet.parts-")
    (half,) = parts.iterdir()
    assert half.name.startswith(".part-00000.parquet.tmp-")  # hidden, and no name that reads as Parquet
    assert half.stat().st_size > 0


# The process is killed when its third part is to get its name.
KILLED_AT_THE_THIRD_PART = """
import os, signal
replace = os.replace
def replace_or_die(source, target):
    if str(target).endswith("part-00002.parquet"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_or_die
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--partitioned",)], ids=["a file", "a directory"])
def test_killed_while_recommending_and_resumed(
    how: tuple[str, ...],
    crowd: Path,
    tmp_path: Path,
    run_fastmf: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def recommend(output: str, **arguments: Any) -> Done:
        return run_fastmf("recommend", crowd, "--output", output, "-k", 5, *how, **arguments)

    def bytes_of(output: str) -> list[tuple[str, bytes]]:
        path = tmp_path / output
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return [(file.name if path.is_dir() else "", file.read_bytes()) for file in files]

    recommend("whole")
    recommend("killed", prelude=KILLED_AT_THE_THIRD_PART, status=-9)
    assert not (tmp_path / "killed").exists()
    (parts,) = tmp_path.glob(".killed.parts-*")
    finished = {file.name: file.stat().st_mtime_ns for file in parts.glob("part-*.parquet")}
    assert sorted(finished) == ["part-00000.parquet", "part-00001.parquet"]

    done = recommend("killed")
    assert "done before" in done.stderr
    assert bytes_of("killed") == bytes_of("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_killed_while_saving(
    data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], call_fastmf: Callable[..., Done]
) -> None:
    prelude = (
        "import os, signal; from fastmf.common import files; "
        "files.rename_to_absent = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    )

    run_fastmf("train", data.ratings, "--model", "als", "--epochs", 1, "--output", "model", prelude=prelude, status=-9)

    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".model.tmp-")

    call_fastmf("train", data.ratings, "--model", "als", "--epochs", 1, "--output", "model")
    assert fastmf.load(tmp_path / "model").n_epochs == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing is left of the killed run


@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_while_training(
    number: signal.Signals, data: Any, start_fastmf: Callable[..., Any], contents: Contents
) -> None:
    process = start_fastmf("train", data.ratings, *ENDLESS, "--output", "model", prelude=HEED_CTRL_C)
    wait_for_line(process, "ALS: 1/")

    output, errors = end(process, number)

    assert (process.returncode, output) == (128 + number, "")
    advice = "with --checkpoint DIR it could go on, and with --keep-on-interrupt it would save the epochs that are done"
    assert errors.splitlines()[-1] == f"fastmf train: {SIGNALS[number]}the same call starts afresh; {advice}"
    assert "Traceback" not in errors
    assert contents() == {}


@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_while_recommending(
    number: signal.Signals, crowd: Path, start_fastmf: Callable[..., Any], contents: Contents
) -> None:
    process = start_fastmf("recommend", crowd, "--output", "recs.parquet", "-k", 20, prelude=HEED_CTRL_C)
    wait_for_line(process, "recommend: 8192/")

    output, errors = end(process, number)

    assert (process.returncode, output) == (128 + number, "")
    ending = "no part was finished: the same call starts afresh"
    assert errors.splitlines()[-1] == f"fastmf recommend: {SIGNALS[number]}{ending}"
    assert "Traceback" not in errors
    assert contents() == {}


def test_interrupted_after_some_parts(crowd: Path, tmp_path: Path, run_fastmf: Callable[..., Done]) -> None:
    prelude = KILLED_AT_THE_THIRD_PART.replace("SIGKILL", "SIGINT")

    done = run_fastmf("recommend", crowd, "--output", "recs.parquet", prelude=f"{HEED_CTRL_C}\n{prelude}", status=130)

    (parts,) = tmp_path.iterdir()
    ending = f"2 finished parts are kept in {parts}: the same call continues after them"
    assert done.stderr.splitlines()[-1].endswith(ending)


# Every command that writes, over an earlier output.
WRITERS: dict[str, tuple[object, ...]] = {
    "train": ("train", "{ratings}", "--model", "als", "--epochs", 1, "--output", "out", "--overwrite"),
    "recommend": ("recommend", "{als}", "--output", "out", "--overwrite"),
    "convert": ("convert", "big.csv", "out", "--overwrite"),
}


@pytest.mark.parametrize("command", WRITERS)
def test_full_disk(
    command: str, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], contents: Contents
) -> None:
    (tmp_path / "big.csv").write_text("userId,movieId\n" + "".join(f"{n},{n * 7919 % 10007}\n" for n in range(2000)))
    if command == "train":
        shutil.copytree(data.models["als"], tmp_path / "out")
    else:
        (tmp_path / "out").write_text("earlier")
    before = contents()
    call = [str(argument).format(als=data.models["als"], ratings=data.ratings) for argument in WRITERS[command]]

    done = run_fastmf(*call, prelude=FULL_DISK, status=1)

    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"fastmf {command}: cannot write ")
    assert "; make room, or choose another output (" in message
    assert re.search(r"\([\d,]+ bytes are needed, [\d,]+ are free\)$|\(more than [\d,]+ bytes are needed, ", message)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert contents() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_results_that_find_no_room(data: Any, start_fastmf: Callable[..., Any]) -> None:
    with open("/dev/full", "w") as full:
        process = start_fastmf("info", data.models["als"], stdout=full.fileno())
        _, errors = process.communicate(timeout=120)

    assert process.returncode == 1
    assert errors == "fastmf info: cannot write to standard output: No space left on device; send it elsewhere\n"


def test_results_that_nobody_reads(data: Any, start_fastmf: Callable[..., Any]) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    process = start_fastmf("info", data.models["als"], stdout=writer)
    os.close(writer)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 1
    assert errors == "fastmf info: cannot write to standard output: Broken pipe; send it elsewhere\n"


@pytest.mark.parametrize("is_closed", [False, True])
def test_results_that_nobody_can_be_given(
    is_closed: bool, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    # The encoding lacks the letters of the output's name, or there is no standard output at all.
    prelude = "import sys; " + ("sys.stdout = None" if is_closed else "sys.stdout.reconfigure(encoding='ascii')")

    done = run_fastmf("recommend", data.models["als"], "--output", "caf\u00e9.parquet", prelude=prelude)

    assert done.stdout.split()[:2] == ([] if is_closed else ["output", r"caf\xe9.parquet"])
    assert "Traceback" not in done.stderr
    assert (tmp_path / "caf\u00e9.parquet").exists()


def test_interrupted_while_the_arguments_are_read(run_fastmf: Callable[..., Done]) -> None:
    prelude = """
import fastmf.cli.train
def interrupt(parser): raise KeyboardInterrupt
fastmf.cli.train.add_arguments = interrupt
"""
    done = run_fastmf("train", "ratings.parquet", prelude=prelude, status=130)

    assert done.stderr == "fastmf: interrupted; nothing was left half-written; the same call starts afresh\n"


def test_an_output_in_a_directory_that_cannot_be_made(
    data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], contents: Contents
) -> None:
    (tmp_path / "file").write_text("")
    before = contents()

    done = run_fastmf("recommend", data.models["als"], "--output", "file/recs.parquet", status=1)

    assert "file is not a directory; choose another output" in done.stderr.splitlines()[-1]
    assert contents() == before
