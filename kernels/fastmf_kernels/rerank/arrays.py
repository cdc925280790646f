"""What the kernel of re-ranking takes."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.topk.arrays import Rows, no_rows


class Lists(NamedTuple):
    """The candidates of every user, best first.

    Attributes
    ----------
    items : int32 array, shape (n_users, n_candidates)
        -1 where a user has fewer candidates.
    relevance : float64 array, shape (n_users, n_candidates)
        From 0 to 1; not read where ``items`` is -1.
    """

    items: Int32Array
    relevance: Float64Array


class Directions(NamedTuple):
    """Vectors of length 1 of all items, in two parts: the similarity of items is the sum of the products of both.

    Attributes
    ----------
    dense : float32 array, shape (n_items, n_factors)
        Without columns if the vectors are sparse.
    sparse : CSR
        A row an item; without entries if the vectors are dense.
    n_columns : int
        Columns of ``sparse``.
    """

    dense: Float32Array
    sparse: CSR
    n_columns: int


class Caps(NamedTuple):
    """How many items of a category a list may have.

    Attributes
    ----------
    categories : Rows
        The categories of each item that have a limit.
    limits : int32 array, shape (n_categories,)
    """

    categories: Rows
    limits: Int32Array


class Exploration(NamedTuple):
    """Which places of a list go to new items, and to which of them.

    Attributes
    ----------
    draws : float64 array, shape (n_users, k)
        From 0 to just below 1: the number that chooses among new items; -1 where a place is not for them.
    is_new : bool array, shape (n_items,)
    """

    draws: Float64Array
    is_new: BoolArray


def no_directions(n_items: int) -> Directions:
    """Return vectors without a part: every similarity is 0."""
    nothing = CSR(np.zeros(n_items + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    return Directions(np.empty((n_items, 0), np.float32), nothing, 0)


def no_caps(n_items: int) -> Caps:
    """Return caps that limit nothing."""
    return Caps(no_rows(n_items), np.empty(0, np.int32))


def no_exploration(n_users: int, k: int, n_items: int) -> Exploration:
    """Return an exploration without a place for new items."""
    return Exploration(np.full((n_users, k), -1.0), np.zeros(n_items, np.bool_))
