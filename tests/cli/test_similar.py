"""``fastmf similar`` by vector, by analogy and among lists, and ``fastmf users``: what the library says."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf

Done = CompletedProcess[str]


@pytest.fixture
def als(data: Any) -> Any:
    return fastmf.load(data.models["als"])


def without_vector(found: fastmf.Similar) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.to_arrow().drop_columns("vector").to_pylist()
    return rows


@pytest.mark.parametrize("side", [None, "item", "user"])
def test_a_vector_of_numbers_or_in_a_file(
    side: str | None, als: Any, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    vector = [-0.5, 1, 0.25, 3e-1]
    np.save(tmp_path / "row.npy", np.array([vector]))
    find = als.similar_users if side == "user" else als.similar_items
    given = () if side is None else ("--side", side)

    for text in ("--vector=-0.5,1,0.25,3e-1", "--vector=row.npy"):
        done = call_fastmf("similar", data.models["als"], text, *given, "--measure", "dot", "-k", 4, "--json")
        assert json.loads(done.stdout) == without_vector(find(vector=vector, k=4, measure="dot"))


def test_measures_have_their_names_in_the_table(als: Any, data: Any, call_fastmf: Callable[..., Done]) -> None:
    for measure, name in (("dot", "dot product"), ("euclidean", "distance")):
        done = call_fastmf("similar", data.models["als"], "--item", "film-007", "-k", 2, "--measure", measure)

        expected = als.similar_items(["film-007"], 2, measure=measure).to_arrow().to_pylist()
        assert done.stdout.splitlines() == [f"rank  {name}  id"] + [
            f"{row['rank']:>4}  {format(row['score'], '.4g').rjust(len(name))}  {row['similar_item_id']}"
            for row in expected
        ]


@pytest.mark.parametrize(
    ("side", "ids"), [("item", ("film-001", "film-002", "film-003")), ("user", ("user-0001", "user-0002", "user-0003"))]
)
def test_an_analogy(side: str, ids: list[str], als: Any, data: Any, call_fastmf: Callable[..., Done]) -> None:
    signs = ("--positive", ids[0], "--positive", ids[1], "--negative", ids[2])

    done = call_fastmf("similar", data.models["als"], *signs, "--side", side, "-k", 3, "--json")

    expected = fastmf.analogy(als, ids[:2], ids[2], 3, side=side)
    assert json.loads(done.stdout) == without_vector(expected)


def test_lists_in_files(als: Any, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    names = als.item_ids.to_pylist()
    pq.write_table(pa.table({"item_id": [*names[:9], "film-999"]}), tmp_path / "allow.parquet")
    pq.write_table(pa.table({"film": names[4:6]}), tmp_path / "deny.parquet")
    call = ("similar", data.models["als"], "--item", names[0], "-k", 20, "--json")

    allowed = call_fastmf(*call, "--allow", "allow.parquet")
    denied = call_fastmf(*call, "--deny", "deny.parquet", "--id-column", "film")

    assert json.loads(allowed.stdout) == als.similar_items(names[0], 20, allow=names[:9]).to_arrow().to_pylist()
    assert allowed.stderr == "skipping 1 of 10 items that the model does not know: 'film-999'\n"
    assert json.loads(denied.stdout) == als.similar_items(names[0], 20, deny=names[4:6]).to_arrow().to_pylist()
    assert denied.stderr == ""


WRONG: dict[str, tuple[tuple[object, ...], int, str]] = {
    "words": (
        ("--vector", "a,b"),
        2,
        "--vector a,b is neither numbers with commas between them, such as 0.1,-0.2, nor",
    ),
    "too short": (
        ("--vector", "1,2"),
        2,
        "--vector has shape (2,); expected (4,) or (n, 4), as the model has 4 factors",
    ),
    "no file": (("--vector", "none.npy"), 1, "there is no file none.npy; expected a vector in a file of NumPy"),
    "no array": (("--vector", "text.npy"), 1, "text.npy is no array of NumPy: "),
    "several": (("--vector", "three.npy"), 1, "three.npy has 3 vectors; expected one"),
    "negative alone": (
        ("--item", "film-001", "--negative", "film-002"),
        2,
        "--negative is for analogies; add --positive",
    ),
    "unknown": (
        ("--positive", "film-999"),
        1,
        "--positive film-999 is unknown to the model; expected one of its train",
    ),
    "both": (
        ("--positive", "film-001", "--negative", "film-001"),
        2,
        "--positive and --negative both have 'film-001'; expected an id in one of them",
    ),
    "a side twice": (
        ("--item", "film-001", "--side", "user"),
        2,
        "--side is for --vector and --positive, and --item says",
    ),
    "a column of nothing": (
        ("--item", "film-001", "--id-column", "x"),
        2,
        "--id-column is for the files of --allow and",
    ),
    "no id": (
        ("--item", "film-001", "--deny", "others.parquet"),
        1,
        "none of the 1 items of others.parquet is known to t",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_compared(case: str, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    (tmp_path / "text.npy").write_text("text")
    np.save(tmp_path / "three.npy", np.ones((3, 4)))
    pq.write_table(pa.table({"item_id": ["x"]}), tmp_path / "others.parquet")
    arguments, status, message = WRONG[case]

    done = call_fastmf("similar", data.models["als"], *arguments, status=status)

    assert done.stdout == ""
    assert done.stderr.startswith(f"fastmf similar: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_users_of_all_items(als: Any, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("users", data.models["als"], "--output", "users.parquet", "-k", 3, "--json")

    expected = als.users_for_item(k=3).to_arrow()
    assert pq.read_table(tmp_path / "users.parquet") == expected
    result = {"output": "users.parquet", "n_items": 30, "n_cold_items": 0, "n_rows": len(expected)}
    assert json.loads(done.stdout) == result
    assert done.stderr == "finding 3 of 60 users for 30 items\n"
    again = call_fastmf("users", data.models["als"], "--output", "users.parquet", status=1)
    assert again.stderr.startswith("fastmf users: users.parquet exists already")


def test_users_of_some_items(als: Any, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    pq.write_table(pa.table({"film": ["film-007", "film-999", "film-001", "film-007"]}), tmp_path / "items.parquet")
    call = ("users", data.models["als"], "--output", "u.parquet", "--items", "items.parquet", "--item-column", "film")

    done = call_fastmf(*call, "--include-seen", "--cold", "include", "-k", 60)
    refused = call_fastmf(*call, "--strict", "--overwrite", status=1)

    expected = als.users_for_item(["film-007", "film-001"], 60, exclude=None, cold="include").to_arrow()
    assert pq.read_table(tmp_path / "u.parquet") == expected
    assert len(expected) == 120
    assert done.stdout.split()[-4:] == ["n_rows", "120", "n_unknown_items", "1"]
    assert "1 of 3 ids in 'items' are unknown to the model: 'film-999'" in refused.stderr


def test_more_users_than_there_are(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("users", data.models["als"], "--output", "u.parquet", "-k", 61, status=2)
    assert "fastmf users: -k is 61, but there are 60 users; expected at most as many" in done.stderr
    assert list(tmp_path.iterdir()) == []
