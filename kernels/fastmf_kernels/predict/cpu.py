"""Predictions on all cores; the contract is that of `fastmf_kernels.predict.reference`."""

import itertools

import numpy as np

from fastmf_kernels._jit import device, parallel, prange, threads
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.linalg.panels import dot_product
from fastmf_kernels.predict import point
from fastmf_kernels.predict.arrays import Factors, Link

# Up to here the calling thread is done before others would have started.
_FEW = 1024
_CHUNK = 1 << 20

_apply_link = device(point.apply_link)


def predict_pairs(
    users: Int32Array, items: Int32Array, factors: Factors, link: Link, n_threads: int | None = None
) -> Float32Array:
    """Predict the rating of each pair; see the reference."""
    if n_threads == 1 or len(users) <= _FEW:  # the pool of threads does not start
        return _predict_pairs.serial(users, items, factors, link)
    with threads(n_threads):
        return _predict_pairs(users, items, factors, link)


def squared_error(rows: CSR, factors: Factors, link: Link, n_threads: int | None = None) -> float:
    """Return Σ (r - r̂)² over observed ratings; see the reference. Predictions are in memory a chunk at a time."""
    indptr, indices, values = rows
    total, cuts = 0.0, np.unique(np.searchsorted(indptr, np.arange(0, len(indices), _CHUNK)))
    for first, last in itertools.pairwise([*cuts, len(indptr) - 1]):
        entries = slice(indptr[first], indptr[last])
        users = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(indptr[first : last + 1]))
        r_hat = predict_pairs(users, indices[entries], factors, link, n_threads)
        total += float(((values[entries].astype(np.float64) - r_hat) ** 2).sum())
    return total


@parallel
def _predict_pairs(users: Int32Array, items: Int32Array, factors: Factors, link: Link) -> Float32Array:
    ratings, n_factors = np.empty(len(users), np.float32), factors.user_factors.shape[1]
    for j in prange(len(users)):
        user, item = users[j], items[j]
        score = factors.global_mean
        if user >= 0:
            score += factors.user_biases[user]
        if item >= 0:
            score += factors.item_biases[item]
        if user >= 0 and item >= 0:
            score += dot_product(
                factors.user_factors, user * n_factors, factors.item_factors, item * n_factors, n_factors
            )
        ratings[j] = _apply_link(score, link.low, link.span)
    return ratings
