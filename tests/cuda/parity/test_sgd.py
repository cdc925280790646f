"""SGD on a GPU against its reference.

Steps of one item that are taken at the same time start from the same row: they are compared closely where no two
ratings of an item are in one block, and by what training comes to elsewhere.
"""

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.schedule import Blocks, Grid, make_blocks, shuffled_strata
from tests.kernels.made import LINKS, STEP, make_factors, make_ratings, make_rows

_GRID = Grid(2)


def run(
    kernels: Kernels,
    by_user: CSR,
    n_items: int,
    n_factors: int,
    link: Link,
    grid: Grid = _GRID,
    n_epochs: int = 1,
    storage: str = "float32",
    step: Step = STEP,
) -> tuple[Factors, RowSteps, list[float]]:
    n_users = len(by_user.indptr) - 1
    factors, rows = make_factors(n_users, n_items, n_factors), make_rows(n_users, n_items)
    blocks = make_blocks(by_user, n_items, grid, kernels.group_by)
    held = kernels.training_to_device(blocks if kernels.name == "cuda" else as_walked(blocks), factors, rows, storage)
    rng, errors = np.random.default_rng(2), []
    for _ in range(n_epochs):
        strata = shuffled_strata(grid, rng)
        errors.append(kernels.run_epoch(held.blocks, strata, held.factors, link, step, held.rows, None))
    kernels.training_to_host(held, factors, rows)
    return factors, rows, errors


def as_walked(blocks: Blocks) -> Blocks:
    """Put the ratings of each user in a block into the order in which the GPU walks them."""
    from fastmf_kernels._cuda.memory import fetch
    from fastmf_kernels.sgd.cuda.runs import make_walk
    from fastmf_kernels.sgd.cuda.walk import first_place

    runs, order = make_walk(blocks).runs, np.arange(len(blocks.items))
    for run, (start, stop) in enumerate(zip(fetch(runs.starts), fetch(runs.stops), strict=True)):
        order[start:stop] = np.roll(order[start:stop], start - first_place(run, int(start), int(stop)))
    return blocks._replace(items=blocks.items[order], ratings=blocks.ratings[order])


def without_shared_items(n_users: int, per_user: int) -> CSR:
    """Users with ratings of items that nobody else has rated; the last user has none."""
    rng, n = np.random.default_rng(3), n_users * per_user
    indptr = np.append(np.arange(n_users + 1) * per_user, n)
    return CSR(indptr, rng.permutation(n).astype(np.int32), rng.integers(1, 10, n).astype(np.float32) / 2)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("n_factors", [1, 8, 20, 64, 130])
def test_without_shared_items_it_is_the_reference(
    n_factors: int, link: str, kernels: Kernels, reference: Kernels
) -> None:
    by_user = without_shared_items(5, 4)
    (factors, rows, errors), (expected, expected_rows, expected_errors) = (
        run(variant, by_user, 20, n_factors, LINKS[link]) for variant in (kernels, reference)
    )
    for term, expected_term in zip([*factors, *rows], [*expected, *expected_rows], strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-6, atol=2e-5)
    np.testing.assert_allclose(errors, expected_errors, rtol=1e-5)


@pytest.mark.parametrize("strength", [30, 1e30])
def test_a_large_strength_shrinks(strength: float, kernels: Kernels, reference: Kernels) -> None:
    by_user, step = without_shared_items(5, 4), Step(*np.float32([0.5, 0.5, 1, *np.divide(strength, [1, 2, 3, 4])]))
    (factors, rows, errors), (expected, expected_rows, expected_errors) = (
        run(variant, by_user, 20, 20, LINKS["identity"], step=step) for variant in (kernels, reference)
    )
    for term, expected_term in zip([*factors, *rows], [*expected, *expected_rows], strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-5, atol=2e-5)
    np.testing.assert_allclose(errors, expected_errors, rtol=1e-5)


@pytest.mark.parametrize("n_factors", [8, 20])
def test_in_halves(n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    """A row is rounded after each run on a GPU, and after each rating in the reference: by 2⁻¹² of numbers up to 1."""
    by_user = without_shared_items(5, 4)
    (factors, _, errors), (expected, _, expected_errors) = (
        run(variant, by_user, 20, n_factors, LINKS["identity"], n_epochs=2, storage="float16")
        for variant in (kernels, reference)
    )
    for term, expected_term in zip(factors, expected, strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=0, atol=4e-3)
    np.testing.assert_allclose(errors, expected_errors, rtol=5e-3)
    assert (factors.user_factors == factors.user_factors.astype(np.float16)).all()


@pytest.mark.parametrize("shape", [(1, 9, 9), (9, 1, 9), (1, 1, 1), (5, 4, 0)])
def test_tables_of_one_row_or_none(shape: tuple[int, int, int], kernels: Kernels, reference: Kernels) -> None:
    """One user, one item, one rating, no ratings; in one block for each item the steps follow one another."""
    grid = Grid(1)
    (factors, _, errors), (expected, _, expected_errors) = (
        run(variant, make_ratings(*shape), shape[1], 8, LINKS["identity"], grid) for variant in (kernels, reference)
    )
    # All nine users of one item may meet it as it was at first: each takes its step from a row that is a little off.
    tolerance = 2e-5 if shape[1] > 1 or shape[0] == 1 else 0.1
    for term, expected_term in zip(factors, expected, strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=0, atol=tolerance)
    np.testing.assert_allclose(errors, expected_errors, rtol=1e-5 if tolerance < 0.01 else 0.1)


def test_training_comes_to_the_same_error(kernels: Kernels, reference: Kernels) -> None:
    by_user = make_ratings(12, 8, 70)
    (_, _, errors), (_, _, expected) = (
        run(variant, by_user, 8, 8, LINKS["identity"], n_epochs=3) for variant in (kernels, reference)
    )
    assert expected[-1] < 0.9 * expected[0]
    np.testing.assert_allclose(errors, expected, rtol=0.05)


def test_few_runs_at_a_time(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of threads takes more runs than it has groups of threads, one after the other."""
    from fastmf_kernels.sgd.cuda import runs

    by_user, kept = without_shared_items(70, 2), []
    for most in (1 << 20, 1):
        monkeypatch.setattr(runs, "_most_at_once", lambda items, most=most: most)
        factors, _, errors = run(kernels, by_user, 140, 8, LINKS["identity"], Grid(1))
        kept.append((factors.user_factors, factors.item_factors, errors))
    for at_once, in_turn in zip(*kept, strict=True):
        np.testing.assert_allclose(in_turn, at_once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("most", "expected"), [(64, 128), (1, 2)])
def test_popular_items_limit_the_runs_at_a_time(
    most: int, expected: int, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastmf_kernels.sgd.cuda import runs

    monkeypatch.setattr(runs, "_MOST_AT_AN_ITEM", most)
    by_user = make_ratings(12, 2, 20)
    blocks = make_blocks(by_user, 2, Grid(1), kernels.group_by)
    popular = np.bincount(by_user.indices).max() / 20

    assert runs.make_walk(blocks).most_at_once == int(most / popular)
    assert expected * 0.5 <= most / popular <= expected


def test_arrays_of_the_host_are_changed_in_place(kernels: Kernels, reference: Kernels) -> None:
    by_user, grid, results = without_shared_items(3, 2), Grid(1), []
    ascending, strata = make_blocks(by_user, 6, grid, reference.group_by), np.zeros((1, 1, 1), np.int32)
    for variant, blocks in ((kernels, ascending), (reference, as_walked(ascending))):
        factors, rows = make_factors(4, 6, 8), make_rows(4, 6)
        variant.run_epoch(blocks, strata, factors, LINKS["sigmoid"], STEP, rows, None)
        results.append([*factors, *rows])
    for term, expected in zip(*results, strict=True):
        np.testing.assert_allclose(term, expected, rtol=3e-6, atol=2e-5)


def test_ratings_that_do_not_fit_are_brought_stratum_by_stratum(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastmf_kernels.sgd.cuda import runs

    by_user, kept = without_shared_items(5, 4), []
    for free in (1 << 30, 100):
        monkeypatch.setattr(runs, "free_bytes", lambda free=free: free)
        factors, _, errors = run(kernels, by_user, 20, 8, LINKS["identity"])
        kept.append((factors.user_factors, factors.item_factors, errors))
    # Runs are entered elsewhere, since they have other numbers.
    for whole, in_parts in zip(*kept, strict=True):
        np.testing.assert_allclose(in_parts, whole, rtol=0, atol=5e-3)


def test_factors_that_do_not_fit(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastmf_kernels._cuda import memory

    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    message = r"factors take 1,248 bytes of the GPU's memory, of which 1,000 are free; choose fewer factors"
    with pytest.raises(MemoryError, match=message):
        run(kernels, without_shared_items(5, 4), 20, 8, LINKS["identity"])
