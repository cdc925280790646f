"""Every operation at several sizes, and what counts as the same answer: nothing is timed before it is proven.

The reference of an operation answers a case once; a variant answers it again on fresh copies of the same arrays, and
`Case.compare` says what differs. `bench/test_*.py` times the same cases.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf.backend import Kernels, get_backend
from fastmf.errors import FastMFError
from fastmf.testing import VARIANTS, power_law
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.als.arrays import HalfSweep, Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link, make_link
from fastmf_kernels.sgd.arrays import Step
from fastmf_kernels.sgd.schedule import make_blocks, shuffled_strata
from fastmf_kernels.topk.arrays import Rows, no_rows

OPERATIONS = ("layout", "predict", "sgd", "als", "topk")
_THREADS = (1, 2, 3, 8)


class WrongKernelError(FastMFError):
    """A kernel does not give the answer of its reference."""


class Case(NamedTuple):
    """One operation on one problem.

    Attributes
    ----------
    operation : str
    name : str
        The function and its sizes.
    answer : callable
        Runs a variant on a number of threads and returns its arrays.
    tolerance : float
        Largest error allowed, as a share of the largest element; 0 where answers must be equal bit for bit.
    """

    operation: str
    name: str
    answer: Callable[[Kernels, int | None], list[npt.NDArray[Any]]]
    tolerance: float

    def compare(self, found: list[npt.NDArray[Any]]) -> str:
        """Say how an answer differs from that of the reference; nothing if it does not."""
        expected = self.answer(get_backend("reference"), None)
        differences = [difference(*pair, self.tolerance) for pair in zip(expected, found, strict=True)]
        return next(filter(None, differences), "")


def prove(operation: str) -> None:
    """Hold every variant of an operation against its reference, and against itself on other numbers of threads.

    Raises
    ------
    WrongKernelError
        At the first case that differs.
    """
    for variant in VARIANTS:
        kernels = get_backend(variant)
        for case in cases(operation):
            first, *others = [case.answer(kernels, n_threads) for n_threads in (None, *_THREADS)]
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


def _layout() -> list[Case]:
    made = []
    for n_users, n_items, n_ratings in ((7, 5, 12), (300, 200, 3000), (2000, 700, 60_000)):
        ratings = power_law(n_users, n_items, n_ratings)

        def answer(kernels: Kernels, n_threads: int | None, ratings: Any = ratings) -> list[npt.NDArray[Any]]:
            csr = kernels.coo_to_csr(ratings.users, ratings.items, ratings.ratings, ratings.n_users, n_threads)
            return [*csr, *kernels.transpose(csr, ratings.n_items, n_threads)]

        made.append(Case("layout", f"coo_to_csr and transpose, {n_users} × {n_items}, {n_ratings} entries", answer, 0))
    return made


def _predict() -> list[Case]:
    made = []
    for n_factors in (1, 17, 64):
        pairs, factors = _pairs(500, 300, 5000), _factors(500, 300, n_factors)
        for rating_range in (None, (1.0, 5.0)):
            problem = (*pairs, factors, make_link(rating_range))

            def answer(
                kernels: Kernels,
                n_threads: int | None,
                problem: tuple[Int32Array, Int32Array, Factors, Link] = problem,
            ) -> list[npt.NDArray[Any]]:
                users, items, factors, link = problem
                return [kernels.predict_pairs(users, items, factors, link, n_threads)]

            name = f"predict_pairs, 5000 pairs, {n_factors} factors, range {rating_range}"
            made.append(Case("predict", name, answer, 1e-5))
    return made


def _sgd() -> list[Case]:
    """One epoch that touches each row once, which must be equal to rounding, and longer ones, where errors add up."""
    made = []
    for n_users, n_items, n_ratings, n_factors, tolerance in (
        (200, 200, 200, 17, 1e-6),
        (200, 200, 200, 64, 1e-6),
        (400, 200, 3000, 8, 1e-4),
        (1000, 600, 20_000, 33, 1e-4),
    ):
        rng = np.random.default_rng(n_ratings)
        once = n_ratings == n_users
        users, items = (rng.permutation(n_users).astype(np.int32),) * 2 if once else _pairs(n_users, n_items, n_ratings)
        values = rng.integers(1, 6, n_ratings).astype(np.float32)

        def answer(
            kernels: Kernels,
            n_threads: int | None,
            problem: Any = (users, items, values, n_users, n_items, n_factors),
        ) -> list[npt.NDArray[Any]]:
            users, items, values, n_users, n_items, n_factors = problem
            by_user = kernels.coo_to_csr(users, items, values, n_users, n_threads)
            blocks = make_blocks(by_user, n_items, kernels.group_by, n_threads)
            strata = shuffled_strata(int(np.sqrt(len(blocks.offsets) - 1)), np.random.default_rng(0))
            factors = _factors(n_users, n_items, n_factors)
            step = Step(*(np.float32(term) for term in (0.01, 0.02, 0.05, 0.03)))
            kernels.run_epoch(blocks, strata, factors, make_link(None), step, n_threads)
            return [*factors[:4]]

        name = f"run_epoch, {n_users} × {n_items}, {n_ratings} ratings, {n_factors} factors"
        made.append(Case("sgd", name, answer, tolerance))
    return made


def _als() -> list[Case]:
    made = []
    for n_rows, n_fixed, n_ratings, n_factors in (
        (60, 40, 500, 8),
        (200, 150, 4000, 33),
        (300, 200, 12_000, 64),
        (80, 300, 8000, 128),
    ):
        for kind, weighting in _WEIGHTINGS.items():

            def answer(
                kernels: Kernels,
                n_threads: int | None,
                problem: Any = (n_rows, n_fixed, n_ratings, n_factors),
                weighting: Weighting = weighting,
            ) -> list[npt.NDArray[Any]]:
                n_rows, n_fixed, n_ratings, n_factors = problem
                fixed = _factors(1, n_fixed, n_factors).item_factors
                gram = kernels.gram(fixed) if weighting.target == 1 else np.zeros((n_factors, n_factors), np.float32)
                half_sweep = HalfSweep(
                    _csr(n_rows, n_fixed, n_ratings),
                    fixed,
                    np.linspace(-0.5, 0.5, n_fixed, dtype=np.float32),
                    gram,
                    np.full(n_rows, 3, np.float32),
                    weighting,
                )
                target = np.empty((n_rows, n_factors), np.float32)
                kernels.run_half_sweep(half_sweep, target, n_threads)
                return [gram, target]

            name = f"run_half_sweep, {kind}, {n_rows} × {n_fixed}, {n_ratings} entries, {n_factors} factors"
            made.append(Case("als", name, answer, 1e-3))
    return made


_WEIGHTINGS = {
    "explicit": Weighting(np.float32(1), np.float32(0), np.float32(-3), np.float32(1)),
    "implicit": Weighting(np.float32(0), np.float32(1), np.float32(1), np.float32(1)),
}


def _topk() -> list[Case]:
    """Small whole numbers make many ties, and products without rounding: indices must be equal."""
    made = []
    for n_queries, n_items, n_factors, k in ((5, 9, 3, 20), (130, 1500, 17, 10), (70, 4000, 64, 100)):
        rng = np.random.default_rng(n_items)
        queries, items = (rng.integers(-3, 4, (n, n_factors)).astype(np.float32) for n in (n_queries, n_items))
        for kind, exclude in (("all items", no_rows(n_queries)), ("seen left out", _rows(n_queries, n_items))):

            def answer(
                kernels: Kernels,
                n_threads: int | None,
                problem: tuple[Float32Array, Float32Array, int, Rows] = (queries, items, k, exclude),
            ) -> list[npt.NDArray[Any]]:
                queries, items, k, exclude = problem
                return [*kernels.top_k(queries, items, k, exclude, n_threads)]

            name = f"top_k, {kind}, {n_queries} queries × {n_items} items, {n_factors} factors, k = {k}"
            made.append(Case("topk", name, answer, 0))
    return made


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


def _pairs(n_users: int, n_items: int, n: int) -> tuple[Int32Array, Int32Array]:
    ratings = power_law(n_users, n_items, n)
    return ratings.users, ratings.items


def _csr(n_rows: int, n_columns: int, n: int) -> CSR:
    return power_law(n_rows, n_columns, n).by_user


def _rows(n_queries: int, n_items: int) -> Rows:
    csr = _csr(n_queries, n_items, n_queries * n_items // 10)
    indices = [np.sort(csr.indices[csr.indptr[r] : csr.indptr[r + 1]]) for r in range(n_queries)]
    return Rows(csr.indptr, np.concatenate(indices))


_MAKERS: dict[str, Callable[[], list[Case]]] = {
    "layout": _layout,
    "predict": _predict,
    "sgd": _sgd,
    "als": _als,
    "topk": _topk,
}
