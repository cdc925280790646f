"""The users that a scorer answers: those of the model, or people whose factors follow from the ratings they bring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import take_ratings
from fastmf.answering.side_features import Prior
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.topk.arrays import Rows

Fold = Callable[[CSR, Prior | None], tuple[Float32Array, Float32Array]]
"""Folds rows of ratings in: takes them and what they are pulled to, and returns factors and biases."""


class UserTerms(NamedTuple):
    """What predictions take of some users.

    Attributes
    ----------
    factors : float32 array, shape (n, n_factors)
    biases : float32 array, shape (n,)
    """

    factors: Float32Array
    biases: Float32Array


class Audience(Protocol):
    """Users by number, from 0."""

    @property
    def ids(self) -> pa.Array:
        """Their outside ids, ascending."""

    @property
    def seen(self) -> Rows:
        """The items that each has rated."""

    @property
    def n_unknown_ratings(self) -> int:
        """How many ratings they bring of items that the model does not know."""

    @property
    def unknown_items(self) -> pa.Array | None:
        """The outside ids of these items, ascending; None where they bring no ratings."""

    def are_cold(self, users: Int32Array) -> BoolArray:
        """Tell of which users nothing is known."""

    def rows_of(self, users: Int32Array) -> Int32Array:
        """Return the rows of users among the factors of the model; -1 for users that it does not know."""

    def terms(self, users: Int32Array) -> UserTerms:
        """Return factors and biases of users."""

    def key(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return all that the factors and biases of these users depend on, beside the model."""


@dataclass(frozen=True)
class UsersOfModel:
    """All users of a fitted model, with the factors that they have there."""

    fitted: Fitted
    n_unknown_ratings: int = 0
    unknown_items: pa.Array | None = None

    @property
    def ids(self) -> pa.Array:
        """Their outside ids."""
        return self.fitted.user_ids

    @property
    def seen(self) -> Rows:
        """The items of their training ratings."""
        return self.fitted.seen

    def are_cold(self, users: Int32Array) -> BoolArray:
        """Tell which users have no training rating."""
        return self.fitted.counts.are_cold(users)

    def rows_of(self, users: Int32Array) -> Int32Array:
        """Return the users themselves."""
        return users

    def terms(self, users: Int32Array) -> UserTerms:
        """Return factors and biases of users."""
        factors = self.fitted.factors
        return UserTerms(np.asarray(factors.user_factors[users]), factors.user_biases[users])

    def key(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return nothing: the model tells it all."""
        return ()


@dataclass(frozen=True)
class Newcomers:
    """People with ratings, who are folded into a model as they are asked about.

    Attributes
    ----------
    ids : Arrow array, length n
        Outside ids, ascending.
    rows : CSR
        The ratings of each; columns are items of the model, ascending.
    is_cold : bool array, shape (n,)
        Whether nothing is known that the model can use.
    places : int32 array, shape (n,)
        Rows among the factors of the model; -1 for people it does not know.
    fold : callable
        Takes some of ``rows`` and the prior of these, and returns factors and biases.
    unknown_items : Arrow array
        Outside ids of the rated items that the model does not know, ascending.
    n_unknown_ratings : int
        How many ratings are of those.
    parameters : str
        What ``fold`` depends on beside the model, in words.
    prior : Prior or None
        What the factors of each are pulled to, in a model with features of users.
    """

    ids: pa.Array
    rows: CSR
    is_cold: BoolArray
    places: Int32Array
    fold: Fold
    unknown_items: pa.Array
    n_unknown_ratings: int
    parameters: str
    prior: Prior | None = None

    @property
    def seen(self) -> Rows:
        """The items that each has rated."""
        return Rows(self.rows.indptr, self.rows.indices)

    def are_cold(self, users: Int32Array) -> BoolArray:
        """Tell of which people nothing is known that the model can use."""
        return np.asarray(self.is_cold[users])

    def rows_of(self, users: Int32Array) -> Int32Array:
        """Return the rows of people among the factors of the model; -1 for those it does not know."""
        return np.asarray(self.places[users])

    def terms(self, users: Int32Array) -> UserTerms:
        """Fold people in."""
        prior = None if self.prior is None else self.prior.take(users)
        return UserTerms(*self.fold(take_ratings(self.rows, users), prior))

    def key(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return the ratings, and what folding in depends on."""
        prior = () if self.prior is None else (self.prior.means, np.array(self.prior.pull))
        return (*self.rows, *prior, np.frombuffer(self.parameters.encode(), np.uint8))
