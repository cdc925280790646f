"""Every operation at several sizes, and what counts as the same answer: nothing is timed before it is proven.

The reference of an operation answers a case once; a variant answers it again on fresh copies of the same arrays, and
`Case.compare` says what differs. `bench/test_*.py` times the same cases.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf.answering.rows import rows_of_pairs
from fastmf.backend import Kernels, get_backend
from fastmf.errors import FastMFError
from fastmf.reading.interactions import Interactions
from fastmf.testing import VARIANTS, from_indices, power_law
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.arrays import HalfSweep, Solver, Weighting
from fastmf_kernels.fold_in.arrays import Descent, Draws, Rivals, make_weights
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.negative_sampling.arrays import Sampling
from fastmf_kernels.predict.arrays import Factors, Link, make_link
from fastmf_kernels.rerank.arrays import Caps, Directions, Exploration, Lists
from fastmf_kernels.sgd.arrays import Step, first_row_steps
from fastmf_kernels.sgd.schedule import (
    Blocks,
    Grid,
    make_blocks,
    make_grid,
    make_waves,
    shuffled_strata,
    shuffled_waves,
)
from fastmf_kernels.svdpp.arrays import Implicit
from fastmf_kernels.topk.arrays import Rows, no_rows

Arrays = list[npt.NDArray[Any]]

OPERATIONS = ("layout", "predict", "sgd", "negative_sampling", "svdpp", "fold_in", "als", "topk", "rerank")
THREADS = (1, 2, 3, 8)


class WrongKernelError(FastMFError):
    """A kernel does not give the answer of its reference."""


class Case(NamedTuple):
    """One operation on one problem.

    Attributes
    ----------
    name : str
        The function and its sizes.
    answer : callable
        Runs a variant on a number of threads and returns its arrays.
    tolerance : float
        Largest error allowed, as a share of the largest element; 0 where answers must be equal bit for bit.
    """

    name: str
    answer: Callable[[Kernels, int | None], Arrays]
    tolerance: float

    def compare(self, found: Arrays) -> str:
        """Say how an answer differs from that of the reference; nothing if it does not."""
        expected = self.answer(get_backend("reference"), None)
        differences = [difference(*pair, self.tolerance) for pair in zip(expected, found, strict=True)]
        return next(filter(None, differences), "")


def prove(operation: str, variants: Sequence[str] = VARIANTS, threads: Sequence[int] = THREADS) -> None:
    """Hold variants of an operation against its reference, and against themselves on other numbers of threads.

    Raises
    ------
    WrongKernelError
        At the first case that differs.
    """
    for variant in variants:
        kernels = get_backend(variant)
        for case in cases(operation):
            first, *others = [case.answer(kernels, n_threads) for n_threads in (None, *threads)]
            wrong = case.compare(first)
            if wrong:
                raise WrongKernelError(f"{case.name} on {variant!r} is not what its reference says: {wrong}")
            if any(a.tobytes() != b.tobytes() for other in others for a, b in zip(first, other, strict=True)):
                raise WrongKernelError(f"{case.name} on {variant!r} depends on the number of threads")


def difference(expected: npt.NDArray[Any], found: npt.NDArray[Any], tolerance: float) -> str:
    """Say how an array differs from another; nothing if it does not."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{found.dtype} {found.shape} for {expected.dtype} {expected.shape}"
    if not expected.size:
        return ""
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return "other elements are infinite or not a number"
    error = np.abs(np.where(finite, found, 0).astype(np.float64) - np.where(finite, expected, 0))
    allowed = tolerance * float(np.abs(np.where(finite, expected, 0)).max())
    wrong = int((error > allowed).sum())
    return (
        f"{wrong} of {error.size} elements are off by up to {error.max():.3g} ({allowed:.3g} allowed)" if wrong else ""
    )


@cache
def cases(operation: str) -> tuple[Case, ...]:
    """Return the cases of an operation, small ones first."""
    return tuple(_MAKERS[operation]())


def _layout() -> Iterator[Case]:
    for n_users, n_items, n_ratings in ((7, 5, 12), (300, 200, 3000), (2000, 700, 60_000)):
        ratings = power_law(n_users, n_items, n_ratings)
        name = f"coo_to_csr and transpose, {n_users} × {n_items}, {n_ratings} entries"
        yield Case(name, partial(_lay_out, ratings), 0)


def _lay_out(ratings: Interactions, kernels: Kernels, n_threads: int | None) -> Arrays:
    csr = kernels.coo_to_csr(ratings.users, ratings.items, ratings.ratings, ratings.n_users, n_threads)
    return [*csr, *kernels.transpose(csr, ratings.n_items, n_threads)]


def _predict() -> Iterator[Case]:
    for n_factors, rating_range in itertools.product((1, 17, 64), (None, (1.0, 5.0))):
        ratings, factors = power_law(500, 300, 5000), _factors(500, 300, n_factors)
        answer = partial(_predict_pairs, ratings, factors, make_link(rating_range))
        yield Case(f"predict_pairs, 5000 pairs, {n_factors} factors, range {rating_range}", answer, 1e-5)


def _predict_pairs(
    ratings: Interactions, factors: Factors, link: Link, kernels: Kernels, n_threads: int | None
) -> Arrays:
    return [kernels.predict_pairs(ratings.users, ratings.items, factors, link, n_threads)]


def _sgd() -> Iterator[Case]:
    """One epoch that touches each row once, which must be equal to rounding, and longer ones, where errors add up."""
    reference = get_backend("reference")
    for n_users, n_items, n_ratings, n_factors, tolerance in (
        (200, 200, 200, 17, 1e-6),
        (200, 200, 200, 64, 1e-6),
        (400, 200, 3000, 17, 1e-4),
        (1000, 600, 20_000, 64, 1e-4),
    ):
        ratings = power_law(n_users, n_items, n_ratings)
        if n_ratings == n_users:
            each_once = np.random.default_rng(0).permutation(n_users)
            ratings = from_indices(each_once, each_once, ratings.ratings, n_users, n_items)
        grid = make_grid(n_users, n_items, n_ratings)
        blocks = make_blocks(ratings.by_user, n_items, grid, reference.group_by)
        name = f"run_epoch, {n_users} × {n_items}, {n_ratings} ratings, {n_factors} factors"
        yield Case(name, partial(_run_epoch, blocks, grid, (n_users, n_items, n_factors)), tolerance)


def _run_epoch(
    blocks: Blocks, grid: Grid, sizes: tuple[int, int, int], kernels: Kernels, n_threads: int | None
) -> Arrays:
    strata = shuffled_strata(grid, np.random.default_rng(0))
    factors, rows = _factors(*sizes), first_row_steps(*sizes[:2])
    step = Step(*(np.float32(term) for term in (0.01, 0.02, 1, 0.05, 0.04, 0.03, 0.02)))
    kernels.run_epoch(blocks, strata, factors, make_link(None), step, rows, n_threads)
    return [*factors[:4], *rows]


def _sampled() -> Iterator[Case]:
    for n_users, n_items, n_ratings, n_factors in ((200, 100, 800, 17), (400, 150, 3000, 64)):
        ratings = power_law(n_users, n_items, n_ratings)
        for loss in ("bpr", "logistic"):
            name = f"run_{loss}_epoch, {n_users} × {n_items}, {n_ratings} ratings, {n_factors} factors"
            yield Case(name, partial(_run_sampled_epoch, ratings, loss, n_factors), 1e-4)


def _run_sampled_epoch(
    ratings: Interactions, loss: str, n_factors: int, kernels: Kernels, n_threads: int | None
) -> Arrays:
    n_users, n_items, by_user = ratings.n_users, ratings.n_items, ratings.by_user
    grid = make_grid(n_users, n_items, ratings.n_ratings, width=2)
    blocks = make_blocks(by_user, n_items, grid, kernels.group_by, n_threads)
    factors, rows = _factors(n_users, n_items, n_factors), first_row_steps(n_users, n_items)
    step = Step(*(np.float32(term) for term in (0.01, 0.02, 1, 0.05, 0.04, 0.03, 0.02)))
    sampling = Sampling(by_user.indptr, by_user.indices, 2, np.uint64(7))
    run_epoch = kernels.run_bpr_epoch if loss == "bpr" else kernels.run_logistic_epoch
    ranked = run_epoch(
        blocks, shuffled_strata(grid, np.random.default_rng(0)), factors, step, rows, sampling, n_threads
    )
    return [*factors[:4], *rows, np.array(ranked)]


def _svdpp() -> Iterator[Case]:
    for n_users, n_items, n_ratings, n_factors in ((200, 100, 800, 17), (400, 150, 6000, 64)):
        name = f"run_svdpp_epoch, {n_users} × {n_items}, {n_ratings} ratings, {n_factors} factors"
        yield Case(name, partial(_run_svdpp_epoch, power_law(n_users, n_items, n_ratings), n_factors), 1e-4)


def _run_svdpp_epoch(ratings: Interactions, n_factors: int, kernels: Kernels, n_threads: int | None) -> Arrays:
    n_users, n_items, by_user = ratings.n_users, ratings.n_items, ratings.by_user
    grid = make_waves(n_users, n_items, ratings.n_ratings)
    blocks = make_blocks(by_user, n_items, grid, kernels.group_by, n_threads)
    factors, rows = _factors(n_users, n_items, n_factors), first_row_steps(n_users, n_items)
    y = _factors(1, n_items, n_factors).item_factors
    implicit = Implicit(y, np.ones(n_items, np.float32), np.float32(0.5), np.float32(0.03))
    step = Step(*(np.float32(term) for term in (0.01, 0.02, 1, 0.05, 0.04, 0.03, 0.02)))
    waves = shuffled_waves(grid, np.random.default_rng(0))
    kernels.run_svdpp_epoch(by_user, blocks, waves, factors, implicit, make_link(None), step, rows, n_threads)
    whole = np.zeros_like(factors.user_factors)
    kernels.add_implicit(by_user, factors.user_factors, y, whole, n_threads)
    return [*factors[:4], *rows, *implicit[:2], whole]


def _fold_in() -> Iterator[Case]:
    for n_users, n_items, n_ratings, n_factors in ((60, 40, 300, 17), (150, 100, 2000, 64)):
        ratings = power_law(n_users, n_items, n_ratings)
        for loss in ("ratings", "choices", "user_pairs", "item_pairs"):
            name = f"fold_in_{loss}, {n_users} × {n_items}, {n_ratings} ratings, {n_factors} factors"
            yield Case(name, partial(_fold_rows_in, ratings, loss, n_factors), 1e-4)


def _fold_rows_in(ratings: Interactions, loss: str, n_factors: int, kernels: Kernels, n_threads: int | None) -> Arrays:
    n_users, n_items, of_users = ratings.n_users, ratings.n_items, ratings.by_user
    factors = _factors(n_users, n_items, n_factors)
    users = kernels.fix(factors.user_factors, factors.user_biases)
    items = kernels.fix(factors.item_factors, factors.item_biases)
    descent = Descent(4, 0.05, 0.02, 0.9, 1.0, 0.05, 0.03, np.uint64(7))
    scales, all_items = np.linspace(0.5, 1, n_users, dtype=np.float32), make_weights(np.arange(n_items + 1))
    draws = Draws(all_items, 2 * np.diff(of_users.indptr))
    if loss == "ratings":
        base, link = factors.user_factors, make_link((1.0, 5.0))
        return [*kernels.fold_in_ratings(of_users, items, base, 0.5, link, descent, scales, n_threads)]
    if loss == "choices":
        return [*kernels.fold_in_choices(of_users, items, -1.0, descent, scales, draws, n_threads)]
    if loss == "user_pairs":
        return [*kernels.fold_in_user_pairs(of_users, items, descent, scales, draws, n_threads)]
    rivals = Rivals(items, of_users.indptr, of_users.indices, all_items, 2)
    of_items = kernels.transpose(of_users, n_items, n_threads)
    scales = np.linspace(0.5, 1, n_items, dtype=np.float32)
    draws = Draws(make_weights(of_users.indptr), np.full(n_items, 20))
    return [*kernels.fold_in_item_pairs(of_items, users, rivals, descent, scales, draws, n_threads)]


def _als() -> Iterator[Case]:
    sizes = ((60, 40, 500, 8), (200, 150, 4000, 33), (300, 200, 12_000, 64), (80, 300, 8000, 128))
    for (n_rows, n_fixed, n_ratings, n_factors), kind, solver in itertools.product(sizes, _WEIGHTINGS, _SOLVERS):
        if solver.name == "nonnegative" and n_factors > 33:
            continue  # the reference takes its time
        half_sweep = HalfSweep(
            power_law(n_rows, n_fixed, n_ratings).by_user,
            _factors(1, n_fixed, n_factors).item_factors,
            np.linspace(-0.5, 0.5, n_fixed, dtype=np.float32),
            np.zeros((n_factors, n_factors), np.float32),
            np.full(n_rows, 3, np.float32),
            _WEIGHTINGS[kind],
        )
        name = f"run_half_sweep, {solver.name}, {kind}, {n_rows} × {n_fixed}, {n_ratings} entries, {n_factors} factors"
        yield Case(name, partial(_run_half_sweep, half_sweep, kind == "implicit", solver), 1e-3)


def _run_half_sweep(
    problem: HalfSweep, all_cells: bool, solver: Solver, kernels: Kernels, n_threads: int | None
) -> Arrays:
    if all_cells:
        problem = problem._replace(gram=kernels.gram(problem.fixed_factors, n_threads).astype(np.float32))
    target = _factors(len(problem.regularization), 1, problem.fixed_factors.shape[1]).user_factors
    losses = kernels.run_half_sweep(problem, target, n_threads, solver)
    return [problem.gram, target, losses]


_SOLVERS = (Solver("cholesky"), Solver("cg", 3), Solver("subspace", 16), Solver("nonnegative", 1))
_WEIGHTINGS = {
    "explicit": Weighting(np.float32(1), np.float32(0), np.float32(-3), np.float32(1)),
    "implicit": Weighting(np.float32(0), np.float32(1), np.float32(1), np.float32(1)),
}


def _topk() -> Iterator[Case]:
    """Small whole numbers make many ties, and products without rounding: indices must be equal."""
    for n_queries, n_items, n_factors, k in ((5, 9, 3, 20), (130, 1500, 17, 10), (70, 4000, 64, 100)):
        rng = np.random.default_rng(n_items)
        queries, items = (rng.integers(-3, 4, (n, n_factors)).astype(np.float32) for n in (n_queries, n_items))
        seen = power_law(n_queries, n_items, n_queries * n_items // 10)
        for kind, exclude in (
            ("all items", no_rows(n_queries)),
            ("seen left out", rows_of_pairs(seen.users, seen.items, n_queries, n_items)),
        ):
            for pruning in (True, False):
                name = f"top_k, {kind}, {n_queries} queries × {n_items} items, {n_factors} factors, k = {k}"
                name += ", pruned" if pruning else ""
                yield Case(name, partial(_top_k, queries, items, k, exclude, pruning), 0)
        name = f"count_better, {n_queries} queries × {n_items} items, {n_factors} factors"
        yield Case(
            name, partial(_count_better, queries, items, rows_of_pairs(seen.users, seen.items, n_queries, n_items)), 0
        )


def _top_k(
    queries: Float32Array,
    items: Float32Array,
    k: int,
    exclude: Rows,
    pruning: bool,
    kernels: Kernels,
    n_threads: int | None,
) -> Arrays:
    return [*kernels.top_k(queries, kernels.index_items(items, pruning, n_threads), k, exclude, n_threads).top]


def _count_better(
    queries: Float32Array, items: Float32Array, seen: Rows, kernels: Kernels, n_threads: int | None
) -> Arrays:
    index = kernels.index_items(items, False, n_threads)
    return [*kernels.count_better(queries, index, seen, no_rows(len(queries)), n_threads)]


def _rerank() -> Iterator[Case]:
    """Vectors and relevance are small binary fractions: products and sums do not round, so places must be equal."""
    for n_users, n_items, n_candidates, n_factors, k in (
        (5, 9, 7, 3, 9),
        (130, 400, 50, 17, 10),
        (70, 900, 100, 64, 10),
    ):
        for diversify in (0.0, 0.25, 1.0):
            name = f"rerank, {n_users} lists of {n_candidates} to {k}, {n_factors} factors, diversify = {diversify}"
            yield Case(name, partial(_rerank_lists, (n_users, n_items, n_candidates, n_factors, k), diversify), 0)


def _rerank_lists(
    sizes: tuple[int, int, int, int, int], diversify: float, kernels: Kernels, n_threads: int | None
) -> Arrays:
    n_users, n_items, n_candidates, n_factors, k = sizes
    rng = np.random.default_rng(n_items)
    items = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :n_candidates].astype(np.int32)
    items[:, -2:] = -1
    relevance = -np.sort(-rng.integers(0, 65, items.shape) / 64)
    tags = power_law(n_items, 12, 2 * n_items)
    rows = rows_of_pairs(tags.users, tags.items, n_items, 12)
    sparse = CSR(*rows, rng.integers(0, 3, len(rows.indices)).astype(np.float32) / np.float32(4))
    dense = rng.integers(-2, 3, (n_items, n_factors)).astype(np.float32) / np.float32(8)
    draws = np.where(rng.random((n_users, k)) < 0.2, rng.random((n_users, k)), -1)
    exploration = Exploration(draws, rng.random(n_items) < 0.1)
    caps = Caps(rows, np.full(12, 2, np.int32))
    return [
        kernels.rerank(Lists(items, relevance), diversify, Directions(dense, sparse, 12), caps, exploration, n_threads)
    ]


def _factors(n_users: int, n_items: int, n_factors: int) -> Factors:
    rng = np.random.default_rng(n_factors)

    def normal(*shape: int) -> Float32Array:
        return rng.standard_normal(shape, np.float32)

    return Factors(
        normal(n_users, n_factors) / np.float32(n_factors**0.5),
        normal(n_items, n_factors) / np.float32(n_factors**0.5),
        normal(n_users),
        normal(n_items),
        np.float32(3.5),
    )


_MAKERS: dict[str, Callable[[], Iterator[Case]]] = {
    "layout": _layout,
    "predict": _predict,
    "sgd": _sgd,
    "negative_sampling": _sampled,
    "svdpp": _svdpp,
    "fold_in": _fold_in,
    "als": _als,
    "topk": _topk,
    "rerank": _rerank,
}
