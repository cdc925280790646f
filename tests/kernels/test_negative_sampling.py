"""SGD beside drawn items: the epochs against their reference, the steps against the gradient, and what is drawn."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf.testing import from_indices, power_law
from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.negative_sampling.arrays import Ranked, Sampling
from fastmf_kernels.predict.arrays import Factors
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.schedule import Blocks, Grid, make_blocks, make_grid, shuffled_strata

STEP = Step(*(np.float32(term) for term in (0.05, 0.03, 1, 0.02, 0.01, 0.04, 0.06)))
KEY = np.uint64(2**64 - 3)
SHAPES = {"general": (60, 40, 500), "one item": (30, 1, 15), "two items": (30, 2, 25), "one user": (1, 50, 20)}
each_loss = pytest.mark.parametrize("loss", ["bpr", "logistic"])


def make_factors(n_users: int, n_items: int, n_factors: int) -> Factors:
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> Float32Array:
        return rng.standard_normal(shape, np.float32) * np.float32(0.4)

    return Factors(
        normal(n_users, n_factors), normal(n_items, n_factors), normal(n_users), normal(n_items), np.float32(-0.7)
    )


def make_rows(n_users: int, n_items: int) -> RowSteps:
    rng = np.random.default_rng(9)
    return RowSteps(*(1 + rng.random(n, np.float32) for n in (n_users, n_items, n_users, n_items)))


def run(
    kernels: Kernels,
    loss: str,
    shape: tuple[int, int, int],
    n_factors: int = 8,
    n_negatives: int = 3,
    step: Step = STEP,
    grid: Grid | None = None,
    n_threads: int | None = None,
) -> tuple[list[Float32Array], Ranked]:
    n_users, n_items, n_ratings = shape
    ratings = power_law(n_users, n_items, n_ratings).by_user
    grid = grid or make_grid(*shape, width=2)
    blocks = make_blocks(ratings, n_items, grid, kernels.group_by, n_threads)
    factors, rows = make_factors(n_users, n_items, n_factors), make_rows(n_users, n_items)
    sampling = Sampling(ratings.indptr, ratings.indices, n_negatives, KEY)
    strata = shuffled_strata(grid, np.random.default_rng(2))
    run_epoch = kernels.run_bpr_epoch if loss == "bpr" else kernels.run_logistic_epoch
    ranked = run_epoch(blocks, strata, factors, step, rows, sampling, n_threads)
    return [*factors[:4], *rows], ranked


def assert_same(found: tuple[list[Float32Array], Ranked], expected: tuple[list[Float32Array], Ranked]) -> None:
    for term, expected_term in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-6, atol=2e-5)
    assert found[1] == expected[1]


@each_loss
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_epoch(shape: tuple[int, int, int], loss: str, kernels: Kernels, reference: Kernels) -> None:
    assert_same(run(kernels, loss, shape), run(reference, loss, shape))


@each_loss
@pytest.mark.parametrize("n_factors", [1, 17, 64])
def test_epoch_for_any_rank(n_factors: int, loss: str, kernels: Kernels, reference: Kernels) -> None:
    arguments = (loss, (60, 40, 500), n_factors, 1)
    assert_same(run(kernels, *arguments), run(reference, *arguments))


@each_loss
def test_epoch_in_blocks(loss: str, kernels: Kernels, reference: Kernels) -> None:
    step = STEP._replace(adaptive=np.float32(0), bias_learning_rate=np.float32(0))
    arguments = (loss, (60, 40, 900), 8, 2, step, Grid(5, 2))
    assert_same(run(kernels, *arguments), run(reference, *arguments))


@each_loss
@pytest.mark.parametrize("strength", [30, 1e30])
def test_a_large_strength_shrinks(strength: float, loss: str, kernels: Kernels, reference: Kernels) -> None:
    step = Step(*np.float32([0.5, 0.5, 1, strength, strength / 2, strength / 3, strength / 4]))
    arguments = loss, (60, 40, 500), 17, 3, step
    found = run(kernels, *arguments)
    expected = run(reference, *arguments)
    for term, expected_term in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(term, expected_term, rtol=3e-6, atol=2e-5)
    assert found[1].n_pairs == expected[1].n_pairs  # which scores are right is a matter of rounding: all are near 0
    assert all(np.abs(term).max() < 2 for term in found[0][:4])


@each_loss
def test_same_bits_for_any_threads(loss: str, kernels: Kernels) -> None:
    results = [
        run(kernels, loss, (200, 150, 6000), grid=Grid(6, 2), n_threads=n_threads) for n_threads in (1, 2, None, 1)
    ]
    first = [term.tobytes() for term in results[0][0]]
    for terms, ranked in results[1:]:
        assert [term.tobytes() for term in terms] == first
        assert ranked == results[0][1]


@each_loss
def test_steps_go_down_the_gradient(loss: str, kernels: Kernels, reference: Kernels) -> None:
    """One rating and one item drawn beside it: small steps are the gradient, differentiated numerically."""
    cuts, step = np.array([0, 1]), STEP._replace(learning_rate=np.float32(1e-3), bias_learning_rate=np.float32(2e-3))
    blocks = Blocks(
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
        np.ones(1, np.float32),
        np.array([0, 1, 1]),
        cuts,
        np.array([0, 1, 2]),
    )
    sampling = Sampling(np.array([0, 1]), np.zeros(1, np.int32), 1, KEY)
    before = make_factors(1, 2, 3)
    ones = RowSteps(*(np.ones(n, np.float32) for n in (1, 2, 1, 2)))
    start = np.concatenate([np.ravel(term).astype(np.float64) for term in before[:4]])
    strengths = np.repeat([float(strength) for strength in STEP[3:]], [3, 6, 1, 2])

    def sum_of_losses(x: np.ndarray) -> float:
        p, q, b_u, b_i = x[:3], x[3:9].reshape(2, 3), x[9], x[10:]
        scores = b_i + q @ p
        if loss == "bpr":
            times, losses = np.repeat([1, 1, 0, 1], [3, 6, 1, 2]), np.log1p(np.exp(scores[1] - scores[0]))
        else:  # the user's penalty is paid in both steps
            scores = scores + b_u + float(before.global_mean)
            times = np.repeat([2, 1, 2, 1], [3, 6, 1, 2])
            losses = np.log1p(np.exp(-scores[0])) + np.log1p(np.exp(scores[1]))
        return float(losses + (times * strengths) @ x**2 / 2)

    width = 1e-5
    slopes = [(sum_of_losses(start + width * e) - sum_of_losses(start - width * e)) / (2 * width) for e in np.eye(12)]
    rates = np.repeat([1e-3, 2e-3], [9, 3])
    for variant in (kernels, reference):
        factors = Factors(*(term.copy() for term in before[:4]), before.global_mean)
        run_epoch = variant.run_bpr_epoch if loss == "bpr" else variant.run_logistic_epoch
        rows = RowSteps(*(term.copy() for term in ones))
        ranked = run_epoch(blocks, np.array([[[0, 1]]], np.int32), factors, step, rows, sampling, None)
        after = np.concatenate([np.ravel(term).astype(np.float64) for term in factors[:4]])
        np.testing.assert_allclose(after - start, -rates * slopes, rtol=0, atol=1e-5)
        assert ranked.n_pairs == 1


def drawn_counts(kernels: Kernels, ratings: CSR, n_items: int, n_epochs: int) -> tuple[Float32Array, int]:
    """Count how often each item was drawn, and all draws, by the biases, which a pair moves by half a step each."""
    n_users, grid = len(ratings.indptr) - 1, make_grid(len(ratings.indptr) - 1, n_items, len(ratings.indices), width=2)
    blocks, rng, rate = make_blocks(ratings, n_items, grid, kernels.group_by), np.random.default_rng(0), 1e-4
    drawn, n_pairs = np.zeros(n_items, np.float32), 0
    for _ in range(n_epochs):
        factors = Factors(*(np.zeros(shape, np.float32) for shape in ((n_users, 1), (n_items, 1), n_users, n_items)), 0)
        sampling = Sampling(ratings.indptr, ratings.indices, 1, rng.integers(2**64, dtype=np.uint64))
        step = Step(*(np.float32(term) for term in (0, rate, 0, 0, 0, 0, 0)))
        rows = RowSteps(*(np.ones(n, np.float32) for n in (n_users, n_items, n_users, n_items)))
        ranked = kernels.run_bpr_epoch(blocks, shuffled_strata(grid, rng), factors, step, rows, sampling, None)
        n_pairs += ranked.n_pairs
        drawn += np.bincount(ratings.indices, minlength=n_items) - factors.item_biases / np.float32(rate / 2)
    return drawn, n_pairs


@pytest.mark.slow
def test_items_are_drawn_about_evenly(kernels: Kernels) -> None:
    ratings = power_law(400, 30, 1200).by_user
    missing = [
        ~np.isin(np.arange(30), ratings.indices[a:b]) * (b - a) for a, b in itertools.pairwise(ratings.indptr.tolist())
    ]
    share = drawn_counts(kernels, ratings, 30, 100)[0] / np.sum(missing, axis=0)
    np.testing.assert_allclose(share, share.mean(), rtol=0.5)


def test_an_item_that_was_rated_is_never_drawn(kernels: Kernels) -> None:
    """A user has rated all of 20 items but the first: no other is ever drawn."""
    ratings = from_indices(np.zeros(19, np.int64), np.arange(1, 20), np.ones(19), 1, 20).by_user
    drawn, n_pairs = drawn_counts(kernels, ratings, 20, 50)
    assert n_pairs > 300
    assert drawn[0] == pytest.approx(n_pairs, abs=0.5)


BITS = """
import hashlib
import sys

import numpy as np

import fastmf

ratings = fastmf.testing.power_law(300, 200, 9000)
for n_threads in (1, 2, 3, 8, 8):
    found = []
    for model in (fastmf.BPR, fastmf.SGD):
        extra = {"loss": "logistic"} if model is fastmf.SGD else {}
        fitted = model(n_factors=5, n_epochs=2, n_threads=n_threads, backend=sys.argv[1], **extra).fit(ratings)
        found += [fitted.user_factors, fitted.item_factors, fitted.user_biases, fitted.item_biases]
    print(hashlib.sha256(b"".join(array.tobytes() for array in found)).hexdigest())
"""


def test_same_bits_for_more_threads_than_cores(kernels: Kernels, run_python: Callable[..., str]) -> None:
    lines = run_python(BITS, kernels.name, NUMBA_NUM_THREADS="8").splitlines()
    assert len(lines) == 5
    assert len(set(lines)) == 1
