"""Metrics of predicted ratings, on plain arrays."""

import numpy as np
import numpy.typing as npt

from fastmf.common.arrays import as_plain_array
from fastmf.errors import ParameterError
from fastmf.measuring.checks import as_numbers
from fastmf.measuring.concordance import count_concordant
from fastmf_kernels._types import Float64Array

__all__ = [
    "fcp",
    "mae",
    "rmse",
]


def rmse(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the root mean squared error.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.rmse([4, 2], [3, 3])
    1.0

    Raises
    ------
    ParameterError
        If the shapes differ, there is nothing in them, or a number is not finite.
    """
    return float(np.sqrt(np.mean(_errors(ratings, predictions) ** 2)))


def mae(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean absolute error; its errors are those of `rmse`."""
    return float(np.mean(np.abs(_errors(ratings, predictions))))


def fcp(users: npt.ArrayLike, ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the fraction of concordant pairs: of two unequal ratings of a user, the higher one is predicted higher.

    FCP = n_c / (n_c + n_d), where n_c and n_d are the concordant and the other pairs of all users together (Koren,
    Sill, "Collaborative Filtering on Ordinal User Feedback", IJCAI 2013). A pair with equal predictions is not
    concordant, as in Surprise. Surprise averages n_c over the users who have a concordant pair, and n_d over those who
    have another one; its result differs where some users have only one kind.

    Parameters
    ----------
    users : int or str array, shape (n_ratings,)
        Whose ratings they are.
    ratings, predictions : float arrays, shape (n_ratings,)

    Returns
    -------
    float
        NaN if no user has two unequal ratings.

    Raises
    ------
    ParameterError
        If the shapes differ, there is nothing in them, or a number is not finite.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.fcp([1, 1, 1, 2], [5, 3, 1, 4], [4.5, 2.0, 2.5, 3.0])
    0.6666666666666666
    """
    a, b = _checked(ratings, predictions)
    owners = as_plain_array(users, "users")
    if owners.shape != a.shape or a.ndim != 1:
        raise ParameterError(f"users have shape {owners.shape} and ratings {a.shape}; expected (n_ratings,) of both")
    distinct, numbers = np.unique(owners, return_inverse=True)
    pairs = count_concordant(numbers, a, b, len(distinct))
    n_pairs = int(pairs.n_pairs.sum())
    return int(pairs.n_concordant.sum()) / n_pairs if n_pairs else float("nan")


def _errors(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> Float64Array:
    a, b = _checked(ratings, predictions)
    return np.asarray(a - b)


def _checked(ratings: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
    a, b = as_numbers(ratings, "ratings"), as_numbers(predictions, "predictions")
    if a.shape != b.shape or a.size == 0:
        raise ParameterError(
            f"ratings have shape {a.shape} and predictions {b.shape}; expected the same, and not empty"
        )
    for numbers, name in ((a, "ratings"), (b, "predictions")):
        is_finite = np.isfinite(numbers)
        if not is_finite.all():
            raise ParameterError(
                f"{name} have {np.count_nonzero(~is_finite)} numbers that are not finite; expected finite numbers"
            )
    return a, b
