"""Arrays from callers work, or are refused by name; nothing is compiled or copied because of a flag."""

import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import metrics
from fastmf.common.arrays import as_numbers
from fastmf.errors import FastMFError, ParameterError
from fastmf.models import FactorModel
from fastmf_kernels import _jit

RNG = np.random.default_rng(0)
QUERIES, ITEMS = RNG.standard_normal((20, 3)).astype(np.float32), RNG.standard_normal((40, 3)).astype(np.float32)
EXCLUDE = (np.arange(21), np.zeros(20, np.int32))


@pytest.fixture(scope="module")
def model() -> FactorModel:
    return fastmf.ALS(n_factors=3, n_epochs=2).fit(fastmf.testing.low_rank(30, 25))


NO_COUNTS = [0, -3, 1.5, 2.0, True, np.True_, np.float32(2), "2", None, [2], (), Fraction(4, 2), np.array([1, 2]), 1j]


@pytest.mark.parametrize("k", [*NO_COUNTS, 2**62, 2**31, 2**200], ids=str)
def test_k_is_a_count(k: Any, model: FactorModel, tmp_path: Path) -> None:
    test = fastmf.testing.low_rank(30, 25, seed=1)
    for ask in (
        lambda: fastmf.top_k(QUERIES, ITEMS, k),
        lambda: fastmf.top_k(QUERIES[0], fastmf.index_items(ITEMS), k),
        lambda: model.recommend(k=k),
        lambda: model.recommend_to_parquet(tmp_path / "recs.parquet", k),
        lambda: model.similar_items(1, k),
        lambda: model.similar_users(1, k),
        lambda: metrics.recall_at_k([[1, 2]], [[1]], k),
        lambda: metrics.ranking_metrics([[1, 2]], [[1]], k),
    ):
        with pytest.raises(ParameterError, match=r"^(k is|recommended has shape)"):
            ask()
    if not isinstance(k, (list, np.ndarray)):
        with pytest.raises(ParameterError, match=r"^k is"):
            fastmf.evaluate(model, test, k=k)
        with pytest.raises(ParameterError, match=r"^k is"):
            fastmf.evaluate(model, test, k=(2, k))
    assert list(tmp_path.iterdir()) == []


def test_there_are_no_cut_offs_that_are_none(model: FactorModel) -> None:
    for k in ((), [], np.empty(0, np.int64), iter(())):
        with pytest.raises(ParameterError, match="k is empty; expected an integer of at least 1, or several"):
            fastmf.evaluate(model, fastmf.testing.low_rank(30, 25, seed=1), k=k)


@pytest.mark.parametrize("k", [np.int8(3), np.uint64(3), np.array(3)])
def test_k_is_any_integer(k: Any, model: FactorModel) -> None:
    assert fastmf.top_k(QUERIES, ITEMS, k).indices.shape == (20, 3)
    assert model.recommend(k=k).items.shape == (30, 3)
    assert model.similar_items([1, 2], k).neighbours.shape == (2, 3)


@pytest.mark.parametrize("n_threads", [n for n in NO_COUNTS if n is not None], ids=str)
def test_threads_are_counted(n_threads: Any) -> None:
    for backend in ("cpu", "reference"):
        for ask in (
            lambda backend=backend: fastmf.top_k(QUERIES, ITEMS, 2, n_threads=n_threads, backend=backend),
            lambda backend=backend: fastmf.top_k(QUERIES[:1], ITEMS, 2, n_threads=n_threads, backend=backend),
            lambda backend=backend: fastmf.index_items(ITEMS, n_threads=n_threads, backend=backend),
        ):
            with pytest.raises(ParameterError, match=r"n_threads is .*; expected an integer of at least 1, or None"):
                ask()


@pytest.mark.parametrize("pruning", [None, "no", 0, 1, np.array([True, False])])
def test_pruning_is_a_switch(pruning: Any) -> None:
    for ask in (
        lambda: fastmf.top_k(QUERIES, ITEMS, 2, pruning=pruning),
        lambda: fastmf.index_items(ITEMS, pruning=pruning),
    ):
        with pytest.raises(ParameterError, match=r"pruning is .*; expected True or False"):
            ask()


NO_NUMBERS: dict[str, Any] = {
    "objects": np.array([[1, None, 3]] * 20, object),
    "numbers as objects": np.array([[1, 2, 3]] * 20, object),
    "text": np.array([["1", "2", "3"]] * 20),
    "bytes": np.array([[b"1", b"2", b"3"]] * 20),
    "complex": np.ones((20, 3), complex),
    "times": np.zeros((20, 3), "M8[s]"),
    "ragged": [[1, 2, 3], [1, 2]],
    "a record": np.zeros(20, [("x", "f4")]),
    "nothing": None,
    "partly masked": np.ma.array(np.ones((20, 3)), mask=np.eye(20, 3)),
    "beyond float32": np.full((20, 3), 1e300),
    "one beyond float32": np.where(np.eye(20, 3) > 0, -1e39, 1.0),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_factors_are_numbers(kind: str) -> None:
    values = NO_NUMBERS[kind]
    for ask, name in (
        (lambda: fastmf.top_k(values, ITEMS, 2), "queries"),
        (lambda: fastmf.top_k(QUERIES, values, 2), "items"),
        (lambda: fastmf.index_items(values), "items"),
        (lambda: fastmf.top_k(QUERIES, values, 2, backend="reference"), "items"),
    ):
        with pytest.raises(ParameterError, match=f"^{name} "):
            ask()


@pytest.mark.parametrize(
    "kind",
    ["f2", "f4", ">f4", "f8", ">f8", "i1", "u1", "i4", "u8", "?", "F order", "slices", "negative steps", "lists"],
)
def test_factors_are_any_numbers(kind: str) -> None:
    queries, items = np.round(4 * QUERIES), np.round(4 * ITEMS)
    if kind in ("u1", "u8", "?"):
        queries, items = queries > 0, items > 0
    expected = fastmf.top_k(queries.astype(np.float32), items.astype(np.float32), 4, backend="reference")
    give: Callable[[Any], Any] = {
        "F order": np.asfortranarray,
        "slices": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        "negative steps": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
        "lists": lambda array: array.tolist(),
    }.get(kind, lambda array: array.astype(kind))

    found = fastmf.top_k(give(queries), give(items), 4)

    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_infinite_and_nan_factors_are_ordered_as_the_reference_does() -> None:
    items = ITEMS.copy()
    items[3], items[5, 0], items[7, 1] = np.nan, np.inf, -np.inf
    for dtype in (np.float32, np.float64):
        expected = fastmf.top_k(QUERIES, items.astype(dtype), 6, backend="reference")
        for pruning in (True, False):
            found = fastmf.top_k(QUERIES, items.astype(dtype), 6, pruning=pruning)
            np.testing.assert_array_equal(found.indices, expected.indices)


def read_only(array: Any) -> Any:
    array = np.array(array)
    array.flags.writeable = False
    return array


def unaligned(array: Any) -> Any:
    shifted = np.frombuffer(b"\0" + np.ascontiguousarray(array).tobytes(), array.dtype, offset=1)
    return shifted.reshape(array.shape)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After it is called, kernels run for types that they have run for; others are neither compiled nor loaded."""

    def stop() -> None:
        from numba.core.dispatcher import _FunctionCompiler  # noqa: TID251

        def refuse(self: Any, given: Any, *_: Any) -> Any:
            raise AssertionError(f"{self.py_func.__name__} is compiled for {given}")

        monkeypatch.setattr(_jit._KernelCache, "load_overload", lambda *_: None)
        monkeypatch.setattr(_FunctionCompiler, "compile", refuse)

    return stop


@pytest.mark.parametrize("form", ["read-only", "mapped", "unaligned"])
def test_protected_arrays_compile_nothing_new(
    form: str, no_compiler: Callable[[], None], model: FactorModel, tmp_path: Path
) -> None:
    def given(array: Any) -> Any:
        if form == "mapped":
            np.save(tmp_path / f"{id(array)}.npy", array)
            return np.load(tmp_path / f"{id(array)}.npy", mmap_mode="r")
        return read_only(array) if form == "read-only" else unaligned(array)

    def ask(give: Callable[[Any], Any]) -> list[Any]:
        exclude = give(EXCLUDE[0]), give(EXCLUDE[1])
        found = [
            fastmf.top_k(give(QUERIES), give(ITEMS), 3, exclude=exclude, pruning=pruning) for pruning in (True, False)
        ]
        found.append(fastmf.top_k(give(QUERIES[0]), give(ITEMS), 3))
        found.append(fastmf.top_k(give(QUERIES), fastmf.index_items(give(ITEMS)), 3, exclude=exclude))
        return [
            *found,
            (model.predict_indices(give(np.arange(9, dtype=np.int32)), give(np.arange(9, dtype=np.int32))),),
        ]

    expected = ask(np.array)
    no_compiler()

    for found, same in zip(ask(given), expected, strict=True):
        for part, other in zip(found, same, strict=True):
            np.testing.assert_array_equal(part, other)


def test_read_only_factors_are_not_copied() -> None:
    array = read_only(ITEMS)

    assert np.shares_memory(as_numbers(array, "items"), array)
    assert np.shares_memory(fastmf.index_items(array, backend="reference").factors, array)


@pytest.mark.parametrize(
    ("users", "items"),
    [
        ([30], [0]),
        ([0], [25]),
        ([-2], [0]),
        ([0], [2**31]),
        (np.array([2**32], np.uint64), [0]),
        ([0, 1], [0]),
        ([0], [[0]]),
        ([0.0], [0]),
        ([True], [0]),
        (["0"], [0]),
        (np.array([0], object), [0]),
        (0, 0),
        ([[0], [1, 2]], [0]),
        (np.ma.array([0, 1], mask=[0, 1]), [0, 1]),
    ],
    ids=str,
)
def test_pairs_beyond_the_table_are_not_predicted(users: Any, items: Any, model: FactorModel) -> None:
    with pytest.raises(FastMFError):
        model.predict_indices(users, items)


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", ">i4", "u2"])
def test_pairs_are_any_integers(dtype: str, model: FactorModel) -> None:
    users, items = np.array([3, 29, 0], dtype), np.array([24, 0, 1], dtype)

    expected = model.predict(users.astype(np.int64), items.astype(np.int64))
    np.testing.assert_array_equal(model.predict_indices(users, items), expected)
    assert len(model.predict_indices([], [])) == 0
    assert np.isfinite(model.predict_indices([-1, 3, -1], [-1, -1, 4])).all()


@pytest.mark.parametrize(
    "exclude",
    [
        (np.arange(21)[::-1], EXCLUDE[1]),
        (np.arange(20), EXCLUDE[1]),
        (np.arange(21) * 2, EXCLUDE[1]),
        (np.append(0, np.full(20, 2**62)), EXCLUDE[1]),
        (np.append(-1, np.arange(20)), EXCLUDE[1]),
        (EXCLUDE[0], np.full(20, 40)),
        (EXCLUDE[0], np.full(20, -1)),
        (EXCLUDE[0], np.full(20, 2**32)),
        (EXCLUDE[0], np.full(20, 2**63, np.uint64)),
        (np.full(21, 2**63, np.uint64), EXCLUDE[1]),
        (EXCLUDE[0], np.zeros(20)),
        (EXCLUDE[0], np.zeros(20, object)),
        (EXCLUDE[0], np.zeros(20, bool)),
        (EXCLUDE[0], ["a"] * 20),
        (EXCLUDE[0], [[0], [1, 2]]),
        (EXCLUDE[0], np.zeros((20, 1), int)),
        (EXCLUDE[0],),
        {},
        np.zeros((2, 21), int),
    ],
    ids=range(19),
)
def test_a_false_exclusion_is_refused(exclude: Any) -> None:
    for backend in ("cpu", "reference"):
        with pytest.raises(ParameterError, match="exclude"):
            fastmf.top_k(QUERIES, ITEMS, 2, exclude=exclude, backend=backend)


class Series:
    """A column of another library: as polars exports a Categorical."""

    def __init__(self, array: pa.Array) -> None:
        self._array = pa.chunked_array([array])

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._array.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("index", [pa.int8(), pa.uint32(), pa.int64()])
@pytest.mark.parametrize("values", [pa.string(), pa.large_string(), pa.string_view()])
def test_ids_may_be_categories(values: Any, index: Any) -> None:
    names = [f"u{n:02}" for n in range(20)]
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(
        fastmf.Interactions.from_arrays(names * 2, [*range(20), *range(1, 20), 0])
    )
    given = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2], index), pa.array(["u05", "x", "u11"], values))
    expected = model.recommend(["u11", "u05", "u11"], k=2)
    for users in (given, Series(given), pa.chunked_array([given])):
        found = model.recommend(users, k=2)
        assert found.user_ids == expected.user_ids
        np.testing.assert_array_equal(found.items, expected.items)
        assert model.similar_users(users, 2).ids == expected.user_ids
        items = pa.array([3, 4, 5])
        np.testing.assert_array_equal(model.predict(users, items), model.predict(["u11", "u05", "u11"], items))


def test_no_other_exception_leaves_a_request(model: FactorModel) -> None:
    for value in (
        object(),
        1.5,
        [1.5],
        [[1], [2]],
        {"a": 1},
        b"x",
        np.datetime64("2020"),
        [1, "a"],
        [None],
        float("nan"),
    ):
        for ask in (
            lambda value=value: model.recommend(value),
            lambda value=value: model.recommend(k=2, allow=[value]),
            lambda value=value: model.recommend(k=2, deny={value if isinstance(value, (int, float)) else 1: [value]}),
            lambda value=value: model.recommend(k=2, exclude=value),
            lambda value=value: model.similar_items(value),
            lambda value=value: model.similar_users(value),
            lambda value=value: fastmf.evaluate(model, value),
        ):
            with warnings.catch_warnings(), pytest.raises(FastMFError):
                ask()


def test_the_compiler_can_be_found_out(no_compiler: Callable[[], None]) -> None:
    """The test of protected arrays sees what is compiled."""
    kernel = _jit.kernel(lambda x: x + 1)
    assert kernel(1) == 2
    no_compiler()
    with pytest.raises(AssertionError, match="is compiled for"):
        kernel(np.ones(3))
