"""SGD: the schedule's promises, the epoch against its reference, and the reference against the gradient it descends."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import Step, first_row_steps
from fastmf_kernels.sgd.schedule import Blocks, Grid, cut_by_count, make_blocks, make_grid, shuffled_strata
from tests.kernels.made import LINKS, RATINGS, STEP, make_factors, make_ratings, make_rows


def copy(factors: Factors) -> Factors:
    return Factors(*(np.copy(term) for term in factors[:4]), factors.global_mean)


def run_both(
    shape: tuple[int, int, int], n_factors: int, link: Link, step: Step, variants: tuple[Kernels, Kernels]
) -> list[tuple[list[Any], float]]:
    n_users, n_items, _ = shape
    by_user, results = make_ratings(*shape), []
    for variant in variants:
        factors = make_factors(n_users, n_items, n_factors, biases=step.bias_learning_rate > 0)
        grid = make_grid(n_users, n_items, len(by_user.indices))
        blocks = make_blocks(by_user, n_items, grid, variant.group_by)
        strata, rows = shuffled_strata(grid, np.random.default_rng(2)), make_rows(n_users, n_items)
        error = variant.run_epoch(blocks, strata, factors, link, step, rows, None)
        results.append(([*factors, *rows], error))
    return results


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", RATINGS)
def test_epoch(name: str, link: str, kernels: Kernels, reference: Kernels) -> None:
    (factors, error), (expected, expected_error) = run_both(RATINGS[name], 8, LINKS[link], STEP, (kernels, reference))
    for term, expected_term in zip(factors, expected, strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-6, atol=1e-5)
    np.testing.assert_allclose(error, expected_error, rtol=1e-6)


@pytest.mark.parametrize("n_factors", [1, 3, 17, 64, pytest.param(128, marks=pytest.mark.slow)])
def test_epoch_for_any_rank(n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    (factors, error), (expected, expected_error) = run_both(
        (60, 40, 1100), n_factors, LINKS["identity"], STEP, (kernels, reference)
    )
    for term, expected_term in zip(factors, expected, strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-6, atol=2e-5)
    np.testing.assert_allclose(error, expected_error, rtol=1e-5)


@pytest.mark.parametrize("link", LINKS)
def test_ratings_that_share_nothing_differ_by_rounding_only(link: str, kernels: Kernels, reference: Kernels) -> None:
    rng, n = np.random.default_rng(3), 1000
    by_user = CSR(np.arange(n + 1), rng.permutation(n).astype(np.int32), rng.random(n, np.float32))
    results = []
    for variant in (kernels, reference):
        factors, blocks = make_factors(n, n, 16), make_blocks(by_user, n, Grid(1), variant.group_by)
        variant.run_epoch(blocks, shuffled_strata(Grid(1), rng), factors, LINKS[link], STEP, make_rows(n, n), None)
        results.append(factors)
    for term, expected in zip(*results, strict=True):
        np.testing.assert_allclose(term, expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize("link", LINKS)
def test_without_biases(link: str, kernels: Kernels, reference: Kernels) -> None:
    step = STEP._replace(bias_learning_rate=np.float32(0))
    (factors, _), (expected, _) = run_both(RATINGS["general"], 8, LINKS[link], step, (kernels, reference))
    assert not factors[2].any()
    assert not factors[3].any()
    for term, expected_term in zip(factors, expected, strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("link", LINKS)
def test_a_step_goes_down_the_gradient(link: str, kernels: Kernels, reference: Kernels) -> None:
    """Half the loss of one rating, differentiated numerically in float64: owes nothing to the reference's formulas."""
    low, span = (float(term) for term in LINKS[link])
    blocks, rows = one_rating(4), make_rows(1, 1)
    before = make_factors(1, 1, 3)
    start = np.concatenate([np.ravel(term).astype(np.float64) for term in before[:4]])
    scales = np.repeat(
        [rows.user_scales[0], rows.item_scales[0], rows.user_scales[0], rows.item_scales[0]], [3, 3, 1, 1]
    )
    damping = scales * np.repeat([float(term) for term in STEP[3:]], [3, 3, 1, 1])
    rates = np.repeat([float(STEP.learning_rate), float(STEP.bias_learning_rate)], [6, 2])
    roots = np.sqrt([rows.user_accumulator[0], rows.item_accumulator[0]])
    rates /= np.repeat([*roots, *roots], [3, 3, 1, 1])
    rates /= 1 + rates * damping  # the penalty is taken where the step ends

    def half_loss(x: np.ndarray) -> float:
        score = float(before.global_mean) + x[6] + x[7] + x[:3] @ x[3:6]
        prediction = low + span / (1 + np.exp(-score)) if span else score
        return float((4 - prediction) ** 2 + damping @ x**2) / 2

    width = 1e-5
    gradient = [(half_loss(start + width * e) - half_loss(start - width * e)) / (2 * width) for e in np.eye(8)]
    for variant in (kernels, reference):
        factors = copy(before)
        strata = np.zeros((1, 1, 1), np.int32)
        error = variant.run_epoch(blocks, strata, factors, LINKS[link], STEP, make_rows(1, 1), None)
        after = np.concatenate([np.ravel(term).astype(np.float64) for term in factors[:4]])
        np.testing.assert_allclose(after - start, -rates * gradient, rtol=0, atol=3e-7)
        np.testing.assert_allclose(error, 2 * half_loss(start) - damping @ start**2, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [0, 1])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("strength", [30, 1e6, 1e30])
def test_a_large_strength_shrinks(
    strength: float, link: str, adaptive: int, kernels: Kernels, reference: Kernels
) -> None:
    step = Step(*np.float32([0.5, 0.5, adaptive, strength, strength / 2, strength / 3, strength / 4]))
    (factors, _), (expected, _) = run_both(RATINGS["general"], 17, LINKS[link], step, (kernels, reference))
    by_user, before = make_ratings(*RATINGS["general"]), make_factors(300, 200, 17)
    has_some = np.diff(by_user.indptr) > 0, np.bincount(by_user.indices, minlength=200) > 0
    for term, expected_term, start, rated in zip(factors, expected, before[:4], has_some * 2, strict=False):
        np.testing.assert_allclose(term, expected_term, rtol=3e-5, atol=2e-5)
        # Rates of γ/(1 + γλ) leave a weight of 1/(1 + γλ) to what was there, and 1/λ to an error of up to 5.
        assert np.abs(term[rated]).max() <= np.abs(start).max() / 4 + 5 / (strength / 4)


def one_rating(rating: float) -> Blocks:
    cuts = np.array([0, 1])
    return Blocks(np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([rating], np.float32), cuts, cuts, cuts)


@pytest.mark.parametrize("adaptive", [0, 1])
def test_squares_grow_by_the_mean_square_of_the_gradient(adaptive: int, kernels: Kernels, reference: Kernels) -> None:
    step = STEP._replace(adaptive=np.float32(adaptive))
    for variant in (kernels, reference):
        factors, rows = make_factors(1, 1, 3), first_row_steps(1, 1)
        p, q = factors.user_factors[0].copy(), factors.item_factors[0].copy()
        score = float(factors.global_mean + factors.user_biases[0] + factors.item_biases[0] + p @ q)
        variant.run_epoch(one_rating(4), np.zeros((1, 1, 1), np.int32), factors, LINKS["identity"], step, rows, None)
        assert rows.user_accumulator[0] == pytest.approx(1 + adaptive * np.mean(((4 - score) * q) ** 2), rel=1e-5)
        assert rows.item_accumulator[0] == pytest.approx(1 + adaptive * np.mean(((4 - score) * p) ** 2), rel=1e-5)


def test_epochs_lower_the_error(kernels: Kernels) -> None:
    by_user, rng = make_ratings(*RATINGS["general"]), np.random.default_rng(4)
    grid, factors, rows = make_grid(300, 200, 6000), make_factors(300, 200, 8), first_row_steps(300, 200)
    blocks = make_blocks(by_user, 200, grid, kernels.group_by)
    errors = [
        kernels.run_epoch(blocks, shuffled_strata(grid, rng), factors, LINKS["sigmoid"], STEP, rows, None)
        for _ in range(10)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("link", LINKS)
def test_same_bits_for_any_threads(link: str, kernels: Kernels) -> None:
    by_user, grid = make_ratings(400, 300, 20_000), make_grid(400, 300, 20_000)
    results = []
    assert grid.n_tasks > 2
    for n_threads in (1, 2, None):
        factors, rows = make_factors(400, 300, 8), first_row_steps(400, 300)
        blocks = make_blocks(by_user, 300, grid, kernels.group_by, n_threads)
        strata = shuffled_strata(grid, np.random.default_rng(5))
        error = kernels.run_epoch(blocks, strata, factors, LINKS[link], STEP, rows, n_threads)
        results.append([term.tobytes() for term in (*factors, *rows)] + [error])
    assert results[0] == results[1] == results[2]


HASHES = """
import hashlib
import sys

import numpy as np

from fastmf.backend import get_backend
from fastmf_kernels.als.arrays import HalfSweep, Solver, Weighting
from fastmf_kernels.predict.arrays import Factors, make_link
from fastmf_kernels.sgd.arrays import Step, first_row_steps
from fastmf_kernels.sgd.schedule import Grid, make_blocks, shuffled_strata

kernels = get_backend(sys.argv[1])
for n_threads in (1, 2, 3, 8):
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 500, 30_000).astype(np.int32), rng.integers(0, 400, 30_000).astype(np.int32)
    by_user = kernels.coo_to_csr(users, items, rng.random(30_000, np.float32), 500, n_threads)
    p, q = rng.random((500, 8), np.float32), rng.random((400, 8), np.float32)
    factors = Factors(p, q, np.zeros(500, np.float32), np.zeros(400, np.float32), np.float32(0.5))
    blocks = make_blocks(by_user, 400, Grid(8), kernels.group_by, n_threads)
    step, rows = Step(*np.full(7, 0.01, np.float32)), first_row_steps(500, 400)
    strata = shuffled_strata(Grid(8), rng)
    error = kernels.run_epoch(blocks, strata, factors, make_link((0.0, 1.0)), step, rows, n_threads)
    regularization = np.full(500, 0.1, np.float32)
    weighting = Weighting(*np.array([1, 0, 0, 1], np.float32))
    gram = kernels.gram(q, n_threads).astype(np.float32)
    problem = HalfSweep(by_user, q, factors.item_biases, gram, regularization, weighting)
    solutions = [np.ones_like(p) for _ in range(4)]
    for solution, name in zip(solutions, ("cholesky", "cg", "subspace", "nonnegative"), strict=True):
        kernels.run_half_sweep(problem, solution, n_threads, Solver(name, 3))
    digest = hashlib.sha256(b"".join(array.tobytes() for array in (*factors, *rows, *solutions)))
    print(digest.hexdigest(), error)
"""


def test_same_bits_for_more_threads_than_cores(kernels: Kernels, run_python: Callable[..., str]) -> None:
    lines = run_python(HASHES, kernels.name, NUMBA_NUM_THREADS="8").splitlines()
    assert len(lines) == 4
    assert len(set(lines)) == 1


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("shape", [(300, 200, 30_000), (2000, 7, 30_000), (3, 2, 10_000), *RATINGS.values()])
def test_blocks_hold_every_rating_once(shape: tuple[int, int, int], width: int, kernels: Kernels) -> None:
    _, n_items, n_ratings = shape
    by_user, grid = make_ratings(*shape), make_grid(*shape, width)
    blocks = make_blocks(by_user, n_items, grid, kernels.group_by)
    assert len(blocks.row_cuts) == grid.n_tasks + 1
    assert len(blocks.column_cuts) == grid.n_tasks * width + 1
    assert len(blocks.offsets) == grid.n_tasks**2 * width + 1
    assert blocks.offsets[0] == 0
    assert blocks.offsets[-1] == n_ratings
    assert (np.diff(blocks.offsets) >= 0).all()
    before = zip(by_user.row_of_each_entry().tolist(), by_user.indices.tolist(), by_user.values.tolist(), strict=True)
    after = zip(blocks.users.tolist(), blocks.items.tolist(), blocks.ratings.tolist(), strict=True)
    assert sorted(before) == sorted(after)


def test_users_ascend_inside_a_block(kernels: Kernels) -> None:
    blocks = make_blocks(make_ratings(300, 200, 30_000), 200, Grid(5), kernels.group_by)
    descents = np.flatnonzero(np.diff(blocks.users) < 0) + 1
    assert set(descents.tolist()) <= set(blocks.offsets.tolist())


@pytest.mark.parametrize("width", [1, 2])
def test_tasks_of_a_stratum_share_nobody(width: int, kernels: Kernels) -> None:
    grid = Grid(5, width)
    blocks = make_blocks(make_ratings(300, 200, 30_000), 200, grid, kernels.group_by)
    for stratum in shuffled_strata(grid, np.random.default_rng(6)):
        for side in (blocks.users, blocks.items):
            members = [
                np.unique(np.concatenate([side[slice(*blocks.offsets[block:][:2])] for block in task]))
                for task in stratum
            ]
            assert len(np.concatenate(members)) == len(set(np.concatenate(members).tolist()))


def test_a_block_has_the_users_and_items_of_its_cuts(kernels: Kernels) -> None:
    blocks = make_blocks(make_ratings(300, 200, 30_000), 200, Grid(5, 2), kernels.group_by)
    for block, (start, stop) in enumerate(itertools.pairwise(blocks.offsets.tolist())):
        row, column = divmod(block, 10)
        for members, cuts, place in ((blocks.users, blocks.row_cuts, row), (blocks.items, blocks.column_cuts, column)):
            assert (members[start:stop] >= cuts[place]).all()
            assert (members[start:stop] < cuts[place + 1]).all()


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 64])
def test_an_epoch_visits_every_block_once(n: int, width: int) -> None:
    strata = shuffled_strata(Grid(n, width), np.random.default_rng(7))
    assert strata.dtype == np.int32
    assert strata.shape == (n, n, width)
    assert sorted(strata.ravel().tolist()) == list(range(n * n * width))


def test_strata_follow_the_seed() -> None:
    def draw(seed: int) -> list[list[int]]:
        strata: list[list[int]] = shuffled_strata(Grid(8, 2), np.random.default_rng(seed)).tolist()
        return strata

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10**6, 10**5, 10**9), 64),
        ((10**6, 10**5, 10**7), 17),
        ((10**6, 3, 10**9), 3),
        ((2, 10**5, 10**9), 2),
        ((1000, 1000, 10**5), 8),
        ((1000, 1000, 512 * 25), 5),
        ((1000, 1000, 512), 1),
        ((5, 4, 0), 1),
        ((0, 0, 0), 1),
    ],
)
def test_make_grid(shape: tuple[int, int, int], expected: int) -> None:
    assert make_grid(*shape, 2) == Grid(expected, 2)


@pytest.mark.parametrize(
    ("counts", "n_parts", "expected"),
    [
        ([1, 1, 1, 1], 2, [0, 2, 4]),
        ([3, 1, 1, 1], 2, [0, 1, 4]),
        ([9, 1], 3, [0, 1, 1, 2]),
        ([], 2, [0, 0, 0]),
    ],
)
def test_cut_by_count(counts: list[int], n_parts: int, expected: list[int]) -> None:
    assert cut_by_count(np.array(counts, np.int64), n_parts).tolist() == expected


def test_cuts_balance_skewed_counts() -> None:
    counts = np.random.default_rng(8).zipf(2, 5000).clip(max=200)
    parts = np.add.reduceat(counts, cut_by_count(counts, 8)[:-1])
    assert parts.max() - parts.min() <= 2 * counts.max()
