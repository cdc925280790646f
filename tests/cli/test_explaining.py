"""``fastmf explain`` says what the library says."""

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
PAIR = ("--user", "user-0007", "--item", "film-007")
TITLES = {"film-007": "Goldfinger", "film-003": None, "film-010": "Ten", "film-999": "Lost", "film-001": "One"}


@pytest.fixture
def titles(tmp_path: Path) -> Path:
    column = pa.array(TITLES.values()).dictionary_encode()
    pq.write_table(pa.table({"item_id": list(TITLES), "title": column}), tmp_path / "titles.parquet")
    return tmp_path / "titles.parquet"


@pytest.mark.parametrize("name", ["als", "sgd", "bpr", "bias"])
def test_explain_shows_the_text_of_the_library(
    name: str, data: Any, titles: Path, call_fastmf: Callable[..., Done]
) -> None:
    plain = call_fastmf("explain", data.models[name], *PAIR)
    titled = call_fastmf("explain", data.models[name], *PAIR, "--titles", titles, "-k", 30)

    expected = fastmf.load(data.models[name]).explain("user-0007", "film-007")
    known = {film: title for film, title in TITLES.items() if title is not None}
    assert plain.stdout == expected.to_text() + "\n"
    assert titled.stdout == expected.to_text(known, 30) + "\n"
    assert "user user-0007, item Goldfinger (film-007)" in titled.stdout


def test_explain_gives_all_terms_as_json(data: Any, titles: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("explain", data.models["als"], *PAIR, "-k", 1, "--json")
    titled = call_fastmf("explain", data.models["als"], *PAIR, "--titles", titles, "--json")

    model = fastmf.load(data.models["als"])
    expected, found = model.explain("user-0007", "film-007"), json.loads(done.stdout)
    terms = expected.to_arrow().to_pylist()
    assert found["terms"] == terms
    assert found["prediction"] == pytest.approx(float(model.predict(["user-0007"], ["film-007"])[0]), abs=1e-5)
    assert sum(term["contribution"] for term in found["terms"]) == pytest.approx(found["score"])
    assert json.loads(titled.stdout)["terms"] == [term | {"title": TITLES.get(term["item_id"])} for term in terms]


@pytest.mark.slow
def test_explain_in_a_process_of_its_own(data: Any, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("explain", data.models["implicit-als"], *PAIR, "-k", 2)

    expected = fastmf.load(data.models["implicit-als"]).explain("user-0007", "film-007")
    assert done.stdout == expected.to_text(k=2) + "\n"
    assert done.stderr == ""


def test_explain_integer_ids(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(fastmf.testing.low_rank(n_users=6, n_items=5))
    model.save(tmp_path / "model")
    pq.write_table(pa.table({"item_id": [3, 3], "title": ["old", "new"]}), tmp_path / "titles.parquet")

    done = call_fastmf("explain", "model", "--user", "2", "--item", "3", "--titles", "titles.parquet")

    assert done.stdout.startswith("user 2, item new (3): ")


def test_titles_of_ids_of_another_type_are_refused(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    pq.write_table(pa.table({"item_id": [3], "title": ["three"]}), tmp_path / "titles.parquet")

    done = call_fastmf("explain", data.models["als"], *PAIR, "--titles", "titles.parquet", status=1)

    assert "column 'item_id' has ids of type int64, the model's are string; cast them to that type" in done.stderr


def test_explain_by_item_shows_its_features(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    genres = pa.table({"item_id": range(6), "genre": ["war", "love"] * 3})
    train = fastmf.testing.low_rank(n_users=8, n_items=5)
    model = fastmf.ALS(n_factors=2, n_epochs=2).fit(train, item_features=genres)
    model.save(tmp_path / "model")

    shown = call_fastmf("explain", "model", "--user", "2", "--item", "5", "--by", "item")
    as_json = call_fastmf("explain", "model", "--user", "2", "--item", "5", "--by", "item", "--json")

    expected = model.explain(2, 5, by="item")
    assert shown.stdout == expected.to_text() + "\n"
    assert "genre=love" in shown.stdout
    assert {term["feature"] for term in json.loads(as_json.stdout)["terms"]} == {None, "genre=love", "(intercept)"}


def test_explain_by_item_is_refused_where_it_cannot_be(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("explain", data.models["sgd"], *PAIR, "--by", "item", status=2)

    assert "is 'item', which explains models of alternating least squares, and this one is of SGD" in done.stderr
