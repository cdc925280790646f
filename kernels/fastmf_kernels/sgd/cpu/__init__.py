"""SGD on all cores; the contract is that of `fastmf_kernels.sgd.reference`.

The blocks of a stratum run side by side and walk their ratings in a fixed order, so the factors have the same bits
for every number of threads.
"""

import numpy as np

from fastmf_kernels._jit import device, parallel, prange, threads
from fastmf_kernels._types import Float64Array, Int32Array
from fastmf_kernels.linalg.rows import multiply_row
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.cpu.rows import (
    Rates,
    Tables,
    copy_back,
    descend,
    load_user,
    make_rates,
    make_tables,
    predict,
    score_of,
    state_of,
    store_user,
    take_item_norms,
)
from fastmf_kernels.sgd.reference import make_grid, to_device, to_host
from fastmf_kernels.sgd.schedule import Blocks

__all__ = ["make_grid", "run_epoch", "to_device", "to_host"]


def run_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    link: Link,
    step: Step,
    rows: RowSteps,
    n_threads: int | None = None,
) -> float:
    """Take one gradient step for every rating; see the reference."""
    tables, rates = make_tables(factors, rows), make_rates(step, factors.user_factors.shape[1])
    squared_errors = np.zeros(strata.shape[:2], np.float64)
    with threads(n_threads):
        _run_epoch(blocks, strata, tables, link, rates, squared_errors)
    copy_back(tables, factors, rows)
    return float(squared_errors.sum())


@parallel
def _run_epoch(
    blocks: Blocks, strata: Int32Array, tables: Tables, link: Link, rates: Rates, squared_errors: Float64Array
) -> None:
    """Run every stratum; fills the squared error of each of its tasks, shape (n_strata, n_tasks)."""
    n_strata, n_tasks, width = strata.shape
    for s in range(n_strata):
        for t in prange(n_tasks):
            for w in range(width):
                squared_errors[s, t] += _walk_block(blocks, strata[s, t, w], tables, link, rates)


@device
def _walk_block(blocks: Blocks, block: int, tables: Tables, link: Link, rates: Rates) -> float:
    squared_error = np.float64(0)
    width = np.uint64(tables.item_factors.shape[1])
    column = block % (len(blocks.column_cuts) - 1)
    take_item_norms(tables, blocks.column_cuts[column], blocks.column_cuts[column + 1])
    # Unsigned indices spare each access Numba's test for negative ones.
    j, stop = np.uint64(blocks.offsets[block]), np.uint64(blocks.offsets[block + 1])
    while j < stop:
        user = np.uint64(blocks.users[j])
        row, state = load_user(tables, user)
        while j < stop and np.uint64(blocks.users[j]) == user:
            item = np.uint64(blocks.items[j])
            item_state = state_of(tables.items, item)
            dot = multiply_row(row, tables.item_factors, item * width)
            prediction, slope = predict(score_of(dot, tables, state, item_state), link)
            error = blocks.ratings[j] - prediction
            squared_error += np.float64(error) * np.float64(error)
            row, state = descend(row, row, state, tables, rates, item, item_state, error * slope)
            j += np.uint64(1)
        store_user(row, state, tables, user)
    return squared_error
