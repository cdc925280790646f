"""Outputs of the command: where they go, what they may be called, what is cleaned up, and JSON that is JSON."""

import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.cli.options import show
from fastmf.common.json_text import to_json

Done = CompletedProcess[str]
Contents = Callable[[], dict[str, bytes | None]]

# Every command that writes, but for where.
WRITERS: dict[str, tuple[object, ...]] = {
    "train": ("train", "{ratings}", "--model", "als", "--factors", 2, "--epochs", 1, "--output"),
    "recommend": ("recommend", "{als}", "--output"),
    "recommend --partitioned": ("recommend", "{als}", "--partitioned", "--output"),
    "users": ("users", "{als}", "--output"),
    "convert": ("convert", "ratings.csv"),
    "demo": ("demo", "--output"),
}


def call_of(command: str, data: Any) -> list[str]:
    return [str(argument).format(als=data.models["als"], ratings=data.ratings) for argument in WRITERS[command]]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n1,2,3.5\n")
    return tmp_path / "ratings.csv"


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("s3://bucket/out.parquet", "s3://bucket/out.parquet is a URI; expected a path on this machine"),
        ("out.csv", "cannot write out.csv: fastmf writes Parquet, not CSV; choose a name that ends in .parquet"),
        ("OUT.TSV", "cannot write OUT.TSV: fastmf writes Parquet, not TSV; choose a name that ends in .parquet"),
    ],
)
def test_an_output_that_would_not_be_what_it_is_called(
    output: str,
    message: str,
    command: str,
    data: Any,
    text_file: Path,
    call_fastmf: Callable[..., Done],
    contents: Contents,
) -> None:
    before = contents()

    done = call_fastmf(*call_of(command, data), output, status=1)

    assert done.stderr.splitlines()[-1].startswith(f"fastmf {command.split()[0]}: {message}")
    assert done.stdout == ""
    assert contents() == before


@pytest.mark.parametrize("command", WRITERS)
def test_the_home_directory_is_expanded_where_no_shell_does(
    command: str,
    data: Any,
    text_file: Path,
    tmp_path: Path,
    call_fastmf: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    call_fastmf(*call_of(command, data), "~/deep/out")

    assert os.listdir(tmp_path / "home" / "deep") == ["out"]
    assert not (tmp_path / "~").exists()
    if command == "train":
        assert "ALS" in call_fastmf("info", "~/deep/out").stdout
        call_fastmf("similar", "~/deep/out", "--item", "film-001")


def test_a_model_that_has_other_files_beside_it_is_refused_before_training(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    shutil.copytree(data.models["als"], tmp_path / "out")
    (tmp_path / "out" / "recs.parquet").write_text("mine")
    (tmp_path / "out" / "notes").mkdir()
    before = contents()

    done = call_fastmf(*call_of("train", data), "out", "--overwrite", status=1)

    assert done.stderr == (
        "fastmf train: out holds files that are not of the model, and overwriting it would delete them: notes/, "
        "recs.parquet; move them, or choose another output\n"
    )
    assert contents() == before


def write_users(path: Path, users: list[str]) -> None:
    pq.write_table(pa.table({"user_id": users}), path)


def test_unknown_users_are_skipped_and_counted(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    write_users(tmp_path / "u.parquet", ["zoe", "user-0007", "bob", "user-0002", "zoe", "ann", "eve"])
    call = ("recommend", data.models["als"], "--output", "r.parquet", "--users", "u.parquet", "--json")

    done = call_fastmf(*call)

    assert "skipping 4 of 6 users that the model does not know: 'zoe', 'bob', 'ann' and 1 more\n" in done.stderr
    expected = fastmf.load(data.models["als"]).recommend(["user-0007", "user-0002"]).to_arrow()
    assert pq.read_table(tmp_path / "r.parquet").equals(expected)
    assert json.loads(done.stdout) == {
        "output": "r.parquet",
        "n_users": 2,
        "n_cold_users": 0,
        "n_rows": len(expected),
        "n_unknown_users": 4,
    }


def test_strict_refuses_unknown_users(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    write_users(tmp_path / "u.parquet", ["user-0007", "zoe"])
    before = contents()

    done = call_fastmf(
        *("recommend", data.models["als"], "--output", "r.parquet", "--users", "u.parquet", "--strict"), status=1
    )

    assert "are unknown to the model: 'zoe'; expected ids that were in the training data" in done.stderr
    assert contents() == before


def test_known_users_alone_are_counted_as_that(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    write_users(tmp_path / "u.parquet", ["user-0007"])

    for options in ((), ("--strict", "--overwrite")):
        call = ("recommend", data.models["als"], "--output", "r.parquet", "--users", "u.parquet", "--json", *options)
        assert json.loads(call_fastmf(*call).stdout)["n_unknown_users"] == 0


def test_users_of_whom_none_is_known_are_an_error(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Contents
) -> None:
    write_users(tmp_path / "u.parquet", ["zoe", "bob"])
    before = contents()

    done = call_fastmf("recommend", data.models["als"], "--output", "r.parquet", "--users", "u.parquet", status=1)

    assert done.stderr == (
        "fastmf recommend: none of the 2 users of u.parquet is known to the model: 'zoe', 'bob'; expected ids that "
        "were in the training data\n"
    )
    assert contents() == before


@pytest.mark.slow
@pytest.mark.parametrize("of", ["r.parquet", "."])
def test_clean_removes_what_killed_runs_left(
    of: str, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done], call_fastmf: Callable[..., Done]
) -> None:
    if sys.platform == "win32":
        pytest.skip("signals of Unix")
    killed = (
        "import os, signal; from fastmf.keeping import recommendations; "
        "recommendations._join = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    )
    run_fastmf("recommend", data.models["als"], "--output", "r.parquet", prelude=killed, status=-signal.SIGKILL)
    (parts,) = tmp_path.iterdir()
    mine = f".r.parquet.tmp-{os.getpid()}-0123abcd"
    (tmp_path / mine).write_text("12345")

    told = json.loads(call_fastmf("clean", of, "--json").stdout)

    assert (told["removed"], told["in_use"]) == ([str(parts)], [str(tmp_path / mine)])
    assert told["bytes"] > 1000
    assert os.listdir(tmp_path) == [mine]
    assert call_fastmf("clean", of).stdout.startswith(
        f"kept {tmp_path / mine}: a process may be working on it\nremoved"
    )


def test_clean_of_nothing_is_no_error(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("clean", "nowhere/r.parquet", "--json")

    assert json.loads(done.stdout) == {"removed": [], "bytes": 0, "in_use": []}


def test_verify_reads_everything(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    model = shutil.copytree(data.models["sgd"], tmp_path / "model")
    told = json.loads(call_fastmf("verify", "model", "--json").stdout)
    files = [path for path in model.iterdir() if path.name not in ("manifest.json", "card.md")]
    assert told == {
        "model": "model",
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "damaged": 0,
        "problems": [],
    }

    for file in [*files, model / "manifest.json"]:
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b"fastmf-model", b"fastmf_model") if file.suffix == ".json" else flipped(whole))

        done = call_fastmf("verify", "model", status=1)

        assert f"fastmf verify: model/{file.name} " in done.stderr
        assert done.stdout == ""
        file.write_bytes(whole)


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": math.nan, "b": [math.inf, -math.inf, 1.5]}, '{"a": null, "b": [null, null, 1.5]}'),
        ({"a": np.float32("nan"), "b": np.float64("inf"), "c": np.int8(3)}, '{"a": null, "b": null, "c": 3}'),
        ({"a": np.array([1.0, math.nan])}, '{"a": [1.0, null]}'),
        ({"a": np.bool_(True), "b": None, "c": (1, "x")}, '{"a": true, "b": null, "c": [1, "x"]}'),
        ({1: {"deep": [{"er": math.nan}]}}, '{"1": {"deep": [{"er": null}]}}'),
    ],
)
def test_what_is_undefined_is_null(value: object, text: str) -> None:
    assert to_json(value) == text


def test_the_command_prints_json_where_metrics_are_undefined(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data.models["sgd"], tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    manifest["history"][-1]["train_rmse"] = math.nan  # as earlier versions wrote it
    (tmp_path / "model" / "manifest.json").write_text(json.dumps(manifest))

    assert strict(call_fastmf("info", "model", "--json").stdout)["last epoch"]["train_rmse"] is None
    told = call_fastmf("info", "model").stdout
    assert "train_rmse=undefined" in told
    assert "patience=None" in told
    monkeypatch.setattr(fastmf, "evaluate", lambda *_, **__: {"auc": math.nan, "rmse": np.float64(1.5)})
    assert strict(call_fastmf("evaluate", "model", data.test, "--json").stdout) == {"auc": None, "rmse": 1.5}
    assert show(math.nan) == "undefined"
