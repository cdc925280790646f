"""What the top-k kernels take and return."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array, Int64Array


class Rows(NamedTuple):
    """A list of item indices for every query: query ``r`` owns ``indices[indptr[r]:indptr[r + 1]]``.

    Attributes
    ----------
    indptr : int64 array, shape (n_queries + 1,)
    indices : int32 array
        Ascending inside a row.
    """

    indptr: Int64Array
    indices: Int32Array


class TopK(NamedTuple):
    """The best items of every query, best first.

    Attributes
    ----------
    scores : float32 array, shape (n_queries, k)
        -inf where a query has fewer than k candidates.
    indices : int32 array, shape (n_queries, k)
        -1 where a query has fewer than k candidates.
    """

    scores: Float32Array
    indices: Int32Array


def no_rows(n_queries: int) -> Rows:
    """Return an empty list for every query."""
    return Rows(np.zeros(n_queries + 1, np.int64), np.empty(0, np.int32))
