"""The command says what it counts of users and items without training ratings, and what is undefined."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastmf

Done = CompletedProcess[str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that knows users 0 to 9 and items 0 to 7; users 8 and 9, and item 7, have no training ratings."""
    users, items = np.nonzero(np.random.default_rng(0).random((8, 7)) < 0.6)
    train = fastmf.testing.from_indices(users, items, np.ones(len(users)), 10, 8)
    fastmf.ImplicitALS(n_factors=2, n_epochs=2).fit(train).save(tmp_path / "model")
    fastmf.Interactions.from_arrays([1, 2, 8, 9, 77], [7, 1, 1, 2, 1]).to_parquet(tmp_path / "test.parquet")
    return tmp_path / "model"


@pytest.mark.parametrize("cold", ["skip", "popular", "include"])
def test_cold_is_that_of_the_library(cold: str, model: Path, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("evaluate", "model", "test.parquet", "-k", 3, "--cold", cold, "--json")

    test = fastmf.read_parquet(tmp_path / "test.parquet")
    assert json.loads(done.stdout) == fastmf.evaluate(fastmf.load(model), test, k=3, cold=cold, baseline=True)
    assert json.loads(done.stdout)["n_cold_users"] == 3


@pytest.mark.parametrize(("cold", "users"), [("skip", 8), ("popular", 10), ("include", 10)])
def test_cold_users_get_what_was_asked_for(
    cold: str, users: int, model: Path, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    done = call_fastmf("recommend", "model", "--output", "recs.parquet", "-k", 1, "--cold", cold, "--json")

    recs = fastmf.load(model).recommend(k=1, cold=cold).to_arrow()
    assert pq.read_table(tmp_path / "recs.parquet").equals(recs)
    assert len(recs["user_id"].unique()) == users
    assert json.loads(done.stdout)["n_cold_users"] == 2


def test_by_default_they_are_skipped_and_counted(model: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("evaluate", "model", "test.parquet", "-k", 3, "--no-baseline")

    lines = dict(line.split() for line in done.stdout.splitlines())
    assert (lines["n_users"], lines["n_cold_users"], lines["n_unknown"]) == ("2", "3", "4")
    assert "n_excluded" in lines


def test_undefined_is_null_in_json_and_a_word_for_people(model: Path, call_fastmf: Callable[..., Done]) -> None:
    asked = ("evaluate", "model", "test.parquet", "-k", 1, "--metrics", "diversity")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(call_fastmf(*asked, "--json").stdout, parse_constant=refuse)["diversity@1"] is None
    assert "diversity@1   undefined" in call_fastmf(*asked).stdout


def test_another_word_is_refused(model: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("evaluate", "model", "test.parquet", "--cold", "warm", status=2)

    assert "argument --cold: invalid choice: 'warm'" in done.stderr
