"""NumPy reference of the prediction: the specification of `fastmf_kernels.predict.cpu`."""

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link


def predict_pairs(
    users: Int32Array, items: Int32Array, factors: Factors, link: Link, n_threads: int | None = None
) -> Float32Array:
    """Predict the rating of each pair.

    Parameters
    ----------
    users, items : int32 arrays, shape (n,)
        Rows of the factor matrices; -1 stands for somebody unknown, whose bias and factors count as 0.
    factors : Factors
    link : Link
    n_threads : int, optional
        Not used here.

    Returns
    -------
    float32 array, shape (n,)
    """
    known_user, known_item = users >= 0, items >= 0
    p = np.where(known_user[:, None], factors.user_factors[users], 0).astype(np.float64)
    q = np.where(known_item[:, None], factors.item_factors[items], 0).astype(np.float64)
    score = factors.global_mean + np.einsum("nf,nf->n", p, q)
    score += np.where(known_user, factors.user_biases[users], 0) + np.where(known_item, factors.item_biases[items], 0)
    if link.span != 0:
        score = link.low + link.span * np.exp(-np.logaddexp(0, -score))
    return np.asarray(score, np.float32)


def squared_error(rows: CSR, factors: Factors, link: Link, n_threads: int | None = None) -> float:
    """Return Σ (r - r̂)² over observed ratings, summed in float64.

    Parameters
    ----------
    rows : CSR
        The ratings r of each user.
    factors : Factors
    link : Link
    n_threads : int, optional
        Not used here.
    """
    r_hat = predict_pairs(rows.row_of_each_entry(), rows.indices, factors, link)
    return float(((rows.values.astype(np.float64) - r_hat) ** 2).sum())
