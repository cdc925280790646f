"""Gains of relevant items, as graded nDCG needs them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import Float64Array, Int64Array

Indices = npt.NDArray[np.integer[Any]]


class Gains(NamedTuple):
    """The gain of each (row, item) pair, to be looked up.

    Attributes
    ----------
    keys : int64 array, shape (n_pairs,)
        row·n_items + item, ascending.
    values : float64 array, shape (n_pairs,)
        At least 0.
    n_items : int
    """

    keys: Int64Array
    values: Float64Array
    n_items: int

    @classmethod
    def of(cls, rows: Indices, items: Indices, values: Float64Array, n_items: int) -> "Gains":
        """Keep the first gain of each pair; unknown items, which are negative, are left out."""
        known = items >= 0
        keys, first = np.unique(rows[known].astype(np.int64) * n_items + items[known], return_index=True)
        return cls(keys, values[known][first], n_items)

    def look_up(self, rows: Indices, items: Indices) -> Float64Array:
        """Return the gains of (row, item) pairs, 0 for those that are not there, in the shape of ``items``."""
        if not len(self.keys):
            return np.zeros(items.shape)
        keys = rows.astype(np.int64) * self.n_items + items
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[places] == keys) & (items >= 0), self.values[places], 0)


def discounts(k: int) -> Float64Array:
    """Return 1 / log₂(i + 1) for the places i = 1..k."""
    return np.asarray(1 / np.log2(np.arange(2, k + 2)))


def ideal_gains(rows: Indices, values: Float64Array, n_rows: int, k: int) -> Float64Array:
    """Return the discounted gain of the best list of k items of each row.

    Parameters
    ----------
    rows : int array, shape (n_pairs,)
        In any order.
    values : float64 array, shape (n_pairs,)
        The gain of each relevant item of a row.
    n_rows : int
    k : int

    Returns
    -------
    float64 array, shape (n_rows,)
    """
    order = np.lexsort((-values, rows))
    counts = np.bincount(rows, minlength=n_rows)
    places = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_first = places < k
    gains = values[order][is_first] * discounts(k)[places[is_first]]
    return np.bincount(rows[order][is_first], gains, minlength=n_rows).astype(np.float64, copy=False)
