"""The inner loops of top-k: 8 queries meet 32 items, and those pairs are named that may be among the best.

As in `fastmf_kernels.linalg.panels` these are plain loops, and explicit vector code takes their place in kernels.
"""

import numpy as np

from fastmf_kernels._types import Float32Array, Index, Int32Array, UInt8Array
from fastmf_kernels.linalg.panels import in_vectors

ROWS = 8
COLUMNS = 32
VECTOR = 16
# A quad is four factors of a row, a byte each.
QUAD = 4
_LARGEST = np.float32(2**30)


@in_vectors
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
    passed: Int32Array,
) -> bool:
    """Compare the scores of 8 queries and 32 items with what each query asks for, bound - slack·norm.

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
        Becomes the scores.
    passed : int32 array, shape (8,)
        Becomes the items that pass, a bit each: the score is not below the limit, or one of them is NaN.

    Returns
    -------
    bool
        Whether any passes.
    """
    p, q, bounds = queries.reshape(-1), items.reshape(-1), limits.reshape(-1)
    anything = False
    for r in range(ROWS):
        bound = bounds[k + r] - bounds[k + ROWS + r] * norm
        bits = np.int64(0)
        for v in range(COLUMNS):
            total = np.float32(0)
            for f in range(n_factors):
                total += p[i + ROWS * f + r] * q[j + COLUMNS * f + v]
            scores[r, v] = total
            if not total < bound:
                bits |= np.int64(1) << np.int64(v)
        passed[r] = np.int32(bits)
        anything |= bits != 0
    return anything


@in_vectors
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
    passed: Int32Array,
) -> bool:
    """Compare products of rounded factors with what each query asks for, ⌊K·x - E·y - G·z⌉ + offset.

    Parameters
    ----------
    queries : int32 array
        From ``i`` on, quad after quad, those of the 8 queries: four signed bytes in one number.
    items : uint8 array
        From ``j`` on, quad after quad, those of the 32 items.
    n_quads : int
    limits : float32 array
        From ``k`` on, K, E, G and the offset, a whole number, of the 8 queries.
    terms : float32 array
        x, y and z from ``t`` on.
    passed : int32 array, shape (8,)
        As in `screen_floats`.

    Returns
    -------
    bool
    """
    q, bounds, of_panel = items.reshape(-1), limits.reshape(-1), terms.reshape(-1)
    signed = queries.reshape(-1).view(np.int8)
    anything = False
    for r in range(ROWS):
        bound = bounds[k + r] * of_panel[t] - bounds[k + ROWS + r] * of_panel[t + 1]
        bound -= bounds[k + 2 * ROWS + r] * of_panel[t + 2]
        if not bound > -_LARGEST:
            bound = -_LARGEST
        least = np.int64(min(bound, _LARGEST)) + np.int64(bounds[k + 3 * ROWS + r])
        bits = np.int64(0)
        for v in range(COLUMNS):
            total = np.int64(0)
            for f in range(n_quads):
                for c in range(QUAD):
                    weight = np.int64(signed[QUAD * (i + ROWS * f + r) + c])
                    total += weight * np.int64(q[j + QUAD * (COLUMNS * f + v) + c])
            if total >= least:
                bits |= np.int64(1) << np.int64(v)
        passed[r] = np.int32(bits)
        anything |= bits != 0
    return anything


@in_vectors
def count_from(numbers: Int32Array, i: Index, n: Index, least: Index) -> np.int64:
    """Count, of 16·n numbers from ``i`` on, those that are not below ``least``."""
    count = np.int64(0)
    for number in numbers.reshape(-1)[i : i + VECTOR * n]:
        count += number >= least
    return count


@in_vectors
def lowest_bit(bits: Index) -> np.int64:
    """Return the position of the lowest bit that is set, of a number that is not 0."""
    position = np.int64(0)
    while not (bits >> position) & 1:
        position += 1
    return position


@in_vectors
def exact_product(x: Float32Array, i: Index, y: Float32Array, j: Index, n: Index) -> np.float64:
    """Return the product of n numbers of x, from ``i`` on, with those of y, from ``j`` on, in float64."""
    a, b = x.reshape(-1), y.reshape(-1)
    total = np.float64(0)
    for f in range(n):
        total += np.float64(a[i + f]) * np.float64(b[j + f])
    return total


@in_vectors
def product_in_order(x: Float32Array, i: Index, y: Float32Array, j: Index, n: Index) -> np.float32:
    """Return the product of n numbers of x, from ``i`` on, with those of y, one after the other as `screen_floats`."""
    a, b = x.reshape(-1), y.reshape(-1)
    total = np.float32(0)
    for f in range(n):
        total += np.float32(a[i + f] * b[j + f])
    return total
