"""`recommend` with a new order: the same as the library, and options that have no use are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.cli import main

from .conftest import Data, Done


@pytest.fixture
def items(data: Data, tmp_path: Path) -> Path:
    """Features of the films: genres as text, and makers as codes."""
    ids = fastmf.load(data.models["als"]).item_ids
    genres = [("Crime|Drama", "Drama", "War", None)[n % 4] for n in range(len(ids))]
    makers = [n % 3 for n in range(len(ids))]
    pq.write_table(pa.table({"film": ids, "genre": genres, "maker": makers}), tmp_path / "items.parquet")
    return tmp_path / "items.parquet"


CALLS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "diversify": (("--diversify", "0.4"), {"diversify": 0.4}),
    "candidates": (("--diversify", "0.4", "--candidates", "7"), {"diversify": 0.4, "n_candidates": 7}),
    "explore": (
        ("--explore", "0.5", "--few-ratings", "15", "--seed", "3"),
        {"explore": 0.5, "few_ratings": 15, "seed": 3},
    ),
    "caps": (("--at-most", "genre=1", "--at-most", "maker=2"), {"at_most": {"genre": 1, "maker": 2}}),
    "one category": (("--at-most", "genre=Drama=1"), {"at_most": {"genre=Drama": 1}}),
    "features": (("--diversify", "0.6", "--similarity", "features"), {"diversify": 0.6, "similarity": "features"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_command_writes_what_the_library_recommends(
    name: str, data: Data, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, settings = CALLS[name]
    if {"at_most", "similarity"} & set(settings):
        options = (*options, "--item-features", str(items), "--item-column", "film")
        table = pq.read_table(items).rename_columns(["item_id", "genre", "maker"])
        codes = ["maker"] if "maker" in settings.get("at_most", {}) else []
        columns = ["genre", "maker"] if "similarity" in settings or codes else ["genre"]
        features = fastmf.Features.from_arrow(table, columns=columns, categories=codes)
        settings = {**settings, "item_features": features}
    output = str(tmp_path / "recs.parquet")

    status = main(["recommend", str(data.models["als"]), "--output", output, "-k", "5", "--quiet", *options])

    assert (status, capsys.readouterr().err) == (0, "")
    model = fastmf.load(data.models["als"])
    expected = model.recommend(k=5, rerank=fastmf.Reranking(**settings)).to_arrow()
    assert pq.read_table(output).equals(expected)
    assert not expected.equals(model.recommend(k=5).to_arrow())


WRONG: dict[tuple[str, ...], str] = {
    ("--diversify", "1.5"): "--diversify is 1.5; expected a number from 0 to 1",
    ("--explore", "-1"): "--explore is -1.0; expected a finite number of at least 0",
    ("--diversify", "0.1", "--candidates", "4"): "--candidates is 4, but -k is 5; expected at least as many candidates",
    ("--candidates", "50"): "--candidates has no use without --diversify or --at-most or --explore; add that",
    ("--diversify", "0.1", "--seed", "1"): "--seed has no use without --explore; add that, or leave --seed out",
    ("--few-ratings", "3"): "--few-ratings has no use without --explore",
    ("--similarity", "features"): "--similarity has no use without --diversify",
    ("--item-features", "x"): "--item-features has no use without --at-most or --similarity features",
    ("--at-most", "genre=2"): "--item-features is missing; expected it with --at-most",
    ("--at-most", "a=1", "--at-most", "a=2"): "--at-most has a=1 and a=2; expected one limit for a column",
    ("--at-most", "genre=2", "--item-features", "no.parquet"): "no.parquet",
}


@pytest.mark.parametrize("options", WRONG)
def test_what_is_refused(
    options: tuple[str, ...], data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "recs.parquet"

    status = main(["recommend", str(data.models["als"]), "--output", str(output), "-k", "5", *options])

    assert status == (1 if "no.parquet" in options else 2)
    assert WRONG[options] in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("text", ["genre", "genre=", "=3", "genre=0", "genre=-1", "genre=two", "genre=1.5"])
def test_a_limit_is_a_column_and_a_number(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["recommend", "m", "--output", "r.parquet", "--at-most", text])
    assert f"'{text}' is not a column and an integer of at least 1, such as genre=3" in capsys.readouterr().err


def test_a_configuration_may_have_them(data: Data, items: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'seed = 3\nitem-features = "{items}"\n[recommend]\nat-most = ["genre=1"]\nitem-column = "film"\nk = 5\n'
    )
    output = str(tmp_path / "recs.parquet")

    assert main(["recommend", str(data.models["als"]), "--output", output, "--quiet", "--config", str(config)]) == 0

    table = pq.read_table(items).rename_columns(["item_id", "genre", "maker"])
    rerank = fastmf.Reranking(at_most={"genre": 1}, item_features=table)
    assert pq.read_table(output).equals(fastmf.load(data.models["als"]).recommend(k=5, rerank=rerank).to_arrow())


def test_other_commands_may_share_what_has_no_use_here(data: Data, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('seed = 3\nitem-features = "nowhere.parquet"\n')
    output = str(tmp_path / "recs.parquet")

    assert main(["recommend", str(data.models["als"]), "--output", output, "--quiet", "--config", str(config)]) == 0

    assert pq.read_table(output).equals(fastmf.load(data.models["als"]).recommend(k=10).to_arrow())


@pytest.mark.slow
def test_the_help_names_the_options(run_fastmf: Callable[..., Done]) -> None:
    text = run_fastmf("recommend", "--help").stdout
    assert all(
        option in text for option in ("--diversify", "--at-most", "--explore", "--item-features", "--candidates")
    )
