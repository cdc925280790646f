"""What the kernels promise for any input, tried on inputs that Hypothesis makes up."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastmf.backend import get_backend
from fastmf.testing import VARIANTS
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array, Int64Array
from fastmf_kernels.als.arrays import EXACTLY, HalfSweep, Weighting
from fastmf_kernels.als.cpu.balance import cut_into_tasks
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.sgd.schedule import cut_by_count
from fastmf_kernels.topk.arrays import Rows, no_rows, without_layout

# No deadline: the first example compiles. Derandomised: a failure here is found again there.
quick = settings(deadline=None, derandomize=True, max_examples=25)
variants = pytest.mark.parametrize("variant", VARIANTS)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def keyed(draw: st.DrawFn) -> tuple[Int32Array, int]:
    """Keys and the number of their groups: few or many of either."""
    n_groups = draw(st.sampled_from([1, 2, 5, 511, 512, 513, 3000]))
    size = draw(st.integers(0, 50))
    return draw(arrays(np.int32, size, elements=st.integers(0, n_groups - 1))), n_groups


@variants
@quick
@given(problem=keyed(), n_threads=st.sampled_from([1, 2]))
def test_group_by_is_a_stable_permutation(variant: str, problem: tuple[Int32Array, int], n_threads: int) -> None:
    keys, n_groups = problem
    offsets, order = get_backend(variant).group_by(keys, n_groups, n_threads)
    assert sorted(order.tolist()) == list(range(len(keys)))
    assert offsets.tolist() == [int((keys < group).sum()) for group in range(n_groups + 1)]
    positions = list(zip(keys[order].tolist(), order.tolist(), strict=True))
    assert positions == sorted(positions)


@st.composite
def coordinates(draw: st.DrawFn) -> tuple[Int32Array, Int32Array, int, int]:
    n_rows, n_columns = draw(st.integers(1, 30)), draw(st.integers(1, 600))
    size = draw(st.integers(0, 60))
    rows = draw(arrays(np.int32, size, elements=st.integers(0, n_rows - 1)))
    return rows, draw(arrays(np.int32, size, elements=st.integers(0, n_columns - 1))), n_rows, n_columns


@variants
@quick
@given(problem=coordinates())
def test_transposing_twice_sorts_the_rows(variant: str, problem: tuple[Int32Array, Int32Array, int, int]) -> None:
    rows, columns, n_rows, n_columns = problem
    kernels, values = get_backend(variant), np.arange(len(rows), dtype=np.float32)
    csr = kernels.coo_to_csr(rows, columns, values, n_rows, None)
    twice = kernels.transpose(kernels.transpose(csr, n_columns, None), n_rows, None)
    # Sorted by row, then by column; entries of one cell in the order in which they came.
    order = np.lexsort([values, columns, rows])
    np.testing.assert_array_equal(twice.indptr, csr.indptr)
    np.testing.assert_array_equal(twice.row_of_each_entry(), rows[order])
    np.testing.assert_array_equal(twice.indices, columns[order])
    np.testing.assert_array_equal(twice.values, values[order])


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Float32Array, Float32Array, int, Rows]:
    """Factors of small whole numbers, whose scores are exact and often tied; and what is excluded."""
    n_queries, n_items, n_factors = draw(st.integers(0, 5)), draw(st.integers(0, 600)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(seeds))
    high = draw(st.sampled_from([0, 1, 3, 100]))
    queries, items = (rng.integers(-high, high + 1, (n, n_factors)).astype(np.float32) for n in (n_queries, n_items))
    excluded = rng.random((n_queries, n_items)) < draw(st.sampled_from([0, 0.2, 1]))
    indptr = np.concatenate([[0], np.cumsum(excluded.sum(axis=1))]).astype(np.int64)
    k = draw(st.integers(1, n_items + 3))
    return queries, items, k, Rows(indptr, np.nonzero(excluded)[1].astype(np.int32))


@variants
@quick
@given(problem=rankings())
def test_top_k_is_the_head_of_a_full_sort(variant: str, problem: tuple[Float32Array, Float32Array, int, Rows]) -> None:
    queries, items, k, exclude = problem
    kernels = get_backend(variant)
    scores, indices = kernels.top_k(queries, kernels.index_items(items, True, None), k, exclude, None).top
    assert scores.shape == indices.shape == (len(queries), k)
    for r, query in enumerate(queries):
        excluded = set(exclude.indices[slice(*exclude.indptr[r : r + 2])].tolist())
        ranked = sorted((-float(query @ item), i) for i, item in enumerate(items) if i not in excluded)[:k]
        missing = k - len(ranked)
        assert indices[r].tolist() == [i for _, i in ranked] + [-1] * missing
        assert scores[r].tolist() == [-score for score, _ in ranked] + [-np.inf] * missing


magnitudes = st.sampled_from([-40, -38, -20, -12, 0, 6, 11, 13, 20, 30, 36, 38]).map(lambda power: 10.0**power)


@variants
@settings(quick, max_examples=80)
@given(
    seed=seeds,
    n_queries=st.sampled_from([0, 1, 7, 9, 70]),
    n_items=st.sampled_from([1, 31, 300, 900]),
    n_factors=st.sampled_from([1, 4, 33]),
    scales=st.tuples(magnitudes, magnitudes),
    spread=st.sampled_from([0.0, 1.0, 20.0]),
    k=st.integers(1, 20),
)
def test_pruning_changes_no_answer_at_any_magnitude(
    variant: str,
    seed: int,
    n_queries: int,
    n_items: int,
    n_factors: int,
    scales: tuple[float, float],
    spread: float,
    k: int,
) -> None:
    """Every item scored on its own, in float64, is what both layouts are held against."""
    rng, kernels = np.random.default_rng(seed), get_backend(variant)

    def drawn(n: int, scale: float) -> Float32Array:
        numbers = rng.standard_normal((n, n_factors)) * scale * np.exp(spread * rng.standard_normal((n, 1)))
        return np.clip(numbers, -3.4e38, 3.4e38).astype(np.float32)

    with np.errstate(under="ignore"):
        queries, items = drawn(n_queries, scales[0]), drawn(n_items, scales[1])
    expected = kernels.top_k(queries, without_layout(items), k, no_rows(n_queries), None).top
    for pruning in (True, False):
        found = kernels.top_k(queries, kernels.index_items(items, pruning, None), k, no_rows(n_queries), None).top
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)


@st.composite
def half_sweeps(draw: st.DrawFn) -> HalfSweep:
    n_rows, n_fixed, n_factors = draw(st.integers(1, 6)), draw(st.integers(1, 30)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(seeds))
    observed = rng.random((n_rows, n_fixed)) < draw(st.sampled_from([0.05, 0.5, 1]))
    indptr = np.concatenate([[0], np.cumsum(observed.sum(axis=1))]).astype(np.int64)
    values = rng.integers(1, 6, indptr[-1]).astype(np.float32)
    rows = CSR(indptr, np.nonzero(observed)[1].astype(np.int32), values)
    q = rng.standard_normal((n_fixed, n_factors), np.float32)
    offsets = rng.standard_normal(n_fixed, np.float32) * np.float32(draw(st.booleans()))
    gram = (draw(st.sampled_from([0, 0.1, 1])) * (q.T @ q)).astype(np.float32)
    weighting = draw(st.sampled_from([(1, 0, -3, 1), (1, 0, 1, 0), (0, 2, 1, 2), (0, 2, 1, 2, 3)]))
    strength = draw(st.sampled_from([0.01, 1, 100]))
    return HalfSweep(
        rows, q, offsets, gram, np.full(n_rows, strength, np.float32), Weighting(*(np.float32(w) for w in weighting))
    )


def objective(problem: HalfSweep, factors: Float32Array) -> Float64Array:
    """What a half sweep minimises, row by row: xᵀ(G + λI)x + Σ w(q·x)² - 2 Σ t(q·x)."""
    x = factors.astype(np.float64)
    rows, weighting = problem.rows, problem.weighting
    row, values = rows.row_of_each_entry(), rows.values.astype(np.float64)
    weight = weighting.weight + weighting.weight_slope * np.abs(values)
    target = np.where(values < weighting.disliked_below, 0, weighting.target + weighting.target_slope * values)
    target = target - problem.fixed_offsets[rows.indices]
    score = np.einsum("nf,nf->n", problem.fixed_factors[rows.indices].astype(np.float64), x[row])
    observed = np.bincount(row, weight * score**2 - 2 * target * score, minlength=len(x))
    everywhere = np.einsum("rf,fg,rg->r", x, problem.gram.astype(np.float64), x)
    return np.asarray(observed + everywhere + problem.regularization * (x**2).sum(axis=1))


@variants
@quick
@given(problem=half_sweeps(), seed=seeds, distance=st.sampled_from([0.0, 1e-3, 1.0]))
def test_a_half_sweep_never_raises_its_objective(variant: str, problem: HalfSweep, seed: int, distance: float) -> None:
    """Neither from where it started nor from anywhere near its solution is there a way further down."""
    kernels, rng = get_backend(variant), np.random.default_rng(seed)
    shape = len(problem.regularization), problem.fixed_factors.shape[1]
    before = rng.standard_normal(shape, np.float32)
    after = before.copy()
    kernels.run_half_sweep(problem, after, None, EXACTLY)
    nearby = after + np.float32(distance) * rng.standard_normal(shape, np.float32)
    lowest = objective(problem, after)
    # At its minimum the objective is minus the square that the solution explains: its size is the size of the terms.
    slack = 1e-6 * (1 + np.abs(lowest))
    assert (lowest <= objective(problem, before) + slack).all()
    assert (lowest <= objective(problem, nearby) + slack).all()


counts = arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 100))


def assert_partition(cuts: Int64Array, size: int, n_parts: int) -> None:
    assert cuts.dtype == np.int64
    assert cuts.shape == (n_parts + 1,)
    assert cuts[0] == 0
    assert cuts[-1] == size
    assert (np.diff(cuts) >= 0).all()


@quick
@given(counts=counts, n_parts=st.integers(1, 50))
def test_cut_by_count_partitions(counts: Int64Array, n_parts: int) -> None:
    cuts = cut_by_count(counts, n_parts)
    assert_partition(cuts, len(counts), n_parts)
    sizes = [int(counts[a:b].sum()) for a, b in pairwise(cuts)]
    assert max(sizes) <= counts.sum() / n_parts + max(counts, default=0)


@quick
@given(counts=counts, factor=st.sampled_from([1, 100, 10_000]), n_factors=st.integers(1, 256))
def test_tasks_of_als_hold_every_row_once(counts: Int64Array, factor: int, n_factors: int) -> None:
    counts = counts * factor
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    tasks = cut_into_tasks(indptr, n_factors)
    in_chunks = np.concatenate([np.arange(a, b) for a, b in tasks.chunks] or [np.zeros(0, np.int64)])
    np.testing.assert_array_equal(np.sort(in_chunks), np.arange(len(counts)))
    assert tasks.long_rows.tolist() == np.flatnonzero(counts > tasks.longest).tolist()
    # The parts of a long row follow one another, from its first entry to its last.
    reached = {row: int(indptr[row]) for row in tasks.long_rows.tolist()}
    for _, start, stop in tasks.parts:
        row = int(np.searchsorted(indptr, start, side="right")) - 1
        assert start == reached[row]
        reached[row] = stop
    assert reached == {row: int(indptr[row + 1]) for row in reached}
    assert all(0 < stop - start <= tasks.longest for _, start, stop in tasks.parts)
    assert len(tasks.parts) <= 128 + len(tasks.long_rows)
