"""What is read off results: ratios, fractions of a ceiling, agreement of runs; and results as a file."""

from pathlib import Path

import pytest

from fastmf.errors import DataError
from fastmf_bench import __main__ as command
from fastmf_bench.problems import SHAPES, Problem
from fastmf_bench.results import Run, compare_runs, disturbances, ours, ratio
from fastmf_bench.suites import als
from tests.bench.made import made_run, measurement


def test_results_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    run = made_run(
        measurement(figures={"test RMSE": 0.8, "curve": [[1.0, 0.9], [2.0, 0.8]]}),
        measurement(contestant="LIBMF", note="a note", ceiling="copy", ceiling_rate=1e9),
        proofs={"sgd": "", "als": "wrong"},
        problems=["netflix: too large"],
        seconds=12.5,
    )
    (tmp_path / "run.json").write_text(run.to_json())

    assert Run.read(tmp_path / "run.json") == run


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "{}", '{"format": 1}', '{"format": 1, "measurements": [{"a": 1}]}', "\x00"]
)
def test_a_file_that_is_no_results_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(DataError, match=r"run\.json holds no results of `fastmf bench --output`"):
        Run.read(tmp_path / "run.json")


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 99}')

    with pytest.raises(DataError, match="has results of format 99; expected 1"):
        Run.read(tmp_path / "run.json")


def test_a_ratio_is_that_of_the_medians() -> None:
    assert ratio(measurement(seconds=3), measurement(seconds=1.5)) == pytest.approx(2)
    assert ratio(measurement(seconds=3), measurement(seconds=1.5), "wall") == pytest.approx(2)


def test_a_contestant_that_did_a_part_is_compared_by_the_unit_of_work() -> None:
    assert ratio(measurement(seconds=1, work=1), measurement(seconds=2, work=100)) == pytest.approx(50)


def test_a_rate_is_also_a_fraction_of_its_ceiling() -> None:
    found = measurement(seconds=2, work=100, ceiling="copy", ceiling_rate=200.0)

    assert (found.rate, found.ceiling_fraction) == (50, 0.25)
    assert measurement(seconds=0).rate is None
    assert measurement().ceiling_fraction is None


def test_contestants_of_one_race_have_all_but_their_names_in_common() -> None:
    run = made_run(
        measurement(),
        measurement(settings={"n_factors": 32}),
        measurement(contestant="LIBMF"),
        measurement(suite="als"),
    )

    assert [[m.contestant for m in race] for race in run.races()] == [["fastmf", "LIBMF"], ["fastmf"], ["fastmf"]]


def test_results_are_selected_by_attributes_and_settings() -> None:
    run = made_run(measurement(), measurement(settings={"n_factors": 32}))

    assert [m.settings["n_factors"] for m in run.select(suite="sgd", n_factors=32)] == [32]
    assert run.select(n_factors=32, contestant="LIBMF") == []


def test_runs_are_compared_by_the_ratios_they_share() -> None:
    def run(peer: float) -> Run:
        return made_run(measurement(), measurement(contestant="LIBMF", seconds=peer), measurement(task="alone"))

    ((found, own, ratios),) = compare_runs([run(2), run(3)])

    assert (found.contestant, own) == ("LIBMF", "fastmf")
    assert ratios == pytest.approx([2, 3])
    assert compare_runs([run(2)]) == []


def test_ours_is_the_one_that_was_timed() -> None:
    race = [measurement(contestant="LIBMF"), measurement(contestant="fastmf, cg")]

    assert ours(race) is race[1]
    assert ours([measurement(seconds=0)]) is None


@pytest.mark.parametrize(
    ("laps", "found"),
    [
        ([1.0, 1.0], []),
        ([0.8, 1.0, 1.3], []),  # half of the median, and no more
        ([0.8, 1.0, 1.31], ["fastmf in epoch, ml-10m: laps took from 0.8 s to 1.31 s"]),
        ([0.4, 1.0, 1.0], ["fastmf in epoch, ml-10m: laps took from 0.4 s to 1 s"]),
        ([1.0, 2.0], ["fastmf in epoch, ml-10m: laps took from 1 s to 2 s"]),
        ([7.0], []),
        ([], []),
    ],
)
def test_laps_that_spread_by_more_than_half_show_a_disturbance(laps: list[float], found: list[str]) -> None:
    one = measurement()
    one.wall[:] = laps

    assert disturbances(made_run(one)) == found


@pytest.mark.parametrize(
    ("suite", "contestant", "is_bound"),
    [
        ("als", als.make_contestant(Problem(SHAPES["ml-1m"], Path()), 64, 2, "cholesky").name, True),
        ("als", "implicit, cholesky", True),
        ("als", "fastmf, cg", False),  # solves rows with fewer operations than the ceiling counts
        ("als", "fastmf, subspace", False),
        ("topk", "fastmf, pruned", False),
        ("sgd", "fastmf", False),
    ],
)
def test_a_ceiling_below_an_exact_solver_shows_a_disturbance(suite: str, contestant: str, is_bound: bool) -> None:
    def found(ceiling: float) -> list[str]:
        ceilings = {"ceiling": "sgemm", "ceiling_rate": ceiling}
        return disturbances(made_run(measurement(suite, "sweep", contestant=contestant, **ceilings)))

    assert found(100.0) == []
    assert found(80.0) == ([f"{contestant} in sweep, ml-10m: reached 1.25 × its ceiling, sgemm"] if is_bound else [])


@pytest.mark.parametrize(
    ("argument", "recorded"),
    [("/home/ann/data", "data"), ("--data=/home/ann/data", "--data=data"), ("data/sets", "data/sets"), ("sgd", "sgd")],
)
def test_a_recorded_command_has_no_folders_of_one_machine(argument: str, recorded: str) -> None:
    assert command._without_folders(argument) == recorded
