"""Items laid out for scanning: panels of 32, of the longest factor vectors first, as float32 numbers or as bytes.

A factor vector q rounds to b·x with whole numbers x from -127 to 127; b is shared by a panel. With p likewise ≈ a·y,

    |p·q - ab(x·y)| ≤ ‖p - ay‖‖q‖ + ‖ay‖‖q - bx‖

by Cauchy and Schwarz: what is too low by more than that cannot be among the best. See `docs/decisions/0016`.
"""

import numpy as np

from fastmf_kernels._jit import has_byte_products, kernel
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array, UInt8Array
from fastmf_kernels.topk.arrays import ItemIndex
from fastmf_kernels.topk.tiles import COLUMNS, QUAD

# Between these, no product or quotient of what is below comes near the ends of float32.
SHORTEST, LONGEST = 1e-12, 1e12
HIGHEST = 127
# x is stored as x + 128, which makes it unsigned.
MIDDLE = 128


def lay_out(items: Float32Array, pruning: bool) -> ItemIndex:
    """Lay items out for `top_k`; see the reference of ``index_items``."""
    n_items, n_factors = items.shape
    n_panels = -(-n_items // COLUMNS)
    norms = np.empty(n_items, np.float64)
    _measure(items, norms)
    order = np.full(n_panels * COLUMNS, -1, np.int32)
    order[:n_items] = np.argsort(-norms) if pruning else np.arange(n_items)
    with_bytes = pruning and has_byte_products()
    index = ItemIndex(
        items,
        pruning,
        order,
        np.empty(n_panels, np.float32),
        np.empty((0 if with_bytes else n_panels, n_factors, COLUMNS), np.float32),
        np.empty((n_panels if with_bytes else 0, -(-n_factors // QUAD), COLUMNS, QUAD), np.uint8),
        np.empty((n_panels if with_bytes else 0, 4), np.float32),
    )
    _find_largest_norms(order, norms, index.norms)
    if with_bytes:
        _fill_bytes(items, order, index.norms, index.bytes, index.terms)
    else:
        _fill_floats(items, order, index.floats)
    return index


@kernel
def _measure(items: Float32Array, norms: Float64Array) -> None:
    """Find the lengths of factor vectors; one that is not a number counts as infinite."""
    for i in range(items.shape[0]):
        total = np.float64(0)
        for f in range(items.shape[1]):
            total += np.float64(items[i, f]) * np.float64(items[i, f])
        norms[i] = np.inf if np.isnan(total) else np.sqrt(total)


@kernel
def _find_largest_norms(order: Int32Array, norms: Float64Array, largest: Float32Array) -> None:
    """Find the largest norm of each panel, rounded up."""
    for p in range(largest.size):
        norm = 0.0
        for v in range(p * COLUMNS, (p + 1) * COLUMNS):
            if order[v] >= 0:
                norm = max(norm, norms[order[v]])
        largest[p] = np.float32(norm) * np.float32(1 + 2.0**-22) + np.float32(1e-45)


@kernel
def _fill_floats(items: Float32Array, order: Int32Array, floats: Float32Array) -> None:
    """Store panels factor after factor, what fills up the last one with zeros."""
    n_panels, n_factors, _ = floats.shape
    for p in range(n_panels):
        for v in range(COLUMNS):
            item = np.int64(order[p * COLUMNS + v])
            for f in range(n_factors):
                floats[p, f, v] = items[item, f] if item >= 0 else np.float32(0)


@kernel
def _fill_bytes(
    items: Float32Array, order: Int32Array, norms: Float32Array, quads: UInt8Array, terms: Float32Array
) -> None:
    """Store panels quad after quad, rounded, and with them 1/b, N/b and max ‖q - bx‖/b, N being the panel's norm."""
    n_panels, n_factors = quads.shape[0], items.shape[1]
    for p in range(n_panels):
        largest = np.float32(0)
        for v in range(p * COLUMNS, (p + 1) * COLUMNS):
            if order[v] >= 0:
                for f in range(n_factors):
                    largest = max(largest, abs(items[np.int64(order[v]), f]))
        usable = largest > SHORTEST and norms[p] < LONGEST
        inverse = np.float32(HIGHEST) / largest if usable else np.float32(0)
        worst = np.float32(0)
        for v in range(COLUMNS):
            item = np.int64(order[p * COLUMNS + v])
            error = np.float32(0)
            for f in range(quads.shape[1] * QUAD):
                x = np.float32(0)
                if item >= 0 and f < n_factors and usable:
                    x = np.rint(items[item, f] * inverse)
                    error += (items[item, f] * inverse - x) ** 2
                quads[p, f // QUAD, v, f % QUAD] = np.uint8(np.int32(x) + MIDDLE)
            worst = max(worst, error)
        terms[p, 0] = inverse
        terms[p, 1] = norms[p] * inverse if usable else np.float32(np.inf)
        terms[p, 2] = np.sqrt(worst) * np.float32(1.001) + np.float32(1e-3)
        terms[p, 3] = np.float32(0)
