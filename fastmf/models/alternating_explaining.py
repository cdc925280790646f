"""Explaining models of alternating least squares: what ratings and features add through the equation of a row."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.answering.side_features import SideFeatures
from fastmf.errors import ModelError
from fastmf.models.least_squares import FixedSide, LeastSquares
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array
from fastmf_kernels.layout.arrays import CSR

INTERCEPT = "(intercept)"
"""Name of the feature that every row with features has."""
# Eigenvalues below this share of the largest, for each row of a matrix, count as 0, as they do in kernels.
_EPSILON = float(np.finfo(np.float32).eps)


class Row(NamedTuple):
    """A user, or an item, whose factors are explained.

    Attributes
    ----------
    side : {"user", "item"}
    ratings : CSR
        The ratings of this one, as one row; columns are rows of the other side.
    features : CSR or None
        The features x, as one row in the columns of the model; None in a model without features of this side.
    solution : float32 array, shape (n_terms,)
        The factors p, or [p, b/c] in a model with biases.
    """

    side: str
    ratings: CSR
    features: CSR | None
    solution: Float32Array


class Shares(NamedTuple):
    """What p·q is made of, for the factors q of the other side.

    Attributes
    ----------
    of_ratings : float64 array, shape (n,)
        The contribution of each rating.
    of_features : mapping of str to float
        The contribution of each feature, by its name.
    """

    of_ratings: Float64Array
    of_features: Mapping[str, float]


def shares_of(
    row: Row, equations: LeastSquares, fixed: FixedSide, known: SideFeatures | None, other: Float32Array
) -> Shares:
    """Return how p·q follows from the equation of p.

    p solves (A + λI) p = Σ_j t_j q_j + λ Wᵀx, and so p·q = Σ_j t_j q_j·z + Σ_f λ x_f W_f·z with z = (A + λI)⁻¹q. In a
    table with biases, A and q_j are those of [p, b/c], and q is followed by 0. Without ratings p = Wᵀx, and z is q/λ.

    Parameters
    ----------
    row : Row
    equations : LeastSquares
    fixed : FixedSide
        What `LeastSquares.against` has returned for the side of the row, in arrays of the host.
    known : SideFeatures or None
        Of the side of the row, in a model with such features.
    other : float32 array, shape (n_factors,)
        q.

    Returns
    -------
    Shares
    """
    observed, of_ratings = equations.observed(row.ratings), np.zeros(len(row.ratings.indices))
    is_free = _free_terms(equations, row.solution, len(other))
    direction = np.zeros(len(row.solution))
    direction[: len(other)] = other
    direction[~is_free] = 0
    strength = 1.0
    if len(observed.indices):
        pull = 1.0 if known is None else known.pull
        strength = float(equations.strengths(np.diff(observed.indptr), row.side)[0]) * pull
        vectors = np.asarray(fixed.factors[observed.indices], np.float64)
        weights, targets = _weights_and_targets(observed, fixed)
        matrix = fixed.gram + (vectors.T * weights) @ vectors + strength * np.eye(len(direction))
        matrix = matrix[np.ix_(is_free, is_free)]
        inverse = np.linalg.pinv(matrix, rcond=len(direction) * _EPSILON, hermitian=True)
        direction[is_free] = inverse @ direction[is_free]
        of_ratings[np.isin(row.ratings.indices, observed.indices)] = targets * (vectors @ direction)
    if known is None or row.features is None:
        return Shares(of_ratings, {})
    return Shares(of_ratings, _shares_of_features(row.features, known, strength * direction))


def _free_terms(equations: LeastSquares, solution: Float32Array, n_factors: int) -> BoolArray:
    """Tell which terms of a row follow its equation: with nonnegative factors, those that are 0 stay 0."""
    is_free = np.ones(len(solution), np.bool_)
    if equations.exactly.name == "nonnegative":
        is_free[:n_factors] = solution[:n_factors] > 0
    return is_free


def _shares_of_features(features: CSR, known: SideFeatures, direction: Float64Array) -> dict[str, float]:
    """Return x_f W_f·d of each feature f of a row, for a direction d."""
    names = [*known.columns.names.to_pylist(), INTERCEPT]
    shares = features.values * (known.weights[features.indices].astype(np.float64) @ direction)
    found: dict[str, float] = {}
    for feature, share in zip(features.indices.tolist(), shares.tolist(), strict=True):
        found[names[feature]] = found.get(names[feature], 0.0) + share
    return found


def _weights_and_targets(row: CSR, fixed: FixedSide) -> tuple[Float64Array, Float64Array]:
    """Return w and t of observations, as `fastmf_kernels.als.arrays.Weighting` has them."""
    weighting, values = fixed.weighting, row.values.astype(np.float64)
    weights = float(weighting.weight) + float(weighting.weight_slope) * np.abs(values)
    liked = float(weighting.target) + float(weighting.target_slope) * values
    targets = np.where(values < weighting.disliked_below, 0, liked)
    return weights, targets - fixed.offsets[row.indices]


def ratings_of_item(fitted: Fitted, item: int) -> CSR:
    """Return the training ratings of an item, as one row; columns are users.

    Raises
    ------
    ModelError
        If the model was saved without its training ratings, or has none, and the item may have some.
    """
    entries = np.flatnonzero(fitted.seen.indices == item)
    if not fitted.counts.are_known or (fitted.values is None and len(entries)):
        lacks = "was saved without its training ratings" if fitted.counts.are_known else "has no training ratings"
        raise ModelError(
            f"the model {lacks}, by which the factors of item {fitted.item_ids[item].as_py()!r} are explained; train "
            "again"
        )
    users = np.searchsorted(fitted.seen.indptr, entries, side="right") - 1
    values = np.zeros(0, np.float32) if fitted.values is None else np.asarray(fitted.values)[entries]
    return CSR(np.array([0, len(entries)]), users.astype(np.int32), values)
