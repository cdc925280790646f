"""Made-up problems for kernels that take gradient steps."""

import numpy as np

from fastmf.backend import get_backend
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, make_link
from fastmf_kernels.sgd.arrays import RowSteps, Step

# All strengths differ, so that a kernel which confuses two of them is caught.
STEP = Step(*(np.float32(term) for term in (0.05, 0.03, 1, 0.02, 0.01, 0.04, 0.06)))
LINKS = {"identity": make_link(None), "sigmoid": make_link((0.5, 5.0))}


def make_ratings(n_users: int, n_items: int, n_ratings: int, seed: int = 0) -> CSR:
    """Ratings with skewed counts; the last tenth of the users has none, the first tenth of the ratings is user 0's."""
    rng = np.random.default_rng(seed)
    users = (rng.random(n_ratings) ** 2 * max(1, n_users - n_users // 10)).astype(np.int32)
    users[: n_ratings // 10] = 0
    items = (rng.random(n_ratings) ** 2 * n_items).astype(np.int32)
    ratings = rng.integers(1, 10, n_ratings).astype(np.float32) / 2
    return get_backend("reference").coo_to_csr(users, items, ratings, n_users, None)


def make_factors(n_users: int, n_items: int, n_factors: int, *, biases: bool = True) -> Factors:
    rng, scale = np.random.default_rng(1), np.float32(0.3 * biases)
    return Factors(
        rng.standard_normal((n_users, n_factors), np.float32) * np.float32(0.3),
        rng.standard_normal((n_items, n_factors), np.float32) * np.float32(0.3),
        rng.standard_normal(n_users, np.float32) * scale,
        rng.standard_normal(n_items, np.float32) * scale,
        np.float32(2.5),
    )


def make_rows(n_users: int, n_items: int) -> RowSteps:
    """Rows that have seen gradients before, and whose regularisation differs."""
    rng = np.random.default_rng(9)
    return RowSteps(*(1 + rng.random(n, np.float32) for n in (n_users, n_items, n_users, n_items)))


RATINGS = {
    "general": (300, 200, 6000),
    "one user": (1, 50, 40),
    "one item": (50, 1, 40),
    "one rating": (1, 1, 1),
    "no ratings": (5, 4, 0),
}
