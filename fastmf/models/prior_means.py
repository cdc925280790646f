"""Prior means of factors: a linear map of features, fitted to the factors by ridge regression in every sweep.

Factors q are pulled to m = Wᵀx in place of 0, with λ_i = min(1, r/3) times the strengths without features. Of

    Σ_i λ_i ‖q_i - Wᵀx_i‖² + ρ ‖W‖²,    ρ = r·mean(λ_i),

the half sweeps minimise the first term with the ratings, with W fixed: the normal equations of a row gain λ_i Wᵀx_i on
the right side. Between two of them, steps of conjugate gradients minimise the sum over W with the factors fixed. It is
the matrix factorisation with a regression prior of Agarwal and Chen ("Regression-based Latent Factor Models", KDD
2009), with point estimates in the place of samples. `choose_regularization` says how r is chosen, and
docs/decisions/0024-prior-means.md why.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastmf.answering.side_features import Columns, SideFeatures
from fastmf.errors import DataError, named
from fastmf.reading.features import Features, as_features
from fastmf.reading.id_spaces import widened
from fastmf.reading.interactions import Interactions
from fastmf.reading.sparse_rows import take_rows
from fastmf_kernels._types import Float32Array, Float64Array

# Steps of conjugate gradients a sweep: factors change slowly after the first sweeps, and W goes on from where it was.
_STEPS = 2
# Strengths r that are tried, parts that the rows are cut into, updates of W, from 0, in a trial, and how many standard
# errors count as no difference.
_TRIED = tuple(float(f"{0.1 * 10 ** (place / 2):.2g}") for place in range(8))
_FOLDS, _UPDATES_IN_A_TRIAL, _STANDARD_ERRORS = 3, 6, 3


def as_given(item_features: Any, user_features: Any) -> dict[str, Features]:
    """Return the features that a fit was given, by side.

    Raises
    ------
    ParameterError, DataError
        If one is neither `Features` nor a table of them.
    """
    given = {"item": item_features, "user": user_features}
    return {
        side: as_features(features, f"{side}_features", f"{side}_id")
        for side, features in given.items()
        if features is not None
    }


def with_described(ratings: Interactions, features: Mapping[str, Features]) -> Interactions:
    """Return ratings whose users and items are those of the ratings and those of the features.

    Raises
    ------
    DataError
        If ids are integers on one side and strings on the other.
    """
    for side, described in features.items():
        ratings = widened(ratings, side, described.ids, named(f"{side}_features"))
    return ratings


def describe_sides(ratings: Interactions, features: Mapping[str, Features], n_terms: int) -> dict[str, SideFeatures]:
    """Return the features of the users and items of ratings, with a map W of zeros.

    Raises
    ------
    DataError
        If none of the rated items (or users) has features: nothing could be learned of them.
    """
    sides = {}
    for side, given in features.items():
        known = ratings.item_ids if side == "item" else ratings.user_ids
        columns = Columns.of(given)
        rows = take_rows(columns.encode(given)[0], given.positions(known))
        sides[side] = SideFeatures(columns, rows, np.zeros((given.n_features + 1, n_terms), np.float32), 1.0)
        rated = np.zeros(len(known), np.bool_)
        rated[ratings.items if side == "item" else ratings.users] = True
        if not (rated & sides[side].are_described).any():
            got = f"such as {given.ids[0].as_py()!r}" if len(given) else "none"
            raise DataError(
                f"none of the {side}s with ratings has {named(f'{side}_features')}; expected ids of the ratings, such "
                f"as {known[int(rated.argmax())].as_py()!r}, and got {got}"
            )
    return sides


class Described(NamedTuple):
    """The features of the rows of a side in training, and their r."""

    known: SideFeatures
    regularization: float


class PriorMeans:
    """The prior means of the rows of a side in training, and the map W that makes them.

    Parameters
    ----------
    features : SideFeatures
        Of these rows. ``weights`` is changed in place.
    strengths : float64 array, shape (n_rows,)
        λ_i. Where all are 0, nothing is pulled, and W is that of equal strengths.
    regularization : float
        r: what ρ is in units of the mean strength.
    """

    def __init__(self, features: SideFeatures, strengths: Float64Array, regularization: float) -> None:
        import scipy.sparse

        indptr, indices, values = features.rows
        shape = len(indptr) - 1, len(features.weights)
        self._rows = scipy.sparse.csr_array((values, indices, indptr), shape=shape)
        self._columns = scipy.sparse.csr_array(self._rows.T)
        described = features.are_described
        self._pulls = bool(strengths[described].any())
        strengths = strengths if self._pulls else np.ones(len(strengths))
        self._strengths = strengths.astype(np.float32)[:, None]
        self._ridge = np.float32(regularization * strengths[described].mean())
        squares = np.bincount(indices, values**2 * self._strengths[features.rows.row_of_each_entry(), 0], shape[1])
        self._diagonal = squares.astype(np.float32)[:, None] + self._ridge
        self.weights = features.weights
        self.refresh()

    def update(self, factors: Float32Array) -> None:
        """Fit W to factors by a few steps of conjugate gradients, and compute the means anew.

        The steps are preconditioned by the diagonal (Saad, "Iterative Methods for Sparse Linear Systems", 2003,
        algorithm 9.1), for all columns of W at a time. Where W solves its equations, they leave it.
        """
        weights, ridge, strengths = self.weights, self._ridge, self._strengths
        residual = self._columns @ (strengths * (factors - self.means))
        residual -= ridge * weights
        direction, square = np.zeros_like(weights), np.ones(weights.shape[1], np.float32)
        for step in range(_STEPS):
            scaled = residual / self._diagonal
            before, square = square, _products(residual, scaled)
            direction *= _ratio(square, before) if step else np.float32(0)
            direction += scaled
            product = self._columns @ (strengths * (self._rows @ direction))
            product += ridge * direction
            length = _ratio(square, _products(direction, product))
            weights += length * direction
            product *= length
            residual -= product
        self.refresh()

    def refresh(self) -> None:
        """Compute the means Wᵀx of all rows, after W was changed."""
        self.means: Float32Array = np.asarray(self._rows @ self.weights, np.float32)

    def penalty(self) -> float:
        """Return ρ‖W‖²; 0 where nothing is pulled."""
        if not self._pulls:
            return 0.0
        return float(self._ridge) * float(np.einsum("fk,fk->", self.weights, self.weights, dtype=np.float64))


def _products(left: Float32Array, right: Float32Array) -> Float32Array:
    """Return the product of each column with that of the other table."""
    return np.asarray(np.einsum("fk,fk->k", left, right), np.float32)


def _ratio(above: Float32Array, below: Float32Array) -> Float32Array:
    """Return a quotient for each column, 0 where the divisor is not above 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def choose_regularization(
    factors: Float32Array, features: SideFeatures, strengths: Float64Array, rng: np.random.Generator
) -> float:
    """Choose r by cross-validation: maps that are fitted to two thirds of the described rows predict the last third.

    Of the strengths that are tried, it is the largest whose error Σ λ_i‖q_i - Wᵀx_i‖² exceeds the least error by at
    most three standard errors of the difference (the one-standard-error rule of Breiman, Friedman, Olshen, Stone,
    "Classification and Regression Trees", 1984, for paired errors, with more caution).

    Parameters
    ----------
    factors : float32 array, shape (n_rows, n_terms)
        Of a fit without features.
    features : SideFeatures
        Of the same rows.
    strengths : float64 array, shape (n_rows,)
    rng : Generator
        Draws the thirds.
    """
    described = np.flatnonzero(features.are_described & factors.any(axis=1))
    fold_of = rng.permutation(len(described)) % _FOLDS
    errors = np.zeros((len(_TRIED), len(described)))
    for fold in range(_FOLDS):
        learned, held = described[fold_of != fold], described[fold_of == fold]
        if not len(learned) or not len(held):
            return _TRIED[-1]
        held_rows = features.take(held).rows
        for place, regularization in enumerate(_TRIED):
            part = features.take(learned)._replace(
                weights=np.zeros((len(features.weights), factors.shape[1]), np.float32)
            )
            prior = PriorMeans(part, strengths[learned], regularization)
            for _ in range(_UPDATES_IN_A_TRIAL):
                prior.update(factors[learned])
            missed = factors[held] - part.prior(held_rows).means
            errors[place, fold_of == fold] = strengths[held] * np.einsum("ik,ik->i", missed, missed, dtype=np.float64)
    worse = errors - errors[errors.sum(axis=1).argmin()]
    allowed = _STANDARD_ERRORS * worse.std(axis=1) * np.sqrt(len(described))
    return _TRIED[int(np.flatnonzero(worse.sum(axis=1) <= allowed)[-1])]
