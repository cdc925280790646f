"""The vector code of the inner loops against the plain loops that it stands for."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastmf_kernels import _notes, _vectors
from fastmf_kernels._jit import device
from fastmf_kernels._notes import PlainLoopsWarning
from fastmf_kernels._types import Float32Array
from fastmf_kernels._vectors import VectorCode
from fastmf_kernels.linalg import panels, rows
from fastmf_kernels.sgd.cpu import step_sizes
from fastmf_kernels.topk.cpu import tiles

MODULES = (panels, rows, tiles, step_sizes)
LENGTHS = (0, 1, 2, 7, 8, 9, 16, 33, 100)


def numbers(*shape: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def function_named(name: str) -> Callable[..., object]:
    """Return the function of that name: in kernels it is vector code, called from Python it is the plain loop."""
    function: Callable[..., object] = next(getattr(module, name) for module in MODULES if hasattr(module, name))
    return function


@functools.cache
def called_by_a_kernel(name: str, count: int) -> Callable[..., object]:
    """Return a compiled function that calls it; Numba compiles once for each combination of types of arguments."""
    names = ", ".join(f"a{i}" for i in range(count))
    space = {"function": function_named(name)}
    exec(f"def call({names}):\n    return function({names})", space)
    return device(space["call"])


def run_both(name: str, *arguments: object) -> list[list[Float32Array]]:
    """Run the plain loops and the code that kernels get; returns the arrays as each of them leaves them."""
    outcomes = []
    for function in (function_named(name), called_by_a_kernel(name, len(arguments))):
        copies = [np.copy(argument) if isinstance(argument, np.ndarray) else argument for argument in arguments]
        result = function(*copies)
        outcomes.append([*(array for array in copies if isinstance(array, np.ndarray)), np.asarray(result)])
    return outcomes


def assert_same(name: str, *arguments: object) -> None:
    plain, compiled = run_both(name, *arguments)
    for expected, found in zip(plain, compiled, strict=True):
        if expected.dtype == np.float32:
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * (1 + np.abs(expected).max(initial=0)))
        else:
            assert found.tolist() == expected.tolist()


def loops_of(module: ModuleType) -> set[str]:
    return {name for name, value in vars(module).items() if isinstance(value, VectorCode)}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_loop_has_its_vector_code(module: ModuleType) -> None:
    emitters = pytest.importorskip(f"{module.__name__}_simd")
    emitted = {name for name, emit in vars(emitters).items() if getattr(emit, "__module__", "") == emitters.__name__}

    assert loops_of(module) == {name for name in emitted if not name.startswith("_")}
    assert loops_of(module)
    assert _vectors.in_use()[module.__name__.partition(".")[2]]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_trials_call_every_loop(module: ModuleType) -> None:
    assert set(module.try_all.__code__.co_names) >= loops_of(module)


def double(x: np.float32) -> np.float32:
    return x + x


def twice(x: np.float32) -> np.float32:
    return double(x)


ONE_AND_A_HALF = np.float32(1.5)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., VectorCode[[np.float32], np.float32]]:
    """Make ``double`` a loop with vector code of its own, which starts with no trial behind it."""
    monkeypatch.setattr(_vectors, "_all_loops", {})

    def make(load: Callable[[], ModuleType]) -> VectorCode[[np.float32], np.float32]:
        loop = _vectors.in_vectors(load)(double)
        monkeypatch.setitem(globals(), "double", loop)
        assert isinstance(loop, VectorCode)
        return loop

    return make


def is_in_vectors() -> bool:
    return _vectors.in_use()[__name__.partition(".")[2]]


@pytest.mark.parametrize("why", ["the interface has changed", "it is missing", "the user asks for plain loops"])
def test_where_there_is_no_vector_code_the_loop_is_compiled(
    why: str, made_up: Callable[..., VectorCode[[np.float32], np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {"the interface has changed": AttributeError, "it is missing": ImportError}
    monkeypatch.setattr(_vectors, "PLAIN_LOOPS", why not in errors)

    def load() -> ModuleType:
        raise errors[why]

    made_up(load)
    assert device(twice)(ONE_AND_A_HALF) == 3
    assert not is_in_vectors()


def emit_product(factor: float) -> Callable[[], ModuleType]:
    """Vector code of ``double`` that multiplies with some number."""
    module = ModuleType("made_up")
    module.double = lambda b, x: b.ir.fmul(x, x.type(factor))  # type: ignore[attr-defined]
    return lambda: module


def fail_to_emit() -> ModuleType:
    def double(b: Any, x: Any) -> Any:
        raise TypeError("an instruction takes other arguments now")

    module = ModuleType("made_up")
    module.double = double  # type: ignore[attr-defined]
    return module


def use_double(numbers: Float32Array, results: Float32Array) -> None:
    results[0] = double(numbers[0])


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(_vectors, "folder_of", lambda module, compiler: tmp_path / "loops")
    return tmp_path / "loops"


@pytest.mark.parametrize("load", [emit_product(3.0), emit_product(2.001), emit_product(float("nan")), fail_to_emit])
def test_vector_code_that_differs_is_not_used(
    load: Callable[[], ModuleType], made_up: Callable[..., VectorCode[[np.float32], np.float32]], own_cache: Path
) -> None:
    made_up(load)
    _vectors.trial(use_double)
    _notes.forget()
    with pytest.warns(PlainLoopsWarning, match="gives other numbers than its plain loops with numba") as warned:
        assert device(twice)(ONE_AND_A_HALF) == 3
    assert len(warned) == 1
    assert not is_in_vectors()  # and says nothing more: warnings are errors


def test_a_trial_is_run_once_for_a_cache(
    made_up: Callable[..., VectorCode[[np.float32], np.float32]], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_remembered(made_up, monkeypatch)

    def fail(_: object) -> bool:
        raise AssertionError("a second trial")

    monkeypatch.setattr(_vectors, "_gives_the_same", fail)
    assert is_remembered(made_up, monkeypatch)
    (kept,) = own_cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="a second trial"):
        is_remembered(made_up, monkeypatch)


def is_remembered(make: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """As in a new process: whether vector code is used that is right."""
    monkeypatch.setattr(_vectors, "_all_loops", {})
    monkeypatch.setitem(globals(), "double", getattr(double, "plain", double))
    make(emit_product(2.0))
    _vectors.trial(use_double)
    return device(twice)(ONE_AND_A_HALF) == 3 and is_in_vectors()


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("name", ["add_product", "subtract_product"])
def test_products(name: str, n: int) -> None:
    assert_same(name, numbers(3, 16, 16), 256, numbers(2, 100, 16, seed=1), 1600, numbers(100, 16, seed=2), 0, n)


@pytest.mark.parametrize("n", LENGTHS)
def test_add_combination(n: int) -> None:
    assert_same("add_combination", numbers(48), 16, numbers(200, seed=1), 3, numbers(300, 16, seed=2), 160, n)


@pytest.mark.parametrize("n_panels", [0, 1, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("n", LENGTHS)
def test_add_combinations(n: int, n_panels: int) -> None:
    rows = numbers(13, 100, 16, seed=2)
    assert_same("add_combinations", numbers(13 * 16), numbers(100, seed=1), rows, 0, 1600, n_panels, n)


@pytest.mark.parametrize("n_panels", [0, 1, 3, 8])
def test_multiply_rows(n_panels: int) -> None:
    rows, vector = numbers(9, 20, 16, seed=1), numbers(200, seed=2)
    assert_same("multiply_rows", numbers(20), 4, rows, 32, 320, n_panels, vector, 5)


@pytest.mark.parametrize("n_panels", [0, 1, 8])
def test_copy_row(n_panels: int) -> None:
    assert_same("copy_row", numbers(8, 10, 16), 32, 160, n_panels, numbers(5, 128, seed=1), 256, np.float32(0.3))


def test_prefetch_changes_nothing() -> None:
    assert_same("prefetch", numbers(1000), 100, 5)


def positive_block() -> Float32Array:
    vectors = numbers(40, 16)
    return (vectors.T @ vectors).astype(np.float32)


def test_factorise_block() -> None:
    block = np.stack([numbers(16, 16), positive_block()])
    plain, compiled = run_both("factorise_block", block, 256, np.float32(1e-3))
    assert plain[1]
    assert compiled[1]
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-4, atol=1e-6)
    factor = np.triu(compiled[0][1], 1) + np.diag(1 / np.diag(compiled[0][1]))
    np.testing.assert_allclose(factor.T @ factor, block[1], rtol=1e-4, atol=1e-4)
    assert not np.tril(compiled[0][1], -1).any()


@pytest.mark.parametrize("pivot", [0.0, -1.0, np.nan])
@pytest.mark.parametrize("place", [0, 7, 15])
def test_a_bad_pivot_is_told(place: int, pivot: float) -> None:
    block = np.eye(16, dtype=np.float32)
    block[place, place] = pivot
    with np.errstate(all="ignore"):
        plain, compiled = run_both("factorise_block", block, 0, np.float32(1e-3))
    assert not plain[1]
    assert not compiled[1]


def test_solve_block() -> None:
    (factor, _), _ = run_both("factorise_block", positive_block(), 0, np.float32(1e-3))
    both = np.stack([factor, numbers(16, 16, seed=3)])
    assert_same("solve_block", both, 0, 256)
    _, (solved, _) = run_both("solve_block", both, 0, 256)
    upper = np.triu(factor, 1) + np.diag(1 / np.diag(factor))
    np.testing.assert_allclose(upper.T @ solved[1], both[1], rtol=0, atol=1e-4)


def test_substitution() -> None:
    (factor, _), _ = run_both("factorise_block", positive_block(), 0, np.float32(1e-3))
    right_side = numbers(48, seed=5)
    assert_same("substitute_block", factor, 0, right_side, 16, numbers(32), 16)
    assert_same("substitute_block_back", factor, 0, right_side, 16, numbers(32), 0)
    _, (_, _, negative, _) = run_both("substitute_block", factor, 0, right_side, 16, numbers(16), 0)
    _, (_, x, _, _) = run_both("substitute_block_back", factor, 0, np.zeros(16, np.float32), 0, negative, 0)
    upper = np.triu(factor, 1) + np.diag(1 / np.diag(factor))
    np.testing.assert_allclose(upper.T @ upper @ x, right_side[16:32], rtol=0, atol=1e-3)


@pytest.mark.parametrize("n", LENGTHS)
def test_dot_product(n: int) -> None:
    assert_same("dot_product", numbers(120), 3, numbers(150, seed=1), 17, n)


def use_rows(table: Float32Array, other: Float32Array, width: int, weights: Float32Array, n: rows.Count) -> np.float32:
    row = rows.hold_row(table, width, n)
    product = rows.multiply_row(row, other, 2 * width)
    source = rows.combine_rows(row, rows.hold_row(other, 0, n), weights[4], weights[5])
    row = rows.move_row(row, source, other, 2 * width, weights[0], weights[1], weights[2], weights[3])
    rows.put_row(row, table, 0)
    return product


@pytest.mark.parametrize("n_panels", [1, 2, 3, 8, 33])
def test_rows_that_are_held(n_panels: int) -> None:
    width = 16 * n_panels
    table, other, weights = numbers(2, width), numbers(3, width, seed=1), numbers(6, seed=2)
    x, y = table[1].astype(np.float64), other[2].astype(np.float64)
    source = weights[4] * x + weights[5] * other[0]
    tables = table.copy(), other.copy()

    product = device(use_rows)(*tables, width, weights, rows.count(n_panels))

    assert product == pytest.approx(x @ y, abs=1e-4)
    np.testing.assert_allclose(tables[0], [weights[0] * x + weights[1] * y, x], rtol=0, atol=1e-5)
    np.testing.assert_allclose(tables[1], [*other[:2], weights[2] * y + weights[3] * source], rtol=0, atol=1e-5)


@pytest.mark.parametrize("x", [-200, -87, -20.5, -1, -1e-8, 0, 0.3, 1, 20.5, 88])
def test_exponential(x: float) -> None:
    plain, compiled = run_both("exponential", np.float32(x))
    assert compiled[0] == pytest.approx(plain[0], rel=3e-7, abs=1e-37)


def test_inverse_roots() -> None:
    plain, compiled = run_both("inverse_roots", np.float32(2), np.float32(1e6))
    np.testing.assert_allclose(compiled[0], plain[0], rtol=3e-7)


@pytest.mark.parametrize("strength", [0, 0.5, 1e30])
def test_step_sizes(strength: float) -> None:
    rates = np.zeros((4, 4), np.float32)
    rates[:, :2] = [[0.5, 0.2], [0.1, 0.3], [0, strength], [strength, 2 * strength]]
    plain, compiled = run_both("step_sizes", *np.array([2, 1e6, 0.5, 3], np.float32), rates.ravel())
    np.testing.assert_allclose(compiled[1], plain[1], rtol=3e-7, atol=2e-7)


def whole(*shape: int, high: int, seed: int = 0) -> Float32Array:
    """Draw whole numbers, whose sums of products are exact."""
    return np.random.default_rng(seed).integers(-high, high + 1, shape).astype(np.float32)


@pytest.mark.parametrize("n_factors", [1, 2, 17, 64])
def test_screen_floats(n_factors: int) -> None:
    queries, items = whole(3, n_factors, 8, high=3), whole(4, n_factors, 32, high=3, seed=1)
    items[1, 0, 5] = np.nan
    limits = whole(3, 4, 8, high=20, seed=2)
    limits[1, 0, 3], limits[1, 0, 4] = -np.inf, np.inf
    found = np.zeros((8, 32), np.float32), np.zeros(8, np.float32), np.zeros(8, np.int32)
    arguments = queries, 8 * n_factors, items, 32 * n_factors, n_factors, limits, 32, np.float32(0.5), *found
    plain, compiled = run_both("screen_floats", *arguments)
    for expected, array in zip(plain, compiled, strict=True):
        np.testing.assert_array_equal(array, expected)
    *_, scores, margins, passed, _ = compiled
    products = queries[1].T.astype(np.float64) @ items[1]
    np.testing.assert_array_equal(scores + margins[:, None] / 2, products)
    np.testing.assert_array_equal(margins, limits[1, 1])
    expected = np.isnan(products) | (scores + margins[:, None] >= limits[1, 0][:, None])
    np.testing.assert_array_equal(as_truths(passed), expected)
    assert 0 < expected.sum() < 256
    nothing = np.full((3, 4, 8), np.inf, np.float32)
    nothing[:, 1] = 0
    items[1, 0, 5] = 0
    _, (*_, anything) = run_both("screen_floats", *arguments[:5], nothing, *arguments[6:])
    assert not anything


@pytest.mark.parametrize("n_quads", [1, 3, 16])
def test_screen_bytes(n_quads: int) -> None:
    rng = np.random.default_rng(n_quads)
    queries = rng.integers(-127, 128, (3, n_quads + 1, 8, 4)).astype(np.int8).view(np.int32)[..., 0].copy()
    queries[1, n_quads] = rng.integers(-500, 500, 8)
    items = rng.integers(1, 256, (4, n_quads, 32, 4)).astype(np.uint8)
    limits = np.stack([whole(3, 8, high=40 * n_quads, seed=seed) for seed in range(3)])
    limits[1, 1:] = np.abs(limits[1, 1:])
    limits[1, 0, :3] = -np.inf, np.inf, np.nan
    terms = np.array([[0, 0, 0, 0], [100, 1, 2, 0.25]], np.float32)
    found = np.zeros((8, 32), np.float32), np.zeros(8, np.float32), np.zeros(8, np.int32)
    position = 8 * (n_quads + 1), items, 128 * n_quads, n_quads, limits, 24, terms, 4
    plain, compiled = run_both("screen_bytes", queries, *position, *found)
    for expected, array in zip(plain, compiled, strict=True):
        np.testing.assert_array_equal(array, expected)
    *_, scores, margins, passed, anything = compiled
    assert anything
    signed, unsigned = queries[1, :-1, :, None].view(np.int8).astype(int), items[1].astype(int)
    products = np.einsum("qrc,qvc->rv", signed, unsigned) - queries[1, n_quads][:, None]
    error = limits[1, 1] + 2 * limits[1, 2]
    np.testing.assert_array_equal(scores, (products - error[:, None]) / 4)
    np.testing.assert_array_equal(margins, error / 2)
    truths = as_truths(passed)
    np.testing.assert_array_equal(truths[3:], products[3:] >= 100 * limits[1, 0, 3:, None] - error[3:, None])
    assert truths[0].all()
    assert not truths[1].any()
    assert truths[2].all()


def as_truths(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    return np.unpackbits(bits.view(np.uint8), bitorder="little").reshape(8, 32).astype(bool)


@pytest.mark.parametrize("limit", [3, 40])
def test_append_passed(limit: int) -> None:
    rng = np.random.default_rng(limit)
    passed, excluded = (rng.integers(0, 2**32, shape).astype(np.uint32) for shape in (8, (3, 8)))
    passed[1], passed[2], passed[3], excluded[1, 2] = 0, 2**32 - 1, 2**31 + 1, 0
    capacity, before = 96, rng.integers(0, 3, 8)
    scores, margins, buffers = numbers(8, 32), numbers(8, seed=1), np.zeros((8, capacity), np.float32)
    counts = np.zeros((2, 8, 4), np.int64)
    counts[1, :, 0], counts[1, :, 1] = before, limit
    screened = passed.view(np.int32), scores, margins, excluded, 8, 320
    buffer = buffers, buffers.copy(), np.zeros((8, capacity), np.int32), 0, capacity, counts, 32
    plain, compiled = run_both("append_passed", *screened, *buffer)
    expected = as_truths((passed & ~excluded[1]).view(np.int32))
    for *_, lows, highs, places, counted, is_full in (plain, compiled):
        assert counted[1, :, 0].tolist() == (before + expected.sum(axis=1)).tolist()
        assert is_full == (counted[1, :, 0] > limit).any()
        for r in range(8):
            appended, found = slice(before[r], counted[1, r, 0]), np.flatnonzero(expected[r])
            assert places[r, appended].tolist() == (found + 320).tolist()
            np.testing.assert_array_equal(lows[r, appended], scores[r, found])
            np.testing.assert_array_equal(highs[r, appended], scores[r, found] + margins[r])


def some_numbers(seed: int = 0) -> Float32Array:
    array = numbers(100, seed=seed)
    array[[5, 20, 21]] = np.nan, -np.inf, np.inf if seed else 3
    return array


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_extremes(n: int) -> None:
    array = some_numbers(1)
    plain, compiled = run_both("extremes", array, 3, n)
    np.testing.assert_array_equal(compiled[1], plain[1])
    counted = [number for number in array[3 : 3 + 16 * n] if number > -np.inf]
    assert compiled[1].tolist() == [min(counted, default=np.inf), max(counted, default=-np.inf)]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("least", [-np.inf, -0.5, 0, 1, np.inf])
def test_count_not_below(least: float, n: int) -> None:
    array = some_numbers()
    for *_, count in run_both("count_not_below", array, 3, n, np.float32(least)):
        assert count == np.sum(array[3 : 3 + 16 * n] >= least)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("least", [-np.inf, 0, 1, np.inf])
def test_keep_not_below(least: float, n: int) -> None:
    lows, highs, places = numbers(100), some_numbers(1), np.arange(100, dtype=np.int32)
    kept = np.flatnonzero(~(highs[3 : 3 + 16 * n] < least)) + 3
    for *arrays, count in run_both("keep_not_below", lows, highs, places, 3, n, np.float32(least)):
        assert count == len(kept)
        for array, before in zip(arrays, (lows, highs, places), strict=True):
            np.testing.assert_array_equal(array[3 : 3 + count], before[kept])
            np.testing.assert_array_equal(array[:3], before[:3])
            np.testing.assert_array_equal(array[3 + 16 * n :], before[3 + 16 * n :])


@pytest.mark.parametrize("n", LENGTHS)
def test_largest_magnitude(n: int) -> None:
    array = numbers(120)
    array[7] = np.nan
    for *_, largest in run_both("largest_magnitude", array, 3, n):
        assert largest == np.nanmax(np.abs(array[3 : 3 + n]), initial=0)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("bound", [-(2**63), -5, 0, 2**40, 2**63 - 1])
def test_count_above(bound: int, n: int) -> None:
    numbers_ = np.random.default_rng(n).integers(-8, 8, 100)
    numbers_[::7] = 2**41
    assert_same("count_above", numbers_, 3, n, bound)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("least", [-(2**31), -5, 0, 3, 2**31 - 1])
def test_count_from(least: int, n: int) -> None:
    numbers_ = np.random.default_rng(n).integers(-8, 8, 100).astype(np.int32)
    numbers_[::7] = 2**31 - 1
    assert_same("count_from", numbers_, 3, n, least)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("name", ["exact_product", "product_in_order"])
def test_products_of_rows(name: str, n: int) -> None:
    assert_same(name, whole(120, high=9), 3, whole(150, high=9, seed=1), 17, n)
