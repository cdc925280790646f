"""The strengths of models of ratings, where these are chosen from the data: one policy for SGD, SVD++ and ALS.

Σ (r - r̂)² + λσ(‖P‖² + ‖Q‖²) has the minimum of Σ (r - r̂)² + 2λσ‖PQᵀ‖_*, with the nuclear norm: what is left of a
matrix of ratings are its singular values above λσ, made smaller by as much (Mazumder, Hastie, Tibshirani, "Spectral
Regularization Algorithms for Learning Large Incomplete Matrices", JMLR 11, 2010). Noise of standard deviation σ_e in
n_u ratings a user and n_i an item has singular values up to about σ_e(√n_u + √n_i + √log n) with n users and items in
all (Bandeira, van Handel, "Sharp Nonasymptotic Bounds on the Norm of Random Matrices with Independent Entries", Annals
of Probability 44(4), 2016). So λσ is a share of that.

Where a few rows have most of the ratings, a strength that grows with their number is better than one for all: a
weighted trace norm (Salakhutdinov, Srebro, "Collaborative Filtering in a Non-Uniform World", NIPS 2010). Of the
exponents 0, 1/2, 3/4 and 1 of the number of ratings, 1/2 had the lowest errors with SGD and SVD++. ALS has one strength
for the factors and the bias of a row, and its biases come out wrong on sparse data with any exponent but 0.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np

from fastmf.common.parameters import AUTO, require_choice, require_number, require_number_or_auto
from fastmf.models.bias_terms import bias_terms
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.units import deviation_of
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float64Array, Int64Array

# λσ as a share of the largest singular value of noise (docs/decisions/0020-strengths-from-the-data.md).
_SHARE_OF_NOISE = 0.62
# The least noise in units of σ: where biases explain all, factors have to be small, not free.
_LEAST_NOISE = 1e-2
SCALING = "regularization_scaling"
"""The parameter that says how often rows pay strengths."""
_EXPONENTS = {"count": 1.0, "root": 0.5, "none": 0.0}


class _Parameters(Protocol):
    biases: bool
    regularization: float | str
    regularization_scaling: str | None
    bias_regularization: float | str | None
    item_bias_regularization: float | None


class Strengths(NamedTuple):
    """Strengths for ratings in units of σ.

    Attributes
    ----------
    factors : float
        λ of the factors.
    user_biases, item_biases : float
        λ_bu and λ_bi.
    """

    factors: float
    user_biases: float
    item_biases: float


_NAMES = ("regularization", "bias_regularization", "item_bias_regularization")


def scales_of(counts: Int64Array, scaling: str) -> Float64Array:
    """Return how often rows pay their strengths, given their numbers of ratings; at least once."""
    return np.asarray(np.maximum(counts, 1.0) ** _EXPONENTS[scaling])


def scaling_of(model: _Parameters, where_chosen: str) -> str:
    """Return how often a row pays its strengths: ``where_chosen`` if all are chosen, "count" if one is given.

    It is "count" without biases, too: factors then have to tell the mean as well.
    """
    if model.regularization_scaling is not None:
        return model.regularization_scaling
    if not model.biases:
        return "count"
    strengths = model.regularization, model.bias_regularization, model.item_bias_regularization
    is_given = any(strength is not None and not isinstance(strength, str) for strength in strengths)
    return "count" if is_given else where_chosen


def names_to_choose(model: _Parameters) -> list[str]:
    """Return the names of the strengths that are chosen from the data: those of biases follow that of the factors."""
    names, of_biases = [], model.bias_regularization
    if model.regularization == AUTO:
        names.append("regularization")
    if model.biases and (of_biases == AUTO or (of_biases is None and names)):
        names.append("bias_regularization")
        if model.item_bias_regularization is None:
            names.append("item_bias_regularization")
    return names


def choose_strengths(model: _Parameters, ratings: Interactions, scaling: str, slope: float = 1.0) -> Chosen:
    """Return the strengths that `names_to_choose` names, for rows that pay them as ``scaling`` says.

    With them comes ``scaling`` itself, where the model leaves it open.
    """
    names = names_to_choose(model)
    if not names:
        return {}
    found = dict(zip(_NAMES, strengths_of(ratings, scaling, slope), strict=True))
    chosen: Chosen = {name: found[name] for name in names}
    return chosen | ({SCALING: scaling} if model.regularization_scaling is None else {})


def require_strengths(model: _Parameters) -> None:
    """Check the strengths of biases, and how strengths are scaled.

    Raises
    ------
    ParameterError
    """
    if model.regularization_scaling is not None:
        require_choice("regularization_scaling", model.regularization_scaling, tuple(_EXPONENTS))
    if model.bias_regularization is not None:
        require_number_or_auto("bias_regularization", model.bias_regularization, minimum=0)
    if model.item_bias_regularization is not None:
        require_number("item_bias_regularization", model.item_bias_regularization, minimum=0)


def strengths_of(ratings: Interactions, scaling: str = "none", slope: float = 1.0) -> Strengths:
    """Return the strengths that suit ratings.

    With σ_e, λ_U and λ_I of `bias_terms`, and the mean numbers n_u and n_i of ratings of the user and of the item of a
    rating, they are c·(σ_e/σ)(√n_u + √n_i + √log n), λ_U and λ_I for rows that pay them once; for others, such that the
    row of a rating pays as much on average.

    Parameters
    ----------
    ratings : Interactions
    scaling : {"count", "root", "none"}
    slope : float
        By how many σ a prediction moves when the score moves by its unit: 1, or another with a rating range.

    Returns
    -------
    Strengths
    """
    terms, exponent = bias_terms(ratings), _EXPONENTS[scaling]
    counts = np.diff(ratings.by_user.indptr), np.bincount(ratings.by_user.indices)
    of_users, of_items = (float(n @ n) / ratings.n_ratings for n in counts)
    noise = max(terms.noise / deviation_of(ratings), _LEAST_NOISE)
    of_all = math.log(ratings.n_users + ratings.n_items)
    of_noise = noise * (math.sqrt(of_users) + math.sqrt(of_items) + math.sqrt(of_all))
    return Strengths(
        _SHARE_OF_NOISE * of_noise * slope / (of_users * of_items) ** (exponent / 2),
        terms.strengths.user * slope**2 / of_users**exponent,
        terms.strengths.item * slope**2 / of_items**exponent,
    )
