"""Metrics of what is recommended, whether or not it is relevant, on plain arrays."""

import numpy as np
import numpy.typing as npt

from fastmf.common.parameters import require_integer
from fastmf.errors import ParameterError
from fastmf.measuring.checks import as_lists, as_numbers
from fastmf.measuring.metrics import mean_of_defined
from fastmf_kernels.topk import figures

__all__ = [
    "coverage",
    "diversity",
    "gini",
    "novelty",
]


def coverage(recommended: npt.ArrayLike, n_items: int) -> float:
    """Return the share of the catalogue that is recommended to anybody.

    Parameters
    ----------
    recommended : int array, shape (n_users, k)
        -1 for "none".
    n_items : int

    Returns
    -------
    float

    Raises
    ------
    ParameterError
        If an item is not below ``n_items``, or is there twice for a user.
    """
    require_integer("n_items", n_items, minimum=1)
    return figures.coverage(as_lists(recommended, n_items), n_items)


def gini(recommended: npt.ArrayLike, n_items: int) -> float:
    """Return the Gini index of how often items are recommended: 0 if all are equally often, 1 if it is always one.

    G = Σ_j (2j - n - 1) c_j / ((n - 1) Σ_j c_j), where c_1 ≤ ... ≤ c_n are the counts of the n items, 0 for those
    that nobody is recommended (Gunawardana, Shani, "Evaluating Recommender Systems", Recommender Systems Handbook,
    2nd edition, 2015).

    Parameters
    ----------
    recommended : int array, shape (n_users, k)
        -1 for "none".
    n_items : int

    Returns
    -------
    float
        NaN if nothing is recommended, or there is one item only.

    Raises
    ------
    ParameterError
        If an item is not below ``n_items``, or is there twice for a user.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.gini([[0, 1], [2, 3]], n_items=4)
    0.0
    >>> metrics.gini([[0], [0]], n_items=4)
    1.0
    """
    require_integer("n_items", n_items, minimum=1)
    return figures.gini(as_lists(recommended, n_items), n_items)


def novelty(recommended: npt.ArrayLike, known_share: npt.ArrayLike) -> float:
    """Return the mean self-information -log₂ p of what is recommended, in bits, p being the share of users who know it.

    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 107(10), 2010. An item
    that nobody knows counts as known to as few as the least known of the others.

    Parameters
    ----------
    recommended : int array, shape (n_users, k)
        -1 for "none".
    known_share : float array, shape (n_items,)

    Returns
    -------
    float
        The mean over all places that are filled; NaN if none is.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.novelty([[0, 1]], [0.5, 0.125])
    2.0
    """
    shares = as_numbers(known_share, "known_share")
    if shares.ndim != 1 or not np.all((shares >= 0) & (shares <= 1)):
        raise ParameterError(f"known_share has shape {shares.shape}; expected (n_items,), of numbers from 0 to 1")
    return mean_of_defined(figures.self_information(as_lists(recommended, len(shares)), shares))


def diversity(recommended: npt.ArrayLike, item_factors: npt.ArrayLike) -> float:
    """Return how unlike each other a user's recommended items are: the mean of 1 - cosine over pairs of them.

    Ziegler, McNee, Konstan, Lausen, "Improving Recommendation Lists Through Topic Diversification", WWW 2005.

    Parameters
    ----------
    recommended : int array, shape (n_users, k)
        -1 for "none".
    item_factors : float array, shape (n_items, n_factors)

    Returns
    -------
    float
        The mean over the users with two items or more; NaN if there are none.

    Examples
    --------
    >>> from fastmf import metrics
    >>> metrics.diversity([[0, 1, 2]], [[1, 0], [0, 1], [1, 0]])
    0.6666666666666667
    """
    factors = as_numbers(item_factors, "item_factors")
    if factors.ndim != 2 or not np.isfinite(factors).all():
        raise ParameterError(f"item_factors have shape {factors.shape}; expected (n_items, n_factors), all finite")
    return mean_of_defined(figures.dissimilarity(as_lists(recommended, len(factors)), factors))
