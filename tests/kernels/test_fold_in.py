"""Folding in by gradient steps: each loss against its reference, and the reference against the minimum of the loss."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from scipy import optimize

from fastmf.backend import Kernels, get_backend
from fastmf_kernels._types import Float64Array
from fastmf_kernels.fold_in import cpu
from fastmf_kernels.fold_in.arrays import Descent, Draws, Folded, Rivals, Weights, make_weights
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link
from tests.kernels.made import LINKS, make_factors, make_ratings

THREADS = (1, 2, None)
# All numbers differ, so that a kernel which confuses two of them is caught.
DESCENT = Descent(5, 0.05, 0.03, 0.9, 1.0, 0.02, 0.04, np.uint64(2**64 - 3))
LOSSES = ("ratings", "ratings in a range", "choices", "user pairs", "item pairs")
each_loss = pytest.mark.parametrize("loss", LOSSES)


class Problem(NamedTuple):
    """Ratings of users, of which those of items are the transpose, and how rows of either are folded in."""

    ratings: CSR
    factors: Factors
    n_negatives: int = 3
    descent: Descent = DESCENT
    # For each item, how often it is drawn.
    weights: tuple[int, ...] = ()

    def weights_of_items(self) -> Weights:
        n_items = len(self.factors.item_factors)
        return make_weights(np.append(0, np.cumsum(self.weights or np.ones(n_items, np.int64))).astype(np.int64))


def make_problem(shape: tuple[int, int, int] = (30, 40, 400), n_factors: int = 8) -> Problem:
    n_users, n_items, _ = shape
    return Problem(ascending(make_ratings(*shape), n_items), make_factors(n_users, n_items, n_factors))


def ascending(rows: CSR, n_columns: int) -> CSR:
    transpose = get_backend("reference").transpose
    return transpose(transpose(rows, n_columns, None), len(rows.indptr) - 1, None)


def run(kernels: Kernels, loss: str, problem: Problem, n_threads: int | None = None, rows: CSR | None = None) -> Folded:
    ratings, factors, n_negatives, descent, _ = problem
    users = kernels.fix(factors.user_factors, factors.user_biases)
    items = kernels.fix(factors.item_factors, factors.item_biases)
    if rows is None:
        n_items = len(factors.item_factors)
        rows = get_backend("reference").transpose(ratings, n_items, None) if loss == "item pairs" else ratings
    counts = np.diff(rows.indptr)
    scales = (1 / np.sqrt(1 + counts)).astype(np.float32)
    draws = Draws(problem.weights_of_items(), n_negatives * counts + (counts > 0))
    if loss.startswith("ratings"):
        link, mean = (LINKS["identity"], 2.5) if loss == "ratings" else (LINKS["sigmoid"], 0.4)
        base = np.linspace(-0.3, 0.3, items.n_factors, dtype=np.float32) * np.ones((len(counts), 1), np.float32)
        return kernels.fold_in_ratings(rows, items, base, mean, link, descent, scales, n_threads)
    if loss == "choices":
        return kernels.fold_in_choices(rows, items, -0.7, descent, scales, draws, n_threads)
    if loss == "user pairs":
        return kernels.fold_in_user_pairs(rows, items, descent, scales, draws, n_threads)
    rivals = Rivals(items, ratings.indptr, ratings.indices, problem.weights_of_items(), n_negatives)
    draws = Draws(make_weights(ratings.indptr), np.full(len(counts), 40))
    return kernels.fold_in_item_pairs(rows, users, rivals, descent, scales, draws, n_threads)


def assert_same(found: Folded, expected: Folded) -> None:
    for array, expected_array in zip(found, expected, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected_array, rtol=1e-5, atol=1e-5)


@each_loss
@pytest.mark.parametrize("shape", [(30, 40, 400), (1, 50, 20), (30, 1, 15), (1, 1, 1)])
def test_fold_in(shape: tuple[int, int, int], loss: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem(shape)
    expected = run(reference, loss, problem)
    assert expected.factors.any() or shape[1] == 1
    assert_same(run(kernels, loss, problem), expected)


@each_loss
@pytest.mark.parametrize("n_factors", [1, 17, 64])
def test_for_any_rank(n_factors: int, loss: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem((12, 15, 90), n_factors)
    assert_same(run(kernels, loss, problem), run(reference, loss, problem))


@each_loss
def test_steps_of_one_size(loss: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem()._replace(descent=DESCENT._replace(adaptive=0.0))
    assert_same(run(kernels, loss, problem), run(reference, loss, problem))


@each_loss
@pytest.mark.parametrize("n_threads", THREADS)
def test_same_bits_for_any_threads(
    n_threads: int | None, loss: str, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem()
    expected = run(kernels, loss, problem, 1)
    monkeypatch.setattr(cpu, "_STEPS_OF_A_TASK", 10)
    for found, array in zip(run(kernels, loss, problem, n_threads), expected, strict=True):
        np.testing.assert_array_equal(found, array)


@each_loss
def test_a_row_does_not_depend_on_the_others(loss: str, kernels: Kernels) -> None:
    problem = make_problem()
    together = run(kernels, loss, problem)
    rows = problem.ratings
    if loss == "item pairs":
        rows = get_backend("reference").transpose(rows, 40, None)
    for r in (0, 3, 11):
        entries = slice(rows.indptr[r], rows.indptr[r + 1])
        row = CSR(rows.indptr[r : r + 2] - rows.indptr[r], rows.indices[entries], rows.values[entries])
        alone = run(kernels, loss, problem, rows=row)
        np.testing.assert_array_equal(alone.factors[0], together.factors[r])
        assert alone.biases[0] == together.biases[r]


@each_loss
def test_rows_without_entries_are_0(loss: str, kernels: Kernels, reference: Kernels) -> None:
    empty = CSR(np.zeros(4, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    nothing = CSR(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    for variant in (kernels, reference):
        folded = run(variant, loss, make_problem(), rows=empty)
        assert folded.factors.shape == (3, 8)
        assert not folded.factors.any()
        assert not folded.biases.any()
        assert run(variant, loss, make_problem(), rows=nothing).factors.shape == (0, 8)


@pytest.mark.parametrize(
    "counts", [[1], [3, 0, 1], [0, 0, 700, 0, 5, 0], [1] * 9, [0, 0], [0] * 50 + [1000] + [0] * 50]
)
def test_a_column_is_found_between_two_entries_of_the_guide(counts: list[int]) -> None:
    weights = make_weights(np.append(0, np.cumsum(counts)))
    columns = np.repeat(np.arange(len(counts)), counts)
    near = np.arange(len(columns)) >> weights.shift
    assert (weights.guide[near] <= columns).all()
    assert (columns <= weights.guide[near + 1]).all()
    assert len(weights.guide) <= 2 * len(counts) + 2


@pytest.mark.parametrize("loss", LOSSES[2:])
def test_columns_of_very_different_weights(loss: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem()._replace(weights=tuple(1 + 500 * (n % 7 == 0) for n in range(40)))
    assert problem.weights_of_items().shift > 0
    assert_same(run(kernels, loss, problem), run(reference, loss, problem))


@pytest.mark.parametrize("loss", LOSSES[2:])
@pytest.mark.parametrize("n_items", [63, 64, 65, 200])
def test_rows_of_every_second_column(n_items: int, loss: str, kernels: Kernels, reference: Kernels) -> None:
    """The second row draws what the first has, and the other way round."""
    columns = np.arange(n_items, dtype=np.int32)
    indices = np.concatenate([columns[0::2], columns[1::2]])
    ratings = CSR(np.array([0, (n_items + 1) // 2, n_items]), indices, np.ones(n_items, np.float32))
    problem = Problem(ratings, make_factors(2, n_items, 8))
    assert_same(run(kernels, loss, problem, 1), run(reference, loss, problem))


@pytest.mark.parametrize("loss", LOSSES[2:])
def test_what_has_no_weight_is_never_drawn(loss: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem()
    weights = np.arange(40) % 3
    kept = weights[problem.ratings.indices] > 0
    counts = np.append(0, np.cumsum(kept))[problem.ratings.indptr]
    ratings = CSR(counts, problem.ratings.indices[kept], problem.ratings.values[kept])
    factors = problem.factors._replace(item_factors=problem.factors.item_factors.copy())
    factors.item_factors[weights == 0] = np.nan
    problem = problem._replace(ratings=ratings, factors=factors, weights=tuple(weights.tolist()))
    for variant in (kernels, reference):
        assert np.isfinite(run(variant, loss, problem).factors).all()


@pytest.mark.parametrize("loss", ["choices", "user pairs"])
def test_a_user_who_has_chosen_all_items(loss: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem((1, 5, 1))
    everything = CSR(np.array([0, 5]), np.arange(5, dtype=np.int32), np.ones(5, np.float32))
    found = run(kernels, loss, problem, rows=everything)
    assert_same(found, run(reference, loss, problem, rows=everything))
    # There is nothing to compare with: the logistic loss still has the choices.
    assert found.factors.any() == (loss == "choices")


def test_one_step_by_hand(kernels: Kernels, reference: Kernels) -> None:
    factors = np.array([[3, 4]], np.float32)
    one = CSR(np.array([0, 1]), np.zeros(1, np.int32), np.array([5], np.float32))
    descent = Descent(1, 0.1, 0.2, 1.0, 1.0, 2.0, 3.0, np.uint64(1))
    for variant in (kernels, reference):
        fixed = variant.fix(factors, np.array([0.5], np.float32))
        base, scales = np.zeros((1, 2), np.float32), np.full(1, 0.5, np.float32)
        folded = variant.fold_in_ratings(one, fixed, base, 2.0, LINKS["identity"], descent, scales, None)
        # e = 5 - 2 - 0.5; λ and λ_b are halved.
        np.testing.assert_allclose(folded.factors, [[0.1 * 2.5 * 3 / 1.1, 0.1 * 2.5 * 4 / 1.1]], rtol=1e-6)
        np.testing.assert_allclose(folded.biases, [0.2 * 2.5 / 1.3], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e15, 1e25])
@pytest.mark.parametrize("adaptive", [0.0, 1.0])
def test_huge_and_tiny_ratings(size: float, adaptive: float, kernels: Kernels, reference: Kernels) -> None:
    ratings = make_problem().ratings
    ratings = ratings._replace(values=ratings.values * np.float32(size))
    problem = make_problem()._replace(ratings=ratings, descent=DESCENT._replace(adaptive=adaptive))
    found, expected = run(kernels, "ratings", problem), run(reference, "ratings", problem)
    assert np.isfinite(found.factors).all()
    np.testing.assert_allclose(found.factors, expected.factors, rtol=1e-3, atol=1e-4 * np.abs(expected.factors).max())


# Many small steps end at the minimum


def minimum(objective: Callable[[Float64Array], float], n_factors: int) -> Float64Array:
    return np.asarray(optimize.minimize(objective, np.zeros(n_factors + 1), tol=1e-10).x)


def cross_entropy(scores: Float64Array) -> Float64Array:
    return np.asarray(np.logaddexp(0, -scores))


@pytest.mark.parametrize("link", LINKS)
def test_ratings_end_at_the_minimum(link: str, kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    q, biases = rng.standard_normal((30, 3)).astype(np.float32), rng.standard_normal(30).astype(np.float32) / 4
    r = rng.integers(1, 6, 30).astype(np.float32)
    descent = Descent(4000, 0.1, 0.1, 0.9985, 0.1, 0.3, 0.1, np.uint64(5))
    mean, scale = (3.0 if link == "identity" else 0.2), 0.4

    def objective(x: Float64Array) -> float:
        score = mean + biases + q @ x[:-1] + x[-1]
        low, span = map(float, LINKS[link])
        r_hat = low + span / (1 + np.exp(-score)) if span else score
        penalty = 0.3 * x[:-1] @ x[:-1] + 0.1 * x[-1] ** 2
        return float(((r - r_hat) ** 2).sum() + scale * 30 * penalty)

    rows = CSR(np.array([0, 30]), np.arange(30, dtype=np.int32), r)
    folded = fold_one(kernels, rows, q, biases, mean, LINKS[link], descent, scale)
    expected = minimum(objective, 3)
    np.testing.assert_allclose(folded, expected, atol=0.01 * np.abs(expected).max())
    slopes = optimize.approx_fprime(folded, objective), optimize.approx_fprime(np.zeros(4), objective)
    assert np.abs(slopes[0]).max() < 0.02 * np.abs(slopes[1]).max()


def fold_one(
    kernels: Kernels,
    rows: CSR,
    q: "np.typing.NDArray[np.float32]",
    biases: "np.typing.NDArray[np.float32]",
    mean: float,
    link: Link,
    descent: Descent,
    scale: float,
) -> Float64Array:
    """Fold one row in from ratings; returns its factors and its bias."""
    base, scales = np.zeros((1, q.shape[1]), np.float32), np.full(1, scale, np.float32)
    folded = kernels.fold_in_ratings(rows, kernels.fix(q, biases), base, mean, link, descent, scales, None)
    return np.append(folded.factors[0], folded.biases[0]).astype(np.float64)


@pytest.mark.parametrize("loss", ["choices", "user pairs"])
def test_choices_end_at_the_minimum(loss: str, kernels: Kernels) -> None:
    rng = np.random.default_rng(1)
    q, biases = rng.standard_normal((20, 3)).astype(np.float32), rng.standard_normal(20).astype(np.float32) / 4
    chosen, others = np.arange(0, 20, 3), np.setdiff1d(np.arange(20), np.arange(0, 20, 3))
    n_drawn, scale, strength = 2 * len(chosen), 0.5, 0.2
    descent = Descent(6000, 0.1, 0.1 if loss == "choices" else 0.0, 0.999, 0.1, strength, 0.1, np.uint64(5))

    def objective(x: Float64Array) -> float:
        score = biases + q @ x[:-1] + x[-1]
        penalty = strength * x[:-1] @ x[:-1] + 0.1 * x[-1] ** 2
        if loss == "choices":
            errors = cross_entropy(score[chosen]).sum() + n_drawn * cross_entropy(-score[others]).mean()
            return float(errors + 0.5 * scale * (len(chosen) + n_drawn) * penalty)
        pairs = cross_entropy(score[chosen][:, None] - score[others][None, :])
        return float(n_drawn * pairs.mean() + 0.5 * scale * n_drawn * penalty)

    rows = CSR(np.array([0, len(chosen)]), chosen.astype(np.int32), np.ones(len(chosen), np.float32))
    draws, scales = Draws(make_weights(np.arange(21)), np.array([n_drawn])), np.full(1, scale, np.float32)
    fixed = kernels.fix(q, biases)
    if loss == "choices":
        folded = kernels.fold_in_choices(rows, fixed, 0.0, descent, scales, draws, None)
    else:
        folded = kernels.fold_in_user_pairs(rows, fixed, descent, scales, draws, None)
    expected = minimum(objective, 3)
    np.testing.assert_allclose(folded.factors[0], expected[:-1], atol=0.03 * np.abs(expected).max())
    assert folded.biases[0] == pytest.approx(expected[-1], abs=0.03)


def test_item_pairs_end_at_the_minimum(kernels: Kernels) -> None:
    rng = np.random.default_rng(2)
    p, q = (rng.standard_normal((12, 3)).astype(np.float32) for _ in range(2))
    biases = rng.standard_normal(12).astype(np.float32) / 4
    # User u has chosen the items u and u + 1; the new item is chosen by the users 0, 3, 6 and 9.
    indptr = np.arange(0, 25, 2)
    indices = np.sort((np.arange(12)[:, None] + [0, 1]) % 12, axis=1).ravel().astype(np.int32)
    users = np.arange(0, 12, 3)
    n_drawn, scale, strength = 10, 0.5, 0.2
    descent = Descent(6000, 0.1, 0.1, 0.999, 0.1, strength, 0.1, np.uint64(5))
    scores = p.astype(np.float64) @ q.T + biases
    has_chosen = np.zeros((12, 12), bool)
    has_chosen[np.repeat(np.arange(12), 2), indices] = True

    def objective(x: Float64Array) -> float:
        score = p @ x[:-1] + x[-1]
        above = cross_entropy(score[:, None] - scores)
        others = np.setdiff1d(np.arange(12), users)
        below = cross_entropy(scores[others] - score[others, None])[has_chosen[others]]
        errors = 3 * sum(above[u][~has_chosen[u]].mean() for u in users) + n_drawn * below.mean()
        penalty = strength * x[:-1] @ x[:-1] + 0.1 * x[-1] ** 2
        return float(errors + 0.5 * scale * (3 * len(users) + n_drawn) * penalty)

    rivals = Rivals(kernels.fix(q, biases), indptr, indices, make_weights(np.arange(13)), 3)
    folded = kernels.fold_in_item_pairs(
        CSR(np.array([0, 4]), users.astype(np.int32), np.ones(4, np.float32)),
        kernels.fix(p, np.zeros(12, np.float32)),
        rivals,
        descent,
        np.full(1, scale, np.float32),
        Draws(make_weights(indptr), np.array([n_drawn])),
        None,
    )
    expected = minimum(objective, 3)
    np.testing.assert_allclose(folded.factors[0], expected[:-1], atol=0.03 * np.abs(expected).max())
    assert folded.biases[0] == pytest.approx(expected[-1], abs=0.03)
