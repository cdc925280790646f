"""``fastmf evaluate`` with candidates, intervals and a table of users, and ``fastmf compare``."""

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


@pytest.fixture
def candidates(data: Any, tmp_path: Path) -> str:
    """Write five items for each user, the first one twice."""
    users = fastmf.read_parquet(data.ratings).user_ids.to_pylist()
    items = [f"film-{number:03d}" for number in (1, 5, 9, 13, 17, 1)]
    rows = {"user_id": [user for user in users for _ in items], "item_id": items * len(users)}
    pq.write_table(pa.table(rows), tmp_path / "candidates.parquet")
    return "candidates.parquet"


def loaded(data: Any) -> tuple[Any, fastmf.Interactions]:
    return fastmf.load(data.models["als"]), fastmf.read_parquet(data.test)


def test_evaluate_ranks_candidates_only(
    data: Any, candidates: str, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    done = call_fastmf("evaluate", data.models["als"], data.test, "--among", candidates, "-k", 2, "--json")

    model, test = loaded(data)
    among = pq.read_table(tmp_path / candidates)
    assert json.loads(done.stdout) == fastmf.evaluate(model, test, among=among, k=2, baseline=True)


def test_evaluate_without_candidates_for_a_user(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    pq.write_table(pa.table({"user_id": ["user-0001"], "item_id": ["film-001"]}), tmp_path / "few.parquet")

    done = call_fastmf("evaluate", data.models["als"], data.test, "--among", "few.parquet", status=1)

    assert done.stderr.startswith("fastmf evaluate: --among has no candidates for ")


@pytest.mark.parametrize(("given", "level"), [((), 0.95), ((0.8,), 0.8)])
def test_evaluate_with_intervals(
    given: tuple[float, ...], level: float, data: Any, call_fastmf: Callable[..., Done]
) -> None:
    call = ("evaluate", data.models["als"], data.test, "--metrics", "ndcg", "coverage", "fcp", "--ci", *given)

    results = json.loads(call_fastmf(*call, "--json").stdout)
    lines = call_fastmf(*call).stdout.splitlines()

    model, test = loaded(data)
    assert results == fastmf.evaluate(model, test, metrics=["ndcg", "coverage", "fcp"], ci=level, baseline=True)
    shown = [f"{results[f'ndcg@10{end}']:.4f}" for end in ("", "_low", "_high")]
    other = {name: f"bias-only {results[f'baseline_{name}']:.4f}" for name in ("ndcg@10", "coverage@10")}
    assert "ndcg@10       {}  ({} .. {}), {}".format(*shown, other["ndcg@10"]) in lines
    assert f"coverage@10   {results['coverage@10']:.4f}, {other['coverage@10']}" in lines


def test_evaluate_says_that_an_earlier_model_has_no_baseline(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    model = fastmf.load(data.models["als"])
    for name in ("user_baseline", "item_baseline"):
        del model.fitted.state[name]
    model.save(tmp_path / "earlier")
    said = "no baseline: the model was saved by an earlier version; fit it again"

    def noted(*args: object) -> bool:
        return said in call_fastmf("evaluate", *args, "--metrics", "rmse").stderr

    assert noted("earlier", data.test)
    assert not noted("earlier", data.test, "--no-baseline")
    assert not noted(data.models["als"], data.test)
    assert not noted(data.models["bias"], data.test)


def test_evaluate_shows_what_is_undefined(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    fastmf.read_parquet(data.test).take([0]).to_parquet(tmp_path / "one.parquet")

    done = call_fastmf("evaluate", data.models["als"], "one.parquet", "--metrics", "fcp", "rmse", "--ci")

    of_rmse, of_fcp, *_ = done.stdout.splitlines()
    assert "  (one user has no interval), bias-only " in of_rmse
    assert of_fcp == "fcp        undefined"


def test_evaluate_writes_a_table_of_users(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    call = ("evaluate", data.models["als"], data.test, "--per-user", "users.parquet")

    done = call_fastmf(*call, "--json")

    model, test = loaded(data)
    assert json.loads(done.stdout) == fastmf.evaluate(model, test, baseline=True)
    table = pq.read_table(tmp_path / "users.parquet")
    assert table.equals(fastmf.evaluate(model, test, per_user=True))
    assert done.stderr == f"wrote the metrics of {len(table)} users to users.parquet\n"


def test_evaluate_replaces_a_table_only_when_asked_for(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done], contents: Callable[[], dict[str, bytes | None]]
) -> None:
    (tmp_path / "users.parquet").write_text("earlier")
    call = ("evaluate", data.models["als"], data.test, "--per-user", "users.parquet")
    before = contents()

    done = call_fastmf(*call, status=1)

    message = "users.parquet exists already; choose another output, or allow overwriting (--overwrite)"
    assert done.stderr == f"fastmf evaluate: {message}\n"
    assert done.stdout == ""
    assert contents() == before
    call_fastmf(*call, "--overwrite")
    assert contents().keys() == before.keys()
    assert pq.read_table(tmp_path / "users.parquet").column_names[0] == "user_id"


def test_evaluate_refuses_a_table_of_what_users_do_not_have(
    data: Any, call_fastmf: Callable[..., Done], contents: Callable[[], dict[str, bytes | None]]
) -> None:
    call = ("evaluate", data.models["als"], data.test, "--metrics", "gini", "--per-user", "users.parquet")

    done = call_fastmf(*call, status=2)

    assert "--metrics include gini, without a value for each user; expected some of rmse, mae" in done.stderr
    assert contents() == {}


def test_compare_says_what_the_library_says(data: Any, candidates: str, call_fastmf: Callable[..., Done]) -> None:
    options = ("-k", 3, "--metrics", "ndcg", "auc", "--min-relevant-rating", 4, "--exclude", data.test, "--ci", 0.9)

    done = call_fastmf("compare", data.models["als"], data.models["sgd"], data.ratings, *options, "--json")

    a, b = (fastmf.load(data.models[name]) for name in ("als", "sgd"))
    train, test = fastmf.read_parquet(data.ratings), fastmf.read_parquet(data.test)
    asked: dict[str, Any] = {"k": 3, "metrics": ["ndcg", "auc"], "min_relevant_rating": 4, "exclude": test, "ci": 0.9}
    expected = fastmf.compare(a, b, train, **asked)
    assert json.loads(done.stdout) == {name: each._asdict() for name, each in expected.items()}


def test_compare_prints_a_table(data: Any, candidates: str, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("compare", data.models["als"], data.models["bpr"], data.test, "--among", candidates, "-k", 2)

    first, second, _, header, *rows = done.stdout.splitlines()
    assert (first, second) == (f"A: {data.models['als']}", f"B: {data.models['bpr']}")
    assert header.split() == ["A", "B", "B", "-", "A", "95", "%", "interval", "p", "users", "won", "tied", "lost"]
    assert [row.split()[0] for row in rows] == [
        f"{name}@2" for name in ("precision", "recall", "hit_rate", "ndcg", "map", "mrr")
    ]
    assert len({len(row) for row in (header, *rows)}) == 1
    model, test = loaded(data)
    expected = fastmf.compare(
        model, fastmf.load(data.models["bpr"]), test, among=pq.read_table(candidates), k=2, metrics=["ndcg"]
    )["ndcg@2"]
    shown = next(row for row in rows if row.startswith("ndcg")).split()
    numbers = [f"{value:.4f}" for value in expected[:3]]
    interval = [f"{expected.low:.4f}", "..", f"{expected.high:.4f}"]
    counts = [str(count) for count in expected[6:10]]
    assert expected.p_value is not None
    chance = "<0.001" if expected.p_value < 0.001 else f"{expected.p_value:.3f}"
    assert shown == ["ndcg@2", *numbers, *interval, chance, *counts]


def test_compare_says_that_a_model_was_trained_on_the_test_ratings(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("compare", data.models["als"], data.models["sgd"], data.ratings, "--metrics", "ndcg")

    n_ratings = len(fastmf.read_parquet(data.ratings))
    assert f"{n_ratings:,} of {n_ratings:,} relevant test ratings are among the excluded pairs" in done.stderr
    assert "or set --exclude" in done.stderr
    assert f"{n_ratings:,} test ratings are of items that are not ranked" in done.stdout.splitlines()[-1]


def test_compare_shows_what_is_undefined(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    fastmf.read_parquet(data.test).take([0]).to_parquet(tmp_path / "one.parquet")
    models = (data.models["als"], data.models["sgd"])

    done = call_fastmf("compare", *models, "one.parquet", "--metrics", "fcp", "rmse")

    *_, of_rmse, of_fcp = done.stdout.splitlines()
    assert of_fcp.split() == ["fcp", *["undefined"] * 5, "0", "0", "0", "0"]
    assert of_rmse.split()[4:7] == ["undefined", "1.000", "1"]


def test_compare_of_what_is_no_model(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("compare", data.models["als"], "nothing", data.test, status=1)

    assert done.stderr.startswith("fastmf compare: no model at nothing: expected a directory")


@pytest.mark.parametrize(
    ("words", "is_told"),
    [([], True), (["--quiet"], False), (["--exclude", "{test}"], False), (["--metrics", "rmse"], False)],
)
def test_ratings_that_were_trained_on_are_counted(
    words: list[str], is_told: bool, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    train, test = fastmf.read_parquet(data.ratings).to_arrow(), fastmf.read_parquet(data.test).to_arrow()
    pq.write_table(pa.concat_tables([train.slice(0, 50), test]), tmp_path / "mixed.parquet")

    given = [word.format(test=data.test) for word in words]
    done = call_fastmf("evaluate", data.models["als"], "mixed.parquet", *given)
    apart = call_fastmf("evaluate", data.models["als"], data.test)

    note = f"50 of {50 + len(test)} test ratings were trained on: errors include them, rankings leave them out\n"
    assert done.stderr == (note if is_told else "")
    assert apart.stderr == ""
