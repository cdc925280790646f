"""Which of a user's pairs of ratings are predicted in their order."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import Int64Array

Indices = npt.NDArray[np.integer[Any]]


class Concordance(NamedTuple):
    """Pairs of unequal ratings of each user.

    Attributes
    ----------
    n_pairs : int64 array, shape (n_users,)
    n_concordant : int64 array, shape (n_users,)
        Those whose higher rating has the higher prediction.
    """

    n_pairs: Int64Array
    n_concordant: Int64Array


def count_concordant(
    users: Indices, ratings: npt.NDArray[Any], predictions: npt.NDArray[Any], n_users: int
) -> Concordance:
    """Count the pairs of unequal ratings of each user, and those that are predicted in their order.

    No pair is looked at: the time grows with n log n, for n ratings.

    Parameters
    ----------
    users : int array, shape (n,)
        From 0 to ``n_users`` - 1.
    ratings, predictions : float arrays, shape (n,)
    n_users : int

    Returns
    -------
    Concordance
    """
    order = np.lexsort((predictions, ratings, users))
    users, ratings, predictions = users[order], ratings[order], predictions[order]
    n_pairs = _pairs(np.bincount(users, minlength=n_users)) - _pairs_inside(_ends(users, ratings), users, n_users)
    by_prediction = np.lexsort((predictions, users))
    ends = _ends(users, predictions[by_prediction])
    # Equal predictions of unequal ratings are those of equal predictions, but for those whose ratings are equal, too.
    n_tied = _pairs_inside(ends, users, n_users)
    n_tied -= _pairs_inside(_ends(users, ratings, predictions), users, n_users)
    sizes = np.diff(ends, prepend=0)
    ranks = np.empty(len(users), np.int64)
    ranks[by_prediction] = np.repeat(ends - sizes, sizes)
    # Predictions of equal ratings ascend: whatever is out of order has unequal ratings.
    return Concordance(n_pairs, n_pairs - n_tied - _count_inversions(users, ranks, n_users))


def _pairs(counts: Int64Array) -> Int64Array:
    return counts * (counts - 1) // 2


def _ends(*keys: npt.NDArray[Any]) -> Int64Array:
    """Return where runs of rows with equal keys end."""
    if not len(keys[0]):
        return np.empty(0, np.int64)
    changes = np.zeros(len(keys[0]) - 1, np.bool_)
    for key in keys:
        changes |= key[1:] != key[:-1]
    return np.append(np.flatnonzero(changes) + 1, len(keys[0]))


def _pairs_inside(ends: Int64Array, users: Indices, n_users: int) -> Int64Array:
    """Count the pairs inside runs, for each user."""
    pairs = _pairs(np.diff(ends, prepend=0))
    return np.bincount(users[ends - 1], pairs, minlength=n_users).astype(np.int64)


def _count_inversions(users: Indices, ranks: Int64Array, n_users: int) -> Int64Array:
    """Count, for each user, the pairs of rows of which the first has the higher rank.

    Parameters
    ----------
    users : int array, shape (n,)
        Ascending.
    ranks : int64 array, shape (n,)
        Of a user: from the number of his first row to that of his last.
    n_users : int
    """
    sizes = np.bincount(users, minlength=n_users)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    ranks, places, n_inverted = ranks - starts, np.arange(len(ranks)), np.zeros(n_users, np.int64)
    # From the highest bit on, groups of rows that agree in the bits before are parted into those without the bit and,
    # behind them, those with it. A row without it is inverted with those with it that stood before it in the group.
    for bit in reversed(range(int(sizes.max(initial=1) - 1).bit_length())):
        has_bit = (ranks >> bit) & 1
        n_so_far = np.append(0, np.cumsum(has_bit))
        n_before = n_so_far[:-1] - n_so_far[starts]
        n_inverted += np.bincount(users, n_before * (1 - has_bit), minlength=n_users).astype(np.int64)
        ends = _ends(starts)
        ends = np.repeat(ends, np.diff(ends, prepend=0))
        starts_with_bit = ends - (n_so_far[ends] - n_so_far[starts])
        targets = np.where(has_bit == 1, starts_with_bit + n_before, places - n_before)
        ranks = _moved(ranks, targets)
        starts = _moved(np.where(has_bit == 1, starts_with_bit, starts), targets)
    return n_inverted


def _moved(values: Int64Array, targets: Int64Array) -> Int64Array:
    moved = np.empty_like(values)
    moved[targets] = values
    return moved
