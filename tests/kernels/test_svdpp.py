"""SVD++: the waves, the epoch against its reference, and the reference against the gradient it descends."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fastmf.backend import Kernels
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import Step, first_row_steps
from fastmf_kernels.sgd.schedule import Grid, make_blocks, make_waves, shuffled_waves
from fastmf_kernels.svdpp.arrays import Implicit
from tests.kernels.made import LINKS, RATINGS, STEP, make_factors, make_ratings, make_rows


def make_implicit(n_items: int, n_factors: int) -> Implicit:
    """Factors that have moved, items that have seen gradients before, and a share and a strength unlike all others."""
    rng = np.random.default_rng(7)
    factors = rng.standard_normal((n_items, n_factors), np.float32) * np.float32(0.2)
    return Implicit(factors, 1 + rng.random(n_items, np.float32), np.float32(0.2), np.float32(0.05))


def run(
    shape: tuple[int, int, int],
    n_factors: int,
    link: Link,
    step: Step,
    kernels: Kernels,
    *,
    n_waves: int = 3,
    n_threads: int | None = None,
    strength: float = 0.05,
) -> tuple[list[npt.NDArray[np.float32]], float]:
    """Run an epoch; returns everything that it changes, and its squared error."""
    n_users, n_items, _ = shape
    by_user, grid = make_ratings(*shape), Grid(min(4, n_users, n_items), n_waves=n_waves)
    factors = make_factors(n_users, n_items, n_factors, biases=step.bias_learning_rate > 0)
    implicit, rows = make_implicit(n_items, n_factors), make_rows(n_users, n_items)
    implicit = implicit._replace(regularization=np.float32(strength))
    blocks = make_blocks(by_user, n_items, grid, kernels.group_by, n_threads)
    waves = shuffled_waves(grid, np.random.default_rng(2))
    error = kernels.run_svdpp_epoch(by_user, blocks, waves, factors, implicit, link, step, rows, n_threads)
    whole = np.full_like(factors.user_factors, np.nan)
    kernels.add_implicit(by_user, factors.user_factors, implicit.item_factors, whole, n_threads)
    return [*factors[:4], *rows, *implicit[:2], whole], error


def assert_same(
    found: tuple[list[npt.NDArray[np.float32]], float], expected: tuple[list[npt.NDArray[np.float32]], float]
) -> None:
    for term, expected_term in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-6, atol=3e-5)
    assert found[1] == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("adaptive", [0, 1])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", RATINGS)
def test_epoch(name: str, link: str, adaptive: int, kernels: Kernels, reference: Kernels) -> None:
    # Steps of one size have to be small for a user with hundreds of ratings, or rounding errors grow.
    rate = STEP.learning_rate if adaptive else np.float32(0.01)
    step = STEP._replace(adaptive=np.float32(adaptive), learning_rate=rate)
    problem = RATINGS[name], 8, LINKS[link], step
    assert_same(run(*problem, kernels), run(*problem, reference))


@pytest.mark.parametrize("n_factors", [1, 3, 17, 64, pytest.param(128, marks=pytest.mark.slow)])
def test_epoch_for_any_rank(n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    problem = (60, 40, 1100), n_factors, LINKS["identity"], STEP
    assert_same(run(*problem, kernels), run(*problem, reference))


@pytest.mark.parametrize("n_waves", [1, 2, 64])
def test_epoch_for_any_number_of_waves(n_waves: int, kernels: Kernels, reference: Kernels) -> None:
    problem = (60, 40, 1100), 8, LINKS["identity"], STEP
    assert_same(run(*problem, kernels, n_waves=n_waves), run(*problem, reference, n_waves=n_waves))


def test_without_biases(kernels: Kernels, reference: Kernels) -> None:
    problem = RATINGS["general"], 8, LINKS["sigmoid"], STEP._replace(bias_learning_rate=np.float32(0))
    found = run(*problem, kernels)
    assert not found[0][2].any()
    assert not found[0][3].any()
    assert_same(found, run(*problem, reference))


def flat(factors: Factors, implicit: Implicit) -> npt.NDArray[np.float64]:
    return np.concatenate([np.ravel(term).astype(np.float64) for term in (*factors[:4], implicit.item_factors)])


@pytest.mark.parametrize("link", LINKS)
def test_small_steps_go_down_the_gradient(link: str, kernels: Kernels) -> None:
    """Half the loss of all ratings, differentiated numerically in float64: owes nothing to the reference's formulas."""
    (n_users, n_items), k = (6, 5), 3
    by_user = make_ratings(n_users, n_items, 14)
    users, items, counts = by_user.row_of_each_entry(), by_user.indices, np.diff(by_user.indptr)
    step = STEP._replace(learning_rate=np.float32(2e-3), bias_learning_rate=np.float32(1e-3), adaptive=np.float32(0))
    factors, rows, implicit = make_factors(n_users, n_items, k), make_rows(n_users, n_items), make_implicit(n_items, k)
    sizes = [n_users * k, n_items * k, n_users, n_items, n_items * k]
    low, span = (float(term) for term in LINKS[link])

    def half_loss(x: npt.NDArray[np.float64]) -> float:
        p, q, b_u, b_i, y = np.split(x, np.cumsum(sizes)[:-1])
        p, q, y = p.reshape(-1, k), q.reshape(-1, k), y.reshape(-1, k)
        rated = np.zeros((n_users, n_items))
        np.add.at(rated, (users, items), 1)
        z = rated @ y / np.sqrt(np.maximum(counts, 1))[:, None]
        score = float(factors.global_mean) + b_u[users] + b_i[items] + ((p + z)[users] * q[items]).sum(axis=1)
        prediction = low + span / (1 + np.exp(-score)) if span else score
        user_scales, item_scales = rows.user_scales[users], rows.item_scales[items]
        total = (by_user.values - prediction) ** 2
        total += user_scales * (step.user_regularization * (p[users] ** 2).sum(axis=1))
        total += item_scales * (step.item_regularization * (q[items] ** 2).sum(axis=1))
        total += user_scales * step.user_bias_regularization * b_u[users] ** 2
        total += item_scales * step.item_bias_regularization * b_i[items] ** 2
        total += item_scales * (implicit.regularization * (y[items] ** 2).sum(axis=1))
        return float(total.sum()) / 2

    start = flat(factors, implicit)
    width = 1e-5
    moves = width * np.eye(len(start))
    gradient = np.array([(half_loss(start + move) - half_loss(start - move)) / (2 * width) for move in moves])
    user_roots, item_roots, implicit_roots = map(
        np.sqrt, (rows.user_accumulator, rows.item_accumulator, implicit.item_accumulator)
    )
    rates = np.concatenate(
        [
            np.repeat(2e-3 / user_roots, k),
            np.repeat(2e-3 / item_roots, k),
            1e-3 / user_roots,
            1e-3 / item_roots,
            np.repeat(0.2 * 2e-3 / implicit_roots, k),
        ]
    )
    grid = Grid(2, n_waves=2)
    blocks = make_blocks(by_user, n_items, grid, kernels.group_by)
    waves = shuffled_waves(grid, np.random.default_rng(2))
    kernels.run_svdpp_epoch(by_user, blocks, waves, factors, implicit, LINKS[link], step, rows, None)

    moved = flat(factors, implicit) - start
    np.testing.assert_allclose(moved, -rates * gradient, rtol=0.03, atol=0.03 * np.abs(rates * gradient).max())


def one_user(n_items: int) -> CSR:
    return CSR(np.array([0, n_items]), np.arange(n_items, dtype=np.int32), np.full(n_items, 4, np.float32))


@pytest.mark.parametrize("adaptive", [0, 1])
def test_a_user_of_one_rating_moves_all_by_the_formulas(adaptive: int, kernels: Kernels) -> None:
    by_user, factors, implicit = one_user(1), make_factors(1, 1, 3), make_implicit(1, 3)
    rows, step = first_row_steps(1, 1), STEP._replace(adaptive=np.float32(adaptive))
    (p, q, y), square = (
        (term[0].astype(np.float64) for term in (*factors[:2], implicit.item_factors)),
        implicit.item_accumulator[0],
    )
    error = 4 - float(factors.global_mean + factors.user_biases[0] + factors.item_biases[0] + (p + y) @ q)
    blocks = make_blocks(by_user, 1, Grid(1), kernels.group_by)
    waves = shuffled_waves(Grid(1), np.random.default_rng(0))

    kernels.run_svdpp_epoch(by_user, blocks, waves, factors, implicit, LINKS["identity"], step, rows, None)

    rate = step.learning_rate
    expected = (p + rate * error * q) / (1 + rate * 0.02)
    np.testing.assert_allclose(factors.user_factors[0], expected, atol=1e-6)
    expected = (q + rate * error * (p + y)) / (1 + rate * 0.01)
    np.testing.assert_allclose(factors.item_factors[0], expected, atol=1e-6)
    rate_of_y = 0.2 * rate / np.sqrt(square)
    np.testing.assert_allclose(
        implicit.item_factors[0], (y + rate_of_y * error * q) / (1 + rate_of_y * 0.05), atol=1e-6
    )
    assert rows.user_accumulator[0] == pytest.approx(1 + adaptive * np.mean((error * q) ** 2), rel=1e-5)
    assert rows.item_accumulator[0] == pytest.approx(1 + adaptive * np.mean((error * (p + y)) ** 2), rel=1e-5)
    assert implicit.item_accumulator[0] == pytest.approx(square + adaptive * np.mean((error * q) ** 2), rel=1e-5)


@pytest.mark.parametrize("strength", [30, 1e30])
def test_a_large_strength_shrinks(strength: float, kernels: Kernels, reference: Kernels) -> None:
    step = Step(*np.float32([0.05, 0.05, 1, strength, strength / 2, strength / 3, strength / 4]))
    problem = RATINGS["general"], 17, LINKS["identity"], step
    found = run(*problem, kernels, strength=strength)
    assert_same(found, run(*problem, reference, strength=strength))
    assert all(np.abs(term).max() < 2 for term in (*found[0][:4], found[0][8]))


def test_what_items_meet_of_a_user(kernels: Kernels) -> None:
    by_user = CSR(np.array([0, 3, 3]), np.array([0, 1, 3], np.int32), np.ones(3, np.float32))
    p, y = make_factors(2, 4, 5).user_factors, make_implicit(4, 5).item_factors
    whole = np.full_like(p, np.nan)

    kernels.add_implicit(by_user, p, y, whole, None)

    np.testing.assert_allclose(whole[0], p[0] + (y[0] + y[1] + y[3]) / np.sqrt(3), rtol=1e-5, atol=1e-6)
    assert whole[1].tolist() == p[1].tolist()  # who has rated nothing


@pytest.mark.parametrize("link", LINKS)
def test_same_bits_for_any_threads(link: str, kernels: Kernels) -> None:
    results = []
    for n_threads in (1, 2, None, None):
        terms, error = run((400, 300, 20_000), 17, LINKS[link], STEP, kernels, n_threads=n_threads)
        results.append([*(term.tobytes() for term in terms), error])
    assert results[0] == results[1] == results[2] == results[3]


HASHES = """
import hashlib
import sys

import numpy as np

from fastmf.backend import get_backend
from fastmf_kernels.predict.arrays import Factors, make_link
from fastmf_kernels.sgd.arrays import Step, first_row_steps
from fastmf_kernels.sgd.schedule import Grid, make_blocks, shuffled_waves
from fastmf_kernels.svdpp.arrays import Implicit

kernels = get_backend(sys.argv[1])
for n_threads in (1, 2, 3, 8):
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 500, 30_000).astype(np.int32), rng.integers(0, 400, 30_000).astype(np.int32)
    by_user = kernels.coo_to_csr(users, items, rng.random(30_000, np.float32), 500, n_threads)
    p, q, y = (rng.random((n, 8), np.float32) for n in (500, 400, 400))
    factors = Factors(p, q, np.zeros(500, np.float32), np.zeros(400, np.float32), np.float32(0.5))
    implicit = Implicit(y, np.ones(400, np.float32), np.float32(0.5), np.float32(0.1))
    grid = Grid(8, n_waves=3)
    blocks = make_blocks(by_user, 400, grid, kernels.group_by, n_threads)
    step, rows, waves = Step(*np.full(7, 0.01, np.float32)), first_row_steps(500, 400), shuffled_waves(grid, rng)
    link, whole = make_link((0.0, 1.0)), np.empty_like(p)
    error = kernels.run_svdpp_epoch(by_user, blocks, waves, factors, implicit, link, step, rows, n_threads)
    kernels.add_implicit(by_user, p, y, whole, n_threads)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in (*factors, *rows, *implicit, whole)))
    print(digest.hexdigest(), error)
"""


def test_same_bits_for_more_threads_than_cores(kernels: Kernels, run_python: Callable[..., str]) -> None:
    lines = run_python(HASHES, kernels.name, NUMBA_NUM_THREADS="8").splitlines()
    assert len(lines) == 4
    assert len(set(lines)) == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10**6, 10**5, 10**8), 1525),
        ((10**4, 10**4, 10**6), 16),
        ((1000, 1000, 10**5), 12),
        ((5, 10**5, 10**9), 5),
        ((1000, 1000, 5000), 1),
        ((5, 4, 0), 1),
        ((0, 0, 0), 1),
    ],
)
def test_number_of_waves(shape: tuple[int, int, int], expected: int) -> None:
    assert make_waves(*shape).n_waves == expected


def test_waves_hold_every_block_once_and_share_no_users(kernels: Kernels) -> None:
    grid = Grid(4, n_waves=5)
    blocks = make_blocks(make_ratings(300, 200, 30_000), 200, grid, kernels.group_by)
    waves = shuffled_waves(grid, np.random.default_rng(3))

    assert waves.shape == (5, 4, 4, 1)
    assert waves.dtype == np.int32
    assert sorted(waves.ravel().tolist()) == list(range(5 * 4 * 4))
    assert len(blocks.row_cuts) == 5 * 4 + 1
    for wave in waves:
        rows = np.unique(wave // 4)
        assert rows.tolist() == list(range(rows[0], rows[0] + 4))
        for stratum in wave:
            assert len(set((stratum // 4).ravel())) == len(set((stratum % 4).ravel())) == 4


def test_waves_follow_the_seed() -> None:
    def draw(seed: int) -> bytes:
        return shuffled_waves(Grid(3, n_waves=8), np.random.default_rng(seed)).tobytes()

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
