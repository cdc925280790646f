"""Top-k by float16 products: the layout of matrix instructions, the bound on what they lose, and the same answers.

Tiles are one or two warps small; what float16 does not prove is to be answered by float32, and only then by the host.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastmf.backend import Kernels
from fastmf_kernels._cuda.jit import cuda as numba_cuda
from fastmf_kernels._cuda.jit import isa, kernel
from fastmf_kernels._cuda.memory import fetch, put, zeros
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.topk import cpu, cuda
from fastmf_kernels.topk.arrays import no_rows
from fastmf_kernels.topk.cuda import halves
from fastmf_kernels.topk.cuda.arrays import Buffers, Catalogue, Queries, WarpShape
from tests.cuda.parity.test_topk import SMALL, check, spread
from tests.kernels.test_topk import INPUTS, dyadic, random_rows, rows

ONE_WARP = WarpShape(rows=16, columns=16, down=1, across=1, depth=32)
FOUR_WARPS = WarpShape(rows=32, columns=32, down=2, across=2, depth=16)  # 64 queries × 64 items
HARD = ["tied", "overflowing", "denormal queries", "minus zero", "one huge", "NaN items", "NaN queries"]
Asked = list[tuple[str, int]]


@pytest.fixture(autouse=True)
def by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"HALVES": True, "SHAPE_OF_HALVES": ONE_WARP, "MARGIN_OF_HALVES": 8, "SHAPE": SMALL, "MARGIN": 4}
    for name, value in {**small, "ROOM": 32, "THREADS": 32}.items():
        monkeypatch.setattr(cuda, name, value)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was asked, and for how many queries, at each time."""
    made: Asked = []
    find, answer = cuda._find, cpu.top_k

    def finding(index: Any, batch: Any, buffers: Any, screen: Any, n_parts: int) -> Any:
        made.append(("halves" if isinstance(screen.shape, WarpShape) else "floats", batch.norms.size))
        return find(index, batch, buffers, screen, n_parts)

    def answering(queries: Any, *others: Any) -> Any:
        made.append(("host", len(queries)))
        return answer(queries, *others)

    monkeypatch.setattr(cuda, "_find", finding)
    monkeypatch.setattr(cpu, "top_k", answering)
    return made


@kernel
def load(words: Int32Array, places: Int32Array, pairs: Int32Array) -> None:
    """Let each lane read its pairs of four matrices."""
    shared = numba_cuda.shared.array(256, np.int32, 16)
    lane = numba_cuda.threadIdx.x
    for i in range(0, 256, 128):
        isa.copy4(shared, i + 4 * lane, words, i + 4 * lane)
    isa.await_copies()
    numba_cuda.syncthreads()
    four = isa.load_matrices(shared, places[lane])
    for matrix in range(4):
        pairs[4 * lane + matrix] = four[matrix]


@kernel
def multiply(a: Int32Array, b: Int32Array, c: Float32Array, sums: Float32Array) -> None:
    """Multiply matrices that are spread over the lanes."""
    four, two = 4 * numba_cuda.threadIdx.x, 2 * numba_cuda.threadIdx.x
    of_a, of_b = (a[four], a[four + 1], a[four + 2], a[four + 3]), (b[two], b[two + 1])
    parts = isa.multiply_halves(of_a, of_b, (c[four], c[four + 1], c[four + 2], c[four + 3]))
    for i in range(4):
        sums[four + i] = parts[i]


@kernel
def round_to_halves(numbers: Float32Array, pairs: Int32Array) -> None:
    """Let each thread round two numbers."""
    i = numba_cuda.threadIdx.x
    pairs[i] = isa.pair_of_halves(numbers[2 * i], numbers[2 * i + 1])


def as_pairs(halves: npt.NDArray[np.float16]) -> Int32Array:
    return np.ascontiguousarray(halves).view(np.int32).ravel()


def scale_of(length: Any) -> Any:
    """Return the power of two that takes a length to 2¹⁴ or more, or as near as 2⁶⁴ does."""
    return np.ldexp(np.float32(1), np.minimum(15 - np.frexp(length)[1], 64))


def test_load_matrices(kernels: Kernels) -> None:
    """Lane 8m + r gives the place of row r of matrix m; lane 4r + c gets pair c of row r of each."""
    words, pairs = np.arange(256, dtype=np.int32), zeros(128, np.int32)
    places = np.random.default_rng(0).permutation(64)[:32].astype(np.int32) * 4
    load[1, 32](put(words), put(places), pairs)
    expected = [[places[8 * m + lane // 4] + lane % 4 for m in range(4)] for lane in range(32)]
    np.testing.assert_array_equal(fetch(pairs).reshape(32, 4), expected)


def test_multiply_halves(kernels: Kernels) -> None:
    """Fragments as PTX has them for m16n8k16: element i of lane l is at the place that is written out here."""
    rng = np.random.default_rng(1)
    a, b, c = (rng.integers(-9, 9, shape).astype(np.float32) for shape in ((16, 16), (16, 8), (16, 8)))
    of_a, of_b = np.empty((32, 8), np.float16), np.empty((32, 4), np.float16)
    of_c, expected = np.empty((32, 4), np.float32), np.empty((32, 4), np.float32)
    for lane in range(32):
        group, in_group = lane >> 2, lane % 4
        for i in range(8):
            row = group if i < 2 or 4 <= i < 6 else group + 8
            of_a[lane, i] = a[row, in_group * 2 + (i & 1) + (8 if i >= 4 else 0)]
        for i in range(4):
            of_b[lane, i] = b[in_group * 2 + (i & 1) + (8 if i >= 2 else 0), group]
            place = group + (8 if i >= 2 else 0), in_group * 2 + (i & 1)
            of_c[lane, i], expected[lane, i] = c[place], (a @ b + c)[place]
    sums = zeros(128, np.float32)
    multiply[1, 32](put(as_pairs(of_a)), put(as_pairs(of_b)), put(of_c.ravel()), sums)
    np.testing.assert_array_equal(fetch(sums).reshape(32, 4), expected)


@pytest.mark.parametrize("exponents", [(0, 1), (-24, 15)])
def test_sums_lose_no_more_than_is_said(exponents: tuple[int, int], kernels: Kernels) -> None:
    """γ of `halves.py` holds for 16 products and a sum before them, denormal numbers included."""
    rng, shapes = np.random.default_rng(2), ((32, 8), (32, 4), (32, 4))
    signs = [rng.choice([-1, 1], shape) * rng.uniform(1, 2, shape) for shape in shapes]
    of_a, of_b, of_c = (np.ldexp(sign, rng.integers(*exponents, sign.shape)) for sign in signs)
    of_a, of_b, of_c, sums = of_a.astype(np.float16), of_b.astype(np.float16), of_c.astype(np.float32), zeros(128, "f4")
    multiply[1, 32](put(as_pairs(of_a)), put(as_pairs(of_b)), put(of_c.ravel()), sums)
    a, b, c = np.empty((16, 16)), np.empty((16, 8)), np.empty((16, 8))
    for lane in range(32):
        row, column = lane // 4, lane % 4 * 2
        a[row, column : column + 2], a[row + 8, column : column + 2] = of_a[lane, :2], of_a[lane, 2:4]
        a[row, column + 8 : column + 10], a[row + 8, column + 8 : column + 10] = of_a[lane, 4:6], of_a[lane, 6:]
        b[column : column + 2, row], b[column + 8 : column + 10, row] = of_b[lane, :2], of_b[lane, 2:]
        c[row, column : column + 2], c[row + 8, column : column + 2] = of_c[lane, :2], of_c[lane, 2:]
    found = fetch(sums).reshape(8, 4, 2, 2).transpose(2, 0, 1, 3).reshape(16, 8)
    assert (abs(found - (a @ b + c)) <= 16 * 2.0**-22 * (abs(a) @ abs(b) + abs(c))).all()


def test_rounding(kernels: Kernels) -> None:
    """To the nearest, ties to even, denormal numbers kept, too large ones infinite; the first is the lower half."""
    numbers = [1, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65520, -1e6, 2**-24, 2**-25, 2**-14 - 2**-25, np.nan, -np.inf, 0]
    pairs = zeros(6, np.int32)
    round_to_halves[1, 6](put(np.array(numbers, np.float32)), pairs)
    rounded = [1, 1, 1 + 2**-9, 65504, np.inf, -np.inf, 2**-24, 0, 2**-14, np.nan, -np.inf, 0]
    np.testing.assert_array_equal(fetch(pairs).view(np.float16), np.array(rounded, np.float16))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("name", HARD)
def test_top_k(name: str, kernels: Kernels, reference: Kernels) -> None:
    queries, items = (table[:n] for table, n in zip(INPUTS[name], (2, 34), strict=True))
    check(kernels, reference, queries, items, 3, random_rows(len(queries), len(items), 0.3, 4))


def test_all_scores_of_all_tiles(kernels: Kernels) -> None:
    """With room for all that is appended, the screen has every product of whole numbers once."""
    (n_slots, n_items), shape, capacity = (60, 66), FOUR_WARPS, 150
    queries, items = dyadic((n_slots, 40), 1, high=9), dyadic((n_items, 40), 2, high=9)
    buffers = Buffers(
        *(zeros(n_slots * capacity, dtype) for dtype in (np.float32, np.int32)),
        *(zeros(n_slots, dtype) for dtype in (np.int32, np.float32)),
    )
    halved = [put(as_pairs(np.pad(table, ((0, 0), (0, 24))).astype(np.float16))) for table in (queries, items)]
    catalogue = Catalogue(halved[1], put(np.full(n_items, np.inf, np.float32)), put(np.arange(n_items, dtype=np.int32)))
    none = put(np.full(1, -1, np.int32))
    batch = Queries(halved[0], put(np.ones(n_slots, np.float32)), put(np.zeros(n_slots + 1, np.int64)), none)
    screen, n_screened = halves.make_screen(64, shape), zeros(1, np.int32)
    screen[(1, 1), shape.n_threads](catalogue, batch, buffers, capacity, 80, n_screened)
    assert fetch(n_screened) == 2
    assert fetch(buffers.counts).tolist() == [n_items] * n_slots
    scores, places = (fetch(table).reshape(n_slots, capacity)[:, :n_items] for table in buffers[:2])
    found = np.full((n_slots, n_items), np.nan, np.float32)
    np.put_along_axis(found, places, scores, axis=1)
    np.testing.assert_array_equal(found, queries @ items.T)


@pytest.mark.parametrize("n_factors", [1, 17, 130])
def test_widths(n_factors: int, kernels: Kernels, reference: Kernels, asked: Asked) -> None:
    queries, items = spread(1, 24, n_factors, seed=3)
    check(kernels, reference, queries, items * np.linspace(1, 3, 24, dtype=np.float32)[:, None], 2, no_rows(1))
    assert asked == [("halves", 1)]


def test_parts_of_the_catalogue(
    kernels: Kernels, reference: Kernels, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_TILES_OF_A_PART", 1)
    monkeypatch.setattr(cuda, "_BLOCKS", 3)
    queries, items = spread(2, 60)
    check(kernels, reference, queries, items, 4, random_rows(2, 60, 0.2, 3))
    check(kernels, reference, queries, items[:40], 40, rows([[], range(30)]))
    assert asked == [("halves", 2), ("halves", 2)]


def test_short_vectors_are_skipped(kernels: Kernels, reference: Kernels, asked: Asked) -> None:
    queries, items = spread(2, 100)
    items[np.arange(100) % 3 > 0] *= np.float32(0.01)
    queries[1] *= np.float32(2.0**-60)  # each query has a scale of its own
    scan = check(kernels, reference, queries, items, 3, no_rows(2)).scan
    assert (scan.n_screened, scan.n_skipped) == (2, 2)
    assert asked == [("halves", 2)]


def test_what_is_not_proven_goes_on(kernels: Kernels, reference: Kernels, asked: Asked) -> None:
    """To the first query items differ by less than float16 tells, to the second by more, to the third not at all.

    They have lists of their own, which have to go with them.
    """
    items = np.zeros((50, 3), np.float32)
    items[:, 0], items[:, 1] = np.linspace(-1, 1, 50), 1 + np.arange(50) * np.float32(2.0**-20)
    check(kernels, reference, np.eye(3, dtype=np.float32)[[1, 0, 2]], items, 3, rows([[47], [49], [0]]))
    assert asked == [("halves", 3), ("floats", 2), ("host", 1)]


def test_a_score_that_rounding_has_hidden_is_not_proven(kernels: Kernels, reference: Kernels, asked: Asked) -> None:
    """In float16 the best item loses half a unit of each of its factors, and is below all that are kept."""
    items = np.ones((40, 8), np.float32)
    items[5:25, 0] += np.float32(2.0**-10)
    items[30] += np.float32(2.0**-11 - 2.0**-14)
    found = check(kernels, reference, np.ones((1, 8), np.float32), items, 1, no_rows(1), pruning=False)
    assert found.top.indices.tolist() == [[30]]
    assert asked == [("halves", 1), ("floats", 1)]


def test_denormal_halves_are_not_trusted(kernels: Kernels, reference: Kernels, asked: Asked) -> None:
    """A factor that queries do not ask for makes the others too small for float16."""
    queries, items = spread(1, 40, 7)
    queries, items = (np.pad(table, ((0, 0), (0, 1))) for table in (queries, items))
    items[3, 7] = 2.0**40
    check(kernels, reference, queries, items, 3, no_rows(1))
    assert asked == [("halves", 1), ("floats", 1), ("host", 1)]
    asked.clear()
    items[3, 7] = 2.0**10
    check(kernels, reference, queries, items, 3, no_rows(1))
    assert asked[0] == ("halves", 1)


@pytest.mark.parametrize(("smallest", "largest"), [(0, 0), (-60, 0), (-100, 60)])
def test_bound(smallest: int, largest: int, kernels: Kernels) -> None:
    """Of numbers of any size the exact score is not above the bound; of numbers of one size that is close, too."""
    n, n_factors, rng = 32, 16, np.random.default_rng(abs(smallest))
    sizes = rng.integers(smallest, largest + 1, (2, n, n_factors)) if smallest else np.zeros((2, n, n_factors), int)
    p, q = np.ldexp(rng.choice([-1, 1], sizes.shape) * rng.uniform(1, 2, sizes.shape), sizes).astype(np.float32)
    norms = [(np.linalg.norm(table.astype(np.float64), axis=1) * (1 + 2**-20)).astype(np.float32) for table in (p, q)]
    longest = norms[1].max()
    scales, of_item = scale_of(norms[0]), scale_of(longest)
    scaled = zeros(n, np.float32)
    halves.make_scale(32)[1, 32](put(norms[0]), longest, scaled)
    np.testing.assert_array_equal(fetch(scaled), norms[0] * scales * of_item)
    halved = [(p * scales[:, None]).astype(np.float16), (q * of_item).astype(np.float16)]
    screened = np.einsum("ij,ij->i", *(half.astype(np.float64) for half in halved))
    cut = (screened * (1 - np.sign(screened) * n_factors * 2.0**-23)).astype(np.float32)
    thresholds = put(cut)
    buffers = Buffers(put(np.zeros(1, np.float32)), put(np.zeros(1, np.int32)), put(np.zeros(n, np.int32)), thresholds)
    halves.make_widen(n_factors, 32)[1, 32](buffers, put(norms[0]), 1, longest)
    exact, reach = np.einsum("ij,ij->i", p.astype(np.float64), q), norms[0].astype(np.float64) * longest
    bounds = fetch(thresholds)
    assert (exact <= bounds).all()
    assert (bounds - exact <= 2.0**-8 * reach).all()
    if not smallest:
        assert (bounds - exact >= 2.0**-11 * reach).mean() > 0.5


def test_when_there_are_no_halves(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    items = spread(1, 50)[1]
    assert kernels.index_items(items, True, None).bytes.size == 50 * 8
    infinite = items.copy()
    infinite[7, 2] = np.inf
    assert kernels.index_items(infinite, True, None).bytes.size == 0
    monkeypatch.setattr(cuda, "free_bytes", lambda: 2050)
    assert kernels.index_items(items, True, None).bytes.size == 0
    monkeypatch.undo()
    monkeypatch.setattr(cuda, "_has_tested_tensor_cores", lambda: False)
    assert kernels.index_items(items, True, None).bytes.size == 0
