"""Default settings beside a baseline and the best of a grid: the data sets, the grids, the table and the targets."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Interactions
from fastmf.errors import FastMFError
from fastmf_bench import grids, tables, targets
from fastmf_bench.data_sets import DataSet, find_sets, load
from fastmf_bench.results import Measurement, Run
from fastmf_bench.suites import TASKS, defaults
from fastmf_bench.suites.defaults import Result
from tests.bench.made import made_run, measurement

Bench = Callable[..., tuple[str, str]]
NO_PACE: Any = lambda lap=None: False  # noqa: E731


def pairs_of(ratings: Interactions) -> list[tuple[Any, Any]]:
    table = ratings.to_arrow()
    return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def store(path: Path, ratings: Interactions, *columns: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(ratings.to_arrow().select(["user_id", "item_id", *columns]), path)


@pytest.fixture
def some() -> Interactions:
    return fastmf.testing.film_club(n_users=60, n_items=40, mean_ratings=15)


def test_files_tell_the_kind_and_the_split(tmp_path: Path, some: Interactions) -> None:
    for name in (
        "both/ratings",
        "split/train",
        "split/test",
        "movielens-100k/splits/u1_train",
        "ncf-movielens-1m/train",
    ):
        store(tmp_path / f"{name}.parquet", some, "rating")
    for name in ("both/interactions", "clicks/train", "clicks/test", "half/train", "houses/houses", "splits/0_train"):
        store(tmp_path / f"{name}.parquet", some)
    (tmp_path / "README.md").write_text("sets")

    found = [(one.name, one.kind, one.split) for one in find_sets(tmp_path)]

    assert found == [
        ("both", "ratings", "random"),
        ("both", "events", "per user"),
        ("clicks", "events", "given"),
        ("split", "ratings", "given"),
    ]
    assert [one.name for one in find_sets(tmp_path, ("split", "clicks"))] == ["clicks", "split"]


def test_sets_that_are_not_there(tmp_path: Path, some: Interactions) -> None:
    with pytest.raises(FastMFError, match=r"^there are no data sets in .*; --help says which files"):
        find_sets(tmp_path)

    store(tmp_path / "mine" / "ratings.parquet", some, "rating")
    with pytest.raises(FastMFError, match=r"^there is no data set 'yours' in .*; expected some of mine$"):
        find_sets(tmp_path, ("yours",))


def test_parts_of_a_set(tmp_path: Path, some: Interactions) -> None:
    store(tmp_path / "a.parquet", some, "rating")
    files = (str(tmp_path / "a.parquet"),)
    whole = set(pairs_of(some))

    for kind, split in (("ratings", "random"), ("events", "per user")):
        train, test = load(DataSet("a", kind, split, files))
        assert set(pairs_of(train)) | set(pairs_of(test)) == whole
        assert not set(pairs_of(train)) & set(pairs_of(test))
        assert len(set(train.ratings)) == (1 if kind == "events" else 5)
    counts, in_test = (np.bincount(part.users, minlength=some.n_users) for part in (some, test))
    np.testing.assert_array_equal(in_test, np.floor(counts * 0.2 + 0.5))
    given = load(DataSet("a", "ratings", "given", files * 2))
    assert [set(pairs_of(part)) for part in given] == [whole, whole]


def test_the_last_event_of_a_user_is_the_one_at_the_last_position(tmp_path: Path) -> None:
    events = {"user_id": [1, 1, 1, 2, 2], "item_id": [7, 8, 9, 9, 7], "position": [1, 2, 0, 0, 1]}
    pq.write_table(pa.table(events), tmp_path / "interactions.parquet")

    _, test = load(DataSet("a", "events", "last", (str(tmp_path / "interactions.parquet"),)))

    assert pairs_of(test) == [(1, 8), (2, 7)]


def test_the_parameters_of_rho_and_c() -> None:
    events = Interactions.from_arrays([1, 1, 2, 3], [1, 2, 3, 4])

    found = grids.settings_of(events.take(np.array([0, 1, 2])), rho=8, c=0.18)

    # Three events of two users and three items: those without an event do not count.
    assert found == {"unobserved_weight": pytest.approx(8 * 3 / (2 * 3)), "regularization": pytest.approx(0.02)}


@pytest.mark.parametrize("best", [(1.0, 2.0), (0.0, 3.0), (4.0, 1.5), (2.5, -0.5), (4.5, 4.5)])
def test_the_search_goes_one_and_a_half_step_beyond_the_grid(best: tuple[float, float]) -> None:
    asked = []

    def value(point: tuple[float, float]) -> float:
        asked.append(point)
        return -math.dist(point, best)

    found = grids.search(value, itertools.product(range(4), range(4)), (1.0, 0.5))

    assert max(found, key=lambda point: found[point]) == best
    assert len(asked) == len(set(asked)) <= 16 + 5 + 8


def test_one_training_gives_a_cell_for_each_number_of_epochs_up_to_the_first_worse_one(some: Interactions) -> None:
    parts = fastmf.split.random(some)
    common = {"seed": 0, "n_threads": 1}

    cells = grids.search_ratings("ALS", parts, common)

    assert {cell.settings["regularization_scaling"] for cell in cells} == {"count", "none"}
    for _, group in itertools.groupby(cells, key=lambda cell: {**cell.settings, "n_epochs": 0}):
        errors = [cell.value for cell in group]
        assert errors[:-1] == sorted(errors[:-1], reverse=True)
    best = min(cells, key=lambda cell: cell.value)
    again = fastmf.ALS(n_factors=grids.N_FACTORS, **best.settings, **common).fit(parts[0])
    assert grids.measure(again, parts[1]) == pytest.approx(best.value, rel=1e-6)


def test_settings_that_diverge_are_left_out(some: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "_LEARNING_RATES", (0.05, 1e3))

    cells = grids.search_ratings("SGD", fastmf.split.random(some), {"n_threads": 1})

    assert {cell.settings["learning_rate"] for cell in cells} == {0.05}


def test_strengths_around_the_best_are_tried(some: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "_STRENGTHS", {"count": [(0.05, 0.02), (0.1, 0.02)]})
    monkeypatch.setattr(grids, "_LEARNING_RATES", (0.05,))

    def error(name: str, settings: dict[str, Any], *_: Any) -> list[grids.Cell]:
        distance = abs(settings["regularization"] - 0.2) + abs(settings["bias_regularization"] - 0.06)
        return [grids.Cell(distance, settings | {"n_epochs": 10})]

    monkeypatch.setattr(grids, "_by_epochs", error)
    cells = grids.search_ratings("SGD", fastmf.split.random(some), {})

    found = [(cell.settings["regularization"], round(cell.settings["bias_regularization"], 4)) for cell in cells]
    assert found == [(0.05, 0.02), (0.1, 0.02), (0.2, 0.02), (0.2, 0.0067), (0.2, 0.06)]


def of_set(
    name: str, kind: str, baseline: float, default: float | None, best: float, model: str = ""
) -> list[Measurement]:
    told, settings = defaults.KINDS[kind], {"n_factors": 0, "seed": 0}
    model = model or told.searched[0]
    return [
        measurement(
            "defaults", kind, name, contestant, seconds=0, figures={told.metric: value}, settings=settings, note=note
        )
        for contestant, value, note in (
            (told.baseline, baseline, ""),
            (f"fastmf, {model}", default, ""),
            (f"fastmf, {model}, best of a grid", best, "n_epochs 20"),
        )
    ]


def result(kind: str, baseline: float, default: float | None, best: float) -> Result:
    (found,) = defaults.results(made_run(*of_set("a", kind, baseline, default, best)))
    return found


@pytest.mark.parametrize(
    ("kind", "figures", "is_met"),
    [
        ("ratings", (0.9, 0.9, 0.89), True),
        ("ratings", (0.9, 0.9021, 0.9), False),  # more than 0.002 above biases alone
        ("ratings", (1.0, 0.9, 0.88), False),  # more than 1.015 × the best
        ("ratings", (1.0, None, 0.88), False),  # diverged
        ("events", (0.1, 0.1, 0.1), True),
        ("events", (0.1, 0.0999, 0.1), False),
        ("events", (0.1, 0.185, 0.2), False),
        ("events", (0.1, 0.187, 0.2), True),
    ],
)
def test_what_default_settings_are_to_reach(
    kind: str, figures: tuple[float, float | None, float], is_met: bool
) -> None:
    assert result(kind, *figures).is_met is is_met


def test_the_table_has_a_line_for_each_set_and_model() -> None:
    run = made_run(
        *of_set("films", "ratings", 0.95, 0.9, 0.9),
        *of_set("jokes", "ratings", 4.5, None, 4.1),
        *of_set("clicks", "events", 0.1, 0.15, 0.2),
        *of_set("clicks", "events", 0.1, 0.12, 0.2, "BPR")[1:2],
    )

    ratings, events = tables.of_run(run).split("\n\n")[1:]

    assert ratings.splitlines()[0] == "defaults · ratings, RMSE"
    header, films, jokes = ratings.splitlines()[1:]
    assert " ".join(header.split()) == "set model Bias default best of a grid of best best settings"
    assert " ".join(films.split()) == "films SGD 0.9500 0.9000 0.9000 1.0000 met n_epochs 20"
    assert " ".join(jokes.split()) == "jokes SGD 4.5000 inf 4.1000 inf missed n_epochs 20"
    assert [" ".join(line.split()) for line in events.splitlines()[2:]] == [
        "clicks ImplicitALS 0.1000 0.1500 0.2000 0.7500 missed n_epochs 20",
        "clicks BPR 0.1000 0.1200 met",
    ]


def test_the_worst_set_decides_whether_a_target_is_met() -> None:
    run = made_run(
        *of_set("films", "ratings", 0.95, 0.9, 0.9),
        *of_set("books", "ratings", 0.95, 0.9, 0.87),
        *of_set("clicks", "events", 0.1, 0.19, 0.2),
        *of_set("plays", "events", 0.3, 0.45, 0.45),
    )

    found = {v.what: (v.found, v.verdict) for v in targets.check([run]) if v.was_measured}

    assert found == {
        "SGD by default, RMSE less that of Bias": ("-0.05", "met"),
        "SGD by default, RMSE over the best of a grid": ("1.034", "missed"),
        "ImplicitALS by default, Recall@20 less that of Popularity": ("0.09", "met"),
        "ImplicitALS by default, Recall@20 over the best of a grid": ("0.95", "met"),
    }


def test_results_of_defaults_survive_a_file() -> None:
    run = made_run(*of_set("films", "ratings", 0.95, None, 0.9))

    assert "Infinity" not in run.to_json()
    assert json.loads(run.to_json())["measurements"][1]["figures"] == {"RMSE": None}


def test_a_default_that_diverges_has_no_metric(
    tmp_path: Path, some: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "a.parquet", some, "rating")
    wild = {"SGD": ("SGD", {"learning_rate": 1e3})}
    monkeypatch.setitem(defaults.KINDS, "ratings", defaults.KINDS["ratings"]._replace(models=wild))
    data_set = DataSet("a", "ratings", "random", (str(tmp_path / "a.parquet"),))

    found = TASKS["defaults.default"](NO_PACE, data_set=data_set, model="SGD", seed=0, n_threads=1)

    assert found["RMSE"] is None
    assert "learning_rate=1000" in found["note"]


def test_without_data_it_says_what_it_needs(bench: Bench) -> None:
    _, errors = bench("defaults", "--peers", "--quick", status=1)

    assert "defaults: left out; it needs real data, in the directory that --data names" in errors


def test_data_that_are_not_there_are_named(bench: Bench, tmp_path: Path, some: Interactions) -> None:
    store(tmp_path / "data" / "mine" / "ratings.parquet", some, "rating")

    for arguments in (("--data", "nowhere"), ("--data", "data", "--sets", "yours")):
        output, _ = bench("defaults", *arguments, "--peers", "--json", status=1)
        (problem,) = json.loads(output)["problems"]
        assert problem.startswith("defaults: ")
        assert arguments[-1] in problem


@pytest.mark.slow
def test_from_data_to_table_and_targets(bench: Bench, tmp_path: Path, some: Interactions) -> None:
    for name in ("small", "large"):
        store(tmp_path / "data" / name / "ratings.parquet", some, "rating")
        store(tmp_path / "data" / name / "interactions.parquet", some)
        some = fastmf.testing.film_club(n_users=90, n_items=60, mean_ratings=20)

    table, _ = bench("defaults", "--data", "data", "--quick", "--threads", 1, "--peers", "--output", "r.json")

    assert "defaults · ratings, RMSE\n" in table
    assert "defaults · events, Recall@20\n" in table
    run = Run.read(tmp_path / "r.json")
    assert {m.problem for m in run.measurements} == {"small"}
    assert [(found.kind, found.model) for found in defaults.results(run)] == [
        (kind, model) for kind, told in defaults.KINDS.items() for model in told.models
    ]
    assert all(found.baseline and found.default and math.isfinite(found.default) for found in defaults.results(run))
    verdicts = [v for v in targets.check([run]) if "by default" in v.what]
    assert {v.found for v in verdicts} == {"a quick run has two data sets and a few cells of the grid"}
    assert len(verdicts) == 10
    run.command = "fastmf bench defaults --data data"
    assert all(v.was_measured for v in targets.check([run]) if "by default" in v.what)
