"""Top-k on a GPU against its reference: the same indices and scores, whatever the screen makes of the products.

The screen is that of float32; for float16 see `test_topk_halves`. Tiles and blocks of threads are small here, so that
few threads go through many tiles, and buffers are short.
"""

import gc

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_kernels._cuda import memory
from fastmf_kernels._cuda.notes import OnHostWarning
from fastmf_kernels._types import Float32Array
from fastmf_kernels.topk import cpu, cuda
from fastmf_kernels.topk.arrays import Found, ItemIndex, Pairs, Rows, no_rows, without_layout
from fastmf_kernels.topk.cuda import fallback
from fastmf_kernels.topk.cuda.arrays import Shape
from tests.kernels.test_topk import INPUTS, assert_same, dyadic, random_rows, rows

SMALL = Shape(rows=4, columns=4, down=4, across=8, depth=8)  # 16 queries × 32 items, a warp
TWO_WARPS = Shape(rows=4, columns=8, down=8, across=8, depth=8)  # 32 queries × 64 items


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, SMALL)


@pytest.fixture
def on_the_host(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries the host has answered, at each time."""
    asked: list[int] = []
    answer = cpu.top_k

    def counting(queries: Float32Array, index: ItemIndex, k: int, exclude: Rows, n_threads: int | None) -> Found:
        asked.append(len(queries))
        return answer(queries, index, k, exclude, n_threads)

    monkeypatch.setattr(cpu, "top_k", counting)
    return asked


def use(monkeypatch: pytest.MonkeyPatch, shape: Shape) -> None:
    settings = {"SHAPE": shape, "MARGIN": 4, "ROOM": shape.n_items, "THREADS": 32, "HALVES": False}
    for name, value in settings.items():
        monkeypatch.setattr(cuda, name, value)


def spread(n_queries: int, n_items: int, n_factors: int = 8, seed: int = 0) -> tuple[Float32Array, Float32Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_queries, n_factors), np.float32), rng.standard_normal(
        (n_items, n_factors), np.float32
    )


def check(
    kernels: Kernels,
    reference: Kernels,
    queries: Float32Array,
    items: Float32Array,
    k: int,
    exclude: Rows,
    pruning: bool = True,
) -> Found:
    found = kernels.top_k(queries, kernels.index_items(items, pruning, None), k, exclude, None)
    assert_same(found.top, reference.top_k(queries, without_layout(items), k, exclude, None).top)
    return found


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("name", INPUTS)
def test_top_k(name: str, kernels: Kernels, reference: Kernels) -> None:
    queries, items = (table[:n] for table, n in zip(INPUTS[name], (2, 66), strict=True))
    check(kernels, reference, queries, items, 3, random_rows(len(queries), len(items), 0.3, 4))


@pytest.mark.parametrize("k", [1, 29, 70, 75])
def test_k_up_to_more_than_there_is(k: int, kernels: Kernels, reference: Kernels) -> None:
    check(kernels, reference, *spread(4, 70), k, rows([[], range(70), range(5, 60), [3]]))


@pytest.mark.parametrize(("n_queries", "n_items"), [(1, 1), (1, 31), (16, 7), (17, 33)])
def test_sizes_that_no_tile_divides(n_queries: int, n_items: int, kernels: Kernels, reference: Kernels) -> None:
    check(kernels, reference, *spread(n_queries, n_items), 2, random_rows(n_queries, n_items, 0.2, 1))


@pytest.mark.parametrize("n_factors", [1, 17, 130])
def test_widths(n_factors: int, kernels: Kernels, reference: Kernels) -> None:
    check(kernels, reference, dyadic((2, n_factors), 6), dyadic((40, n_factors), 7), 4, no_rows(2))


def test_two_warps(kernels: Kernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, TWO_WARPS)
    check(kernels, reference, *spread(18, 66), 5, random_rows(18, 66, 0.2, 2))


def test_buffers_are_compacted_again_and_again(
    kernels: Kernels, reference: Kernels, on_the_host: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item scores more than all before it, and one more than there is room for comes with each tile."""
    monkeypatch.setattr(cuda, "MARGIN", 1)
    queries, items = np.ones((2, 1), np.float32), np.arange(1, 201, dtype=np.float32)[:, None]
    check(kernels, reference, queries, items, 3, rows([[], [199, 197, 100]]), pruning=False)
    check(kernels, reference, -queries, items, 3, rows([[0, 1, 2], []]), pruning=False)
    assert on_the_host == []


@pytest.mark.parametrize("pruning", [True, False])
def test_parts_of_the_catalogue(
    pruning: bool, kernels: Kernels, reference: Kernels, on_the_host: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_TILES_OF_A_PART", 2)
    monkeypatch.setattr(cuda, "_BLOCKS", 3)
    queries, items = spread(2, 150)
    scan = check(kernels, reference, queries, items, 4, random_rows(2, 150, 0.2, 3), pruning).scan
    assert scan.n_scored == 2 * 8
    assert on_the_host == []


def test_batches(kernels: Kernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "free_bytes", lambda: 10_000)
    check(kernels, reference, *spread(17, 20), 2, random_rows(17, 20, 0.4, 5))


def test_short_vectors_are_skipped(kernels: Kernels, reference: Kernels, on_the_host: list[int]) -> None:
    queries, items = spread(2, 260)
    items[:] = items[np.random.default_rng(1).permutation(260)]
    items[np.arange(260) % 13 > 0] *= np.float32(0.01)
    pruned, full = (check(kernels, reference, queries, items, 3, no_rows(2), pruning).scan for pruning in (True, False))
    assert (full.n_screened, full.n_skipped) == (9, 0)
    assert pruned.n_screened + pruned.n_skipped == 9
    assert pruned.n_skipped > pruned.n_screened
    assert on_the_host == []


def test_short_vectors_of_the_right_direction_are_not(kernels: Kernels, reference: Kernels) -> None:
    items = np.zeros((100, 8), np.float32)
    items[:96, 0], items[:96, 1], items[96:, 0] = np.linspace(1, 2, 96), 9, np.linspace(2.1, 2.2, 4)
    found = check(kernels, reference, np.eye(1, 8, dtype=np.float32), items[::-1].copy(), 2, no_rows(1))
    assert found.top.indices.tolist() == [[0, 1]]


def test_what_is_not_proven_is_answered_on_the_host(
    kernels: Kernels, reference: Kernels, on_the_host: list[int]
) -> None:
    queries, items = spread(3, 50)
    exclude = random_rows(3, 50, 0.1, 7)
    check(kernels, reference, queries, items, 3, exclude)
    assert on_the_host == []
    check(kernels, reference, queries, np.ones_like(items), 3, exclude)
    assert on_the_host == [3]


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_vectors_of_zeros_need_no_search(kernels: Kernels, reference: Kernels, on_the_host: list[int]) -> None:
    queries, items = spread(4, 50)
    queries[[0, 2, 3]] = 0
    exclude = rows([[], [3], [4, 0, 49], range(48)])
    for asked in (slice(None), slice(2, 4)):
        lists = exclude if asked == slice(None) else rows([[4, 0, 49], range(48)])
        check(kernels, reference, queries[asked], items, 3, lists)
    assert on_the_host == []
    items[7, 2] = np.inf
    check(kernels, reference, queries, items, 3, exclude)
    assert on_the_host == [4]


def test_a_score_that_rounding_could_have_hidden_is_not_proven(
    kernels: Kernels, reference: Kernels, on_the_host: list[int]
) -> None:
    """In float32 the sum of 1, 2⁻²⁵, 2⁻²⁵, … is 1, below what is kept; exactly it is the best."""
    queries, items = np.ones((1, 30), np.float32), np.zeros((60, 30), np.float32)
    items[:, 0], items[50, 1:] = 1, 2.0**-25
    items[3:8, 0] += np.arange(1, 6) * np.float32(2.0**-23)
    found = check(kernels, reference, queries, items, 1, no_rows(1), pruning=False)
    assert found.top.indices.tolist() == [[50]]
    assert on_the_host == [1]


@pytest.mark.parametrize("seed", range(3))
def test_scores_that_float32_does_not_tell_apart(
    seed: int, kernels: Kernels, reference: Kernels, on_the_host: list[int]
) -> None:
    """Beside the best ten, which are far from the others, scores differ by less than the screen rounds."""
    (queries, noise), rng = spread(1, 70, 16, seed), np.random.default_rng(seed)
    items = queries + np.float32(2e-7) * noise
    items[rng.permutation(70)[:10]] *= np.float32(2)
    check(kernels, reference, queries, items, 10, no_rows(1))
    assert on_the_host == []
    check(kernels, reference, queries, items, 20, no_rows(1))
    assert on_the_host == [1]


def test_ties_within_what_is_kept_are_proven(kernels: Kernels, reference: Kernels, on_the_host: list[int]) -> None:
    items = np.repeat(np.arange(40, 0, -1, dtype=np.float32), 2)[:, None]
    found = check(kernels, reference, np.ones((1, 1), np.float32), items, 3, rows([[4]]))
    assert found.top.indices.tolist() == [[0, 1, 2]]
    assert on_the_host == []


def test_many_and_none(kernels: Kernels, reference: Kernels, on_the_host: list[int]) -> None:
    queries, items = spread(2, 40)
    with pytest.warns(OnHostWarning, match="k=1025 .* up to 1024 items"):
        check(kernels, reference, queries, items, cuda._MOST + 1, no_rows(2))
    check(kernels, reference, queries[:0], items, 3, no_rows(0))
    check(kernels, reference, queries, items[:0], 3, no_rows(2))
    assert on_the_host == [2, 0, 2]


def test_many_queries_for_the_host_are_worth_a_note(
    kernels: Kernels, reference: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten ties of ten are, nine are not; and the items are laid out for the host once."""
    laid_out: list[bool] = []
    lay_out = cpu.index_items
    monkeypatch.setattr(cpu, "index_items", lambda items, pruning: laid_out.append(pruning) or lay_out(items, pruning))
    queries, items = spread(10, 50)[0], np.ones((50, 8), np.float32)
    index = kernels.index_items(items, True, None)
    kernels.top_k(queries[:9], index, 3, no_rows(9), None)
    with pytest.warns(OnHostWarning, match="10 of 10 queries"):
        first = kernels.top_k(queries, index, 3, no_rows(10), None)
    again = kernels.top_k(queries, index, 3, no_rows(10), None)
    for found in (first, again):
        assert_same(found.top, reference.top_k(queries, without_layout(items), 3, no_rows(10), None).top)
    assert laid_out == [True]
    assert len(fallback._layouts) == 1
    del index
    gc.collect()
    assert fallback._layouts == {}


def test_an_index_without_layout(kernels: Kernels, reference: Kernels) -> None:
    queries, items = spread(3, 50)
    found = kernels.top_k(queries, without_layout(items), 4, no_rows(3), None)
    assert_same(found.top, reference.top_k(queries, without_layout(items), 4, no_rows(3), None).top)


def test_a_catalogue_that_does_not_fit(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match=r"100 items of 8 factors take 4,000 bytes .* of which 1,000 are free"):
        kernels.index_items(spread(1, 100)[1], True, None)


def test_what_is_done_on_the_host(kernels: Kernels, reference: Kernels) -> None:
    queries, items = dyadic((4, 8), 1), dyadic((50, 8), 2)
    wanted, exclude = random_rows(4, 50, 0.1, 5), random_rows(4, 50, 0.3, 6)
    with pytest.warns(OnHostWarning, match='"auc" and "mean_percentile_rank"'):
        counts, expected = (
            variant.count_better(queries, variant.index_items(items, False, None), wanted, exclude, None)
            for variant in (kernels, reference)
        )
    np.testing.assert_array_equal(counts, expected)
    with pytest.warns(OnHostWarning, match="candidates of each user's own"):
        top, expected_top = (
            variant.top_k_among(queries, items, 3, wanted, exclude, None) for variant in (kernels, reference)
        )
    assert_same(top, expected_top)
    pairs = Pairs(np.repeat(np.arange(4, dtype=np.int32), np.diff(wanted.indptr)), wanted.indices)
    is_hit, expected_hits = (variant.mark_hits(top.indices, 3, pairs, None) for variant in (kernels, reference))
    np.testing.assert_array_equal(is_hit, expected_hits)
