"""ALS half sweeps on a GPU against their reference.

The kernels are those of a GPU, but for fewer threads and less shared memory: the simulator starts a Python thread for
each of theirs.
"""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf.backend import Kernels
from fastmf_kernels._cuda import observed
from fastmf_kernels._cuda.notes import OnHostWarning
from fastmf_kernels.als import cpu, cuda
from fastmf_kernels.als import reference as reference_of_als
from fastmf_kernels.als.arrays import EXACTLY, HalfSweep, Solver
from fastmf_kernels.als.cuda import cg, cholesky, gram_matrix, subspace, tiles
from fastmf_kernels.als.cuda.equations import RowWorkers
from fastmf_kernels.als.cuda.sharing import RowSharing
from fastmf_kernels.layout.arrays import CSR
from tests.kernels.test_als import WEIGHTINGS, make_problem, objective, relative_error, start

CG = Solver("cg", 2)
SUBSPACE = Solver("subspace", 16)
# An empty row, one entry, a few, and more than a group of threads keeps at hand.
COUNTS = np.array([0, 1, 22, 7, 12])


@pytest.fixture(autouse=True)
def on_host(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Few threads, which have few of a row's vectors at hand; and how many rows each call leaves to the CPU."""
    monkeypatch.setattr(cg, "MOST_BLOCKS", 1)
    monkeypatch.setattr(cg, "ALONE", RowSharing(32, False, 1408))
    monkeypatch.setattr(cg, "TOGETHER", RowSharing(64, True, 1600))
    # Three slices and six, or one and two; of 64 coordinates, one.
    monkeypatch.setattr(subspace, "for_short_rows", lambda block: RowWorkers({16: 32, 32: 64, 64: 160}[block], 8))
    monkeypatch.setattr(subspace, "for_long_rows", lambda block: RowWorkers({16: 64, 32: 96, 64: 160}[block], 8))
    n_rows: list[int] = []

    def count(problem: HalfSweep, factors: np.ndarray, *arguments: Any) -> Any:
        n_rows.append(len(factors))
        return run(problem, factors, *arguments)

    run = cpu.run_half_sweep
    monkeypatch.setattr(cpu, "run_half_sweep", count)
    return n_rows


def half_sweep(kernels: Kernels, problem: HalfSweep, solver: Solver = EXACTLY) -> tuple[np.ndarray, np.ndarray]:
    solution = start(problem)
    return solution, kernels.run_half_sweep(problem, solution, None, solver)


def expect_note(note: str | None) -> contextlib.AbstractContextManager[Any]:
    """Something is said of the host, or nothing: what is said and not expected is an error."""
    return pytest.warns(OnHostWarning, match=note) if note else contextlib.nullcontext()


def assert_solved(problem: HalfSweep, kernels: Kernels, reference: Kernels, solver: Solver = EXACTLY) -> None:
    """With the tolerances of the CPU's kernels."""
    solution, losses = half_sweep(kernels, problem, solver)
    assert relative_error(solution, half_sweep(reference, problem, solver)[0]) < 2e-4
    assert losses.dtype == np.float64
    allowed = 1e-5 * (1 + np.abs(objective(problem, solution)) + np.abs(objective(problem, start(problem))))
    assert (np.abs(losses - objective(problem, solution)) < allowed).all()


@pytest.mark.parametrize("solver", [EXACTLY, CG], ids=lambda solver: solver.name)
@pytest.mark.parametrize("kind", WEIGHTINGS)
@pytest.mark.parametrize("n_factors", [8, 20])
def test_half_sweep(
    n_factors: int, kind: str, solver: Solver, kernels: Kernels, reference: Kernels, on_host: list[int]
) -> None:
    problem = make_problem(COUNTS, n_factors, kind)
    assert_solved(problem, kernels, reference, solver)
    assert on_host == []


@pytest.mark.parametrize(
    ("n_factors", "kind", "solver"),
    [
        (1, "hu", EXACTLY),
        (1, "hu", CG),
        (64, "hu", EXACTLY),
        (64, "hu", Solver("cg", 1)),
        (65, "explicit", EXACTLY),
        (128, "rendle", EXACTLY),
        (128, "rendle", Solver("cg", 1)),
        (200, "explicit", CG),
    ],
)
def test_widths(
    n_factors: int, kind: str, solver: Solver, kernels: Kernels, reference: Kernels, on_host: list[int]
) -> None:
    """Strengths as large as the matrix's own numbers: what is compared is the arithmetic, not the condition."""
    problem = make_problem(np.array([12]), n_factors, kind, regularization=10.0, n_fixed=40)
    assert_solved(problem, kernels, reference, solver)
    assert on_host == []


@pytest.fixture
def _tiles_of_eight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those of 128 factors for fewer of them, and so for fewer threads."""
    factories = cholesky.make_solve, cholesky.make_part, cholesky.make_join
    for module in (tiles, cholesky):
        monkeypatch.setattr(module, "tile_size", lambda width: 8)
    for make in factories:
        make.cache_clear()
    yield
    for make in factories:
        make.cache_clear()


@pytest.mark.usefixtures("_tiles_of_eight")
def test_tiles_of_eight(
    monkeypatch: pytest.MonkeyPatch, kernels: Kernels, reference: Kernels, on_host: list[int]
) -> None:
    monkeypatch.setattr(cuda, "LONGEST_UNCUT", 40)
    assert_solved(make_problem(np.array([3, 41]), 60, "hu"), kernels, reference)
    assert on_host == []


@pytest.mark.parametrize("solver", [EXACTLY, CG], ids=lambda solver: solver.name)
def test_long_rows_are_cut(
    solver: Solver, monkeypatch: pytest.MonkeyPatch, kernels: Kernels, reference: Kernels, on_host: list[int]
) -> None:
    """Rows of two, of three and of seven parts, no more than four of which are in memory, but for the longest row's."""
    monkeypatch.setattr(cuda, "LONGEST_UNCUT", 8)
    monkeypatch.setattr(cuda, "_MOST_PARTS", 4)
    monkeypatch.setattr(cuda, "longest_row", lambda n_factors: 8)
    problem = make_problem(np.array([9, 0, 20, 8, 50, 16]), 8, "hu")
    solution, losses = half_sweep(kernels, problem, solver)
    expected, expected_losses = half_sweep(reference, problem)
    cut = [0, 2, 4, 5]
    assert relative_error(solution[cut], expected[cut]) < 2e-4
    np.testing.assert_allclose(losses[cut], expected_losses[cut], rtol=1e-5)
    assert (relative_error(solution[3:4], expected[3:4]) < 2e-4) == (solver is EXACTLY)
    assert on_host == []


def test_long_rows_of_many_factors_are_solved_on_the_host(
    monkeypatch: pytest.MonkeyPatch, kernels: Kernels, reference: Kernels, on_host: list[int]
) -> None:
    monkeypatch.setattr(cuda, "longest_row", lambda n_factors: 2)
    problem = make_problem(np.array([1, 5]), 130, regularization=10.0)
    with pytest.warns(OnHostWarning, match=r"\(1 in this .* more than 8065 ratings: .* at most 128 factors"):
        solution, _ = half_sweep(kernels, problem, CG)
    assert on_host == [1]
    assert relative_error(solution[1:], half_sweep(reference, problem)[0][1:]) < 1e-5


@pytest.mark.parametrize(
    ("n_factors", "solver", "note"),
    [
        (50, Solver("subspace", 48), "block_size=48 .* blocks of 16, 32, 64 factors; choose one of these"),
        (513, SUBSPACE, "513 factors .* up to 512; choose fewer factors$"),
        (8, Solver("nonnegative", 1), "nonnegative=True .*; leave it out"),
        (130, EXACTLY, '130 factors .* up to 128; choose fewer factors, or solver "cg"'),
        (513, CG, "513 factors .* up to 512; choose fewer factors$"),
    ],
    ids=["blocks of 48", "blocks, very wide", "nonnegative", "wide", "very wide"],
)
def test_what_the_host_does(
    n_factors: int, solver: Solver, note: str, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(cpu, "run_half_sweep", lambda *arguments: asked.append(arguments) or np.ones(5))
    problem = make_problem(COUNTS, n_factors)
    assert kernels.to_device(problem.fixed_factors, solver) is problem.fixed_factors
    with pytest.warns(OnHostWarning, match=note):
        _, losses = half_sweep(kernels, problem, solver)
    half_sweep(kernels, problem, solver)  # it is not said again
    assert len(asked) == 2
    del asked[1]
    assert [(arguments[0], arguments[3]) for arguments in asked] == [(problem, solver)]
    np.testing.assert_array_equal(losses, 1)


@pytest.mark.parametrize("solver", [EXACTLY, CG], ids=lambda solver: solver.name)
def test_singular_rows(solver: Solver, kernels: Kernels, reference: Kernels, on_host: list[int]) -> None:
    """Without regularisation: rows of fewer entries than factors, of the same one again and again, and a regular one.

    Their equations are solved on the host; the steps of "cg" end.
    """
    problem = make_problem(np.array([3, 12, 0, 60]), 6, regularization=0)
    problem.rows.indices[3:15] = 7
    with expect_note(r"\(2 in this half sweep\) .* singular: .*; raise regularization$" if solver is EXACTLY else None):
        solution, _ = half_sweep(kernels, problem, solver)
    assert relative_error(solution, half_sweep(reference, problem, solver)[0]) < 1e-3
    assert on_host == ([2] if solver is EXACTLY else [])


def test_fixed_factors_of_zero(kernels: Kernels) -> None:
    problem = make_problem(np.array([3]), 4, regularization=0)
    problem.fixed_factors[:] = 0
    for solver in (EXACTLY, CG):
        with expect_note(r"\(1 in this half sweep" if solver is EXACTLY else None):
            solution, losses = half_sweep(kernels, problem, solver)
        np.testing.assert_array_equal(solution, 0 if solver is EXACTLY else start(problem))
        np.testing.assert_array_equal(losses, 0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::fastmf_kernels._cuda.notes.OnHostWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite(value: float, kernels: Kernels, reference: Kernels) -> None:
    """All rows where G is not; those that meet a vector that is not."""
    problem = make_problem(COUNTS, 4, "rendle")
    problem.gram[1, 2] = value
    for variant in (kernels, reference):
        solution, losses = half_sweep(variant, problem)
        assert np.isnan(solution).all()
        assert not losses.any()
    problem = make_problem(np.array([1, 1]), 4)
    problem.fixed_factors[problem.rows.indices[0]] = value
    solution, _ = half_sweep(kernels, problem)
    assert np.isnan(solution[0]).all()
    assert np.isfinite(solution[1]).all()


@pytest.mark.parametrize("counts", [np.zeros(3, np.int64), np.zeros(0, np.int64)], ids=["empty rows", "no rows"])
def test_nothing_to_solve(counts: np.ndarray, kernels: Kernels) -> None:
    for solver in (EXACTLY, CG):
        solution, losses = half_sweep(kernels, make_problem(counts, 8), solver)
        assert solution.shape == (len(counts), 8)
        assert not solution.any()
        assert not losses.any()


def test_rows_that_fit_into_memory_stay_there(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    observed.release()
    made: list[CSR] = []
    put_rows_of = observed.put_rows_of
    monkeypatch.setattr(observed, "put_rows_of", lambda rows: made.append(rows) or put_rows_of(rows))
    problem = make_problem(np.array([2]), 8)
    for _ in range(2):
        half_sweep(kernels, problem)
    assert len(made) == 1
    half_sweep(kernels, problem._replace(rows=problem.rows._replace(values=problem.rows.values + 1)))
    assert len(made) == 2
    made.clear()
    del problem
    gc.collect()
    assert observed._rows == {}


@pytest.mark.parametrize("solver", [EXACTLY, CG], ids=lambda solver: solver.name)
def test_ranges_of_rows_give_the_same(
    solver: Solver, kernels: Kernels, monkeypatch: pytest.MonkeyPatch, on_host: list[int]
) -> None:
    problem = make_problem(np.array([9, 2, 0, 12, 3]), 8, n_fixed=20)
    expected, expected_losses = half_sweep(kernels, problem, solver)
    # Three rows of 53 bytes and their 11 entries of 8 fit; so would all rows without their entries, but these are held.
    tables, most = 4 * (20 * 9 + 64), 3 * 53 + 11 * 8
    ranges: list[tuple[int, int]] = []
    cut = observed.cut_into_ranges
    monkeypatch.setattr(observed, "cut_into_ranges", lambda *a: ranges.extend(cut(*a)) or cut(*a))
    monkeypatch.setattr(cuda, "free_bytes", lambda: int((tables + most) / 0.9) + 1)
    solution, losses = half_sweep(kernels, problem, solver)
    assert ranges[-2:] == [(0, 3), (3, 5)]
    assert observed._rows == {}
    np.testing.assert_array_equal(solution, expected)
    np.testing.assert_array_equal(losses, expected_losses)
    assert on_host == []


@pytest.mark.parametrize("held", [True, False])
def test_ranges_fit(held: bool) -> None:
    counts = np.random.default_rng(0).integers(0, 50, 200)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    of_rows = 4 * 16 + 21 + (0 if held else 8) * counts
    ranges = observed.cut_into_ranges(indptr, 16, 1000, 5000, held)
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(200))
    sizes = [of_rows[start:stop].sum() for start, stop in ranges]
    assert max(sizes) <= 3500
    assert all(size + of_rows[stop] > 3500 for size, (_, stop) in zip(sizes[:-1], ranges[:-1], strict=True))


def test_too_little_memory_for_the_tables(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "free_bytes", lambda: 1000)
    with pytest.raises(
        MemoryError, match=r"takes 7,456 bytes .* and 69 for the longest row; 1,000 are free, of which 100 "
    ):
        half_sweep(kernels, make_problem(np.array([2, 1]), 8))


@pytest.mark.parametrize(("n_rows", "n_factors"), [(0, 3), (1, 8), (40, 17)])
def test_gram(
    n_rows: int, n_factors: int, kernels: Kernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of 16 rows, of which at most two are in memory, and in panels of 16 columns with tiles of eight."""
    monkeypatch.setattr(gram_matrix, "CHUNK", 16)
    monkeypatch.setattr(gram_matrix, "panels_for", lambda width: gram_matrix.Panels(min(16, width), min(8, width // 2)))
    monkeypatch.setattr(cuda, "_MOST_CHUNKS", 2)
    factors = np.random.default_rng(3).standard_normal((n_rows, n_factors), np.float32)
    result = kernels.gram(factors, None)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, result.T)
    np.testing.assert_allclose(result, reference.gram(factors, None), rtol=0, atol=1e-6 * max(1, n_rows))


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_models(solver: str, kernels: Kernels) -> None:
    users, items = np.divmod(np.random.default_rng(0).choice(20, 12, replace=False), 5)
    ratings = fastmf.Interactions.from_arrays(users, items, 1 + (users + items) % 5)
    for model in (fastmf.ALS, fastmf.ImplicitALS):
        fitted, expected = (
            model(n_factors=4, n_epochs=1, solver=solver, backend=backend).fit(ratings) for backend in ("cuda", "cpu")
        )
        np.testing.assert_allclose(fitted.item_factors, expected.item_factors, rtol=0, atol=1e-3)
        np.testing.assert_allclose(fitted.history[0]["objective"], expected.history[0]["objective"], rtol=1e-4)


@pytest.mark.parametrize(
    ("n_factors", "kind", "block"),
    [(20, "explicit", 16), (20, "hu", 16), (40, "rendle", 32), (70, "hu", 64)],
)
def test_blocks(
    n_factors: int, kind: str, block: int, kernels: Kernels, reference: Kernels, on_host: list[int]
) -> None:
    """The last block has fewer coordinates than the others, and padding."""
    counts, regularization = (np.array([0, 1, 22]), 0.1) if n_factors == 20 else (np.array([10]), 10.0)
    problem = make_problem(counts, n_factors, kind, regularization, n_fixed=40)
    fixed_factors = problem.fixed_factors.copy()
    assert_solved(problem, kernels, reference, Solver("subspace", block))
    np.testing.assert_array_equal(problem.fixed_factors, fixed_factors)
    assert on_host == []


def test_one_block_of_all_coordinates(kernels: Kernels, on_host: list[int]) -> None:
    problem = make_problem(np.array([3, 0]), 8, "hu")
    results = [half_sweep(kernels, problem, solver) for solver in (SUBSPACE, EXACTLY)]
    for block, exact in zip(*results, strict=True):
        np.testing.assert_array_equal(block, exact)
    assert on_host == []


def test_long_rows_among_blocks(
    monkeypatch: pytest.MonkeyPatch, kernels: Kernels, reference: Kernels, on_host: list[int]
) -> None:
    """Solved exactly, in the basis in which the others are improved."""
    for module in (cuda, reference_of_als):
        monkeypatch.setattr(module, "longest_row", lambda n_factors: 9)
    assert_solved(make_problem(np.array([10, 9]), 20, "hu"), kernels, reference, SUBSPACE)
    assert on_host == []


def test_few_errors_in_memory_give_the_same(monkeypatch: pytest.MonkeyPatch, kernels: Kernels) -> None:
    problem = make_problem(np.array([1, 6]), 20)
    expected, expected_losses = half_sweep(kernels, problem, SUBSPACE)
    monkeypatch.setattr(subspace, "MOST_ERRORS", 5)
    solution, losses = half_sweep(kernels, problem, SUBSPACE)
    np.testing.assert_array_equal(solution, expected)
    np.testing.assert_array_equal(losses, expected_losses)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_singular_blocks(kernels: Kernels, reference: Kernels, on_host: list[int]) -> None:
    """Rows that the host solves exactly: of fewer entries than coordinates, or with what is not finite."""
    problem = make_problem(np.array([3, 30]), 18, regularization=0)
    with expect_note(r"\(1 in this half sweep"):
        solution, _ = half_sweep(kernels, problem, SUBSPACE)
    assert relative_error(solution, half_sweep(reference, problem, SUBSPACE)[0]) < 1e-3
    assert on_host == [1]
    problem.fixed_factors[problem.rows.indices[0]] = np.nan
    problem.rows.indices[3:] = (problem.rows.indices[0] + 1 + np.arange(30)) % 200
    solution, _ = half_sweep(kernels, problem, SUBSPACE)
    assert np.isnan(solution[0]).all()
    assert np.isfinite(solution[1:]).all()


def test_a_model_by_blocks(kernels: Kernels) -> None:
    ratings = fastmf.Interactions.from_arrays(np.array([0, 0, 1]), np.array([0, 1, 1]), np.ones(3))
    fitted, expected = (
        fastmf.ImplicitALS(n_factors=20, n_epochs=1, solver="subspace", block_size=16, backend=backend).fit(ratings)
        for backend in ("cuda", "cpu")
    )
    np.testing.assert_allclose(fitted.item_factors, expected.item_factors, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fitted.history[0]["objective"], expected.history[0]["objective"], rtol=1e-4)
