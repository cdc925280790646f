"""Predictions on a GPU: errors over all ratings; a few pairs are predicted on the host before a device has begun."""

from typing import Any

import numpy as np

from fastmf_kernels._cuda import observed
from fastmf_kernels._cuda.memory import DeviceArray, fetch, is_on_device, put, zeros
from fastmf_kernels._cuda.rows import DeviceTable, fetch_table, make_group, padded_width, put_rows
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict import cpu
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.predict.cuda.measure import THREADS, make_measure


def predict_pairs(
    users: Int32Array, items: Int32Array, factors: Factors, link: Link, n_threads: int | None = None
) -> Float32Array:
    """Predict the rating of each pair, on the host; see the reference."""
    return cpu.predict_pairs(users, items, factors, link, n_threads)


def squared_error(rows: CSR, factors: Factors, link: Link, n_threads: int | None = None) -> float:
    """Return Σ (r - r̂)² over observed ratings; see the reference.

    Of a user in float32, and of all users in float64. Factors may be tables on the device, both or none of them.
    Ratings that ALS does not hold on the device, because they do not fit, are predicted on the host.
    """
    if not observed.are_on_device(rows):
        at_home = Factors(*(_on_host(term) for term in factors))
        return cpu.squared_error(rows, at_home, link, n_threads)
    users, held = factors.user_factors, observed.rows_on_device(rows)
    width = users.width if isinstance(users, DeviceTable) else padded_width(users.shape[1])
    n_rows, per_block = len(held.rows), THREADS // make_group(width).size
    tables = Factors(
        _on_device(users),
        _on_device(factors.item_factors),
        put(factors.user_biases),
        put(factors.item_biases),
        factors.global_mean,
    )
    errors = zeros(n_rows, np.float32)
    ratings = CSR(held.indptr, held.indices, held.values)
    make_measure(width)[-(-n_rows // per_block), THREADS](ratings, held.order, tables, link, errors)
    return float(fetch(errors).sum(dtype=np.float64))


def _on_device(table: Any) -> DeviceArray:
    return table.numbers if isinstance(table, DeviceTable) else put_rows(table)


def _on_host(term: Any) -> Any:
    if isinstance(term, DeviceTable):
        return fetch_table(term)
    return fetch(term) if is_on_device(term) else term
