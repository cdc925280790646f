"""How items are drawn, and what came of it."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Int32Array, Int64Array

TRIES = 16
"""How often an item that a user has not rated is drawn, before there is taken to be none."""


class Sampling(NamedTuple):
    """How items that a user has not rated are drawn.

    Attributes
    ----------
    indptr, indices : int64 array, shape (n_users + 1,), and int32 array
        What each user has rated, ascending: is never drawn.
    n_negatives : int
        Items drawn for each rating.
    key : uint64
        Draws of another key are other draws.
    """

    indptr: Int64Array
    indices: Int32Array
    n_negatives: int
    key: np.uint64


class Ranked(NamedTuple):
    """How items that were rated compared with items that were drawn, each time just before the step.

    Attributes
    ----------
    n_pairs : int
        Comparisons: fewer than ratings times negatives where a user has rated nearly all items at hand.
    n_right : int
        How often the rated item scored higher.
    """

    n_pairs: int
    n_right: int
