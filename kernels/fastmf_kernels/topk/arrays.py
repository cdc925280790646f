"""What the top-k kernels take and return."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array, Int64Array, UInt8Array


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


class Pairs(NamedTuple):
    """Items and the queries that they belong to, in any order; no known item twice for a query.

    Attributes
    ----------
    queries : int32 array, shape (n,)
    items : int32 array, shape (n,)
        Negative where an item is unknown.
    """

    queries: Int32Array
    items: Int32Array


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


class ItemIndex(NamedTuple):
    """Items laid out for `top_k` by a backend; all fields but ``factors`` are private to it, and may be empty.

    Attributes
    ----------
    factors : float32 array, shape (n_items, n_factors)
    pruning : bool
        Whether items that cannot be among the best may be left out before they are scored.
    order : int32 array, shape (32·n_panels,)
        Items by their place in the panels; -1 for none.
    places : int32 array, shape (n_items,)
        The place of each item.
    norms : float32 array, shape (n_panels,)
        The largest norm in each panel, rounded up; infinite where products could overflow.
    floats : float32 array, shape (n_panels, n_factors, 32)
    bytes : uint8 array, shape (n_panels, n_quads, 32, 4)
    terms : float32 array, shape (n_panels, 4)
        1/b, N/b, max ‖q - bx‖/b and b of each panel of bytes; see `fastmf_kernels.topk.cpu.index`.
    """

    factors: Float32Array
    pruning: bool
    order: Int32Array
    places: Int32Array
    norms: Float32Array
    floats: Float32Array
    bytes: UInt8Array
    terms: Float32Array


class Scan(NamedTuple):
    """Counts of the work that a search took.

    Attributes
    ----------
    n_screened : int
        Tiles of 8 queries × 32 items whose scores were bounded.
    n_skipped : int
        Tiles that were skipped, because the norms of their items are too small.
    n_scored : int
        Pairs that were scored, because their bounds did not rule them out.
    """

    n_screened: int
    n_skipped: int
    n_scored: int


class Found(NamedTuple):
    """The answer to a search, and the work that it took."""

    top: TopK
    scan: Scan


class Counts(NamedTuple):
    """How many items score higher than an item, and how many the same.

    Attributes
    ----------
    higher, equal : int64 arrays
    """

    higher: Int64Array
    equal: Int64Array


def without_layout(items: Float32Array) -> ItemIndex:
    """Return an index of items as they are, for a few queries, which take less time than laying the items out."""
    n_factors = items.shape[1]
    return ItemIndex(
        items,
        False,
        np.empty(0, np.int32),
        np.empty(0, np.int32),
        np.empty(0, np.float32),
        np.empty((0, n_factors, 32), np.float32),
        np.empty((0, -(-n_factors // 4), 32, 4), np.uint8),
        np.empty((0, 4), np.float32),
    )


def no_rows(n_queries: int) -> Rows:
    """Return an empty list for every query."""
    return Rows(np.zeros(n_queries + 1, np.int64), np.empty(0, np.int32))
