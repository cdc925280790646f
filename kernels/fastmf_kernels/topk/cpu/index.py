"""Items laid out for scanning: panels of 32, of the longest factor vectors first, as float32 numbers or as bytes.

A factor vector q rounds to b·x with whole numbers x from -127 to 127; b is shared by a panel. With p likewise ≈ a·y,

    |p·q - ab(x·y)| ≤ ‖p - ay‖‖q‖ + ‖ay‖‖q - bx‖

by Cauchy and Schwarz: an item whose approximate score is below the k-th best by more than that cannot be among the k
best. See `docs/decisions/0016`.
"""

import numpy as np

from fastmf_kernels._jit import inlined, kernel
from fastmf_kernels._types import Float32Array, Index, Int32Array
from fastmf_kernels._vectors import has_byte_products
from fastmf_kernels.linalg.panels import dot_product
from fastmf_kernels.topk.arrays import ItemIndex
from fastmf_kernels.topk.cpu.tiles import COLUMNS, QUAD, exact_product, largest_magnitude

# Norms and magnitudes between these keep all products and quotients below far from the ends of the range of float32.
SHORTEST, LONGEST = 1e-12, 1e12
HIGHEST = 127
# x is stored as x + 128, which makes it unsigned.
MIDDLE = 128


def lay_out(items: Float32Array, pruning: bool) -> ItemIndex:
    """Lay items out for `top_k`; see the reference of ``index_items``."""
    n_items, n_factors = items.shape
    n_panels = -(-n_items // COLUMNS)
    norms = np.empty(n_items, np.float32)
    _measure(items, norms)
    order = np.full(n_panels * COLUMNS, -1, np.int32)
    order[:n_items] = np.argsort(-norms) if pruning else np.arange(n_items)
    places = np.empty(n_items, np.int32)
    places[order[:n_items]] = np.arange(n_items, dtype=np.int32)
    with_bytes = pruning and has_byte_products()
    n_floats, n_bytes = (0, n_panels) if with_bytes else (n_panels, 0)
    index = ItemIndex(
        items,
        pruning,
        order,
        places,
        np.empty(n_panels, np.float32),
        np.empty((n_floats, n_factors, COLUMNS), np.float32),
        np.empty((n_bytes, -(-n_factors // QUAD), COLUMNS, QUAD), np.uint8),
        np.empty((n_bytes, 4), np.float32),
    )
    _find_largest_norms(order, norms, index.norms)
    if with_bytes:
        quads = index.bytes.reshape(-1).view(np.int32).reshape(index.bytes.shape[:3])
        _fill_bytes(items, order, index.norms, quads, index.terms)
    else:
        _fill_floats(items, order, index.floats)
    return index


@kernel
def _measure(items: Float32Array, norms: Float32Array) -> None:
    """Find the lengths of factor vectors, rounded up; one that is not a number counts as infinite."""
    n_factors = items.shape[1]
    for i in range(items.shape[0]):
        norms[i] = length(items, i * n_factors, n_factors)


@inlined
def length(rows: Float32Array, i: Index, n: Index) -> np.float32:
    """Return the length, rounded up, of a vector of n numbers that starts at ``i``; infinite if it is not a number."""
    norm = np.sqrt(exact_product(rows, i, rows, i, n)) * (1 + 2.0**-22) + 1e-45
    return np.float32(norm) if norm < np.inf else np.float32(np.inf)


@kernel
def _find_largest_norms(order: Int32Array, norms: Float32Array, largest: Float32Array) -> None:
    """Find the largest norm of each panel; infinite if float32 sums over the panel could overflow."""
    for p in range(largest.size):
        norm = np.float32(0)
        for v in range(p * COLUMNS, (p + 1) * COLUMNS):
            if order[v] >= 0:
                norm = max(norm, norms[order[v]])
        largest[p] = norm if norm < LONGEST else np.float32(np.inf)


@kernel
def _fill_floats(items: Float32Array, order: Int32Array, floats: Float32Array) -> None:
    """Store panels factor after factor; the padding of the last one is zero."""
    n_panels, n_factors, _ = floats.shape
    for p in range(n_panels):
        for v in range(COLUMNS):
            item = np.int64(order[p * COLUMNS + v])
            for f in range(n_factors):
                floats[p, f, v] = items[item, f] if item >= 0 else np.float32(0)


@kernel
def _fill_bytes(
    items: Float32Array,
    order: Int32Array,
    norms: Float32Array,
    quads: Int32Array,
    terms: Float32Array,
) -> None:
    """Store panels quad after quad, rounded, and with them 1/b, N/b, max ‖q - bx‖/b and b, N being the panel's norm."""
    n_panels, n_quads, n_factors = quads.shape[0], quads.shape[1], items.shape[1]
    scaled, rounded = np.zeros(n_quads * QUAD, np.float32), np.zeros(n_quads * QUAD, np.int32)
    for p in range(n_panels):
        largest = np.float32(0)
        for v in range(p * COLUMNS, (p + 1) * COLUMNS):
            item = np.int64(order[v])
            if item >= 0:
                largest = max(largest, largest_magnitude(items, item * n_factors, n_factors))
        usable = largest > SHORTEST and norms[p] < LONGEST
        inverse = np.float32(HIGHEST) / largest if usable else np.float32(0)
        worst = np.float32(0)
        for v in range(COLUMNS):
            item = np.int64(order[p * COLUMNS + v])
            if item >= 0 and usable:
                worst = max(worst, round_row(items, item, inverse, scaled, rounded))
            else:
                for f in range(rounded.size):
                    rounded[f] = 0
            for q in range(n_quads):
                f = q * QUAD
                low = (rounded[f] + MIDDLE) | (rounded[f + 1] + MIDDLE) << 8
                quads[p, q, v] = np.int32(low | (rounded[f + 2] + MIDDLE) << 16 | (rounded[f + 3] + MIDDLE) << 24)
        terms[p, 0] = inverse
        terms[p, 1] = norms[p] * inverse if usable else np.float32(np.inf)
        terms[p, 2] = np.sqrt(worst) * np.float32(1.001) + np.float32(1e-3)
        terms[p, 3] = largest / np.float32(HIGHEST) if usable else np.float32(1)


@inlined
def round_row(
    rows: Float32Array, row: Index, inverse: np.float32, scaled: Float32Array, rounded: Int32Array
) -> np.float32:
    """Multiply a row and round it to whole numbers; returns the squared norm of the rounding error.

    ``scaled`` is scratch space; it and ``rounded`` are filled up with zeros, which stay.
    """
    n_factors = rows.shape[1]
    for f in range(n_factors):
        scaled[f] = rows[row, f] * inverse
    for f in range(n_factors):
        whole = np.rint(scaled[f])
        scaled[f] -= whole
        rounded[f] = np.int32(whole)
    return dot_product(scaled, 0, scaled, 0, n_factors)
