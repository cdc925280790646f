"""Verdicts: a metric at its target meets it, one beyond misses it, and what was not measured says why."""

import pytest

from fastmf_bench import tables, targets
from fastmf_bench.results import Measurement, Run
from fastmf_bench.targets import Verdict
from tests.bench.made import made_run, measurement


def verdict(run: Run, what: str, shape: str = "") -> Verdict:
    (found,) = [v for v in targets.check([run]) if v.what.startswith(what) and v.shape.startswith(shape)]
    return found


@pytest.mark.parametrize(("peer", "word"), [(2.1, "met"), (2.0, "met"), (1.9, "missed")])
def test_a_ratio_at_its_bound_is_met(peer: float, word: str) -> None:
    run = made_run(measurement(seconds=1), measurement(contestant="LIBMF", seconds=peer))

    found = verdict(run, "SGD epoch", "10M shape, 64 factors")

    assert (found.found, found.verdict) == (f"{1 / peer:.4g} ×", word)


def test_what_was_not_measured_says_so() -> None:
    found = verdict(made_run(measurement()), "SGD epoch", "10M shape, 64 factors")

    assert (found.found, found.verdict) == ("not in the results: LIBMF in sgd, epoch, ml-10m, 64", "-")


def test_every_target_has_a_verdict_even_without_results() -> None:
    found = targets.check([made_run()])

    assert len(found) > 40
    assert {v.verdict for v in found} == {"-"}
    assert all(v.found for v in found)


def test_a_second_run_stands_in_where_the_first_has_nothing() -> None:
    quality = measurement(
        "quality", "protocol", "movielens-100k", "fastmf, SGD", seconds=0, figures={"RMSE of u1": 0.917}
    )

    (found,) = [v for v in targets.check([made_run(), made_run(quality)]) if v.what == "SGD: RMSE of u1"]

    assert (found.found, found.verdict) == ("0.917", "met")


def test_fewer_threads_than_the_run_has_have_no_verdict() -> None:
    alone = measurement(seconds=9, settings={"n_threads": 1})
    run = made_run(alone, measurement(seconds=1), measurement(contestant="LIBMF", seconds=4))

    assert verdict(run, "SGD epoch", "10M shape, 64 factors").found == "0.25 ×"


@pytest.mark.parametrize(("longest", "word"), [(3.0, "met"), (3.5, "missed")])
def test_a_ratio_of_waiting_times(longest: float, word: str) -> None:
    def served(contestant: str, *callers: int, waited: float) -> list[Measurement]:
        return [
            measurement(
                "serve",
                "top-10 of one user",
                "100k random items",
                contestant,
                settings={"callers": n, "n_threads": 1},
                figures={"median ms": 0.5, "p99 ms": waited * n},
            )
            for n in callers
        ]

    matvec = served("matrix-vector product alone", 1, 4, waited=1.0)
    run = made_run(*served("fastmf", 1, 4, waited=longest), *matvec)

    assert verdict(run, "one user by Recommender, 99th").verdict == word
    assert verdict(run, "one user by Recommender, median").found == "1 ×"


def test_a_share_of_the_ceiling() -> None:
    sweep = measurement(
        "als",
        "implicit sweep",
        contestant="fastmf, cholesky",
        seconds=1,
        work=46.0,
        settings={"n_factors": 128},
        ceiling="sgemm",
        ceiling_rate=100.0,
    )

    found = verdict(made_run(sweep), "exact ALS, share")

    assert (found.target, found.found, found.verdict) == ("≥ 0.45", "0.46", "met")


def test_a_wrong_kernel_misses_its_line() -> None:
    right = {"sgd": "", "negative_sampling": "", "svdpp": ""}
    assert verdict(made_run(proofs=right), "SGD kernels unlike").verdict == "met"
    assert verdict(made_run(proofs={**right, "negative_sampling": "wrong"}), "SGD kernels unlike").verdict == "missed"


def curve(contestant: str, *points: tuple[float, float]) -> Measurement:
    return measurement("sgd", "error over time", contestant=contestant, seconds=0, figures={"curve": points})


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        ([(1, 0.9), (2, 0.7)], [(1, 0.8), (2, 0.8)], -0.1),
        ([(1, 0.9), (2, 0.7)], [(0.5, 0.95), (1, 0.8)], 0.1),  # what comes after the other ended does not count
        ([(1, 0.8)], [(0.5, 0.7), (3, 0.5)], 0.1),
    ],
)
def test_error_at_equal_time(
    ours: list[tuple[float, float]], theirs: list[tuple[float, float]], difference: float
) -> None:
    found = verdict(made_run(curve("fastmf", *ours), curve("LIBMF", *theirs)), "SGD test RMSE", "10M shape, 64 factors")

    assert float(found.found) == pytest.approx(difference)
    assert found.verdict == ("met" if difference <= 0 else "missed")


def test_the_table_counts_the_verdicts() -> None:
    run = made_run(
        measurement(seconds=1),
        measurement(contestant="LIBMF", seconds=4),
        proofs={"sgd": "wrong", "negative_sampling": "", "svdpp": ""},
    )

    table = tables.of_targets(targets.check([run]))

    measured, others, counts = table.split("\n\n")
    assert [line.split("  ")[0] for line in measured.splitlines()] == [
        "targets",
        "what",
        "SGD epoch, CPU of LIBMF's AVX build",
        "SGD kernels unlike their reference",
    ]
    assert others.startswith("targets that were not measured\n")
    assert counts == f"1 met, 1 missed, {len(others.splitlines()) - 2} not measured"
