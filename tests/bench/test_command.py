"""``fastmf bench`` as people call it: what it says of bad input, what goes on nevertheless, and the exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf_bench import __main__ as command
from fastmf_bench import peers, problems
from fastmf_bench.session import Session
from fastmf_bench.suites import SUITES, TASKS, memory, serve, sgd, startup, topk

Bench = Callable[..., tuple[str, str]]
Races = list[tuple[str, str]]
SMALL = ("--users", 40, "--items", 30, "--ratings", 300, "--factors", 8, "--laps", 1, "--threads", 1, "--peers")


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> Races:
    """Suite and problem of every race that would be run; none is."""
    raced: Races = []
    monkeypatch.setattr(Session, "race", lambda session, suite, task, problem, *_: raced.append((suite, problem)))
    return raced


def test_help_names_every_suite_and_command(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        bench("--help")

    assert left.value.code == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in SUITES)
    assert all(f"\n  {name} " in told for name in ("report", "targets", "readme"))
    assert "movielens-100k" in told


def test_a_gpu_that_is_not_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")

    output, errors = bench("--device", "cuda", "--quick", status=1)

    assert errors.startswith('fastmf bench: backend "cuda" (--device cuda) cannot run here: ')
    assert output == ""


def test_an_unknown_suite_is_named_and_the_others_go_on(bench: Bench, races: Races) -> None:
    _, errors = bench("als", "dance", *SMALL, "--json", status=1)

    assert (
        "there is no suite 'dance'; expected some of sgd, als, topk, serve, ingest, startup, memory, quality" in errors
    )
    assert set(races) == {("als", "own")}


def test_a_peer_that_is_missing_is_named_and_the_others_go_on(
    bench: Bench, races: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "installed_version", lambda name: None)

    _, errors = bench("als", *SMALL, "implicit", "oracle", "libmf", "--json", status=1)

    assert "implicit is not installed; run: pip install implicit" in errors
    assert f"there is no peer 'oracle'; expected some of {', '.join(peers.PEERS)}" in errors
    assert "libmf takes part only where --libmf names its program mf-train" in errors
    assert set(races) == {("als", "own")}


def test_a_peer_that_nobody_asked_for_may_be_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed_version", lambda name: None)

    _, errors = bench("dance", *SMALL[:-1], "--json", status=1)

    assert "left out: implicit is not installed" in errors


def test_a_libmf_that_cannot_run_is_said(bench: Bench, tmp_path: Path) -> None:
    _, errors = bench("dance", *SMALL[:-1], "--libmf", tmp_path, "--json", status=1)

    assert "is no program that can be run; --libmf expects the path of mf-train" in errors


@pytest.mark.slow
def test_a_file_that_is_not_ratings_is_said_and_the_others_go_on(bench: Bench, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "a.parquet")

    output, errors = bench("sgd", "ingest", *SMALL[6:], "--file", "a.parquet", "--json", status=1)

    assert "no column 'user_id'" in errors
    first, *others = json.loads(output)["problems"]
    assert first.startswith("a.parquet: ")
    assert any(line.startswith("ingest: fastmf was left out") for line in others)


def test_too_little_memory_for_one_shape_leaves_the_other(
    bench: Bench, races: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "available_memory", lambda: 2**31)

    _, errors = bench("als", *SMALL, "--shape", "netflix", "--json", status=1)

    assert "needs about 9.4 GiB of memory, and 2.0 GiB are available" in errors
    assert set(races) == {("als", "own")}


def test_what_no_time_is_left_for_is_said(bench: Bench) -> None:
    output, _ = bench("sgd", "startup", *SMALL, "--minutes", 0, "--json", status=1)

    run = json.loads(output)
    assert run["measurements"] == []
    assert run["problems"][0] == "own: no time was left for problems.generate"
    assert "startup: no time was left for import, " in run["problems"]
    assert run["problems"][-1] == "startup: given up: no time was left for startup.make_model"


def test_a_shape_of_ones_own_takes_three_numbers(bench: Bench) -> None:
    _, errors = bench("sgd", "--users", 5, status=2)

    assert "takes all of --users, --items and --ratings" in errors


def test_results_are_not_overwritten_unasked(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("mine")

    _, errors = bench("dance", "--output", "r.json", status=1)

    assert "exists" in errors
    assert (tmp_path / "r.json").read_text() == "mine"


def test_quality_without_data_says_what_it_needs(bench: Bench) -> None:
    _, errors = bench("quality", "--peers", status=1)

    assert "it needs real data, in the directory that --data names" in errors


def test_real_data_that_is_missing_is_named(bench: Bench) -> None:
    output, _ = bench("quality", "--data", "nowhere", "--peers", "--json", status=1)

    run = json.loads(output)
    protocols = ("movielens-100k", "ncf-movielens-1m", "citeulike-a", "movielens-1m-topn", "movielens-1m")
    data = (*protocols, "movielens-1m/splits", "movielens-1m-topn/splits")
    missing = [f"quality: nowhere/{name} is not there; left out" for name in data]
    assert (run["problems"], run["measurements"]) == (missing, [])


def test_a_report_of_something_else_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{}")

    _, errors = bench("report", "r.json", "-o", "r.html", status=1)

    assert "holds no results" in errors
    assert not (tmp_path / "r.html").exists()


@pytest.fixture
def one_lap_in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let each contestant do one lap of a small problem here: starting processes takes most of the time of a run.

    Lists the tasks that ran.
    """
    raced: list[str] = []

    def race(session: Session, *arguments: Any, **options: Any) -> None:
        for contestant in arguments[4]:
            laps = iter([True])
            TASKS[contestant.task](lambda lap=None, laps=laps: next(laps, False), **contestant.arguments)
            raced.append(contestant.task)

    small = problems.Shape("ml-1m", 200, 100, 3000)
    random_arrays, run_script = topk.random_arrays, startup.run_source
    monkeypatch.setattr(Session, "race", race)
    monkeypatch.setattr(Session, "work", lambda session, task, arguments: TASKS[task](lambda: False, **arguments))
    monkeypatch.setitem(problems.SHAPES, "ml-1m", small)
    monkeypatch.setattr(memory, "_RECOMMEND_SHAPE_QUICK", small)
    monkeypatch.setattr(sgd, "_RATINGS_A_LAP", 10_000)
    monkeypatch.setattr(serve, "_REQUESTS_A_LAP", 20)
    monkeypatch.setattr(startup, "_LOADED_USERS", 1000)
    monkeypatch.setattr(
        startup, "run_source", lambda script, argument, cached: run_script(script, argument, cached=True)
    )
    monkeypatch.setattr(
        topk, "random_arrays", lambda users, items, *rest: random_arrays(min(users, 50), min(items, 300), *rest)
    )
    return raced


@pytest.mark.stress
@pytest.mark.slow
def test_a_quick_run_without_data_runs_all_other_suites_and_succeeds(
    bench: Bench, one_lap_in_this_process: list[str]
) -> None:
    output, errors = bench("--quick", "--peers", "--threads", 2, "--json", status=0)

    of_real_data = {"quality", "defaults", "fold-in", "onboarding", "cold"}
    assert {task.partition(".")[0] for task in one_lap_in_this_process} == set(SUITES) - of_real_data
    assert json.loads(output)["problems"] == []
    assert "quality: left out; it needs real data, in the directory that --data names" in errors


@pytest.mark.slow
def test_from_suites_to_report_targets_and_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> str:
        capsys.readouterr()
        returned = command.main(list(map(str, arguments)))
        output, errors = capsys.readouterr()
        assert returned == 0, errors
        return output

    monkeypatch.chdir(tmp_path)
    # An epoch of so many ratings takes some tenths of a millisecond, and a lap some hundreds of epochs.
    fastmf.testing.film_club(n_users=800, n_items=200, mean_ratings=40).to_parquet(tmp_path / "mine.parquet")

    run = ("sgd", "ingest", "--quick", "--laps", 1, "--threads", 1, "--peers")
    table = call(*run, "--file", "mine.parquet", "--output", "r.json")

    suites = ("ceilings", "sgd", "ingest")
    results = json.loads((tmp_path / "r.json").read_text())
    assert {m["suite"] for m in results["measurements"]} == set(suites)
    assert all(f"\n{suite} · " in table for suite in suites[1:])
    assert "proven against NumPy before timing: layout, sgd, negative_sampling, svdpp, predict" in table
    assert results["command"].startswith("fastmf bench sgd ingest")
    assert results["machine"]["packages"]["numpy"]
    call("report", "r.json", "-o", "r.html")
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert "met" in call("targets", "r.json")
    (tmp_path / "README.md").write_text(
        "<!-- performance: written by `fastmf bench readme` -->\n<!-- end of performance -->\n"
    )
    call("readme", "r.json", "--readme", "README.md")
    assert "| SGD, one epoch | mine, 64 factors |" in (tmp_path / "README.md").read_text()
