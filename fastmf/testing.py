"""Problems whose answer is known, and the table of kernel variants: for tests, benchmarks, and users who doubt."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.interactions import Interactions
from fastmf_kernels._types import Float32Array

VARIANTS = ("cpu",)
"""Backends that are held against "reference"; each serves every operation."""


def low_rank(
    n_users: int = 200,
    n_items: int = 100,
    n_factors: int = 3,
    density: float = 0.3,
    noise: float = 0.0,
    seed: int = 0,
) -> Interactions:
    """Make ratings r = 3 + p·q + noise from planted factors, observed at random.

    Parameters
    ----------
    n_users, n_items, n_factors : int
    density : float
        Share of the cells that are observed; every user and item gets at least one.
    noise : float
        Standard deviation of the noise; 0 makes the table exactly of rank ``n_factors`` but for its mean.
    seed : int

    Returns
    -------
    Interactions
    """
    rng = np.random.default_rng(seed)
    p, q = rng.standard_normal((n_users, n_factors)), rng.standard_normal((n_items, n_factors))
    observed = rng.random((n_users, n_items)) < density
    observed[np.arange(n_users), rng.integers(n_items, size=n_users)] = True
    observed[rng.integers(n_users, size=n_items), np.arange(n_items)] = True
    users, items = np.nonzero(observed)
    ratings = 3 + np.einsum("nf,nf->n", p[users], q[items]) / np.sqrt(n_factors)
    ratings += noise * rng.standard_normal(len(users))
    return from_indices(users, items, ratings, n_users, n_items)


class Checkerboard(NamedTuple):
    """A table of two kinds of users and items, and for each user the one item of his kind that was held out."""

    ratings: Interactions
    held_out: "np.typing.NDArray[np.int64]"


def checkerboard(size: int = 20) -> Checkerboard:
    """Make users who like just the items of their own parity, but for one held out: it must be recommended first.

    Parameters
    ----------
    size : int
        Number of users and of items; even.

    Returns
    -------
    Checkerboard
        ``held_out[u]`` is the item of user ``u``'s parity that is missing from the ratings.
    """
    users, items = np.nonzero((np.arange(size)[:, None] - np.arange(size)[None, :]) % 2 == 0)
    held_out = (np.arange(size) + 2 * (np.arange(size) // 2)) % size
    kept = items != held_out[users]
    ratings = from_indices(users[kept], items[kept], np.ones(kept.sum()), size, size)
    return Checkerboard(ratings, held_out)


def power_law(
    n_users: int, n_items: int, n_ratings: int, n_factors: int = 8, noise: float = 0.5, seed: int = 0
) -> Interactions:
    """Make half-star ratings from 0.5 to 5 with a few heavy users and items, as real data has them.

    Parameters
    ----------
    n_users, n_items, n_ratings : int
        At most a third of all cells; somewhat fewer ratings come out, since pairs drawn twice are dropped.
    n_factors : int
        Rank of the planted taste.
    noise : float
        Standard deviation of the noise in stars.
    seed : int

    Returns
    -------
    Interactions
    """
    rng = np.random.default_rng(seed)
    users = _draw_power_law(n_users, n_ratings, 0.6, rng)
    items = _draw_power_law(n_items, n_ratings, 0.8, rng)
    pairs = np.unique(users * n_items + items)
    users, items = np.divmod(rng.permutation(pairs), n_items)
    p = rng.standard_normal((n_users, n_factors), np.float32)
    q = rng.standard_normal((n_items, n_factors), np.float32)
    taste = np.einsum("nf,nf->n", p[users], q[items]) / np.float32(n_factors**0.5)
    stars = 3.5 + 0.4 * rng.standard_normal(n_users)[users] + 0.5 * rng.standard_normal(n_items)[items]
    stars += 0.6 * taste + noise * rng.standard_normal(len(users))
    return from_indices(users, items, np.clip(np.round(stars * 2) / 2, 0.5, 5), n_users, n_items)


def film_club(n_users: int = 2000, n_items: int = 500, mean_ratings: int = 40, seed: int = 0) -> Interactions:
    """Make ratings whose choice, too, shows taste: users see what they expect to like, and popular films more often.

    Parameters
    ----------
    n_users, n_items : int
    mean_ratings : int
        Ratings of a user on average; at least 5 each.
    seed : int

    Returns
    -------
    Interactions
        With ids such as ``"user-0042"`` and ``"film-007"``, and 1 to 5 stars.
    """
    rng = np.random.default_rng(seed)
    p, q = rng.standard_normal((n_users, 4)), rng.standard_normal((n_items, 4))
    liking, fame = p @ q.T, rng.standard_normal(n_items)
    n_seen = np.clip(rng.gamma(2, mean_ratings / 2, n_users), 5, n_items // 2).astype(np.int64)
    # The n largest of score + Gumbel noise are a draw of n without replacement, by softmax of the score (Yellott 1977).
    noisy = liking + fame + rng.gumbel(size=liking.shape)
    order = np.argsort(-noisy, axis=1)
    users, place = np.nonzero(np.arange(n_items)[None, :] < n_seen[:, None])
    items = order[users, place]
    stars = np.clip(np.round(3.2 + 0.6 * liking[users, items] + 0.5 * rng.standard_normal(len(users))), 1, 5)
    return Interactions.from_arrays(
        [f"user-{user:04}" for user in users], [f"film-{item:03}" for item in items], stars.astype(np.float32)
    )


def _draw_power_law(n: int, size: int, exponent: float, rng: np.random.Generator) -> "np.typing.NDArray[np.int64]":
    """Draw numbers below ``n`` with probability falling as rank^-exponent, the ranks shuffled."""
    weights = np.arange(1, n + 1) ** -exponent
    ranks = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(size))
    return np.asarray(rng.permutation(n)[np.minimum(ranks, n - 1)])


def from_indices(
    users: "np.typing.NDArray[np.int64]",
    items: "np.typing.NDArray[np.int64]",
    ratings: "np.typing.NDArray[np.float64] | Float32Array",
    n_users: int,
    n_items: int,
) -> Interactions:
    """Make `Interactions` whose ids are the indices themselves."""
    return Interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        ratings.astype(np.float32),
        None,
        pa.array(np.arange(n_users)),
        pa.array(np.arange(n_items)),
    )
