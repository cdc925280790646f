"""The inner loops of top-k: screens bound the scores of 8 queries and 32 items, and report pairs that may be best.

As in `fastmf_kernels.linalg.panels` these are plain loops, and explicit vector code takes their place in kernels. They
have many arguments because unpacking a tuple costs a reference count for each array, too much in the middle of a scan.
"""

from types import ModuleType

import numpy as np

from fastmf_kernels._types import Float32Array, Index, Int32Array, Int64Array, UInt8Array, UInt32Array
from fastmf_kernels._vectors import in_vectors, trial

ROWS = 8
COLUMNS = 32
# Numbers of 32 bits, and of 64 bits, in a vector.
VECTOR = 16
WORDS = 8
# A quad is four factors of a row, a byte each.
QUAD = 4
_LARGEST = np.float32(2**30)
# Counters of a query's buffer: how many counters there are; the columns of the number of items and of their limit.
N_COUNTS, N_APPENDED, LIMIT = 4, 0, 1


def _emitters() -> ModuleType:
    from fastmf_kernels.topk.cpu import tiles_simd

    return tiles_simd


@in_vectors(_emitters)
def screen_floats(
    queries: Float32Array,
    i: Index,
    items: Float32Array,
    j: Index,
    n_factors: Index,
    limits: Float32Array,
    k: Index,
    norm: np.float32,
    scores: Float32Array,
    margins: Float32Array,
    passed: Int32Array,
) -> bool:
    """Compare float32 scores of 8 queries and 32 items with the queries' bounds; a score is off by at most slack·norm.

    Parameters
    ----------
    queries : float32 array
        From ``i`` on, factor after factor, those of the 8 queries.
    items : float32 array
        From ``j`` on, factor after factor, those of the 32 items.
    n_factors : int
    limits : float32 array
        From ``k`` on, 8 bounds, and the slack of the 8 queries.
    norm : float32
    scores : float32 array, shape (8, 32)
        Output: lower bounds of the scores; only written if any pair passes.
    margins : float32 array, shape (8,)
        Output: upper bound minus lower bound of each query's scores; likewise.
    passed : int32 array, shape (8,)
        Output: a bit for each item that passes, since its upper bound is not below the query's bound, or is NaN.

    Returns
    -------
    bool
        Whether any passes.
    """
    p, q, bounds = queries.reshape(-1), items.reshape(-1), limits.reshape(-1)
    anything = False
    for r in range(ROWS):
        slack = bounds[k + ROWS + r] * norm
        bound = bounds[k + r] - slack
        margins[r] = slack + slack
        bits = np.int64(0)
        for v in range(COLUMNS):
            total = np.float32(0)
            for f in range(n_factors):
                total += p[i + ROWS * f + r] * q[j + COLUMNS * f + v]
            scores[r, v] = total - slack
            if not total < bound:
                bits |= np.int64(1) << np.int64(v)
        passed[r] = np.int32(bits)
        anything |= bits != 0
    return anything


@in_vectors(_emitters)
def screen_bytes(
    queries: Int32Array,
    i: Index,
    items: UInt8Array,
    j: Index,
    n_quads: Index,
    limits: Float32Array,
    k: Index,
    terms: Float32Array,
    t: Index,
    scores: Float32Array,
    margins: Float32Array,
    passed: Int32Array,
) -> bool:
    """Compare products of rounded factors, x·y, with the queries' bounds (K - E·N - G·D)/b, rounded toward 0.

    A factor vector of an item is about b·x, and one of a query a·y; see `fastmf_kernels.topk.cpu.index`.

    Parameters
    ----------
    queries : int32 array
        From ``i`` on, quad after quad, those of the 8 queries: four signed bytes in one number. Then the 8 offsets,
        128·Σy, which are subtracted.
    items : uint8 array
        From ``j`` on, quad after quad, those of the 32 items, x + 128.
    n_quads : int
    limits : float32 array
        From ``k`` on, of the 8 queries: K, the bound divided by a; E = ‖p - ay‖/a; and G = ‖y‖.
    terms : float32 array
        From ``t`` on, 1/b, N/b, D/b and b: N is the largest norm of the items, and D the largest ‖q - bx‖.
    scores : float32 array, shape (8, 32)
        Output, if any pair passes: lower bounds of the scores divided by a, b·(x·y) - E·N - G·D.
    margins : float32 array, shape (8,)
        Output, likewise: upper bound minus lower bound, 2·(E·N + G·D).
    passed : int32 array, shape (8,)
        As in `screen_floats`.

    Returns
    -------
    bool
    """
    q, bounds, of_panel = items.reshape(-1), limits.reshape(-1), terms.reshape(-1)
    numbers = queries.reshape(-1)
    signed = numbers.view(np.int8)
    anything = False
    for r in range(ROWS):
        error = bounds[k + ROWS + r] * of_panel[t + 1] + bounds[k + 2 * ROWS + r] * of_panel[t + 2]
        bound = bounds[k + r] * of_panel[t] - error
        if not bound > -_LARGEST:
            bound = -_LARGEST
        margins[r] = (error + error) * of_panel[t + 3]
        offset = np.int64(numbers[i + ROWS * n_quads + r])
        bits, least = np.int64(0), np.int64(min(bound, _LARGEST))
        for v in range(COLUMNS):
            total = -offset
            for f in range(n_quads):
                for c in range(QUAD):
                    weight = np.int64(signed[QUAD * (i + ROWS * f + r) + c])
                    total += weight * np.int64(q[j + QUAD * (COLUMNS * f + v) + c])
            scores[r, v] = (np.float32(total) - error) * of_panel[t + 3]
            if total >= least:
                bits |= np.int64(1) << np.int64(v)
        passed[r] = np.int32(bits)
        anything |= bits != 0
    return anything


@in_vectors(_emitters)
def append_passed(
    passed: Int32Array,
    scores: Float32Array,
    margins: Float32Array,
    excluded: UInt32Array,
    e: Index,
    place: Index,
    lows: Float32Array,
    highs: Float32Array,
    places: Int32Array,
    start: Index,
    capacity: Index,
    counts: Int64Array,
    c: Index,
) -> bool:
    """Append the items that passed a screen, and are not excluded, to the buffers of 8 queries.

    Parameters
    ----------
    passed, scores, margins
        As a screen leaves them.
    excluded : uint32 array
        From ``e`` on, a number for each query: a bit for each excluded item of the panel.
    place : int
        That of the first item.
    lows, highs : float32 array
        Buffers, ``capacity`` apart, the first from ``start`` on: lower and upper bounds of scores. Up to 16 numbers
        behind the appended ones may be changed.
    places : int32 array
        The places of items, likewise.
    start, capacity : int
    counts : int64 array
        From ``c`` on, `N_COUNTS` numbers for each query.

    Returns
    -------
    bool
        Whether any buffer has more than its limit.
    """
    of_excluded, numbers = excluded.reshape(-1), counts.reshape(-1)
    low, high, of_buffer = lows.reshape(-1), highs.reshape(-1), places.reshape(-1)
    anything = False
    for r in range(ROWS):
        bits = np.int64(passed[r]) & ~np.int64(of_excluded[e + r])
        count = numbers[c + N_COUNTS * r + N_APPENDED]
        for v in range(COLUMNS):
            if (bits >> np.int64(v)) & np.int64(1):
                at = start + capacity * r + count
                low[at], high[at] = scores[r, v], scores[r, v] + margins[r]
                of_buffer[at] = np.int32(place + v)
                count += 1
        numbers[c + N_COUNTS * r + N_APPENDED] = count
        anything |= count > numbers[c + N_COUNTS * r + LIMIT]
    return anything


@in_vectors(_emitters)
def extremes(numbers: Float32Array, i: Index, n: Index) -> tuple[np.float32, np.float32]:
    """Return the smallest and the largest of 16·n numbers from ``i`` on, of those that are neither NaN nor -inf."""
    smallest, largest = np.float32(np.inf), np.float32(-np.inf)
    for number in numbers.reshape(-1)[i : i + VECTOR * n]:
        if number > -np.inf:
            smallest, largest = min(smallest, number), max(largest, number)
    return smallest, largest


@in_vectors(_emitters)
def count_not_below(numbers: Float32Array, i: Index, n: Index, least: np.float32) -> np.int64:
    """Count, of 16·n numbers from ``i`` on, those that are not below ``least``, nor NaN."""
    count = np.int64(0)
    for number in numbers.reshape(-1)[i : i + VECTOR * n]:
        count += number >= least
    return count


@in_vectors(_emitters)
def keep_not_below(
    lows: Float32Array, highs: Float32Array, places: Int32Array, i: Index, n: Index, least: np.float32
) -> np.int64:
    """Move, of 16·n items from ``i`` on, those to the front whose ``highs`` are not below ``least``; counts them."""
    low, high, of_buffer = lows.reshape(-1), highs.reshape(-1), places.reshape(-1)
    kept = np.int64(0)
    for j in range(i, i + VECTOR * n):
        if not high[j] < least:
            low[i + kept], high[i + kept], of_buffer[i + kept] = low[j], high[j], of_buffer[j]
            kept += 1
    return kept


@in_vectors(_emitters)
def largest_magnitude(numbers: Float32Array, i: Index, n: Index) -> np.float32:
    """Return the largest magnitude of n numbers from ``i`` on that are not NaN; 0 if there are none."""
    largest = np.float32(0)
    for number in numbers.reshape(-1)[i : i + n]:
        if abs(number) > largest:
            largest = abs(number)
    return largest


@in_vectors(_emitters)
def count_from(numbers: Int32Array, i: Index, n: Index, least: Index) -> np.int64:
    """Count, of 16·n numbers from ``i`` on, those that are not below ``least``."""
    count = np.int64(0)
    for number in numbers.reshape(-1)[i : i + VECTOR * n]:
        count += number >= least
    return count


@in_vectors(_emitters)
def count_above(numbers: Int64Array, i: Index, n: Index, bound: Index) -> np.int64:
    """Count, of 8·n numbers from ``i`` on, those that are above a bound."""
    count = np.int64(0)
    for number in numbers.reshape(-1)[i : i + WORDS * n]:
        count += number > bound
    return count


@in_vectors(_emitters)
def exact_product(x: Float32Array, i: Index, y: Float32Array, j: Index, n: Index) -> np.float64:
    """Return the product of n numbers of x, from ``i`` on, with those of y, from ``j`` on, in float64."""
    a, b = x.reshape(-1), y.reshape(-1)
    total = np.float64(0)
    for f in range(n):
        total += np.float64(a[i + f]) * np.float64(b[j + f])
    return total


@in_vectors(_emitters)
def product_in_order(x: Float32Array, i: Index, y: Float32Array, j: Index, n: Index) -> np.float32:
    """Return the product of n numbers of x, from ``i`` on, with those of y, one after the other as `screen_floats`."""
    a, b = x.reshape(-1), y.reshape(-1)
    total = np.float32(0)
    for f in range(n):
        total += np.float32(a[i + f] * b[j + f])
    return total


@trial
def try_all(numbers: Float32Array, results: Float32Array) -> None:
    """Screen two tiles and look through what passes: every loop once, on whole numbers, whose sums are exact."""
    whole, integers, items = np.empty(1024, np.float32), np.empty(1024, np.int32), np.empty(1024, np.uint8)
    for n in range(1024):
        integers[n] = int(np.float32(4) * numbers[n])
        whole[n], items[n] = integers[n], integers[n] + 3
    scores, margins = np.zeros((ROWS, COLUMNS), np.float32), np.zeros(ROWS, np.float32)
    passed = np.zeros(ROWS, np.int32)
    results[0] = screen_bytes(integers, 0, items, 64, 3, whole, 400, whole, 500, scores, margins, passed)
    for r in range(ROWS):
        results[8 + r], results[16 + r] = scores[r, r], passed[r] >> 16
    results[1] = screen_floats(whole, 0, whole, 64, 5, whole, 300, np.float32(1), scores, margins, passed)
    lows, highs, places = np.zeros(512, np.float32), np.zeros(512, np.float32), np.zeros(512, np.int32)
    counts, excluded = np.zeros(ROWS * N_COUNTS, np.int64), np.zeros(ROWS, np.uint32)
    results[2] = append_passed(passed, scores, margins, excluded, 0, 64, lows, highs, places, 0, 50, counts, 0)
    results[3], results[4] = extremes(lows, 0, 2)
    kept = keep_not_below(lows, highs, places, 0, 2, np.float32(2))
    for n in range(kept):
        results[32 + n], results[64 + n], results[96 + n] = lows[n], highs[n], places[n]
    results[6], results[7] = count_not_below(whole, 3, 2, np.float32(1)), largest_magnitude(whole, 3, 37)
    results[24], results[25] = count_from(integers, 3, 2, 1), count_above(counts, 0, 4, 9)
    results[26], results[27] = exact_product(whole, 3, whole, 99, 37), product_in_order(whole, 3, whole, 99, 37)
