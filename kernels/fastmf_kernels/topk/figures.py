"""Metrics of rankings, for all users at once; their equations and sources are in `fastmf.metrics`.

Each function returns a float64 array, with one value a user unless it says otherwise. Where items share a place, it is
the expected value over their random order.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import Float64Array
from fastmf_kernels.topk.hits import Hits


def precision(hits: Hits) -> Float64Array:
    """Return the share of the k places that hold a relevant item."""
    return hits.expected_gain(np.ones(hits.k)) / hits.k


def recall(hits: Hits) -> Float64Array:
    """Return the share of the relevant items that are hits."""
    return hits.expected_gain(np.ones(hits.k)) / hits.n_relevant


def hit_rate(hits: Hits) -> Float64Array:
    """Return 1 for a user with a hit, and 0 for others."""
    chances = np.zeros(len(hits.n_relevant))
    # At most one group, the last, reaches beyond place k: all others have a hit for sure.
    np.maximum.at(chances, hits.users, 1 - _first_of_groups(hits).chance_of_none)
    return chances


def ndcg(hits: Hits) -> Float64Array:
    """Return the discounted cumulative gain as a share of that of the best possible list."""
    discounts = 1 / np.log2(np.arange(2, hits.k + 2))
    ideal = np.cumsum(discounts)[np.minimum(hits.n_relevant, hits.k) - 1]
    return np.asarray(hits.expected_gain(discounts) / ideal)


def average_precision(hits: Hits) -> Float64Array:
    """Return the sum of the precisions at the places of hits, as a share of the largest possible sum."""
    n_hits = np.ones(len(hits.users), np.int64) if hits.ties is None else hits.ties.n_relevant
    up_to = np.cumsum(n_hits)
    n_of_earlier_users = np.concatenate([[0], np.cumsum(hits.per_user(n_hits))]).astype(np.int64)[hits.users]
    n_so_far = up_to - n_of_earlier_users
    if hits.ties is None:
        return hits.per_user(n_so_far / hits.places) / np.minimum(hits.n_relevant, hits.k)
    # A place j of a group of T items, R of them relevant, from place s on, holds a relevant item with chance R/T. The
    # expected number of hits up to there is then the earlier ones + 1 + (j - s)(R - 1)/(T - 1).
    sizes, n_relevant = hits.ties
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, hits.k + 1))])
    first, n_places = hits.places - 1, hits.n_places
    slope = (n_relevant - 1) / np.maximum(sizes - 1, 1)
    constant = n_so_far - n_relevant + 1 - hits.places * slope
    precisions = constant * (harmonic[first + n_places] - harmonic[first]) + slope * n_places
    return hits.per_user(precisions * n_relevant / sizes) / np.minimum(hits.n_relevant, hits.k)


def reciprocal_rank(hits: Hits) -> Float64Array:
    """Return 1/place of the first hit, and 0 where there is none."""
    is_first = np.diff(hits.users, prepend=-1) > 0
    return hits.per_user(is_first * _first_of_groups(hits).reciprocal)


class _First(NamedTuple):
    """The first relevant item of each group of tied items: the chance of none up to place k, and E[1/place]."""

    chance_of_none: Float64Array
    reciprocal: Float64Array


def _first_of_groups(hits: Hits) -> _First:
    if hits.ties is None:
        return _First(np.zeros(len(hits.users)), 1 / hits.places)
    n_places = hits.n_places
    chance_of_none, reciprocal = np.ones(len(hits.users)), np.zeros(len(hits.users))
    for step in range(int(n_places.max(initial=0))):
        groups = np.flatnonzero((n_places > step) & (chance_of_none > 0))
        # Of the items that are left, all relevant ones are still among them.
        share = hits.ties.n_relevant[groups] / (hits.ties.sizes[groups] - step)
        reciprocal[groups] += chance_of_none[groups] * share / (hits.places[groups] + step)
        chance_of_none[groups] *= 1 - share
    return _First(chance_of_none, reciprocal)


def share_below(share_above: Float64Array) -> Float64Array:
    """Return the share of items that score below, ties counting half on either side."""
    return 1 - share_above


def share_above(share_above: Float64Array) -> Float64Array:
    """Return the share of items that score above as it is."""
    return share_above


def graded_ndcg(gained: tuple[Float64Array, Float64Array]) -> Float64Array:
    """Return the discounted gain of each user as a share of that of the best possible list, NaN where that has none."""
    gains, ideal = gained
    return np.asarray(np.divide(gains, ideal, out=np.full(len(gains), np.nan), where=ideal > 0))


def coverage(items: npt.NDArray[Any], n_items: int) -> float:
    """Return the share of ``n_items`` items, whatever their numbers, that is recommended to anybody."""
    is_recommended = np.zeros(int(items.max(initial=-1)) + 1, np.bool_)
    is_recommended[items[items >= 0]] = True
    return int(np.count_nonzero(is_recommended)) / n_items


def gini(items: npt.NDArray[Any], n_items: int) -> float:
    """Return the Gini index of how often each of ``n_items`` items, whatever their numbers, is recommended."""
    counts = np.bincount(items[items >= 0].ravel())
    counts = np.sort(counts[counts > 0])
    if n_items == 1 or not len(counts):
        return float("nan")
    places = np.arange(n_items - len(counts) + 1, n_items + 1)
    return float((2 * places - n_items - 1) @ counts / ((n_items - 1) * counts.sum()))


def self_information(items: npt.NDArray[Any], known_share: Float64Array) -> Float64Array:
    """Return -log₂ of the share of users who know an item, in the shape of ``items``; NaN where none is or is known.

    An item that nobody knows counts as known to as few as the least known of the others.
    """
    known = known_share > 0
    if not known.any():
        return np.full(items.shape, np.nan)
    information = -np.log2(np.where(known, known_share, known_share[known].min()))
    return np.where(items >= 0, information[items], np.nan)


def dissimilarity(items: npt.NDArray[Any], item_factors: npt.NDArray[Any]) -> Float64Array:
    """Return the mean of 1 - cosine over pairs of a user's items, NaN for a user with fewer than two."""
    factors = np.asarray(item_factors, np.float64)
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    directions = np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0)
    # Σ over pairs of two items of a·b is (‖Σ a‖² - Σ ‖a‖²) / 2; a row of zeros at the end stands for "none".
    squares = np.append((directions**2).sum(axis=1), 0)
    directions = np.vstack([directions, np.zeros((1, directions.shape[1]))])
    sums = sum(directions[column] for column in items.T) if items.size else np.zeros((len(items), 1))
    counts = (items >= 0).sum(axis=1)
    n_pairs = counts * (counts - 1) / 2
    cosines = ((np.asarray(sums) ** 2).sum(axis=1) - squares[items].sum(axis=1)) / 2
    return np.asarray(1 - np.divide(cosines, n_pairs, out=np.full(len(items), np.nan), where=n_pairs > 0))
