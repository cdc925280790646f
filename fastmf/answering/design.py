"""Which items to ask a person about: popular ones that between them tell most about his factors."""

from typing import NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array

NOISE = 10.0
"""Variance of the noise of an answer, in mean variances of its signal between users: λ."""
# Gains that differ by less, as a share, count as equal: the order of sums does not choose an item.
_SAME = 1e-6


FloatArray = Float32Array | Float64Array


class Design(NamedTuple):
    """Items to ask about, in the order in which they were chosen.

    Attributes
    ----------
    items : int32 array, shape (n,)
    gains : float64 array, shape (n,)
        By how much each raises log det M.
    """

    items: Int32Array
    gains: Float64Array


class History(NamedTuple):
    """Items that a person was asked about before; no item is in both arrays.

    Attributes
    ----------
    answered, asked : int32 arrays
        Items with an answer, and items without one.
    """

    answered: Int32Array
    asked: Int32Array


def directions(fitted: Fitted) -> Float32Array:
    """Return items in coordinates in which users vary alike in all directions and do not correlate.

    A user is his factors and his bias, x = (p, b_u), and an item is y = (q, 1). With the covariance C = L Lᵀ of the
    users that have training ratings, z = Lᵀ y / s, where s makes the mean of ‖z‖² over ratings 1. So ‖z‖² is the
    variance of an item's predictions between users, and the scales of p and q, and rotations of both, do not matter.

    Returns
    -------
    float32 array, shape (n_items, n_factors + 1)
        All 0 in a model that predicts the same for all users.
    """
    factors, warm = fitted.factors, fitted.warm_users()
    users = np.column_stack([factors.user_factors[warm], factors.user_biases[warm]]).astype(np.float64)
    users -= users.mean(axis=0) if len(users) else 0.0
    variances, axes = np.linalg.eigh(users.T @ users / max(1, len(users)))
    to_rows = (axes * np.sqrt(np.maximum(variances, 0))).astype(np.float32)
    rows = factors.item_factors @ to_rows[:-1] + to_rows[-1]
    counts = fitted.counts.of_items
    mean_square = counts @ _squares(rows) / max(1, int(counts.sum()))
    return np.asarray(rows / np.float32(np.sqrt(mean_square)) if mean_square > 0 else np.zeros_like(rows))


def shares_beside(fitted: Fitted, answered: Int32Array) -> Float64Array:
    """Return, for each item, the share of users who have rated it, among users who resemble somebody who answers.

    A user weighs as much as he has rated items of ``answered``; all users weigh the same where nobody has rated any.

    Returns
    -------
    float64 array, shape (n_items,)
        1 in a model that does not know its training ratings.
    """
    counts, seen = fitted.counts, fitted.seen
    if not counts.are_known:
        return np.ones(fitted.n_items)
    is_answered = np.zeros(fitted.n_items, np.bool_)
    is_answered[answered] = True
    so_far = np.concatenate([[0], np.cumsum(is_answered[seen.indices])])
    weights = np.diff(so_far[seen.indptr])
    total = int(weights.sum())
    if total == 0:
        return counts.share_of_users
    of_ratings = np.repeat(weights, np.diff(seen.indptr))
    return np.bincount(seen.indices, of_ratings, fitted.n_items) / total


def choose(rows: FloatArray, weights: Float64Array, n: int, history: History, candidates: Int32Array) -> Design:
    """Maximise log det M, M = λI + Σ_answered z zᵀ + Σ_j w_j z_j z_jᵀ, greedily over items j.

    Items that were asked about in vain count like those that are chosen, with w_j. Each step takes the item with the
    largest log(1 + w_j z_jᵀ M⁻¹ z_j), which is what it adds; of items that add the same it takes the first candidate.
    The variances z_jᵀ M⁻¹ z_j follow from one step to the next by the formula of Sherman and Morrison, in time
    O(n_items · n_factors).

    Parameters
    ----------
    rows : float32 or float64 array, shape (n_items, n_factors)
        z.
    weights : float64 array, shape (n_items,)
        w, at least 0.
    n : int
        At most the number of candidates.
    history : History
    candidates : int32 array
        Items that may be asked about, each once, and none of the history.

    Returns
    -------
    Design
    """
    inverse = _inverse(rows, weights, history)
    rows, weights = rows[candidates], weights[candidates]
    is_new = not (len(history.answered) or len(history.asked))
    variances = _squares(rows) / NOISE if is_new else _products(rows @ inverse.astype(rows.dtype), rows)
    chosen, gains = np.empty(n, np.int64), np.empty(n)
    is_open = np.ones(len(rows), np.bool_)
    for step in range(n):
        gain = np.where(is_open, np.log1p(weights * variances), -1.0)
        best = int(np.argmax(gain >= gain.max() * (1 - _SAME)))
        chosen[step], gains[step], is_open[best] = best, gain[best], False
        direction = inverse @ rows[best]
        share = weights[best] / (1 + weights[best] * variances[best])
        inverse -= share * np.outer(direction, direction)
        covariances = (rows @ direction.astype(rows.dtype)).astype(np.float64)
        variances = np.maximum(variances - share * covariances**2, 0)
    return Design(candidates[chosen], gains)


def _inverse(rows: FloatArray, weights: Float64Array, history: History) -> Float64Array:
    """Return M⁻¹ before the first choice."""
    answered, asked = (rows[items].astype(np.float64) for items in history)
    precision = answered.T @ answered + (asked.T * weights[history.asked]) @ asked
    return np.asarray(np.linalg.inv(precision + NOISE * np.eye(rows.shape[1])))


def _squares(rows: FloatArray) -> Float64Array:
    """Return the squared length of each row."""
    return _products(rows, rows)


def _products(first: FloatArray, second: FloatArray) -> Float64Array:
    """Return the product of each row of the first with that of the second."""
    return np.asarray(np.einsum("nf,nf->n", first, second), np.float64)
