"""Which of the recommended items are relevant, with NumPy alone: arrays of any size need no compiler.

The time grows with the number of recommended items plus that of relevant ones, which are sorted.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import Float64Array, Int64Array

# Recommended items that are looked up at a time, so that their keys stay in the cache, and the most bytes of a table.
_CHUNK, _MOST_IN_TABLE = 1 << 16, 1 << 26


class Ties(NamedTuple):
    """For each hit, how many items share its score and thus its place, and how many of these are relevant.

    Their order is random, and metrics are expected values. A hit then stands for all relevant items of its group, and
    its place is the first one of the group, which may reach beyond place k.

    Attributes
    ----------
    sizes : int64 array, shape (n_hits,)
        At least 1.
    n_relevant : int64 array, shape (n_hits,)
        At least 1.
    """

    sizes: Int64Array
    n_relevant: Int64Array


class Hits(NamedTuple):
    """The recommended items that are relevant, for users with at least one relevant item.

    Attributes
    ----------
    users : int64 array, shape (n_hits,)
        Ascending; a user is a place in ``n_relevant``.
    places : int64 array, shape (n_hits,)
        From 1 for the best item to k; ascending for each user.
    n_relevant : int64 array, shape (n_users,)
        At least 1.
    k : int
    ties : Ties or None
        None if no two items of a user share a place.
    """

    users: Int64Array
    places: Int64Array
    n_relevant: Int64Array
    k: int
    ties: Ties | None = None

    @classmethod
    def at(cls, positions: Int64Array, k: int, n_relevant: Int64Array) -> "Hits":
        """Leave out users without relevant items, and number the others.

        Parameters
        ----------
        positions : int64 array, shape (n_hits,)
            Where hits are in an array of shape (n_users, k), flattened; ascending.
        k : int
        n_relevant : int64 array, shape (n_users,)

        Returns
        -------
        Hits
        """
        users, places = np.divmod(positions, k)
        counts = n_relevant > 0
        if not counts.all():
            users, n_relevant = (np.cumsum(counts) - 1)[users], n_relevant[counts]
        return cls(users, places + 1, n_relevant, k)

    def per_user(self, values: npt.ArrayLike) -> Float64Array:
        """Return the sum of a value of each hit over each user's hits.

        Parameters
        ----------
        values : float array, shape (n_hits,)

        Returns
        -------
        float64 array, shape (n_users,)
        """
        return np.bincount(self.users, values, minlength=len(self.n_relevant)).astype(np.float64, copy=False)

    def expected_gain(self, gains: Float64Array) -> Float64Array:
        """Return the expected sum of the gains of the places that hold a relevant item, for each user.

        Parameters
        ----------
        gains : float64 array, shape (k,)
            Of each place.

        Returns
        -------
        float64 array, shape (n_users,)
        """
        if self.ties is None:
            return self.per_user(gains[self.places - 1])
        up_to = np.concatenate([[0], np.cumsum(gains)])
        first = self.places - 1
        of_group = up_to[first + self.n_places] - up_to[first]
        return self.per_user(of_group * self.ties.n_relevant / self.ties.sizes)

    @property
    def n_places(self) -> Int64Array:
        """Places that the group of each hit has among the first k, shape (n_hits,)."""
        if self.ties is None:
            return np.ones(len(self.users), np.int64)
        return np.minimum(self.ties.sizes, self.k - self.places + 1)


def find_hits(items: npt.NDArray[Any], indptr: Int64Array, indices: Int64Array) -> Hits:
    """Find the recommended items that are relevant.

    Parameters
    ----------
    items : int array, shape (n_users, k)
        Best first; a negative number stands for "none".
    indptr : int64 array, shape (n_users + 1,)
    indices : int64 array, shape (n_pairs,)
        User ``u`` wants ``indices[indptr[u]:indptr[u + 1]]``, in any order. What is there twice counts once.

    Returns
    -------
    Hits
    """
    items, indices, width = _numbered(items, indices)
    # The key of a pair is user·width + item.
    relevant_keys = np.sort(np.repeat(np.arange(len(items)), np.diff(indptr)) * width + indices)
    relevant_keys = relevant_keys[np.diff(relevant_keys, prepend=-1) > 0]
    n_relevant = np.bincount(relevant_keys // width, minlength=len(items))
    return Hits.at(_positions(items, relevant_keys, width), items.shape[1], n_relevant)


def _numbered(items: npt.NDArray[Any], indices: Int64Array) -> tuple[npt.NDArray[Any], Int64Array, int]:
    """Return recommended and relevant items in numbers such that keys fit in int64, and a bound of the latter.

    The bound is odd, so that keys of two users differ in their last bits.
    """
    width = int(indices.max()) + 1 | 1
    if items.dtype.kind in "iu" and indices.min() >= 0 and (len(items) + 1) * width < 1 << 63:
        return items, indices, width
    known, numbers = np.unique(indices, return_inverse=True)
    found = np.minimum(np.searchsorted(known, items), len(known) - 1)
    return np.where((known[found] == items) & (items >= 0), found, -1), numbers, len(known) | 1


def _positions(items: npt.NDArray[Any], relevant_keys: Int64Array, width: int) -> Int64Array:
    """Find, in the flattened items, those whose keys are among ``relevant_keys``, which ascends.

    A table of the last bits of keys tells most others apart; a binary search decides the rest.
    """
    table = np.zeros(min(1 << (4 * len(relevant_keys) - 1).bit_length(), _MOST_IN_TABLE), np.bool_)
    last_bits = len(table) - 1
    table[relevant_keys & last_bits] = True
    k, found = items.shape[1], []
    n_rows = max(1, _CHUNK // k)
    for start in range(0, len(items), n_rows):
        chunk = items[start : start + n_rows]
        keys = chunk.astype(np.int64) + np.arange(start, start + len(chunk))[:, np.newaxis] * width
        places = np.flatnonzero(table[keys & last_bits] & (chunk >= 0) & (chunk < width))
        keys = keys.ravel()[places]
        places = places[relevant_keys.take(np.searchsorted(relevant_keys, keys), mode="clip") == keys]
        found.append(places + start * k)
    return np.concatenate(found)
