"""The model of conflicts on a GPU: with one run at a time there are none, and it is the reference."""

from pathlib import Path

import lockstep
import numpy as np
import pytest

import fastmf
from fastmf.backend import get_backend
from fastmf_kernels.sgd.schedule import Grid, make_blocks, shuffled_strata
from tests.kernels.made import LINKS, STEP, make_factors, make_ratings, make_rows


@pytest.mark.parametrize("link", LINKS)
def test_one_run_at_a_time_is_the_reference(link: str) -> None:
    # Runs of one rating: the order of runs in a block does not matter to users, nor to items in blocks of one column.
    reference, grid = get_backend("reference"), Grid(1)
    by_user, results = make_ratings(30, 1, 25), []
    by_user = by_user._replace(indptr=np.append(np.arange(26), [25] * 5), indices=np.zeros(25, np.int32))
    for run_epoch in (lockstep.run_epoch, reference.run_epoch):
        factors, rows = make_factors(30, 1, 4), make_rows(30, 1)
        blocks = make_blocks(by_user, 1, grid, reference.group_by)
        strata, settings = shuffled_strata(grid, np.random.default_rng(0)), {}
        if run_epoch is lockstep.run_epoch:
            settings = {"most_runs": 1}
        error = run_epoch(blocks, strata, factors, LINKS[link], STEP, rows, None, **settings)
        results.append([*factors, *rows, error])
    for term, expected in zip(*results, strict=True):
        np.testing.assert_allclose(term, expected, rtol=1e-5, atol=1e-5)


def test_conflicts_change_the_result_a_little() -> None:
    reference, grid, by_user = get_backend("reference"), Grid(2), make_ratings(60, 40, 900)
    errors = []
    for most_runs in (1, 50):
        factors, rows = make_factors(60, 40, 4), make_rows(60, 40)
        blocks = make_blocks(by_user, 40, grid, reference.group_by)
        strata = shuffled_strata(grid, np.random.default_rng(0))
        errors.append(lockstep.run_epoch(blocks, strata, factors, LINKS["identity"], STEP, rows, most_runs=most_runs))
    assert errors[0] != errors[1]
    np.testing.assert_allclose(*errors, rtol=0.1)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_command(storage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ratings = fastmf.testing.film_club(n_users=40, n_items=30, mean_ratings=10)
    for name, part in zip(("train", "test"), fastmf.split.random(ratings, test_fraction=0.2, seed=0), strict=True):
        part.to_parquet(tmp_path / f"{name}.parquet")

    parts = [str(tmp_path / f"{name}.parquet") for name in ("train", "test")]
    assert lockstep.main([*parts, "--runs", "20", "--storage", storage]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        on_cpu, in_lockstep = (float(part.split()[-1]) for part in line.rsplit(", ", 1))
        assert in_lockstep == pytest.approx(on_cpu, rel=0.05)
