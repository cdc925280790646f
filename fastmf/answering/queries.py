"""From factors to queries, whose products with items order them, and from scores back to predictions."""

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf_kernels._types import Float32Array


def as_queries(fitted: Fitted, user_factors: Float32Array) -> Float32Array:
    """Return rows whose products with `Fitted.items_with_biases` order the items: [p, 1], or p without biases.

    Parameters
    ----------
    fitted : Fitted
    user_factors : float32 array, shape (n, n_factors)
    """
    if fitted.items_with_biases.shape[1] == user_factors.shape[1]:
        return user_factors
    queries = np.ones((len(user_factors), user_factors.shape[1] + 1), np.float32)
    queries[:, :-1] = user_factors
    return queries


def as_predictions(fitted: Fitted, user_biases: Float32Array, scores: Float32Array) -> Float32Array:
    """Turn scores [p, 1]·[q, b_i] into predictions: adds μ and b_u, and applies the link; -inf stays.

    Parameters
    ----------
    fitted : Fitted
    user_biases : float32 array, shape (n,)
    scores : float32 array, shape (n, k)
    """
    link = fitted.link
    predictions = scores + (fitted.factors.global_mean + user_biases)[:, None]
    if link.span != 0:
        predictions = link.low + link.span / (1 + np.exp(-predictions, dtype=np.float32))
    return np.where(scores == -np.inf, scores, predictions).astype(np.float32)
