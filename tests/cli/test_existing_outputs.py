"""An output that exists is refused before any work, and replaced in one step when asked for."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import OutputExistsError

Done = CompletedProcess[str]
Contents = Callable[[], dict[str, bytes | None]]

# Every command that writes, but for the demo, which has its own rule.
WRITERS: dict[str, tuple[object, ...]] = {
    "train": ("train", "{ratings}", "--model", "als", "--output", "out", "--factors", 2, "--epochs", 1),
    "recommend": ("recommend", "{als}", "--output", "out"),
    "convert": ("convert", "ratings.csv", "out"),
}


@pytest.mark.parametrize("command", WRITERS)
def test_an_output_that_exists_is_replaced_only_when_asked_for(
    command: str,
    data: Any,
    tmp_path: Path,
    run_fastmf: Callable[..., Done],
    call_fastmf: Callable[..., Done],
    contents: Contents,
) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n1,2,3.5\n")
    if command == "train":
        shutil.copytree(data.models["als"], tmp_path / "out")
    else:
        (tmp_path / "out").write_text("earlier")
    call = [str(argument).format(als=data.models["als"], ratings=data.ratings) for argument in WRITERS[command]]
    before = contents()

    done = run_fastmf(*call, status=1)

    message = "out exists already; choose another output, or allow overwriting (--overwrite)"
    assert done.stderr == f"fastmf {command}: {message}\n"
    assert done.stdout == ""
    assert contents() == before

    call_fastmf(*call, "--overwrite")

    assert contents().keys() == before.keys()  # the new one in the place of the old, and nothing beside it
    if command == "train":
        assert fastmf.load(tmp_path / "out").n_factors == 2
    else:
        assert len(pq.read_table(tmp_path / "out")) == (600 if command == "recommend" else 1)


@pytest.mark.parametrize("there", ["a file", "a directory", "a web page"])
def test_a_model_never_takes_the_place_of_something_else(
    there: str, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    if there == "a file":
        (tmp_path / "out").write_text("thesis")
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ("thesis" if there == "a directory" else "manifest.json")).write_text("{}")
    before = contents()

    done = call_fastmf(
        "train", data.ratings, "--model", "als", "--output", "out", "--epochs", 1, "--overwrite", status=1
    )
    with pytest.raises(OutputExistsError, match="out exists and is not a model"):
        fastmf.load(data.models["als"]).save(tmp_path / "out", overwrite=True)

    assert done.stderr.splitlines()[-1].startswith("fastmf train: out exists and is not a model, which alone is ")
    assert contents() == before


def test_a_model_may_fill_an_empty_directory(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    (tmp_path / "out").mkdir()

    call_fastmf("train", data.ratings, "--model", "als", "--output", "out", "--epochs", 1, "--overwrite")

    assert fastmf.load(tmp_path / "out").n_epochs == 1
