"""Items of equal scores: metrics are expected values over a random order of these items, whatever their indices are.

Most users have no ties. For a user who has some, the groups of items with equal scores are found that begin among the
first k places; the last group may go on beyond place k.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastmf.answering.rows import contains, rows_of_pairs
from fastmf.measuring.gains import Gains, discounts
from fastmf_kernels._types import BoolArray, Float64Array, Int32Array, Int64Array
from fastmf_kernels.topk.arrays import Counts, Pairs, Rows, TopK
from fastmf_kernels.topk.hits import Hits, Ties

# Places of lists that are looked at together, and by how much a list grows that ends inside a group.
_PLACES, _GROWTH = 1 << 22, 4


class Groups(NamedTuple):
    """Groups of items with equal scores that have a relevant item, of the rows that have ties.

    Attributes
    ----------
    all_rows : int32 array
        The rows that have ties, ascending.
    rows : int64 array, shape (n_groups,)
        Ascending.
    places : int64 array, shape (n_groups,)
        The first place of each group, from 1; ascending for each row.
    sizes : int64 array, shape (n_groups,)
    n_relevant : int64 array, shape (n_groups,)
    gains : float64 array, shape (n_groups,)
        Of the relevant items together; 0 if none are given.
    """

    all_rows: Int32Array
    rows: Int64Array
    places: Int64Array
    sizes: Int64Array
    n_relevant: Int64Array
    gains: Float64Array


def has_ties(top: TopK) -> BoolArray:
    """Tell which rows have two items of equal scores."""
    return np.asarray(((top.scores[:, 1:] == top.scores[:, :-1]) & (top.indices[:, 1:] >= 0)).any(axis=1))


def find_groups(
    rows: Int32Array,
    top: Callable[[Int32Array, int], TopK],
    relevant: Pairs,
    n_items: int,
    k: int,
    gains: Gains | None = None,
) -> Groups:
    """Find the groups of some rows that have ties.

    Parameters
    ----------
    rows : int32 array, shape (n_rows,)
        Ascending.
    top : callable
        Finds the best items of rows: as many as its second argument says.
    relevant : Pairs
        Of any rows.
    n_items : int
    k : int
        Groups that begin at a later place are left out.
    gains : Gains, optional
        Of the relevant pairs.
    """
    of_rows = np.isin(relevant.queries, rows) & (relevant.items >= 0)
    row_of_pair = np.searchsorted(rows, relevant.queries[of_rows])
    relevant_rows = rows_of_pairs(row_of_pair, relevant.items[of_rows], len(rows), n_items)
    found: list[Groups] = []
    width, left = k + 1, np.arange(len(rows), dtype=np.int32)
    while len(left):
        unfinished = []
        n_at_once = max(1, _PLACES // width)
        for start in range(0, len(left), n_at_once):
            numbers = left[start : start + n_at_once]
            lists = top(rows[numbers], width)
            # A list that ends inside the group of place k is looked at again, and further.
            last = np.minimum(k, width) - 1
            goes_on = (lists.indices[:, -1] >= 0) & (lists.scores[:, -1] == lists.scores[:, last]) & (width < n_items)
            unfinished.append(numbers[goes_on])
            done = ~goes_on
            whole = TopK(*(part[done] for part in lists))
            found.append(_groups(rows, numbers[done], whole, relevant_rows, k, gains))
        left, width = np.concatenate(unfinished), min(_GROWTH * width, n_items)
    if not found:
        nothing = np.empty(0, np.int64)
        return Groups(rows, nothing, nothing, nothing, nothing, np.empty(0))
    joined = [np.concatenate(parts) for parts in list(zip(*found, strict=True))[1:]]
    order = np.lexsort((joined[1], joined[0]))
    return Groups(rows, *(part[order] for part in joined))


def _groups(rows: Int32Array, numbers: Int32Array, lists: TopK, relevant: Rows, k: int, gains: Gains | None) -> Groups:
    """Find the groups of whole lists; ``numbers`` are places in ``rows``."""
    n_rows, width = lists.indices.shape
    is_relevant = contains(relevant, np.repeat(numbers, width), lists.indices.ravel())
    starts = _starts(lists)
    sizes = np.diff(np.append(starts, n_rows * width))
    n_relevant = np.add.reduceat(is_relevant, starts, dtype=np.int64) if len(starts) else np.empty(0, np.int64)
    places = starts % max(width, 1) + 1
    chosen = (n_relevant > 0) & (places <= k)
    row_of_group = rows[numbers[starts[chosen] // max(width, 1)]].astype(np.int64)
    gains_of_groups = np.zeros(len(starts))
    if gains is not None and len(starts):
        of_items = gains.look_up(np.repeat(rows[numbers], width), lists.indices.ravel())
        gains_of_groups = np.add.reduceat(of_items, starts)
    return Groups(rows, row_of_group, places[chosen], sizes[chosen], n_relevant[chosen], gains_of_groups[chosen])


def _starts(lists: TopK) -> Int64Array:
    """Return where groups of items with equal scores start, in the flattened lists; no item is a group alone."""
    begins = np.ones(lists.indices.shape, np.bool_)
    begins[:, 1:] = lists.scores[:, 1:] != lists.scores[:, :-1]
    begins |= lists.indices < 0
    return np.flatnonzero(begins)


def hits_of(is_hit: BoolArray, groups: Groups, k: int, n_relevant: Int64Array) -> Hits:
    """Return the hits among the first k items.

    Parameters
    ----------
    is_hit : bool array, shape (n_rows, at least k)
        Those of rows that have ties are not looked at.
    groups : Groups
        Of these rows.
    k : int
    n_relevant : int64 array, shape (n_rows,)
        How many items are relevant to each row.
    """
    if not len(groups.all_rows):
        return Hits.at(np.flatnonzero(is_hit[:, :k]), k, n_relevant)
    without_ties = is_hit[:, :k].copy()
    without_ties[groups.all_rows] = False
    rows, places = np.divmod(np.flatnonzero(without_ties), k)
    begins = groups.places <= k
    rows, places = np.append(rows, groups.rows[begins]), np.append(places + 1, groups.places[begins])
    ones = np.ones(len(rows) - int(np.count_nonzero(begins)), np.int64)
    order = np.lexsort((places, rows))
    ties = Ties(
        np.append(ones, groups.sizes[begins])[order],
        np.append(ones, groups.n_relevant[begins])[order],
    )
    return Hits.at((rows * k + places - 1)[order], k, n_relevant)._replace(ties=ties)


def expected_gains(items: Int32Array, is_hit: BoolArray, groups: Groups, gains: Gains, k: int) -> Float64Array:
    """Return the expected discounted gain of the first k items of each row.

    Parameters
    ----------
    items : int32 array, shape (n_rows, at least k)
    is_hit : bool array, shape (n_rows, at least k)
        Those of rows that have ties are not looked at.
    groups : Groups
        Of these rows, with gains.
    gains : Gains
        Of the relevant pairs.
    k : int

    Returns
    -------
    float64 array, shape (n_rows,)
    """
    without_ties = is_hit[:, :k].copy()
    without_ties[groups.all_rows] = False
    rows, places = np.nonzero(without_ties)
    of_hits = gains.look_up(rows, items[rows, places]) * discounts(k)[places]
    up_to = np.append(0, np.cumsum(discounts(k)))
    begins = groups.places <= k
    first, sizes = groups.places[begins] - 1, groups.sizes[begins]
    of_groups = (up_to[np.minimum(first + sizes, k)] - up_to[first]) / sizes * groups.gains[begins]
    rows, values = np.append(rows, groups.rows[begins]), np.append(of_hits, of_groups)
    return np.bincount(rows, values, minlength=len(items)).astype(np.float64, copy=False)


def count_in_lists(lists: TopK, relevant: Rows, only_irrelevant: bool) -> tuple[Counts, Int64Array]:
    """Count the items of whole lists that score higher than a relevant item, and those that score the same.

    Parameters
    ----------
    lists : TopK
        All candidates of each row.
    relevant : Rows
        Candidates of each row.
    only_irrelevant : bool
        Whether relevant items are not counted.

    Returns
    -------
    counts : Counts
        For each of ``relevant.indices``.
    n_counted : int64 array, shape (n_rows,)
        How many items of each row are counted.
    """
    n_rows, width = lists.indices.shape
    items, row_of_place = lists.indices.ravel(), np.repeat(np.arange(n_rows), width)
    is_relevant = contains(relevant, row_of_place, items)
    is_counted = (items >= 0) & ~is_relevant if only_irrelevant else items >= 0
    n_so_far, starts = np.append(0, np.cumsum(is_counted)), _starts(lists)
    group_of_place = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(items))))
    ends = np.append(starts[1:], len(items))
    places = np.flatnonzero(is_relevant)
    places = places[np.lexsort((items[places], row_of_place[places]))]
    groups = group_of_place[places]
    higher = n_so_far[starts[groups]] - n_so_far[row_of_place[places] * width]
    equal = n_so_far[ends[groups]] - n_so_far[starts[groups]]
    return Counts(higher, equal), np.asarray(is_counted.reshape(n_rows, width).sum(axis=1))
