"""What predictions are made of."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array


class Factors(NamedTuple):
    """The terms of r̂ = link(μ + b_u + b_i + p·q).

    Attributes
    ----------
    user_factors : float32 array, shape (n_users, n_factors), C order
    item_factors : float32 array, shape (n_items, n_factors), C order
    user_biases : float32 array, shape (n_users,)
    item_biases : float32 array, shape (n_items,)
    global_mean : float32
        μ. Models without biases have zeros here and in both bias arrays.
    """

    user_factors: Float32Array
    item_factors: Float32Array
    user_biases: Float32Array
    item_biases: Float32Array
    global_mean: np.float32


class Link(NamedTuple):
    """How a linear score becomes a rating: r̂ = low + span·sigmoid(score), or r̂ = score where ``span`` is 0.

    Attributes
    ----------
    low : float32
        Smallest rating possible.
    span : float32
        Largest minus smallest rating; 0 switches the sigmoid off.
    """

    low: np.float32
    span: np.float32


def make_link(rating_range: tuple[float, float] | None) -> Link:
    """Build the link of a ``rating_range``: (low, high), or None for the identity."""
    if rating_range is None:
        return Link(np.float32(0), np.float32(0))
    low, high = rating_range
    return Link(np.float32(low), np.float32(high - low))
