"""The users and items of a model as vectors whose products are scores, for other programs."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf_kernels._types import Float32Array, Int32Array


class Vectors(NamedTuple):
    """Vectors of users, or of items.

    Attributes
    ----------
    ids : Arrow array, length n
        Outside ids, ascending.
    vectors : float32 array, shape (n, n_dimensions), C order
    biases : float32 array, shape (n,)
    """

    ids: pa.Array
    vectors: Float32Array
    biases: Float32Array


class Form(NamedTuple):
    """How vectors are made of factors.

    Attributes
    ----------
    has_biases : bool
        Whether the item's bias is the last number of its vector, and 1 that of a user's.
    is_normalized : bool
        Whether vectors are scaled to length 1; zeros stay zeros.
    has_cold : bool
        Whether users and items without training ratings are among them.
    """

    has_biases: bool
    is_normalized: bool
    has_cold: bool


def make_form(fitted: Fitted, normalize: bool, fold_biases: bool, cold: str) -> Form:
    """Return how the vectors of a model are made; a model without item biases needs no number for them."""
    return Form(fold_biases and bool(fitted.factors.item_biases.any()), normalize, cold == "include")


def user_vectors(fitted: Fitted, form: Form) -> Vectors:
    """Return [p, 1] of each user, or p where ``form`` has no biases."""
    factors, users = fitted.factors, None if form.has_cold else _all_or(fitted.warm_users(), fitted.n_users)
    ones = np.ones(fitted.n_users, np.float32)
    return _make(
        fitted.user_ids, factors.user_factors, factors.user_biases, ones if form.has_biases else None, users, form
    )


def item_vectors(fitted: Fitted, form: Form) -> Vectors:
    """Return [q, b_i] of each item, or q where ``form`` has no biases."""
    factors, items = fitted.factors, None if form.has_cold else fitted.counts.warm_items
    last = factors.item_biases if form.has_biases else None
    return _make(fitted.item_ids, factors.item_factors, factors.item_biases, last, items, form)


def _all_or(rows: Int32Array, n_rows: int) -> Int32Array | None:
    return None if len(rows) == n_rows else rows


def _make(
    ids: pa.Array,
    factors: Float32Array,
    biases: Float32Array,
    last: Float32Array | None,
    rows: Int32Array | None,
    form: Form,
) -> Vectors:
    vectors = factors if last is None else np.column_stack([factors, last])
    if rows is not None:
        ids, vectors, biases = ids.take(pa.array(rows)), vectors[rows], biases[rows]
    if form.is_normalized:
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, np.newaxis]
        scaled = np.divide(vectors, lengths, out=np.zeros(vectors.shape, np.float64), where=lengths > 0)
        vectors = scaled.astype(np.float32)
    return Vectors(ids, np.ascontiguousarray(vectors), np.ascontiguousarray(biases))
