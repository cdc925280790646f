"""The best items of some queries while candidates come in.

A query's candidates are appended to its buffer, but for excluded ones. When the buffer is full it is *settled*: what is
new in it is scored, and of more than k items the k best are kept. The worst of those is what later candidates
have to beat. Scores are summed in float64 and rounded once, so that they, and with them ties, do not depend on the
order of summation or on what made an item a candidate.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._jit import device, inlined
from fastmf_kernels._types import Float32Array, Index, Int32Array, Int64Array
from fastmf_kernels.linalg.panels import prefetch
from fastmf_kernels.topk.arrays import Rows, TopK
from fastmf_kernels.topk.tiles import COLUMNS, VECTOR, count_from, exact_product

# A buffer is settled when it has so many items beyond k: more lets more candidates through, less settles more often.
# Where settling scores every new item, fewer are worth it.
_LEAST_ROOM, _LEAST_ROOM_IF_SCORED, _LARGEST_ROOM = 32, 16, 512
# Up to so many kept items are ranked by counting.
_FEW = 256
_NO_KEY, _NO_ITEM = -(2**31), 2**31 - 1
_MAGNITUDE = np.int32(2**31 - 1)
N_APPENDED, _N_SETTLED, _IS_EXACT = range(3)
Bits = npt.NDArray[np.uint64]
_KEY, _ITEM = range(2)


class Best(NamedTuple):
    """Buffers of some queries.

    Attributes
    ----------
    scores : float32 array, shape (n_rows, capacity)
    keys : int32 array
        The same memory: of a settled item the score as a number whose order is that of scores.
    items : int32 array, shape (n_rows, capacity)
    counts : int64 array, shape (n_rows, 3)
        Items in the buffer, how many of them, the first ones, are settled, and whether keys are those of exact scores.
    worst : int64 array, shape (n_rows, 2)
        Key and item of the worst of k kept.
    excluded : uint64 array, shape (n_rows, at least n_items / 64)
        A bit for each item; only while a query is dealt with is any set.
    cell : float32 array, shape (1,), and int32 array of the same memory
        To look at a number as bits.
    """

    scores: Float32Array
    keys: Int32Array
    items: Int32Array
    counts: Int64Array
    worst: Int64Array
    excluded: Bits
    cell: Float32Array
    bits_of_cell: Int32Array


class Search(NamedTuple):
    """What is looked for: the k items that go best with each query, but for those that are excluded.

    ``full`` is what `full_at` says.
    """

    queries: Float32Array
    factors: Float32Array
    exclude: Rows
    k: int
    full: Index


def make_best(n_rows: int, k: int, n_candidates: int, n_items: int) -> Best:
    """Return buffers for so many queries, none of which has more than so many candidates among the items."""
    capacity = -(-(min(full_at(k, scored=False), n_candidates) + COLUMNS) // VECTOR) * VECTOR
    scores, cell = np.empty((n_rows, capacity), np.float32), np.empty(1, np.float32)
    return Best(
        scores,
        scores.view(np.int32),
        np.empty((n_rows, capacity), np.int32),
        np.zeros((n_rows, 3), np.int64),
        np.zeros((n_rows, 2), np.int64),
        np.zeros((n_rows, n_items // 64 + 1), np.uint64),
        cell,
        cell.view(np.int32),
    )


def full_at(k: int, scored: bool = True) -> int:
    """Return how many items a buffer may have before it must be settled: 32 more find room.

    ``scored`` tells whether settling scores every new item, or goes by rough scores that it has already.
    """
    least, share = (_LEAST_ROOM_IF_SCORED, k // 4) if scored else (_LEAST_ROOM, k * 3 // 4)
    return k + min(max(least, share), _LARGEST_ROOM)


@inlined
def begin_row(exclude: Rows, query: Index, best: Best, row: Index) -> None:
    """Make a buffer empty, for a query."""
    counts, worst, excluded = best.counts, best.worst, best.excluded
    counts[row, N_APPENDED] = counts[row, _N_SETTLED] = counts[row, _IS_EXACT] = 0
    worst[row, _KEY], worst[row, _ITEM] = _NO_KEY, _NO_ITEM
    mark_excluded(exclude.indptr, exclude.indices, query, excluded, row, True)


@device
def mark_excluded(
    indptr: Int64Array, indices: Int32Array, query: Index, excluded: Bits, row: Index, are_excluded: bool
) -> None:
    """Set the bits of a query's excluded items, or leave them as the next query wants them."""
    for j in range(indptr[query], indptr[query + 1]):
        word = np.uint64(indices[j]) >> np.uint64(6)
        excluded[row, word] = excluded[row, word] | _bit(indices[j]) if are_excluded else np.uint64(0)


@inlined
def append(item: np.int32, items: Int32Array, counts: Int64Array, excluded: Bits, row: Index) -> Index:
    """Put an item into a query's buffer, unless it is excluded; returns how many it has then.

    Arrays come one by one: a tuple of them costs a reference count each.
    """
    count = counts[row, N_APPENDED]
    if not is_excluded(excluded, row, item):
        items[row, count] = item
        count += 1
        counts[row, N_APPENDED] = count
    return count  # type: ignore[no-any-return]


@device
def settle(search: Search, query: Index, best: Best, row: Index) -> np.float32:
    """Score what is new in a buffer and keep the k best; returns what the worst scores, -inf while there are fewer."""
    queries, factors, k = search.queries, search.factors, search.k
    scores, keys, items, worst = best.scores[row], best.keys[row], best.items[row], best.worst
    n_factors = factors.shape[1]
    count, kept = best.counts[row, N_APPENDED], best.counts[row, _N_SETTLED]
    worst_key, worst_item = worst[row, _KEY], worst[row, _ITEM]
    for j in range(kept, count):  # ask for all of them: one by one their cache lines would be waited for
        prefetch(factors, np.int64(items[j]) * n_factors, (n_factors + VECTOR - 1) // VECTOR)
    for j in range(kept, count):
        item = np.int64(items[j])
        score = np.float32(exact_product(queries, query * n_factors, factors, item * n_factors, n_factors))
        if not score > -np.inf:
            continue
        scores[kept] = score
        key = key_of_bits(keys[kept])
        if key > worst_key or (key == worst_key and item < worst_item):
            keys[kept], items[kept] = key, item
            kept += 1
    if kept >= k:
        worst_key, worst_item = _find_worst(keys, items, kept, k, worst_key)
        kept = _keep(keys, items, kept, worst_key, worst_item)
        worst[row, _KEY], worst[row, _ITEM] = worst_key, worst_item
    best.counts[row, N_APPENDED] = best.counts[row, _N_SETTLED] = kept
    return _score_of_key(worst_key, best.cell, best.bits_of_cell)


@device
def settle_roughly(search: Search, query: Index, best: Best, row: Index, margin: np.float32) -> np.float32:
    """Keep what can be among the k best by scores that are off by ``margin`` at most; nothing is scored anew.

    Returns what the worst of k scores at least, -inf while there are fewer. Where scores are not finite, or too many
    are too close, the buffer is settled by exact ones, now and from then on.
    """
    k, counts = search.k, best.counts
    scores, keys, items = best.scores[row], best.keys[row], best.items[row]
    count, kept = counts[row, N_APPENDED], counts[row, _N_SETTLED]
    usable = counts[row, _IS_EXACT] == 0 and margin < np.inf
    for j in range(kept, count):
        item = items[j]
        usable &= abs(scores[j]) < np.inf
        keys[kept], items[kept] = key_of_bits(keys[j]), item
        kept += 1
    counts[row, N_APPENDED] = counts[row, _N_SETTLED] = kept
    least = np.float32(-np.inf)
    if usable and kept >= k:
        worst_key, _ = _find_worst(keys, items, kept, k, best.worst[row, _KEY])
        best.worst[row, _KEY] = worst_key
        least = _score_of_key(worst_key, best.cell, best.bits_of_cell) - margin
        best.cell[0] = least - margin
        kept = _keep(keys, items, kept, np.int64(key_of_bits(best.bits_of_cell[0])), _NO_ITEM)
        counts[row, N_APPENDED] = counts[row, _N_SETTLED] = kept
        usable = kept <= (k + search.full) // 2
    if usable:
        return least
    counts[row, _IS_EXACT] = 1
    return settle_all(search, query, best, row)


@device
def settle_all(search: Search, query: Index, best: Best, row: Index) -> np.float32:
    """Settle a buffer as if all in it were new."""
    best.counts[row, _N_SETTLED] = 0
    best.worst[row, _KEY], best.worst[row, _ITEM] = _NO_KEY, _NO_ITEM
    return settle(search, query, best, row)


@device
def write_row(search: Search, query: Index, best: Best, row: Index, top: TopK) -> None:
    """Write the items of a settled buffer, best first, and leave it as the next query wants it."""
    mark_excluded(search.exclude.indptr, search.exclude.indices, query, best.excluded, row, False)
    keys, items, count = best.keys[row], best.items[row], best.counts[row, _N_SETTLED]
    scores, indices = top.scores[query], top.indices[query]
    if count > _FEW:
        sorted_ = _sorted(keys, items, count)
        for place in range(count):
            scores[place] = _score_of_key(sorted_[place] >> 32, best.cell, best.bits_of_cell)
            indices[place] = np.int32(_NO_ITEM - (sorted_[place] & np.int64(0xFFFFFFFF)))
    else:
        n_vectors = _fill_up(keys, count)
        for j in range(count):
            rank = _rank(keys, items, count, n_vectors, j)
            scores[rank] = _score_of_key(np.int64(keys[j]), best.cell, best.bits_of_cell)
            indices[rank] = items[j]


@inlined
def _score_of_key(key: Index, cell: Float32Array, bits_of_cell: Int32Array) -> np.float32:
    """Turn a key into the score; that of nothing is -inf."""
    if key == _NO_KEY:
        return np.float32(-np.inf)
    bits_of_cell[0] = key_of_bits(np.int32(key))
    return cell[0]  # type: ignore[no-any-return]


@inlined
def key_of_bits(bits: np.int32) -> np.int32:
    """Turn the bits of a float32 into a number of the same order, and such a number into bits; -0 becomes 0."""
    if bits >= 0:
        return bits
    return np.int32(0) if bits == np.int32(_NO_KEY) else np.int32(bits ^ _MAGNITUDE)


@inlined
def _bit(item: Any) -> np.uint64:
    return np.uint64(1) << (np.uint64(item) & np.uint64(63))


@inlined
def is_excluded(excluded: Bits, row: Index, item: Any) -> bool:
    """Look an item up among those that a query must not be given."""
    return excluded[row, np.uint64(item) >> np.uint64(6)] & _bit(item) != np.uint64(0)  # type: ignore[no-any-return]


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
    """Let whole vectors of n keys end with those of nothing; returns how many vectors they are."""
    n_vectors = (n + VECTOR - 1) // VECTOR
    for j in range(n, n_vectors * VECTOR):
        keys[j] = _NO_KEY
    return n_vectors


@device
def _keep(keys: Int32Array, items: Int32Array, n: Index, worst_key: Index, worst_item: Index) -> Index:
    """Move what is not worse than the worst to the front; returns how many that are."""
    kept = 0
    for j in range(n):
        key, item = keys[j], items[j]
        keys[kept], items[kept] = key, item
        kept += (key > worst_key) | ((key == worst_key) & (item <= worst_item))
    return kept


@inlined
def _rank(keys: Int32Array, items: Int32Array, n: Index, n_vectors: Index, j: Index) -> Index:
    """Count what is better than number j of n: quicker than sorting where n is small."""
    key = np.int64(keys[j])
    better = count_from(keys, 0, n_vectors, key + 1)
    if count_from(keys, 0, n_vectors, key) > better + 1:
        for i in range(n):
            better += (keys[i] == key) & (items[i] < items[j])
    return better


@device
def _sorted(keys: Int32Array, items: Int32Array, n: Index) -> Int64Array:
    """Return keys and items, in one number each, the best first: sorted by merging."""
    source, target = np.empty(n, np.int64), np.empty(n, np.int64)
    for j in range(n):
        source[j] = (np.int64(keys[j]) << 32) | np.int64(_NO_ITEM - items[j])
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
    return source
