"""``fastmf onboarding`` prints the items that the library asks about."""

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


@pytest.mark.parametrize("options", [(), ("--popularity-weight", 0)])
def test_the_items_of_the_library(options: tuple[Any, ...], data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("onboarding", data.models["als"], "-n", 4, *options, "--json")

    weights = {"popularity_weight": 0} if options else {}
    expected = fastmf.onboarding(fastmf.load(data.models["als"]), 4, **weights)  # type: ignore[arg-type]
    assert json.loads(done.stdout) == expected.to_arrow().to_pylist()


def test_ten_items_as_lines(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("onboarding", data.models["als"])

    rows = fastmf.onboarding(fastmf.load(data.models["als"])).to_arrow().to_pylist()
    assert done.stdout.splitlines() == ["rank  share  id"] + [
        f"{row['rank']:>4}  {row['share']:>5.3f}  {row['item_id']}" for row in rows
    ]


def test_titles(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    ids = fastmf.onboarding(fastmf.load(data.models["als"]), 3).ids.to_pylist()
    films = pa.table({"item_id": [ids[2], "no such film", ids[0], ids[1]], "title": ["Third", "None", "First", None]})
    pq.write_table(films, tmp_path / "films.parquet")
    asked = ("onboarding", data.models["als"], "-n", 3, "--titles", "films.parquet")

    lines = call_fastmf(*asked).stdout.splitlines()
    rows = json.loads(call_fastmf(*asked, "--json").stdout)

    assert lines[0] == "rank  share  id  title"
    assert [line.split("  ", 3)[-1].strip() for line in lines[1:]] == [f"{ids[0]}  First", ids[1], f"{ids[2]}  Third"]
    assert [row["title"] for row in rows] == ["First", None, "Third"]


def test_titles_without_their_column(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    pq.write_table(pa.table({"item_id": ["film-001"], "name": ["First"]}), tmp_path / "films.parquet")

    done = call_fastmf("onboarding", data.models["als"], "--titles", "films.parquet", status=1)

    assert "no column 'title'" in done.stderr
