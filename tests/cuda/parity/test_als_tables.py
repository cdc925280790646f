"""Tables of factors that stay on a GPU: half sweeps on them, and models that train on them."""

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf.backend import Kernels
from fastmf.reading.interactions import Interactions
from fastmf_kernels._cuda import memory, observed
from fastmf_kernels._cuda.notes import OnHostWarning
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als import cuda
from fastmf_kernels.als.arrays import EXACTLY, HalfSweep, Solver
from fastmf_kernels.als.cuda import tables
from fastmf_kernels.predict.arrays import Factors
from tests.cuda.parity.test_als import CG, COUNTS, SUBSPACE, half_sweep, on_host, relative_error  # noqa: F401
from tests.kernels.made import LINKS, make_ratings
from tests.kernels.test_als import make_problem, start

pytestmark = pytest.mark.usefixtures("on_host")


def drawn(n_rows: int, n_factors: int, seed: int = 5) -> Float32Array:
    return np.random.default_rng(seed).standard_normal((n_rows, n_factors), np.float32)


def at_home(table: Any) -> Float32Array:
    factors = np.full(table.shape, np.nan, np.float32)
    cuda.to_host(table, factors)
    return factors


def sweep_there(kernels: Kernels, problem: HalfSweep, solver: Solver) -> tuple[Float32Array, np.ndarray]:
    """Solve a problem with both tables on the device; what is fixed stays as it is, and padding is 0."""
    fixed, target = (kernels.to_device(table, solver) for table in (problem.fixed_factors, start(problem)))
    losses = kernels.run_half_sweep(problem._replace(fixed_factors=fixed), target, None, solver)
    np.testing.assert_array_equal(at_home(fixed), problem.fixed_factors)
    padded = memory.fetch(target.numbers).reshape(target.shape[0], target.width)
    np.testing.assert_array_equal(padded[:, target.shape[1] :], 0)
    return at_home(target), losses


@pytest.mark.parametrize(
    ("n_factors", "kind", "solver"),
    [(8, "explicit", EXACTLY), (8, "hu", CG), (65, "hu", EXACTLY), (20, "hu", SUBSPACE), (20, "explicit", SUBSPACE)],
    ids=lambda value: value.name if isinstance(value, Solver) else str(value),
)
def test_half_sweep_of_tables(n_factors: int, kind: str, solver: Solver, kernels: Kernels) -> None:
    """The same numbers as of arrays."""
    problem = make_problem(COUNTS if n_factors < 65 else np.array([0, 5]), n_factors, kind, n_fixed=40)
    factors, losses = sweep_there(kernels, problem, solver)
    expected, expected_losses = half_sweep(kernels, problem, solver)
    np.testing.assert_array_equal(factors, expected)
    np.testing.assert_array_equal(losses, expected_losses)


@pytest.mark.parametrize("solver", [EXACTLY, CG, SUBSPACE], ids=lambda solver: solver.name)
def test_ranges_of_tables(solver: Solver, kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(np.array([9, 2, 0, 12, 3]), 20, "hu", n_fixed=20)
    expected, expected_losses = half_sweep(kernels, problem, solver)
    monkeypatch.setattr(observed, "cut_into_ranges", lambda *_: [(0, 3), (3, 5)])
    factors, losses = sweep_there(kernels, problem, solver)
    np.testing.assert_array_equal(factors, expected)
    np.testing.assert_array_equal(losses, expected_losses)
    assert observed._rows == {}


def test_singular_rows_of_tables(kernels: Kernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those rows, and those that they meet, leave the device."""
    problem = make_problem(np.array([3, 12, 0, 60]), 6, regularization=0)
    problem.rows.indices[3:15] = 7
    taken: list[int] = []
    take = tables.take_rows
    monkeypatch.setattr(tables, "take_rows", lambda table, rows: taken.append(len(rows)) or take(table, rows))
    with pytest.warns(OnHostWarning, match=r"\(2 in this half sweep"):
        factors, _ = sweep_there(kernels, problem, EXACTLY)
    assert relative_error(factors, half_sweep(reference, problem)[0]) < 1e-3
    assert taken == [len(np.unique(problem.rows.indices[:15]))]


def test_tables_when_g_is_not_finite(kernels: Kernels) -> None:
    problem = make_problem(COUNTS, 5, "rendle")
    problem.gram[1, 2] = np.inf
    factors, losses = sweep_there(kernels, problem, EXACTLY)
    assert np.isnan(factors).all()
    assert not losses.any()


def test_nothing_in_tables(kernels: Kernels) -> None:
    problem = make_problem(np.zeros(0, np.int64), 5)
    factors, losses = sweep_there(kernels, problem, EXACTLY)
    assert factors.shape == (0, 5)
    assert len(losses) == 0
    assert len(kernels.squared_norms(kernels.to_device(factors, EXACTLY), None)) == 0


def test_a_table_of_another_solver(kernels: Kernels) -> None:
    problem = make_problem(COUNTS, 70)
    table = kernels.to_device(start(problem), EXACTLY)
    with pytest.raises(ValueError, match="made for another solver than 'cg'"):
        kernels.run_half_sweep(problem, table, None, CG)


def test_a_table_that_does_not_fit(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match=r"100 rows of 5 factors take 3,200 bytes .* of which 1,000 are free"):
        kernels.to_device(drawn(100, 5), EXACTLY)


def test_tables_count_as_taken(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for offsets, G and the longest row is enough; the basis of "subspace" takes the fixed factors again."""
    asked: list[tuple[int, int]] = []
    cut = observed.cut_into_ranges
    monkeypatch.setattr(observed, "cut_into_ranges", lambda *a: asked.append((a[1], a[2])) or cut(*a))
    problem = make_problem(np.array([2, 1]), 20, "hu", n_fixed=40)
    for solver in (EXACTLY, SUBSPACE):
        sweep_there(kernels, problem, solver)
        half_sweep(kernels, problem, solver)
    (of_row, tables), (_, of_arrays), (_, of_blocks), (_, of_blocks_of_arrays) = asked
    assert (of_row, tables) == (0, 4 * (40 + 32 * 32))
    assert of_arrays == tables + 4 * 40 * 32
    assert of_blocks == of_blocks_of_arrays


@pytest.mark.parametrize(("n_rows", "n_factors"), [(1, 8), (40, 17), (20, 70)])
def test_gram_of_a_table(n_rows: int, n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    """A table of 70 factors has 96 numbers in a row."""
    factors = drawn(n_rows, n_factors)
    result = kernels.gram(kernels.to_device(factors, EXACTLY), None)
    np.testing.assert_allclose(result, reference.gram(factors, None), rtol=0, atol=1e-6 * n_rows)


@pytest.mark.parametrize("n_factors", [1, 8, 20, 70, 130])
def test_squared_norms(n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    factors = drawn(19, n_factors)
    expected = reference.squared_norms(factors, None)
    for table in (factors, kernels.to_device(factors, CG if n_factors > 128 else EXACTLY)):
        norms = kernels.squared_norms(table, None)
        assert norms.dtype == np.float64
        np.testing.assert_allclose(norms, expected, rtol=1e-14)


@pytest.mark.parametrize("unit", [1.0, 2.5])
@pytest.mark.parametrize("n_factors", [1, 2, 5, 8, 66])
def test_split_biases(n_factors: int, unit: float, kernels: Kernels, reference: Kernels) -> None:
    table = drawn(19, n_factors)
    there = kernels.to_device(table, EXACTLY)
    for given, fetch in ((table, np.asarray), (there, at_home)):
        fixed, offsets = kernels.split_biases(given, unit)
        expected, expected_offsets = reference.split_biases(table, unit)
        np.testing.assert_array_equal(fetch(fixed), expected)
        np.testing.assert_array_equal(memory.fetch(offsets) if given is there else offsets, expected_offsets)
        np.testing.assert_array_equal(fetch(given), table)


def test_rows_go_to_their_places(kernels: Kernels) -> None:
    table = kernels.to_device(drawn(9, 6), EXACTLY)
    places, values, expected = np.array([7, 0, 3]), drawn(3, 6, seed=1), drawn(9, 6)
    tables.write_rows(table, places, values)
    tables.clear_rows(table, memory.put(np.array([8, 2], np.int32)))
    expected[places], expected[[8, 2]] = values, 0
    np.testing.assert_array_equal(at_home(table), expected)
    np.testing.assert_array_equal(tables.take_rows(table, np.array([3, 8])), expected[[3, 8]])


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("n_factors", [8, 70])
def test_squared_error_of_tables(
    n_factors: int, biases: bool, held: bool, kernels: Kernels, reference: Kernels
) -> None:
    ratings, link = make_ratings(20, 9, 60), LINKS["identity"]
    if held:
        observed.rows_on_device(ratings)
    users, items = drawn(20, n_factors + biases, 1) / n_factors, drawn(9, n_factors + biases, 2)
    no_biases = np.zeros(20, np.float32), np.zeros(9, np.float32)
    rows = (np.zeros((n, n_factors), np.float32) for n in (20, 9))
    empty = Factors(*rows, *no_biases, np.float32(3))
    there, here = (
        variant.squared_error(
            ratings,
            variant.as_terms(*(variant.to_device(table, EXACTLY) for table in (users, items)), empty, 2.0),
            link,
            None,
        )
        for variant in (kernels, reference)
    )
    np.testing.assert_allclose(there, here, rtol=1e-5)


def made_ratings(n_users: int, n_items: int, share: float) -> Interactions:
    """Of that share of the cells, and at least one of each user and item."""
    users, items = np.divmod(np.arange(n_users * n_items), n_items)
    rated = (np.random.default_rng(0).random(users.size) < share) | (users % n_items == items)
    return Interactions.from_arrays(users[rated], items[rated], (1 + users * items % 5)[rated])


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "implicit": (fastmf.ImplicitALS, {}),
    "explicit": (fastmf.ALS, {"biases": True}),
    "explicit without biases": (fastmf.ALS, {"biases": False}),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("solver", ["cholesky", "cg", "subspace"])
def test_models_train_on_tables(solver: str, name: str, kernels: Kernels) -> None:
    """With more factors than a block has, so that there are two blocks; λ keeps rounding errors what they are."""
    (model, parameters), ratings = MODELS[name], made_ratings(12, 9, 0.4)
    parameters = parameters | {"n_factors": 20 if solver == "subspace" else 4, "solver": solver, "block_size": 16}
    fitted, expected = (
        model(n_epochs=2, regularization=0.5, backend=backend, **parameters).fit(ratings)
        for backend in ("cuda", "reference")
    )
    assert fitted.user_factors.any()
    for part in ("user_factors", "item_factors", "user_biases", "item_biases"):
        np.testing.assert_allclose(getattr(fitted, part), getattr(expected, part), rtol=0, atol=1e-5)
    for record, known in zip(fitted.history, expected.history, strict=True):
        for figure in set(known) - {"epoch", "seconds"}:
            np.testing.assert_allclose(record[figure], known[figure], rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_models_fold_in_and_go_on(name: str, kernels: Kernels) -> None:
    (model, parameters), ratings = MODELS[name], made_ratings(12, 9, 0.4)
    more = fastmf.Interactions.from_arrays(np.append(ratings.user_ids[:2], 500), [*ratings.item_ids[:2].to_pylist(), 0])
    fitted, expected = (
        model(n_epochs=2, regularization=0.5, backend=backend, n_factors=4, **parameters).fit(ratings)
        for backend in ("cuda", "reference")
    )
    for side in ("user", "item"):
        folded, known = (each.fold_in(ratings, side=side) for each in (fitted, expected))
        np.testing.assert_allclose(folded.factors, known.factors, rtol=0, atol=1e-5)
        np.testing.assert_allclose(folded.biases, known.biases, rtol=0, atol=1e-5)
    for each in (fitted, expected):
        each.partial_fit(more)
    for part in ("user_factors", "item_factors", "user_biases", "item_biases"):
        np.testing.assert_allclose(getattr(fitted, part), getattr(expected, part), rtol=0, atol=1e-5)


def test_factors_come_home_when_somebody_looks(kernels: Kernels) -> None:
    seen: list[Float32Array] = []
    model = fastmf.ALS(n_factors=4, n_epochs=2, backend="cuda")
    model.fit(made_ratings(12, 9, 0.4), callbacks=[lambda fitted, record: seen.append(fitted.user_factors.copy())])
    assert all(factors.any() for factors in seen)
    assert (seen[0] != seen[1]).any()
    np.testing.assert_array_equal(seen[1], model.user_factors)


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers each array has that goes to the device or comes back."""
    sizes: list[int] = []
    put, fetch = memory.put, memory.fetch

    def counting_put(array: Any) -> Any:
        sizes.append(0 if memory.is_on_device(array) else np.size(array))
        return put(array)

    def counting_fetch(array: Any) -> Any:
        sizes.append(array.size)
        return fetch(array)

    for module in [module for name, module in sys.modules.items() if name.startswith("fastmf_kernels.")]:
        for name, function, counting in (("put", put, counting_put), ("fetch", fetch, counting_fetch)):
            if getattr(module, name, None) is function:
                monkeypatch.setattr(module, name, counting)
    return sizes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_no_table_is_carried_between_epochs(solver: str, name: str, kernels: Kernels, carried: list[int]) -> None:
    """Of 30 users and 25 items with 4 factors, nothing goes either way that is as large as the table of items."""
    ratings = made_ratings(30, 25, 0.1)
    kind, parameters = MODELS[name]
    model = kind(n_factors=4, solver=solver, backend="cuda", **parameters)
    trainer = model._with(model.choose_parameters(ratings))._make_trainer(ratings, kernels)
    trainer.run_epoch()
    assert max(carried) >= 25 * 4
    carried.clear()
    trainer.run_epoch()
    assert 0 < max(carried) < 25 * 4
    carried.clear()
    trainer.to_host()
    assert min(carried) >= 25 * 4


@pytest.mark.parametrize("name", MODELS)
def test_models_with_features_are_solved_on_the_cpu(name: str, kernels: Kernels) -> None:
    """The kernels know no prior means; a note says so."""
    (model, parameters), ratings = MODELS[name], made_ratings(12, 9, 0.4)
    items = pa.table({"item_id": range(11), "kind": [f"k{item % 3}" for item in range(11)]})
    users = pa.table({"user_id": range(13), "age": [20.0 + 7 * (user % 5) for user in range(13)]})
    strengths = {"item_feature_regularization": 0.5, "user_feature_regularization": 0.5, "regularization": 0.5}

    def fit(backend: str) -> Any:
        fitted = model(n_factors=4, n_epochs=2, backend=backend, **strengths, **parameters)
        return fitted.fit(ratings, item_features=items, user_features=users)

    with pytest.warns(OnHostWarning, match="ALS with features is solved on the CPU"):
        fitted = fit("cuda")
    expected = fit("reference")
    assert fitted.item_factors[9:].any(axis=1).all()
    for part in ("user_factors", "item_factors", "user_biases", "item_biases"):
        np.testing.assert_allclose(getattr(fitted, part), getattr(expected, part), rtol=0, atol=1e-4)
