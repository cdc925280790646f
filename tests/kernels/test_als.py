"""ALS half sweeps against the float64 reference, and the reference against the least-squares problem itself."""

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import EXACTLY, NOTHING_ADDED, HalfSweep, Solver, Weighting, longest_row
from fastmf_kernels.als.cpu.balance import cut_into_tasks
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors

THREADS = (1, 2, 3, 8, None)
SOLVERS = {
    "exact": EXACTLY,
    "cg": Solver("cg", 3),
    "subspace": Solver("subspace", 16),
    "subspace, one block": Solver("subspace", 500),
    "nonnegative": Solver("nonnegative", 0),
    "nonnegative but for a bias": Solver("nonnegative", 1),
}
COUNTS = {
    "random": np.random.default_rng(0).integers(0, 40, 150),
    "empty rows": np.array([0, 0, 5, 0, 30, 0]),
    "one heavy row": np.array([3] * 40 + [5000] + [2] * 40),
    "one row": np.array([9]),
    "nothing observed": np.zeros(4, np.int64),
    "no rows": np.zeros(0, np.int64),
    "batches of every length": np.arange(1, 35),
}


def explicit(rng: np.random.Generator, fixed_factors: Float32Array) -> tuple[Float32Array, Float32Array, Weighting]:
    """Ratings less a mean of 3 and less the biases of the fixed side; a missing cell contributes nothing."""
    n_fixed, n_factors = fixed_factors.shape
    offsets = rng.standard_normal(n_fixed, np.float32)
    return np.zeros((n_factors, n_factors), np.float32), offsets, weighting(1, 0, -3, 1)


def rendle(rng: np.random.Generator, fixed_factors: Float32Array) -> tuple[Float32Array, Float32Array, Weighting]:
    """Weight and target of an observed cell are 1; all cells together weigh 0.1."""
    return 0.1 * gram(fixed_factors), np.zeros(len(fixed_factors), np.float32), weighting(1, 0, 1, 0)


def hu(rng: np.random.Generator, fixed_factors: Float32Array) -> tuple[Float32Array, Float32Array, Weighting]:
    """A cell weighs 1, and 1 + 2·r where it was observed."""
    return gram(fixed_factors), np.zeros(len(fixed_factors), np.float32), weighting(0, 2, 1, 2)


def disliked(rng: np.random.Generator, fixed_factors: Float32Array) -> tuple[Float32Array, Float32Array, Weighting]:
    """A cell weighs 1, and 1 + 2·|r| where it was observed; negative values are dislikes."""
    return gram(fixed_factors), np.zeros(len(fixed_factors), np.float32), weighting(0, 2, 1, 2, 0)


WEIGHTINGS = {"explicit": explicit, "rendle": rendle, "hu": hu, "disliked": disliked}


def weighting(*terms: float) -> Weighting:
    return Weighting(*(np.float32(term) for term in terms))


def gram(factors: Float32Array) -> Float32Array:
    return (factors.astype(np.float64).T @ factors).astype(np.float32)


def make_problem(
    counts: np.ndarray,
    n_factors: int,
    kind: str = "explicit",
    regularization: float = 0.1,
    n_fixed: int = 200,
    seed: int = 0,
) -> HalfSweep:
    """Values from 1 to 5, with ``counts[u]`` of them in row u; the strength grows with u, so that rows differ in it."""
    rng = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    indices = [rng.choice(n_fixed, count, replace=count > n_fixed) for count in counts]
    values = rng.integers(1, 6, indptr[-1]).astype(np.float32)
    if kind == "disliked":  # some of each row, but for its first entry: of dislikes alone the solution is 0
        firsts = indptr[:-1][np.diff(indptr) > 0]
        values *= np.where(np.isin(np.arange(len(values)), firsts) | (values > 2), 1, -1).astype(np.float32)
    rows = CSR(indptr, np.concatenate([np.zeros(0), *indices]).astype(np.int32), values)
    fixed_factors = rng.standard_normal((n_fixed, n_factors), np.float32)
    matrix, offsets, weights = WEIGHTINGS[kind](rng, fixed_factors)
    strengths = np.linspace(regularization, 3 * regularization, len(counts)).astype(np.float32)
    return HalfSweep(rows, fixed_factors, offsets, matrix, strengths, weights)


def start(problem: HalfSweep) -> Float32Array:
    """Factors to improve."""
    shape = len(problem.rows.indptr) - 1, problem.fixed_factors.shape[1]
    return np.float32(0.1) * np.random.default_rng(7).standard_normal(shape, np.float32)


def solve(kernels: Kernels, problem: HalfSweep, n_threads: int | None = None, solver: Solver = EXACTLY) -> Float32Array:
    # Where a solver does not start from what is there, NaN: the solution must not depend on it.
    improves = solver.name in ("cg", "subspace")
    solution = start(problem) if improves else np.full_like(start(problem), np.nan)
    losses = kernels.run_half_sweep(problem, solution, n_threads, solver)
    assert losses.dtype == np.float64
    return solution


def relative_error(solution: Float32Array, expected: Float32Array) -> float:
    """Largest error of a row relative to its length."""
    errors = np.linalg.norm(solution.astype(np.float64) - expected, axis=1)
    return float(np.max(errors / np.maximum(np.linalg.norm(expected, axis=1), 1e-30), initial=0))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", WEIGHTINGS)
@pytest.mark.parametrize("name", COUNTS)
def test_half_sweep(name: str, kind: str, solver: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem(COUNTS[name], 8, kind)
    solution = solve(kernels, problem, solver=SOLVERS[solver])
    assert relative_error(solution, solve(reference, problem, solver=SOLVERS[solver])) < 2e-4


def pulled(problem: HalfSweep) -> HalfSweep:
    """Return a problem whose rows are pulled to means, all of different lengths."""
    shape = len(problem.regularization), problem.fixed_factors.shape[1]
    means = 5 * np.random.default_rng(1).standard_normal(shape, np.float32)
    return problem._replace(added=problem.regularization[:, None] * means)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", WEIGHTINGS)
@pytest.mark.parametrize("n_factors", [5, 16, 40])
def test_rows_are_pulled_to_means(n_factors: int, kind: str, solver: str, kernels: Kernels, reference: Kernels) -> None:
    problem = pulled(make_problem(np.array([3, 0, 1, 50, 200, 9000]), n_factors, kind, regularization=1.0))
    found, expected = start(problem), start(problem)
    losses = kernels.run_half_sweep(problem, found, None, SOLVERS[solver])
    expected_losses = reference.run_half_sweep(problem, expected, None, SOLVERS[solver])
    assert relative_error(found, expected) < 2e-4
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4, atol=1e-2)
    assert not np.allclose(found, solve(kernels, problem._replace(added=NOTHING_ADDED), solver=SOLVERS[solver]))


def test_a_strong_pull_gives_the_mean(kernels: Kernels) -> None:
    problem = pulled(make_problem(np.array([1, 3, 20]), 6, regularization=1e8))
    np.testing.assert_allclose(solve(kernels, problem), problem.added / problem.regularization[:, None], rtol=1e-4)


@pytest.mark.parametrize("solver", ["exact", "cg", "subspace"])
@pytest.mark.parametrize("kind", WEIGHTINGS)
@pytest.mark.parametrize("n_factors", [1, 3, 8, 15, 16, 17, 33, 64, 100, 128, 256])
def test_float32_error(n_factors: int, kind: str, solver: str, kernels: Kernels, reference: Kernels) -> None:
    # Strengths of 1 to 3 in a matrix of about 150: a condition number of a few hundred, times float32's 6e-8.
    counts = np.random.default_rng(1).integers(1, 150, 40)
    problem = make_problem(counts, n_factors, kind, regularization=1.0, n_fixed=300)
    solution = solve(kernels, problem, solver=SOLVERS[solver])
    assert relative_error(solution, solve(reference, problem, solver=SOLVERS[solver])) < 1e-4


@pytest.mark.parametrize("n_factors", [8, 64, 128, 256])
def test_float32_error_of_a_long_row(n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    """Errors of 100 000 terms do not add up: they are summed in parts."""
    problem = make_problem(np.array([100_000]), n_factors, regularization=1.0, n_fixed=3000)
    assert relative_error(solve(kernels, problem), solve(reference, problem)) < 1e-5


@pytest.mark.parametrize("solver", ["cg", "subspace"])
def test_rows_too_long_to_keep_at_hand_are_solved_exactly(solver: str, kernels: Kernels, reference: Kernels) -> None:
    longest = longest_row(300)
    assert longest < 3800 < 4096  # neither kept nor cut into parts
    problem = make_problem(np.array([longest, 3800]), 300, regularization=10.0, n_fixed=1000)
    kept, longer = solve(kernels, problem, solver=SOLVERS[solver])
    exact = solve(reference, problem)
    assert relative_error(longer[None], exact[1:]) < 1e-4
    assert relative_error(kept[None], exact[:1]) > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_losses_are_those_of_the_solution(kind: str, solver: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem(COUNTS["one heavy row"], 17, kind)
    for variant in (kernels, reference):
        solution = start(problem)
        losses = variant.run_half_sweep(problem, solution, None, SOLVERS[solver])
        # Steps from a bad start take a large loss down to a small one.
        allowed = 1e-5 * (1 + np.abs(objective(problem, solution)) + np.abs(objective(problem, start(problem))))
        assert (np.abs(losses - objective(problem, solution)) < allowed).all()


def objective(problem: HalfSweep, factors: Float32Array) -> Float64Array:
    """xᵀ(G + λI)x + Σ w(q·x)² - 2 Σ t(q·x) of each row."""
    x, rows, weights = factors.astype(np.float64), problem.rows, problem.weighting
    row, values = rows.row_of_each_entry(), rows.values.astype(np.float64)
    score = np.einsum("nf,nf->n", problem.fixed_factors[rows.indices].astype(np.float64), x[row])
    target = np.where(values < weights.disliked_below, 0, weights.target + weights.target_slope * values)
    target = target - problem.fixed_offsets[rows.indices]
    terms = (weights.weight + weights.weight_slope * np.abs(values)) * score**2 - 2 * target * score
    everywhere = np.einsum("rf,fg,rg->r", x, problem.gram.astype(np.float64), x)
    penalty = problem.regularization * (x**2).sum(axis=1)
    return np.asarray(np.bincount(row, terms, minlength=len(x)) + everywhere + penalty)


@pytest.mark.parametrize(("solver", "n_sweeps"), [(Solver("cg", 2), 60), (Solver("subspace", 16), 60)])
@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_solvers_that_improve_end_at_the_exact_solution(
    kind: str, solver: Solver, n_sweeps: int, kernels: Kernels, reference: Kernels
) -> None:
    problem = make_problem(COUNTS["random"], 20, kind, regularization=2.0)
    solution = start(problem)
    before = kernels.run_half_sweep(problem, solution, None, solver)
    for _ in range(n_sweeps):
        losses = kernels.run_half_sweep(problem, solution, None, solver)
        assert (losses <= before + 1e-4 * (1 + np.abs(before))).all()
        before = losses
    assert relative_error(solution, solve(reference, problem)) < 1e-3


def test_no_weight_is_a_weight_too(kernels: Kernels, reference: Kernels) -> None:
    """A confidence of 1 + 0·r is observed all the same: it has a target but adds nothing to the matrix."""
    for name in ("exact", "cg", "subspace", "nonnegative"):
        problem = make_problem(COUNTS["random"], 8, "hu")
        problem.rows.values[::2] = 0
        solution = solve(kernels, problem, solver=SOLVERS[name])
        assert relative_error(solution, solve(reference, problem, solver=SOLVERS[name])) < 2e-4


@pytest.mark.parametrize("n_free", [0, 1, 3])
@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_nonnegative_factors(kind: str, n_free: int, kernels: Kernels) -> None:
    """At the minimum no factor is negative, and the gradient is 0 where a factor is free to move and never below it."""
    problem = make_problem(COUNTS["random"], 12, kind)
    x = solve(kernels, problem, solver=Solver("nonnegative", n_free))
    bounded = np.arange(12) < 12 - n_free
    assert (x[:, bounded] >= 0).all()
    assert (x[:, ~bounded] < 0).any() == (n_free > 0)
    step = 1e-3
    for f in range(12):
        nearby = [x + sign * step * np.eye(12, dtype=np.float32)[f] for sign in (-1, 1)]
        slopes = [(objective(problem, near) - objective(problem, x)) / step for near in nearby]
        at_bound = bounded[f] & (x[:, f] < step)
        assert (slopes[0][~at_bound] > -0.1).all()
        assert (slopes[1] > -0.1).all()


def test_rows_without_observations_become_zero(kernels: Kernels, reference: Kernels) -> None:
    for kind in WEIGHTINGS:
        problem = make_problem(COUNTS["empty rows"], 5, kind)
        for variant in (kernels, reference):
            solution = solve(variant, problem)
            assert (solution == 0).all(axis=1).tolist() == [True, True, False, True, False, True]


@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_solution_minimises_the_weighted_squares(kind: str, kernels: Kernels, reference: Kernels) -> None:
    """The loss over all cells of the table, written as one dense least-squares problem: no normal equations."""
    problem = make_problem(np.array([12, 3, 30]), 6, kind, n_fixed=40)
    q, strengths = problem.fixed_factors.astype(np.float64), problem.regularization
    for u in range(3):
        entries = slice(*problem.rows.indptr[u : u + 2])
        columns, values = problem.rows.indices[entries], problem.rows.values[entries].astype(np.float64)
        weights, targets = np.zeros(40), np.zeros(40)
        if kind == "explicit":
            weights[columns], targets[columns] = 1, values - 3 - problem.fixed_offsets[columns]
            terms = [(q, weights, targets)]
        elif kind == "rendle":
            weights[columns], targets[columns] = 1, 1
            terms = [(q, weights, targets), (q, np.full(40, 0.1), np.zeros(40))]
        else:
            weights[:], targets[columns] = 1, values > 0
            weights[columns] += 2 * np.abs(values)
            terms = [(q, weights, targets)]
        terms.append((np.eye(6), np.full(6, float(strengths[u])), np.zeros(6)))
        left = np.concatenate([np.sqrt(w)[:, None] * vectors for vectors, w, _ in terms])
        right = np.concatenate([np.sqrt(w) * t for _, w, t in terms])
        expected = np.linalg.lstsq(left, right)[0]
        for variant in (kernels, reference):
            np.testing.assert_allclose(solve(variant, problem)[u], expected, rtol=0, atol=2e-5)


def minimum_norm(problem: HalfSweep, u: int) -> Float64Array:
    entries = slice(*problem.rows.indptr[u : u + 2])
    columns = problem.rows.indices[entries]
    targets = problem.rows.values[entries] - np.float64(3) - problem.fixed_offsets[columns]
    return np.asarray(np.linalg.lstsq(problem.fixed_factors[columns].astype(np.float64), targets)[0])


@pytest.mark.parametrize("regularization", [0, 1e-12])
@pytest.mark.parametrize("n_factors", [2, 3, 4, 8, 17, 64])
def test_fewer_ratings_than_factors(
    n_factors: int, regularization: float, kernels: Kernels, reference: Kernels
) -> None:
    """Without regularisation such a row has many solutions; the one of minimum norm is wanted."""
    counts = np.random.default_rng(2).integers(1, n_factors, 300 if n_factors < 64 else 30)
    problem = make_problem(counts, n_factors, regularization=regularization)
    expected = np.array([minimum_norm(problem, u) for u in range(len(counts))])
    # Of vectors that are nearly parallel, the matrix of their squares no longer shows the rank: those are not asked.
    clear = [condition(problem, u) < 50 for u in range(len(counts))]
    assert np.mean(clear) > 0.8
    for variant in (kernels, reference):
        solution = solve(variant, problem)
        assert np.isfinite(solution).all()
        assert relative_error(solution[clear], expected[clear]) < 1e-5


def condition(problem: HalfSweep, u: int) -> float:
    vectors = problem.fixed_factors[problem.rows.indices[slice(*problem.rows.indptr[u : u + 2])]]
    return float(np.linalg.cond(vectors.astype(np.float64)))


def test_repeated_ratings_of_one_item(kernels: Kernels, reference: Kernels) -> None:
    """As many ratings as factors, yet of rank 1: no count of ratings tells, only the matrix does."""
    problem = make_problem(np.full(20, 12), 6, regularization=0)
    problem.rows.indices[:] = np.repeat(np.arange(20, dtype=np.int32), 12)
    expected = np.array([minimum_norm(problem, u) for u in range(20)])
    for variant in (kernels, reference):
        assert relative_error(solve(variant, problem), expected) < 1e-3


@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_fixed_factors_of_zero(kind: str, kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem(np.array([3, 20]), 4, kind, regularization=0)
    problem.fixed_factors[:] = 0
    problem.gram[:] = 0
    for variant in (kernels, reference):
        assert not solve(variant, problem).any()


def test_an_unused_factor_becomes_zero(kernels: Kernels, reference: Kernels) -> None:
    problem = make_problem(np.array([30, 40, 50]), 5, regularization=0)
    problem.fixed_factors[:, 2] = 0
    for variant in (kernels, reference):
        solution = solve(variant, problem)
        np.testing.assert_allclose(solution[:, 2], 0, atol=1e-12)
        used = problem._replace(fixed_factors=problem.fixed_factors[:, [0, 1, 3, 4]].copy(), gram=problem.gram[:4, :4])
        assert relative_error(solution[:, [0, 1, 3, 4]], solve(reference, used)) < 1e-5


@pytest.mark.parametrize("n_factors", [1, 8, 17, 128])
@pytest.mark.parametrize("n_rows", [0, 1, 500, 4096, 4097, 9000])
def test_gram(n_rows: int, n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    factors = np.random.default_rng(3).standard_normal((n_rows, n_factors), np.float32)
    for variant in (kernels, reference):
        result = variant.gram(factors, None)
        assert result.dtype == np.float64
        np.testing.assert_array_equal(result, result.T)
        expected = factors.T.astype(np.float64) @ factors
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6 * max(1, n_rows))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", WEIGHTINGS)
@pytest.mark.parametrize("n_factors", [8, 17])
def test_same_bits_for_any_threads(n_factors: int, kind: str, solver: str, kernels: Kernels) -> None:
    # Strength 0 in some rows: the singular ones take another path, after the parallel one. Two long rows are cut.
    problem = make_problem(np.append(COUNTS["random"], [9000, 5000]), n_factors, kind)
    problem.regularization[::3] = 0
    bits = {solve(kernels, problem, n_threads, SOLVERS[solver]).tobytes() for n_threads in THREADS}
    assert len(bits) == 1


@pytest.mark.parametrize("solver", ["exact", "nonnegative"])
def test_a_row_does_not_depend_on_its_neighbours(solver: str, kernels: Kernels) -> None:
    problem = make_problem(COUNTS["batches of every length"], 8)
    together = solve(kernels, problem, solver=SOLVERS[solver])
    for u in range(len(together)):
        start, stop = problem.rows.indptr[u : u + 2]
        alone = problem._replace(
            rows=CSR(np.array([0, stop - start]), problem.rows.indices[start:stop], problem.rows.values[start:stop]),
            regularization=problem.regularization[u : u + 1],
        )
        np.testing.assert_array_equal(solve(kernels, alone, solver=SOLVERS[solver])[0], together[u])


@pytest.mark.parametrize("n_factors", [17, 64])
def test_gram_has_the_same_bits_for_any_threads(n_factors: int, kernels: Kernels) -> None:
    factors = np.random.default_rng(3).standard_normal((20_000, n_factors), np.float32)
    assert len({kernels.gram(factors, n_threads).tobytes() for n_threads in THREADS}) == 1


def test_short_rows_are_cut_into_chunks_of_equal_work() -> None:
    counts = np.random.default_rng(0).integers(0, 400, 40_000)
    tasks = cut_into_tasks(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), 64)
    work = [int((counts[a:b] + 64 / 3).sum()) for a, b in tasks.chunks]
    assert 128 <= len(work) <= 160
    assert max(work) <= 1.1 * np.mean(work)
    assert work == sorted(work, reverse=True)
    assert len(tasks.long_rows) == len(tasks.parts) == 0


def test_a_row_of_a_million_ratings_is_cut_into_parts() -> None:
    counts = np.array([3] * 1000 + [1_000_000] + [2] * 1000)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    tasks = cut_into_tasks(indptr, 64)
    assert tasks.long_rows.tolist() == [1000]
    assert len(tasks.parts) >= 128
    assert tasks.parts[0, 1] == indptr[1000]
    assert tasks.parts[-1, 2] == indptr[1001]
    np.testing.assert_array_equal(tasks.parts[1:, 1], tasks.parts[:-1, 2])
    assert np.ptp(tasks.parts[:, 2] - tasks.parts[:, 1]) <= 1


def test_tables_are_the_arrays_themselves(kernels: Kernels, reference: Kernels) -> None:
    """On the CPU nothing is carried anywhere."""
    factors, home = np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)
    for variant in (kernels, reference):
        table = variant.to_device(factors, EXACTLY)
        assert table is factors
        variant.to_host(table, home)
        np.testing.assert_array_equal(home, factors)
        variant.to_host(table, factors)


@pytest.mark.parametrize("unit", [1.0, 2.5])
def test_biases_are_split_off(unit: float, kernels: Kernels, reference: Kernels) -> None:
    """[p, b_u]·[q, c] + c·b_i = p·q + c·b_u + c·b_i."""
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((4, 3), np.float32), rng.standard_normal((5, 3), np.float32)
    expected = users[:, :2] @ items[:, :2].T + unit * (users[:, 2:] + items[:, 2])
    for variant in (kernels, reference):
        before = items.copy()
        fixed, offsets = variant.split_biases(items, unit)
        np.testing.assert_allclose(users @ fixed.T + offsets, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(items, before)


def test_squared_norms(kernels: Kernels, reference: Kernels) -> None:
    """In float64: in float32 nothing would be left of the last one."""
    factors = np.array([[3, 4, 0], [0, 0, 0], [4096, 1, 0]], np.float32)
    for variant in (kernels, reference):
        np.testing.assert_array_equal(variant.squared_norms(factors, None), [25, 0, 4096**2 + 1])


@pytest.mark.parametrize("biases", [True, False])
def test_terms_of_tables(biases: bool, kernels: Kernels, reference: Kernels) -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 2 + biases), np.float32) for n in (4, 3))
    for variant in (kernels, reference):
        rows = np.zeros((4, 2), np.float32), np.zeros((3, 2), np.float32)
        empty = Factors(*rows, np.zeros(4, np.float32), np.zeros(3, np.float32), np.float32(3))
        terms = variant.as_terms(users, items, empty, 2.0)
        np.testing.assert_array_equal(terms.user_factors, users[:, :2])
        np.testing.assert_array_equal(terms.item_factors, items[:, :2])
        np.testing.assert_array_equal(terms.user_biases, 2 * users[:, 2] if biases else 0)
        np.testing.assert_array_equal(terms.item_biases, 2 * items[:, 2] if biases else 0)
        assert terms.global_mean == 3
