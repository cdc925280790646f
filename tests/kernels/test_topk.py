"""Top-k against a full sort: the same items in the same order, ties and broken scores included.

Most inputs here are multiples of 1/64 of moderate size, whose dot products are exact in float32 in any order of
summation: there indices and scores must be *equal*. Only `test_rounded_scores` needs a tolerance.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from fastmf.backend import Kernels, get_backend
from fastmf_kernels._types import Float32Array
from fastmf_kernels.topk.arrays import ItemIndex, Pairs, Rows, TopK, no_rows, without_layout
from fastmf_kernels.topk.cpu import index as cpu_index

THREADS = (1, 2, None)
# A tile of the CPU kernel holds 32 items and 8 queries, a block 64 queries: sizes on both sides of a border.
N_ITEMS = (1, 15, 31, 32, 33, 255, 700)
LAYOUTS = ("pruned", "full", "none")


def indexed(kernels: Kernels, items: Float32Array, layout: str = "pruned") -> ItemIndex:
    return without_layout(items) if layout == "none" else kernels.index_items(items, layout == "pruned", None)


def find(
    kernels: Kernels,
    queries: Float32Array,
    items: Float32Array,
    k: int,
    exclude: Rows,
    n_threads: int | None = None,
    layout: str = "pruned",
) -> TopK:
    return kernels.top_k(queries, indexed(kernels, items, layout), k, exclude, n_threads).top


def dyadic(shape: tuple[int, int], seed: int, high: int = 200) -> Float32Array:
    """Draw multiples of 1/64: products are multiples of 2^-12, and sums of a few hundred stay below 2^12."""
    return (np.random.default_rng(seed).integers(-high, high + 1, shape) / 64).astype(np.float32)


def rows(lists: Sequence[Sequence[int]]) -> Rows:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int64)
    return Rows(indptr, np.array([item for row in lists for item in sorted(row)], np.int32))


def random_rows(n_queries: int, n_items: int, share: float, seed: int) -> Rows:
    chosen = np.random.default_rng(seed).random((n_queries, n_items)) < share
    return rows([np.flatnonzero(row).tolist() for row in chosen])


def assert_same(top: TopK, expected: TopK) -> None:
    assert top.indices.dtype == np.int32
    assert top.scores.dtype == np.float32
    np.testing.assert_array_equal(top.indices, expected.indices)
    np.testing.assert_array_equal(top.scores, expected.scores)


def with_item(items: Float32Array, value: float, *positions: int) -> Float32Array:
    items[list(positions), 1] = value
    return items


INPUTS = {
    "spread": (dyadic((70, 8), 1), dyadic((300, 8), 2)),
    "tied": (dyadic((70, 8), 1, high=1), dyadic((300, 8), 2, high=1)),
    "twins": (dyadic((70, 8), 1), np.repeat(dyadic((100, 8), 2), 3, axis=0)),
    "ascending": (np.ones((3, 1), np.float32), np.arange(600, dtype=np.float32)[:, None]),
    "descending": (np.ones((3, 1), np.float32), np.arange(600, 0, -1).astype(np.float32)[:, None]),
    "constant": (np.ones((5, 4), np.float32), np.ones((300, 4), np.float32)),
    "zero": (np.zeros((5, 4), np.float32), np.zeros((300, 4), np.float32)),
    "negative": (np.ones((5, 4), np.float32), -np.abs(dyadic((300, 4), 3)) - 1),
    "huge": (dyadic((70, 8), 1) * np.float32(2.0**50), dyadic((300, 8), 2) * np.float32(2.0**60)),
    "overflowing": (
        np.full((5, 4), 1e25, np.float32),
        np.sign(dyadic((300, 1), 2, high=1)).repeat(4, 1) * np.float32(1e20),
    ),
    "tiny": (dyadic((70, 8), 1) * np.float32(2.0**-40), dyadic((300, 8), 2) * np.float32(2.0**-50)),
    "denormal": (dyadic((70, 8), 1), dyadic((300, 8), 2) * np.float32(2.0**-140)),
    "denormal queries": (dyadic((70, 8), 1) * np.float32(2.0**-140), dyadic((300, 8), 2) * np.float32(2.0**100)),
    "minus zero": (dyadic((70, 4), 1, high=1), np.float32(-0.0) * dyadic((300, 4), 2, high=1)),
    "equal norms": (dyadic((70, 8), 1), np.where(dyadic((300, 8), 2) < 0, -1, 1).astype(np.float32)),
    "one huge": (dyadic((70, 8), 1), with_item(dyadic((300, 8), 2), 2.0**90, 77)),
    "one large factor": (with_item(dyadic((70, 8), 1), 2.0**20, *range(70)), dyadic((300, 8), 2)),
    "rising norms": (dyadic((70, 8), 1), dyadic((300, 8), 2) * np.arange(300, dtype=np.float32)[:, None]),
    "NaN items": (dyadic((70, 8), 1), with_item(dyadic((300, 8), 2), np.nan, 0, 17, 255, 256, 299)),
    "NaN queries": (with_item(dyadic((70, 8), 1), np.nan, 0, 33, 69), dyadic((300, 8), 2)),
    "infinite items": (np.abs(dyadic((70, 8), 1)) + 1, with_item(dyadic((300, 8), 2), np.inf, 200, 5)),
    "minus infinite items": (np.abs(dyadic((70, 8), 1)) + 1, with_item(dyadic((300, 8), 2), -np.inf, 0, 200)),
    "one query": (dyadic((1, 8), 1), dyadic((300, 8), 2)),
    "no queries": (dyadic((0, 8), 1), dyadic((300, 8), 2)),
    "no items": (dyadic((5, 8), 1), dyadic((0, 8), 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("k", [1, 2, 10, 100, 299, 300, 310])
@pytest.mark.parametrize("name", INPUTS)
def test_top_k(name: str, k: int, layout: str, kernels: Kernels, reference: Kernels) -> None:
    queries, items = INPUTS[name]
    for exclude in (no_rows(len(queries)), random_rows(len(queries), len(items), 0.3, 4)):
        everything = queries, items, k, exclude
        assert_same(find(kernels, *everything, layout=layout), find(reference, *everything))


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("name", INPUTS)
def test_screening_by_floats_in_order_of_norm(
    name: str, k: int, reference: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What processors do that have no quick products of bytes."""
    monkeypatch.setattr(cpu_index, "has_byte_products", lambda: False)
    queries, items = INPUTS[name]
    everything = queries, items, k, random_rows(len(queries), len(items), 0.3, 4)
    assert_same(find(get_backend("cpu"), *everything), find(reference, *everything))


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("name", INPUTS)
def test_screening_by_bytes(name: str, k: int, reference: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_index, "has_byte_products", lambda: True)
    queries, items = INPUTS[name]
    everything = queries, items, k, random_rows(len(queries), len(items), 0.3, 4)
    assert_same(find(get_backend("cpu"), *everything), find(reference, *everything))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0, 1, 4])
def test_nothing_is_lost_by_screening(spread: float, seed: int, kernels: Kernels) -> None:
    """Factors that round, of equal norms and of very different ones: the three layouts agree bit for bit."""
    rng = np.random.default_rng(seed)
    n_factors = (5, 16, 33, 130)[seed]
    queries, items = (rng.standard_normal((n, n_factors)) for n in (100, 2000))
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    items *= np.exp(spread * rng.standard_normal((2000, 1)))
    if seed == 3:
        items[:, 0] *= 1000  # what a byte makes of the other factors is little
    everything = queries.astype(np.float32), items.astype(np.float32), 10, random_rows(100, 2000, 0.1, seed)
    expected = find(kernels, *everything, layout="none")
    for layout in ("pruned", "full"):
        assert_same(find(kernels, *everything, layout=layout), expected)


# Scales of queries and items whose scores, partial sums or bounds come near the ends of float32, or go beyond.
SCALES = [
    (1, 2.0**118),
    (2.0**118, 1),
    (2.0**60, 2.0**60),
    (2.0**-30, 2.0**120),
    (2.0**20, 2.0**120),
    (2.0**-70, 2.0**-70),
    (2.0**-130, 1),
    (2.0**-20, 2.0**-120),
    (2.0**-130, 2.0**120),
]


@pytest.mark.parametrize("with_bytes", [True, False])
@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_scores_near_the_ends_of_float32(
    scales: tuple[float, float], with_bytes: bool, reference: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Powers of two scale exact scores exactly, until they are rounded to float32 in the end."""
    monkeypatch.setattr(cpu_index, "has_byte_products", lambda: with_bytes)
    for n_queries, n_items, some in [(1, 300, 0), (70, 700, 3), (70, 700, 7)]:
        queries, items = dyadic((n_queries, 8), 21), dyadic((n_items, 8), 22)
        items[: some * 100] *= np.float32(2.0**-40)  # lengths that differ by more than a screen can tell apart
        everything = queries * np.float32(scales[0]), items * np.float32(scales[1]), 10, no_rows(n_queries)
        expected = find(reference, *everything)
        for layout in LAYOUTS:
            assert_same(find(get_backend("cpu"), *everything, layout=layout), expected)


@pytest.mark.parametrize("with_bytes", [True, False])
def test_partial_sums_that_overflow_do_not_hide_a_finite_score(
    with_bytes: bool, reference: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 -3e38 - 3e38 + 7.5e38 is -inf on the way, and 3e38 + 3e38 - 3.6e38 is infinite."""
    monkeypatch.setattr(cpu_index, "has_byte_products", lambda: with_bytes)
    items = np.zeros((300, 3), np.float32)
    items[:, 0] = np.arange(300)
    items[[7, 250]] = [[1e38, 1e38, -1.2e38], [-1e38, -1e38, 2.5e38]]
    queries = np.array([[3, 3, 3], [-3, -3, -3], [3, 3, 3.2]], np.float32)
    for k in (1, 3, 300):
        expected = find(reference, queries, items, k, no_rows(3))
        for layout in LAYOUTS:
            assert_same(find(get_backend("cpu"), queries, items, k, no_rows(3), layout=layout), expected)


def test_short_vectors_are_skipped() -> None:
    cpu = get_backend("cpu")
    rng = np.random.default_rng(3)
    queries, items = (rng.standard_normal((n, 16), np.float32) for n in (64, 5000))
    items[500:] *= np.float32(0.01)
    scan = cpu.top_k(queries, cpu.index_items(items, True, None), 10, no_rows(64), None).scan
    assert scan.n_skipped > 0.8 * (scan.n_skipped + scan.n_screened)
    full = cpu.top_k(queries, cpu.index_items(items, False, None), 10, no_rows(64), None).scan
    assert (full.n_screened, full.n_skipped) == (8 * 157, 0)
    # Bytes tell less of a score than float32 numbers do.
    assert 64 * 10 <= full.n_scored <= scan.n_scored < 64 * 100


@pytest.mark.parametrize("k", [1, 2, 10, 310])
@pytest.mark.parametrize("name", INPUTS)
def test_top_k_among(name: str, k: int, kernels: Kernels, reference: Kernels) -> None:
    queries, items = INPUTS[name]
    candidates, exclude = (random_rows(len(queries), len(items), share, 5) for share in (0.4, 0.2))
    for barred in (no_rows(len(queries)), exclude):
        everything = queries, items, k, candidates, barred, None
        assert_same(kernels.top_k_among(*everything), reference.top_k_among(*everything))


@pytest.mark.parametrize("n_factors", [1, 3, 4, 8, 17, 64, 128])
@pytest.mark.parametrize("n_items", N_ITEMS)
def test_shapes(n_items: int, n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    queries, items = dyadic((65, n_factors), 6), dyadic((n_items, n_factors), 7)
    exclude = random_rows(65, n_items, 0.1, 8)
    for layout in LAYOUTS:
        assert_same(
            find(kernels, queries, items, 7, exclude, layout=layout), find(reference, queries, items, 7, exclude)
        )


@pytest.mark.parametrize("n_queries", [1, 2, 63, 64, 65, 129])
def test_number_of_queries(n_queries: int, kernels: Kernels, reference: Kernels) -> None:
    everything = dyadic((n_queries, 8), 6), dyadic((260, 8), 7), 5, no_rows(n_queries)
    assert_same(find(kernels, *everything), find(reference, *everything))


def test_reference_by_hand(reference: Kernels) -> None:
    items = np.array([[2], [np.nan], [5], [2], [-np.inf], [7]], np.float32)
    top = find(reference, np.array([[1], [-1]], np.float32), items, 5, rows([[5], [0, 2]]), None)
    assert top.indices.tolist() == [[2, 0, 3, -1, -1], [4, 3, 5, -1, -1]]
    assert top.scores.tolist() == [[5, 2, 2, -np.inf, -np.inf], [np.inf, -2, -7, -np.inf, -np.inf]]


def test_ties_go_to_the_lower_index(kernels: Kernels) -> None:
    queries, items = np.ones((2, 4), np.float32), np.ones((1000, 4), np.float32)
    top = find(kernels, queries, items, 6, rows([[], [0, 2, 3]]), None)
    assert top.indices.tolist() == [[0, 1, 2, 3, 4, 5], [1, 4, 5, 6, 7, 8]]
    candidates = rows([[999, 3, 500], [7, 8]])
    top = kernels.top_k_among(queries, items, 2, candidates, rows([[], [7]]), None)
    assert top.indices.tolist() == [[3, 500], [8, -1]]


def test_padding(kernels: Kernels) -> None:
    queries, items = np.ones((3, 2), np.float32), dyadic((20, 2), 9)
    exclude = rows([range(20), range(1, 20), []])
    top = find(kernels, queries, items, 25, exclude, None)
    assert (top.indices >= 0).sum(axis=1).tolist() == [0, 1, 20]
    assert np.isneginf(top.scores).sum(axis=1).tolist() == [25, 24, 5]
    assert top.indices[1, 0] == 0
    assert (top.indices[2, 20:] == -1).all()
    among = kernels.top_k_among(queries, items, 3, rows([[], [4], range(20)]), exclude, None)
    assert (among.indices >= 0).sum(axis=1).tolist() == [0, 0, 3]
    assert np.isneginf(among.scores).sum(axis=1).tolist() == [3, 3, 0]


@pytest.mark.parametrize("n_queries", [1, 100])
@pytest.mark.parametrize("n_factors", [3, 64, 128])
def test_rounded_scores(n_factors: int, n_queries: int, kernels: Kernels) -> None:
    """Where float32 rounds, an item may only be in the place of one whose exact score is as good."""
    rng = np.random.default_rng(10)
    queries, items = (rng.standard_normal((n, n_factors), np.float32) for n in (n_queries, 900))
    exact = queries.astype(np.float64) @ items.astype(np.float64).T
    top = find(kernels, queries, items, 50, no_rows(n_queries), None)
    best = -np.sort(-exact, axis=1)[:, :50]
    tolerance = 4e-7 * n_factors
    np.testing.assert_allclose(top.scores, best, rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.take_along_axis(exact, top.indices, axis=1), best, rtol=0, atol=tolerance)
    assert all(len(set(row)) == 50 for row in top.indices.tolist())


@pytest.mark.parametrize("name", ["spread", "tied", "NaN items", "NaN queries", "huge"])
def test_a_single_query_equals_the_batch(name: str, kernels: Kernels) -> None:
    queries, items = INPUTS[name]
    exclude = random_rows(len(queries), len(items), 0.2, 11)
    batch = find(kernels, queries, items, 9, exclude, None)
    for r in range(0, len(queries), 3):
        start, stop = exclude.indptr[r : r + 2]
        own = Rows(np.array([0, stop - start]), exclude.indices[start:stop])
        single = find(kernels, queries[r : r + 1], items, 9, own, None)
        assert_same(single, TopK(batch.scores[r : r + 1], batch.indices[r : r + 1]))


@pytest.mark.parametrize("n_threads", THREADS)
def test_same_bits_for_any_threads(n_threads: int | None, kernels: Kernels) -> None:
    rng = np.random.default_rng(12)
    queries, items = (rng.standard_normal((n, 17), np.float32) for n in (200, 500))
    exclude, candidates = random_rows(200, 500, 0.1, 13), random_rows(200, 500, 0.5, 14)
    assert_same(find(kernels, queries, items, 20, exclude, n_threads), find(kernels, queries, items, 20, exclude, 1))
    among = queries, items, 20, candidates, exclude
    assert_same(kernels.top_k_among(*among, n_threads), kernels.top_k_among(*among, 1))


# Sums of these are not exact in float32, in which scores are compared here.
ROUNDED = ("overflowing", "denormal", "one large factor")


@pytest.mark.parametrize("name", [name for name in INPUTS if name not in ROUNDED])
def test_count_better(name: str, kernels: Kernels, reference: Kernels) -> None:
    queries, items = INPUTS[name]
    wanted, exclude = (random_rows(len(queries), len(items), share, 15) for share in (0.05, 0.3))
    found, expected = (
        backend.count_better(queries, backend.index_items(items, False, None), wanted, exclude, None)
        for backend in (kernels, reference)
    )
    np.testing.assert_array_equal(found.higher, expected.higher)
    np.testing.assert_array_equal(found.equal, expected.equal)


def test_count_better_by_hand(kernels: Kernels) -> None:
    items = np.array([[2], [5], [2], [7], [np.nan]], np.float32)
    counts = kernels.count_better(
        np.array([[1], [-1]], np.float32),
        kernels.index_items(items, False, None),
        rows([[0, 2], [1]]),
        rows([[3], []]),
        None,
    )
    assert counts.higher.tolist() == [1, 1, 2]
    assert counts.equal.tolist() == [2, 2, 1]


@pytest.mark.parametrize("k", [1, 4, 7])
def test_mark_hits(k: int, kernels: Kernels, reference: Kernels) -> None:
    rng = np.random.default_rng(16)
    indices = np.array([rng.permutation(30)[:7] for _ in range(50)], np.int32)
    indices[rng.random(indices.shape) < 0.1] = -1
    queries, items = np.nonzero(rng.random((50, 31)) < 0.1)
    order = rng.permutation(len(queries))
    wanted = Pairs(queries[order].astype(np.int32), items[order].astype(np.int32) - 1)
    is_hit = kernels.mark_hits(indices, k, wanted, None)
    assert (is_hit.shape, is_hit.dtype) == ((50, k), np.bool_)
    np.testing.assert_array_equal(is_hit, reference.mark_hits(indices, k, wanted, None))
    assert 0 < is_hit.any(axis=1).sum() < 50
    nothing = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))
    assert kernels.mark_hits(indices[:0], k, nothing, None).shape == (0, k)


def test_mark_hits_by_hand(kernels: Kernels) -> None:
    indices = np.array([[-1, 4, 68, 5], [9, 8, 7, 6]], np.int32)
    wanted = Pairs(np.array([0, 0, 1, 0, 0, 0], np.int32), np.array([68, 5, 1, -1, 4, 300], np.int32))
    assert kernels.mark_hits(indices, 3, wanted, None).tolist() == [[False, True, True], [False] * 3]
