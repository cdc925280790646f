"""Vectors of length 1 of all items, whose products say how similar items are."""

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.errors import ParameterError, named
from fastmf_kernels._types import Float32Array
from fastmf_kernels.rerank.arrays import Directions, no_directions


def directions_of_factors(fitted: Fitted | None) -> Directions:
    """Return the item factors, scaled to length 1: their products are cosines. Factors of 0 stay 0.

    Raises
    ------
    ParameterError
        If there are no factors.
    """
    if fitted is None:
        raise ParameterError(
            f"{named('diversify')} compares items by their factors; expected the {named('model')} that the "
            "recommendations are from"
        )
    if fitted.factors.item_factors.shape[1] == 0:
        raise ParameterError(
            f"{named('diversify')} compares items by their factors, and this model has none; expected a model of "
            "factors"
        )
    return no_directions(fitted.n_items)._replace(
        dense=fitted.kept(("lengths of item factors are 1",), lambda: _of_length_1(fitted.factors.item_factors))
    )


def _of_length_1(factors: Float32Array) -> Float32Array:
    # Squares of large factors are beyond float32.
    norms = np.sqrt(np.einsum("nf,nf->n", factors, factors, dtype=np.float64))[:, np.newaxis]
    scaled = np.divide(factors, norms, out=np.zeros(factors.shape), where=norms > 0)
    return np.asarray(scaled, np.float32)
