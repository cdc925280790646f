"""Figures of one user's ranking, for all users at once; their equations and sources are in `fastmf.metrics`.

Each function takes `Hits` and returns a float64 array of shape (n_users,).
"""

import numpy as np

from fastmf_kernels._types import Float64Array
from fastmf_kernels.topk.hits import Hits


def precision(hits: Hits) -> Float64Array:
    """Return the share of the k places that hold a relevant item."""
    return hits.per_user() / hits.k


def recall(hits: Hits) -> Float64Array:
    """Return the share of the relevant items that are hits."""
    return hits.per_user() / hits.n_relevant


def hit_rate(hits: Hits) -> Float64Array:
    """Return 1 for a user with a hit, and 0 for others."""
    return np.minimum(hits.per_user(), 1)


def ndcg(hits: Hits) -> Float64Array:
    """Return the discounted cumulative gain as a share of that of the best possible list."""
    discounts = 1 / np.log2(np.arange(2, hits.k + 2))
    ideal = np.cumsum(discounts)[np.minimum(hits.n_relevant, hits.k) - 1]
    return np.asarray(hits.per_user(discounts[hits.places - 1]) / ideal)


def average_precision(hits: Hits) -> Float64Array:
    """Return the sum of the precisions at the places of hits, as a share of the largest possible sum."""
    n_hits = np.bincount(hits.users, minlength=len(hits.n_relevant))
    n_of_earlier_users = np.cumsum(n_hits) - n_hits
    n_so_far = np.arange(1, len(hits.users) + 1) - n_of_earlier_users[hits.users]
    return hits.per_user(n_so_far / hits.places) / np.minimum(hits.n_relevant, hits.k)


def reciprocal_rank(hits: Hits) -> Float64Array:
    """Return 1/place of the first hit, and 0 where there is none."""
    is_first = np.diff(hits.users, prepend=-1) > 0
    return hits.per_user(is_first / hits.places)
