"""Buffers of candidates: the best items of each query so far, while a scan finds more.

A query's candidates are appended to its buffer, and a full buffer is compacted. Where scores are known within bounds,
candidates are pruned by the bounds (`prune_candidates`): the k-th largest lower bound is the threshold, and candidates
whose upper bound is below it are dropped. In the end, and where bounds do not help, the remaining candidates are scored
(`compact`), and the k best are kept. Scores are summed in float64 and rounded once. Scores and ties therefore do not
depend on the order of summation, nor on what made an item a candidate.
"""

from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._jit import device, inlined
from fastmf_kernels._types import Float32Array, Index, Int32Array, Int64Array, UInt32Array
from fastmf_kernels.linalg.panels import prefetch
from fastmf_kernels.topk.arrays import Rows, TopK
from fastmf_kernels.topk.cpu.tiles import (
    COLUMNS,
    LIMIT,
    N_APPENDED,
    N_COUNTS,
    ROWS,
    VECTOR,
    WORDS,
    count_above,
    count_from,
    count_not_below,
    exact_product,
    extremes,
    keep_not_below,
)

# Room of a buffer in items: beyond k at least and at most, and beyond what pruning has left. With more room the
# threshold rises later and more candidates pass; with less, pruning runs more often.
_LEAST_ROOM, _LARGEST_ROOM, _ROOM_AFTER_PRUNING = 96, 1024, 32
# Less room where compaction scores every new item.
_LEAST_ROOM_IF_SCORED, _LARGEST_ROOM_IF_SCORED = 16, 512
# Up to so many items are ranked by counting; more are sorted.
_MOST_RANKED_BY_COUNTING = 256
_NO_KEY, _NO_ITEM = -(2**31), 2**31 - 1
_LOWEST_RANK = -(2**63)
_MAGNITUDE = np.int32(2**31 - 1)
_N_COMPACTED, _IS_EXACT = 2, 3
_KEY, _ITEM = range(2)
_INFINITY = np.float32(np.inf)
_LEAST_FINITE = np.float32(-3.4028235e38)
_MOST_HALVINGS = 40


class Candidates(NamedTuple):
    """Buffers of candidates, one for each query.

    Attributes
    ----------
    lows, highs : float32 array, shape (n_rows, capacity)
        Bounds of each candidate's score, in the query's own unit (`scan.Block.scales`).
    keys : int32 array
        A view of ``lows``: the score of a scored item, as an integer that sorts as scores do.
    items : int32 array, shape (n_rows, capacity)
        Scored items by their index, others by their place in the layout.
    counts : int64 array, shape (n_rows, 4)
        Columns: candidates in the buffer, the limit on them, how many of them (the first ones) are scored, and 1 if all
        candidates are to be scored.
    worst : int64 array, shape (n_rows, 2)
        Key and item of the k-th best of those scored.
    ranked : int64 array, shape (capacity,)
        Scratch space for one query: key and item in one number, the higher the better.
    excluded : uint32 array, shape (n_rows / 8, at least n_items / 32, 8)
        A bit for each item, by its place; set only while its query is searched.
    cell : float32 array, shape (1,), and int32 array of the same memory
        Scratch space: one number, and its bits.
    """

    lows: Float32Array
    highs: Float32Array
    keys: Int32Array
    items: Int32Array
    counts: Int64Array
    worst: Int64Array
    ranked: Int64Array
    excluded: UInt32Array
    cell: Float32Array
    bits_of_cell: Int32Array


class Search(NamedTuple):
    """A search for the k items that have the largest dot product with each query, and are not excluded.

    Attributes
    ----------
    queries, factors : float32 array
    exclude : Rows
    places : int32 array, shape (n_items,)
        The place of each item in the layout; empty where items are in the order of their indices.
    order : int32 array
        The item at each place; empty likewise.
    k : int
    full : int
        Limit on the items in a buffer, from `full_at`.
    """

    queries: Float32Array
    factors: Float32Array
    exclude: Rows
    places: Int32Array
    order: Int32Array
    k: int
    full: Index


def make_candidates(n_rows: int, k: int, n_candidates: int, n_items: int) -> Candidates:
    """Allocate buffers for ``n_rows`` queries, each with at most ``n_candidates`` of ``n_items`` items."""
    capacity = -(-(min(full_at(k, scored=False), n_candidates) + COLUMNS + VECTOR) // VECTOR) * VECTOR
    lows, cell = np.empty((n_rows, capacity), np.float32), np.empty(1, np.float32)
    return Candidates(
        lows,
        np.empty((n_rows, capacity), np.float32),
        lows.view(np.int32),
        np.empty((n_rows, capacity), np.int32),
        np.zeros((n_rows, N_COUNTS), np.int64),
        np.zeros((n_rows, 2), np.int64),
        np.zeros(capacity, np.int64),
        np.zeros((-(-n_rows // ROWS), n_items // COLUMNS + 1, min(n_rows, ROWS)), np.uint32),
        cell,
        cell.view(np.int32),
    )


def full_at(k: int, scored: bool = True) -> int:
    """Return how many items a buffer may hold before it must be compacted; it has room for 32 more.

    ``scored`` tells whether compaction scores every new item.
    """
    if scored:
        return k + min(max(_LEAST_ROOM_IF_SCORED, k // 4), _LARGEST_ROOM_IF_SCORED)
    return k + min(max(_LEAST_ROOM, k), _LARGEST_ROOM)


@device
def begin_rows(search: Search, start: Index, stop: Index, best: Candidates) -> None:
    """Empty the buffers of the queries ``start:stop``, and set the bits of their excluded items."""
    counts, worst, excluded, places, full = best.counts, best.worst, best.excluded, search.places, search.full
    indptr, indices = search.exclude
    for query in range(start, stop):
        row = query - start
        counts[row, N_APPENDED] = counts[row, _N_COMPACTED] = counts[row, _IS_EXACT] = 0
        counts[row, LIMIT] = full
        worst[row, _KEY], worst[row, _ITEM] = _NO_KEY, _NO_ITEM
        tile, r = np.uint64(row // ROWS), np.uint64(row % ROWS)
        for j in range(indptr[query], indptr[query + 1]):
            place = places[np.uint64(indices[j])] if places.size else indices[j]
            excluded[tile, np.uint64(place) >> np.uint64(5), r] |= _bit(place)


@device
def clear_excluded(search: Search, start: Index, stop: Index, best: Candidates) -> None:
    """Clear the bits of the excluded items of the queries ``start:stop``."""
    excluded, places = best.excluded, search.places
    indptr, indices = search.exclude
    for query in range(start, stop):
        tile, r = np.uint64((query - start) // ROWS), np.uint64((query - start) % ROWS)
        for j in range(indptr[query], indptr[query + 1]):
            place = places[np.uint64(indices[j])] if places.size else indices[j]
            excluded[tile, np.uint64(place) >> np.uint64(5), r] = np.uint32(0)


@inlined
def append(item: np.int32, items: Int32Array, counts: Int64Array, excluded: UInt32Array) -> bool:
    """Put an item into the first buffer, unless it is excluded; tells whether the buffer is full then.

    The arrays are separate arguments: unpacking a tuple of them would cost a reference count each.
    """
    count = counts[0, N_APPENDED]
    if excluded[0, np.uint32(item) >> np.uint32(5), 0] & _bit(item) == np.uint32(0):
        items[0, count] = item
        count += 1
        counts[0, N_APPENDED] = count
    return count > counts[0, LIMIT]  # type: ignore[no-any-return]


@device
def compact(search: Search, query: Index, best: Candidates, row: Index) -> np.float32:
    """Score the new items of a buffer and keep the k best; returns the k-th best score, -inf while there are fewer."""
    queries, factors, k, order = search.queries, search.factors, search.k, search.order
    lows, keys, items, worst = best.lows[row], best.keys[row], best.items[row], best.worst
    n_factors = factors.shape[1]
    count, kept = best.counts[row, N_APPENDED], best.counts[row, _N_COMPACTED]
    worst_key, worst_item = worst[row, _KEY], worst[row, _ITEM]
    for j in range(kept, count):  # prefetch all rows first: loaded one by one, each would wait for memory
        if order.size:
            items[j] = order[items[j]]
        prefetch(factors, np.int64(items[j]) * n_factors, (n_factors + VECTOR - 1) // VECTOR)
    for j in range(kept, count):
        item = np.int64(items[j])
        score = np.float32(exact_product(queries, query * n_factors, factors, item * n_factors, n_factors))
        if not score > -np.inf:
            continue
        lows[kept] = score
        key = key_of_bits(keys[kept])
        if key > worst_key or (key == worst_key and item < worst_item):
            keys[kept], items[kept] = key, item
            kept += 1
    if kept >= k:
        worst_key, worst_item = _find_worst(keys, items, kept, k, worst_key)
        kept = _keep(keys, items, kept, worst_key, worst_item)
        worst[row, _KEY], worst[row, _ITEM] = worst_key, worst_item
    best.counts[row, N_APPENDED] = best.counts[row, _N_COMPACTED] = kept
    return _score_of_key(worst_key, best.cell, best.bits_of_cell)


@inlined
def prune_candidates(
    lows: Float32Array,
    highs: Float32Array,
    items: Int32Array,
    row: Index,
    count: Index,
    k: Index,
    least: np.float32,
    tiny: np.float32,
) -> tuple[Index, np.float32]:
    """Drop the candidates of a buffer that cannot be among the k best, by their bounds alone.

    At least k of the ``count`` candidates score at least ``least``, unless that is -inf. The k-th largest lower bound
    is a threshold like it; bisection finds a number just below. Candidates whose upper bound is below the threshold
    are dropped. Returns how many are left, and the higher threshold. ``tiny`` is an upper bound on the absolute error
    of a lower and an upper bound together.
    """
    n_vectors, start = (count + VECTOR - 1) // VECTOR, row * lows.shape[1]
    for j in range(count, n_vectors * VECTOR):
        lows[row, j] = highs[row, j] = -_INFINITY
    low, high = extremes(lows, start, n_vectors)
    low = max(low, least)
    if count_not_below(lows, start, n_vectors, _LEAST_FINITE) < k or not high - low < _INFINITY:
        return count, least
    near_enough = k + k // 16
    for _ in range(_MOST_HALVINGS):
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        if not low < middle < high:
            break
        n_above = count_not_below(lows, start, n_vectors, middle)
        if n_above < k:
            high = middle
        else:
            low = middle
            if n_above <= near_enough:
                break
    low -= tiny
    return keep_not_below(lows, highs, items, start, n_vectors, low), max(low, least)


@inlined
def is_exact(counts: Int64Array, row: Index) -> bool:
    """Whether the new items of a buffer are scored when it is full."""
    return counts[row, _IS_EXACT] != 0  # type: ignore[no-any-return]


@inlined
def limit_after(counts: Int64Array, row: Index, kept: Index, k: Index, full: Index) -> None:
    """Set the limit of a pruned buffer; if pruning left too many candidates, all are scored from here on."""
    counts[row, N_APPENDED] = kept
    counts[row, LIMIT] = min(kept + max(_ROOM_AFTER_PRUNING, k // 2), full)
    if kept + VECTOR > full:
        counts[row, _IS_EXACT], counts[row, LIMIT] = 1, full


@device
def finish_rows(search: Search, start: Index, stop: Index, best: Candidates, top: TopK) -> Index:
    """Score the remaining candidates of the queries ``start:stop``, and write the k best, best first.

    Returns how many items were scored.
    """
    queries, factors, order, k = search.queries, search.factors, search.order, search.k
    lows, keys, items, counts, ranked = best.lows, best.keys, best.items, best.counts, best.ranked
    scores, indices, cell, bits_of_cell = top.scores, top.indices, best.cell, best.bits_of_cell
    n_factors, n_scored = factors.shape[1], 0
    n_lines = (n_factors + VECTOR - 1) // VECTOR
    for query in range(start, stop):
        row = query - start
        count, n = counts[row, N_APPENDED], 0
        n_scored += count
        for j in range(counts[row, _N_COMPACTED] if order.size else count, count):
            items[row, j] = order[items[row, j]]
        for j in range(count):  # prefetch all rows first: loaded one by one, each would wait for memory
            prefetch(factors, np.int64(items[row, j]) * n_factors, n_lines)
        for j in range(count):
            item = np.int64(items[row, j])
            score = np.float32(exact_product(queries, query * n_factors, factors, item * n_factors, n_factors))
            lows[row, j] = score
            ranked[n] = (np.int64(key_of_bits(keys[row, j])) << 32) | (_NO_ITEM - item)
            n += int(score > -_INFINITY)
        if n > _MOST_RANKED_BY_COUNTING:
            _sort(ranked, n)
        n_vectors = (n + WORDS - 1) // WORDS
        for j in range(n, n_vectors * WORDS):
            ranked[j] = _LOWEST_RANK
        for j in range(min(n, k) if n > _MOST_RANKED_BY_COUNTING else n):
            rank = j if n > _MOST_RANKED_BY_COUNTING else count_above(ranked, 0, n_vectors, ranked[j])
            if rank < k:
                bits_of_cell[0] = key_of_bits(np.int32(ranked[j] >> 32))
                scores[query, rank] = cell[0]
                indices[query, rank] = np.int32(_NO_ITEM - (ranked[j] & np.int64(0xFFFFFFFF)))
    clear_excluded(search, start, stop, best)
    return n_scored


@inlined
def _score_of_key(key: Index, cell: Float32Array, bits_of_cell: Int32Array) -> np.float32:
    """Turn a key into its score; the key of no item becomes -inf."""
    if key == _NO_KEY:
        return np.float32(-np.inf)
    bits_of_cell[0] = key_of_bits(np.int32(key))
    return cell[0]  # type: ignore[no-any-return]


@inlined
def key_of_bits(bits: np.int32) -> np.int32:
    """Turn the bits of a float32 into an integer that sorts as the numbers do, or back; -0 becomes 0."""
    if bits >= 0:
        return bits
    return np.int32(0) if bits == np.int32(_NO_KEY) else np.int32(bits ^ _MAGNITUDE)


@inlined
def _bit(place: Any) -> np.uint32:
    return np.uint32(1) << (np.uint32(place) & np.uint32(31))


@device
def _find_worst(keys: Int32Array, items: Int32Array, n: Index, k: Index, worst_before: Index) -> tuple[Index, Index]:
    """Return the key of the k-th best of n, and the highest item that is kept of those that have it.

    The higher key is better, of equal ones the lower item. By bisection over numbers, not positions: counting goes
    sixteen at a time. At least k of the n are not below ``worst_before``.
    """
    least, most = keys[0], keys[0]
    for j in range(1, n):
        least, most = min(least, keys[j]), max(most, keys[j])
    n_vectors = _fill_up(keys, n)
    low, high = max(np.int64(least), worst_before), np.int64(most)
    while low < high:
        middle = (low + high + 1) >> 1
        if count_from(keys, 0, n_vectors, middle) >= k:
            low = middle
        else:
            high = middle - 1
    if count_from(keys, 0, n_vectors, low) == k:
        return low, np.int64(_NO_ITEM)
    above = count_from(keys, 0, n_vectors, low + 1)
    first, last = np.int64(0), np.int64(_NO_ITEM)
    while first < last:
        middle = (first + last) >> 1
        count = above
        for j in range(n):
            count += (keys[j] == low) & (items[j] <= middle)
        if count >= k:
            last = middle
        else:
            first = middle + 1
    return low, last


@inlined
def _fill_up(keys: Int32Array, n: Index) -> Index:
    """Pad n keys to whole vectors with the key of no item; returns the number of vectors."""
    n_vectors = (n + VECTOR - 1) // VECTOR
    for j in range(n, n_vectors * VECTOR):
        keys[j] = _NO_KEY
    return n_vectors


@device
def _keep(keys: Int32Array, items: Int32Array, n: Index, worst_key: Index, worst_item: Index) -> Index:
    """Move the items that are not worse than the given one to the front; returns how many they are."""
    kept = 0
    for j in range(n):
        key, item = keys[j], items[j]
        keys[kept], items[kept] = key, item
        kept += (key > worst_key) | ((key == worst_key) & (item <= worst_item))
    return kept


@device
def _sort(numbers: Int64Array, n: Index) -> None:
    """Sort n numbers, the highest first, by merging."""
    source, target = numbers[:n], np.empty(n, np.int64)
    width = 1
    while width < n:
        for start in range(0, n, 2 * width):
            middle, stop = min(start + width, n), min(start + 2 * width, n)
            a, b = np.int64(start), np.int64(middle)
            for place in range(start, stop):
                first, second = source[min(a, n - 1)], source[min(b, n - 1)]
                takes_first = (b >= stop) | ((a < middle) & (first > second))
                target[place] = first if takes_first else second
                a, b = a + np.int64(takes_first), b + np.int64(not takes_first)
        source, target = target, source
        width *= 2
    for j in range(n):
        numbers[j] = source[j]
