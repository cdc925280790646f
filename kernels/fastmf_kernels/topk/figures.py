"""Figures of rankings, for all users at once; their equations and sources are in `fastmf.metrics`.

Each function returns a float64 array, with one figure a user unless it says otherwise.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

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


def share_below(share_above: Float64Array) -> Float64Array:
    """Return the share of items that score below, ties counting half on either side."""
    return 1 - share_above


def share_above(share_above: Float64Array) -> Float64Array:
    """Return the share of items that score above as it is."""
    return share_above


def self_information(items: npt.NDArray[Any], known_share: Float64Array) -> Float64Array:
    """Return -log₂ of the share of users who know an item, for each place that is filled; nothing if none is known.

    An item that nobody knows counts as known to as few as the least known of the others.
    """
    known, filled = known_share > 0, items[items >= 0]
    if not known.any() or not filled.size:
        return np.empty(0)
    information = -np.log2(np.where(known, known_share, known_share[known].min()))
    return np.asarray(information[filled])


def dissimilarity(items: npt.NDArray[Any], item_factors: npt.NDArray[Any]) -> Float64Array:
    """Return the mean of 1 - cosine over pairs of a user's items, for each user with two items or more."""
    factors = np.asarray(item_factors, np.float64)
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    directions = np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0)
    # Σ over pairs of two items of a·b is (‖Σ a‖² - Σ ‖a‖²) / 2; a row of zeros at the end stands for "none".
    squares = np.append((directions**2).sum(axis=1), 0)
    directions = np.vstack([directions, np.zeros((1, directions.shape[1]))])
    sums = sum(directions[column] for column in items.T) if items.size else np.zeros((0, 1))
    counts = (items >= 0).sum(axis=1)
    n_pairs = counts * (counts - 1) / 2
    cosines = ((np.asarray(sums) ** 2).sum(axis=1) - squares[items].sum(axis=1)) / 2
    some = n_pairs > 0
    return np.asarray(1 - cosines[some] / n_pairs[some])
