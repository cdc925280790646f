"""A metric of single users, from which its value for all of them, or for a sample of them, is computed."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastmf_kernels._types import BoolArray, Float64Array, Int64Array


class UserValues(NamedTuple):
    """A metric of users. The value of a user is sum / weight, or the root of that.

    The value of several users is the sum of their sums over the sum of their weights, or the root of that: where all
    weights are 1, it is the mean of their values.

    Attributes
    ----------
    sums : float64 array, shape (n_users,)
    weights : float64 array, shape (n_users,)
        0 for a user for whom the metric is undefined.
    is_root : bool
    """

    sums: Float64Array
    weights: Float64Array
    is_root: bool = False

    @classmethod
    def of(cls, values: Float64Array) -> "UserValues":
        """Give each user the same weight.

        Parameters
        ----------
        values : float64 array, shape (n_users,)
            NaN where a value is undefined.
        """
        is_defined = ~np.isnan(values)
        return cls(np.where(is_defined, values, 0), is_defined.astype(np.float64))

    @property
    def values(self) -> Float64Array:
        """The value of each user, NaN where it is undefined."""
        return self.ratios(self.sums, self.weights)

    @property
    def is_defined(self) -> BoolArray:
        """For which users there is a value."""
        return self.weights > 0

    @property
    def total(self) -> float:
        """The value of all users together, NaN if it is undefined."""
        return float(self.ratios(self.sums.sum(), self.weights.sum()))

    def ratios(self, sums: npt.ArrayLike, weights: npt.ArrayLike) -> Float64Array:
        """Return the value of each pair of a sum and a weight, NaN for a weight of 0."""
        weights = np.asarray(weights, np.float64)
        ratios = np.divide(sums, weights, out=np.full(np.shape(weights), np.nan), where=weights > 0)
        return np.asarray(np.sqrt(ratios) if self.is_root else ratios)

    def take(self, users: BoolArray | Int64Array) -> "UserValues":
        """Return the values of some users."""
        return self._replace(sums=self.sums[users], weights=self.weights[users])

    def placed(self, users: npt.NDArray[np.integer[Any]], n_users: int) -> "UserValues":
        """Give users other numbers, among ``n_users``; the metric is undefined for the others."""
        sums, weights = np.zeros(n_users), np.zeros(n_users)
        sums[users], weights[users] = self.sums, self.weights
        return self._replace(sums=sums, weights=weights)
