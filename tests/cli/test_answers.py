"""``fastmf recommend``, ``evaluate`` and ``similar`` say what the library says."""

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
NAMES = ("implicit-als", "als", "sgd")


@pytest.mark.parametrize("name", NAMES)
def test_recommend_writes_the_table_of_the_library(
    name: str, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    done = call_fastmf("recommend", data.models[name], "--output", "recs.parquet", "-k", 3, "--json")

    expected = fastmf.load(data.models[name]).recommend(k=3).to_arrow()
    assert pq.read_table(tmp_path / "recs.parquet").equals(expected)
    assert json.loads(done.stdout) == {
        "output": "recs.parquet",
        "n_users": 60,
        "n_cold_users": 0,
        "n_rows": len(expected),
    }


@pytest.mark.slow
def test_recommend_in_a_process_of_its_own(data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("recommend", data.models["als"], "--output", "recs.parquet")

    assert pq.read_table(tmp_path / "recs.parquet").equals(fastmf.load(data.models["als"]).recommend().to_arrow())
    assert done.stdout.split() == ["output", "recs.parquet", "n_users", "60", "n_cold_users", "0", "n_rows", "600"]


def test_recommend_to_some_users_each_once(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    pq.write_table(pa.table({"who": ["user-0007", "user-0002", "user-0007"]}), tmp_path / "users.parquet")

    call_fastmf(
        "recommend", data.models["als"], "--output", "recs.parquet", "--users", "users.parquet", "--user-column", "who"
    )

    expected = fastmf.load(data.models["als"]).recommend(["user-0007", "user-0002"]).to_arrow()
    assert pq.read_table(tmp_path / "recs.parquet").equals(expected)


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (["user-0007", "user-0007", None, None], "column 'who' has 2 null values, the first in row 2 (from 0)"),
        ([["user-0007"], ["user-0002"]], "column 'who' has type list<"),
        ([{"id": "user-0007"}], "column 'who' has type struct<"),
        ([1.5], "column 'who' has type double; expected integers or strings as ids"),
    ],
)
def test_recommend_to_what_are_no_users(
    users: list[Any], message: str, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    pq.write_table(pa.table({"who": users}), tmp_path / "users.parquet")
    call = ("recommend", data.models["als"], "--output", "recs.parquet", "--users", "users.parquet")

    done = call_fastmf(*call, "--user-column", "who", status=1)

    assert message in done.stderr
    assert "null" not in message or "users.parquet" in done.stderr


def test_recommend_with_what_was_seen(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    call_fastmf("recommend", data.models["als"], "--output", "recs.parquet", "-k", 20, "--include-seen")

    model = fastmf.load(data.models["als"])
    recs = pq.read_table(tmp_path / "recs.parquet")
    assert recs.equals(model.recommend(k=20, exclude=None).to_arrow())
    assert len(recs) == 20 * len(model.user_ids)


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_gives_the_figures_of_the_library(name: str, data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("evaluate", data.models[name], data.test, "--json")

    model, test = fastmf.load(data.models[name]), fastmf.read_parquet(data.test)
    assert json.loads(done.stdout) == fastmf.evaluate(model, test, baseline=True)
    without = call_fastmf("evaluate", data.models[name], data.test, "--json", "--no-baseline")
    assert json.loads(without.stdout) == fastmf.evaluate(model, test)


@pytest.mark.slow
def test_evaluate_in_a_process_of_its_own(data: Any, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("evaluate", data.models["als"], data.test, "-k", 5, "--no-baseline")

    assert done.stderr == ""
    expected = fastmf.evaluate(fastmf.load(data.models["als"]), fastmf.read_parquet(data.test), k=5)
    shown = dict(line.split() for line in done.stdout.splitlines())
    assert list(shown) == list(expected)
    assert shown["ndcg@5"] == f"{expected['ndcg@5']:.4f}"


def test_evaluate_as_asked(data: Any, call_fastmf: Callable[..., Done]) -> None:
    options = ("-k", 3, 5, "--metrics", "ndcg", "auc", "--min-relevant-rating", 5, "--exclude", data.test)

    done = call_fastmf("evaluate", data.models["als"], data.ratings, *options, "--json")

    train, test = fastmf.read_parquet(data.ratings), fastmf.read_parquet(data.test)
    model = fastmf.load(data.models["als"])
    settings: dict[str, Any] = {"k": (3, 5), "metrics": ["ndcg", "auc"], "min_relevant_rating": 5}
    asked = fastmf.evaluate(model, train, exclude=test, **settings, baseline=True)
    assert json.loads(done.stdout) == asked
    # Each option has a share in it.
    assert asked["auc"] != fastmf.evaluate(model, train, exclude=None, metrics=["auc"], min_relevant_rating=5)["auc"]
    assert asked["n_users"] < fastmf.evaluate(model, train, exclude=test, metrics=["auc"])["n_users"]


@pytest.mark.parametrize(("name", "baseline"), [("sgd", "bias-only"), ("bpr", "popularity")])
def test_evaluate_shows_the_baseline_beside_each_metric(
    name: str, baseline: str, data: Any, call_fastmf: Callable[..., Done]
) -> None:
    model, test = fastmf.load(data.models[name]), fastmf.read_parquet(data.test)
    metrics = ["rmse", "ndcg", "coverage"]
    expected = fastmf.evaluate(model, test, metrics=metrics, baseline=True)

    done = call_fastmf("evaluate", data.models[name], data.test, "--metrics", *metrics)

    lines = done.stdout.splitlines()
    for metric in ("rmse", "ndcg@10", "coverage@10"):
        shown = f"{expected[metric]:.4f}, {baseline} {expected[f'baseline_{metric}']:.4f}"
        assert f"{metric:<12}  {shown}" in lines
    worse = ["rmse"] if expected["baseline_rmse"] < 0.998 * expected["rmse"] else []
    # It counts only for a model that is selected by it.
    worse += ["ndcg@10"] if name == "bpr" and expected["baseline_ndcg@10"] > 1.01 * expected["ndcg@10"] else []
    assert lines[-1].startswith("the model is no better than its baseline by ") == bool(worse)
    assert all(f"{metric} (" in lines[-1] for metric in worse)


@pytest.mark.parametrize(("option", "an_id"), [("--item", "film-007"), ("--user", "user-0007")])
def test_similar_gives_the_neighbours_of_the_library(
    option: str, an_id: str, data: Any, call_fastmf: Callable[..., Done]
) -> None:
    done = call_fastmf("similar", data.models["als"], option, an_id, "-k", 4, "--json")

    model = fastmf.load(data.models["als"])
    similar = model.similar_items if option == "--item" else model.similar_users
    assert json.loads(done.stdout) == similar([an_id], 4).to_arrow().to_pylist()


@pytest.mark.slow
def test_similar_in_a_process_of_its_own(data: Any, run_fastmf: Callable[..., Done]) -> None:
    done = run_fastmf("similar", data.models["als"], "--item", "film-007", "-k", 2)

    expected = fastmf.load(data.models["als"]).similar_items(["film-007"], 2).to_arrow().to_pylist()
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["rank  cosine  id"] + [
        f"{row['rank']:>4}  {row['score']:>6.3f}  {row['similar_item_id']}" for row in expected
    ]


def test_similar_to_an_integer_id(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(fastmf.testing.low_rank(n_users=6, n_items=5))
    model.save(tmp_path / "model")

    done = call_fastmf("similar", "model", "--item", "3", "-k", 1, "--json")

    assert json.loads(done.stdout) == model.similar_items([3], 1).to_arrow().to_pylist()
