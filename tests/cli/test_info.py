"""``fastmf info``: a model directory or a ratings file, described."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf

Done = CompletedProcess[str]


def test_info_of_a_model(data: Any, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("info", data.models["sgd"], "--json")

    assert done.stderr == ""
    model, told = fastmf.load(data.models["sgd"]), json.loads(done.stdout)
    assert told["model"] == "SGD"
    assert (told["n_users"], told["n_items"]) == (len(model.user_ids), len(model.item_ids))
    assert told["n_ratings"] == fastmf.read_parquet(data.ratings).n_ratings
    assert told["last epoch"] == model.history[-1]
    assert told["parameters"]["n_factors"] == 4
    assert told["written by"] == f"fastmf {fastmf.__version__}, format 1.2"


def test_info_of_a_model_for_people(data: Any, call_fastmf: Callable[..., Done]) -> None:
    told = dict(line.split("  ", 1) for line in call_fastmf("info", data.models["sgd"]).stdout.splitlines())

    assert told["model"].strip() == "SGD"
    assert "n_factors=4, n_epochs=2" in told["parameters"]


def test_info_of_a_ratings_file(data: Any, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("info", data.ratings, "--json")

    assert done.stderr == ""
    ratings, told = fastmf.read_parquet(data.ratings), json.loads(done.stdout)
    assert (told["files"], told["n_rows"]) == (1, ratings.n_ratings)
    assert told["user_id"] == "string, 60 distinct, 0 null, from user-0000 to user-0059"
    assert told["rating"].endswith(f"from {ratings.ratings.min()} to {ratings.ratings.max()}")


def test_info_of_columns_that_are_no_numbers(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    table = pa.table(
        {
            "user_id": pa.array([3, None, 4]),
            "item_id": pa.array(["a", "b", "a"]).dictionary_encode(),
            "genres": pa.array([["x"], [], None]),
            "note": pa.array([None, None, None], pa.string()),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")

    told = json.loads(call_fastmf("info", "r.parquet", "--json").stdout)

    assert told["user_id"] == "int64, 2 distinct, 1 null, from 3 to 4"
    assert told["item_id"].startswith("dictionary<")
    assert told["genres"] == "list<element: string>, 1 null"
    assert told["note"] == "string, 0 distinct, 3 null"


def test_info_of_values_that_python_cannot_word(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    integers = pa.array([1, 2**42])
    table = pa.table(
        {
            "zone": integers.view(pa.timestamp("ms", "No/Where")),
            "year": pa.array([1, 2**48]).view(pa.timestamp("ms")),
            "nanoseconds": integers.view(pa.timestamp("ns")),
            "text": pa.array([b"a", b"\xff"]).view(pa.string()),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")

    told = json.loads(call_fastmf("info", "r.parquet", "--json").stdout)

    assert told["zone"].endswith("from 1 to 4398046511104")
    assert told["year"].endswith("from 1970-01-01 00:00:00.001000 to 10889-08-02 05:31:50.656")
    assert "from 1970-01-01 00:00:00.000000001 to 1970-01-01 01:13:18.046511104" in told["nanoseconds"]
    assert told["text"].endswith(r"from a to b'\xff'")


@pytest.mark.parametrize("name", ["a.parq", "b/c.PQ", "d.PARQUET"])
def test_info_of_a_directory_of_files_with_other_endings(
    name: str, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data.ratings.read_bytes())

    assert json.loads(call_fastmf("info", ".", "--json").stdout)["files"] == 1


def test_info_of_a_directory_of_files(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / name).write_bytes(data.ratings.read_bytes())

    told = json.loads(call_fastmf("info", ".", "--json").stdout)

    assert (told["files"], told["n_rows"]) == (2, 2 * fastmf.read_parquet(data.ratings).n_ratings)


def test_info_of_a_search_tells_where_the_model_is(data: Any, call_fastmf: Callable[..., Done]) -> None:
    call_fastmf("tune", data.ratings, "--model", "als", "--output", "tuned", "--factors", 2, "--trials", 1)

    done = call_fastmf("info", "tuned")

    assert done.stderr == "tuned has the trials of a search; the model is in tuned/model\n"
    assert json.loads(call_fastmf("info", "tuned/model", "--json").stdout)["model"] == "ALS"


def test_info_of_nothing(call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("info", "nothing", status=1)

    assert "no such file: nothing; expected a model directory, a Parquet file" in done.stderr
