"""Predictions on a GPU: errors over all ratings; a few pairs are predicted on the host before a device has begun."""

import numpy as np

from fastmf_kernels._cuda.memory import fetch, put, zeros
from fastmf_kernels._cuda.rows import make_group, padded_width, put_rows
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.als import cuda_held
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict import cpu
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.predict.cuda_measure import THREADS, make_measure


def predict_pairs(
    users: Int32Array, items: Int32Array, factors: Factors, link: Link, n_threads: int | None = None
) -> Float32Array:
    """Predict the rating of each pair, on the host; see the reference."""
    return cpu.predict_pairs(users, items, factors, link, n_threads)


def squared_error(rows: CSR, factors: Factors, link: Link, n_threads: int | None = None) -> float:
    """Return Σ (r - r̂)² over observed ratings; see the reference.

    Of a user in float32, and of all users in float64. Ratings that ALS does not hold on the device, because they do not
    fit, are predicted on the host.
    """
    if not cuda_held.is_held(rows):
        return cpu.squared_error(rows, factors, link, n_threads)
    held, width = cuda_held.held_rows(rows), padded_width(factors.user_factors.shape[1])
    n_rows, per_block = len(held.rows), THREADS // make_group(width).size
    tables = Factors(
        put_rows(factors.user_factors),
        put_rows(factors.item_factors),
        put(factors.user_biases),
        put(factors.item_biases),
        factors.global_mean,
    )
    errors = zeros(n_rows, np.float32)
    ratings = CSR(held.indptr, held.indices, held.values)
    make_measure(width)[-(-n_rows // per_block), THREADS](ratings, held.order, tables, link, errors)
    return float(fetch(errors).sum(dtype=np.float64))
