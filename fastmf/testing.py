"""Problems whose answer is known, and the table of kernel variants: for tests, benchmarks, and users who doubt."""

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.errors import ParameterError
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array

VARIANTS = ("cpu",)
"""Backends that are held against "reference"; each serves every operation."""

_CHUNK = 1 << 21


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
    """Make half-star ratings from 0.5 to 5 as real data has them: a few heavy users and items, and taste in the choice.

    A user rates a popular item more often, and one to his taste more often; the ratings are planted too, with noise.

    Parameters
    ----------
    n_users, n_items, n_ratings : int
        At most half of all cells.
    n_factors : int
        Rank of the planted taste.
    noise : float
        Standard deviation of the noise in stars.
    seed : int

    Returns
    -------
    Interactions
        Of just ``n_ratings`` ratings, in random order.

    Raises
    ------
    ParameterError
        If more than half of all cells are asked for.
    """
    if 2 * n_ratings > n_users * n_items:
        raise ParameterError(
            f"n_ratings is {n_ratings}, but {n_users} users × {n_items} items take at most "
            f"{n_users * n_items // 2}, half of all cells; ask for fewer ratings, or for more users or items"
        )
    rng = np.random.default_rng(seed)
    planted = _Planted(
        rng.standard_normal((n_users, n_factors), np.float32),
        rng.standard_normal((n_items, n_factors), np.float32),
        rng.permutation(n_users).astype(np.int32),
        rng.permutation(n_items).astype(np.int32),
    )
    pairs = np.empty(0, np.int64)
    while len(pairs) < n_ratings:
        # More than are missing, since popular cells come up again and again.
        wanted = max(n_ratings + n_ratings // 2 - len(pairs), n_ratings // 8)
        with ThreadPoolExecutor() as pool:
            drawn = pool.map(planted.draw_pairs, rng.spawn(-(-wanted // _CHUNK)), repeat(min(wanted, _CHUNK)))
            pairs = _sorted_distinct(np.concatenate([pairs, *drawn]))
    rng.shuffle(pairs)
    pairs = pairs[:n_ratings]
    users, items = (pairs // n_items).astype(np.int32), (pairs % n_items).astype(np.int32)
    user_mean, item_mean = 3.5 + 0.4 * rng.standard_normal(n_users), 0.5 * rng.standard_normal(n_items)
    stars = np.empty(n_ratings, np.float32)
    for start in range(0, n_ratings, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        u, i = users[chunk], items[chunk]
        exact = user_mean[u] + item_mean[i] + 0.6 * planted.taste(u, i) + noise * rng.standard_normal(len(u))
        stars[chunk] = np.clip(np.round(exact * 2) / 2, 0.5, 5)
    return from_indices(users, items, stars, n_users, n_items)


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


class _Planted(NamedTuple):
    """What `power_law` knows of users and items: their taste, and who is heavy and what is popular."""

    user_factors: Float32Array
    item_factors: Float32Array
    users_by_weight: Int32Array
    items_by_weight: Int32Array

    def draw_pairs(self, rng: np.random.Generator, size: int) -> Int64Array:
        """Draw about ``size`` cells user·n_items + item; a cell is accepted with probability σ(1.5·taste)."""
        users = self.users_by_weight[_power_law_ranks(len(self.users_by_weight), 2 * size, 0.6, rng)]
        items = self.items_by_weight[_power_law_ranks(len(self.items_by_weight), 2 * size, 0.6, rng)]
        accepted = rng.random(2 * size, np.float32) < 1 / (1 + np.exp(-1.5 * self.taste(users, items)))
        return np.asarray(users[accepted].astype(np.int64) * len(self.items_by_weight) + items[accepted])

    def taste(
        self, users: "np.typing.NDArray[np.integer[Any]]", items: "np.typing.NDArray[np.integer[Any]]"
    ) -> Float32Array:
        """Return p·q / √n_factors of each pair: of variance 1."""
        dots = np.einsum("nf,nf->n", self.user_factors[users], self.item_factors[items])
        return np.asarray(dots / np.float32(self.user_factors.shape[1] ** 0.5))


def _power_law_ranks(n: int, size: int, exponent: float, rng: np.random.Generator) -> Int32Array:
    """Draw ranks below ``n`` whose probability falls as rank^-exponent: the inverse of the distribution function."""
    ranks = (n * rng.random(size, np.float32) ** np.float32(1 / (1 - exponent))).astype(np.int32)
    return np.asarray(np.minimum(ranks, n - 1))


def _sorted_distinct(values: Int64Array) -> Int64Array:
    """Return what `numpy.unique` does, in half the time; sorts ``values`` in place."""
    values.sort()
    return np.asarray(values[np.concatenate([[True], values[1:] != values[:-1]])])


def from_indices(
    users: "np.typing.NDArray[np.integer[Any]]",
    items: "np.typing.NDArray[np.integer[Any]]",
    ratings: "np.typing.NDArray[np.float64] | Float32Array",
    n_users: int,
    n_items: int,
) -> Interactions:
    """Make `Interactions` whose ids are the indices themselves."""
    return Interactions(
        users.astype(np.int32, copy=False),
        items.astype(np.int32, copy=False),
        ratings.astype(np.float32, copy=False),
        None,
        pa.array(np.arange(n_users)),
        pa.array(np.arange(n_items)),
    )
