"""Ratings beside drawn items on all cores; the contract is that of `fastmf_kernels.negative_sampling.reference`.

A task has two columns of blocks. Items are drawn from both, mostly from the other one than the rating's own, so that
over an epoch every item not chosen is about as likely; and since columns are paired anew each epoch, all items come to
be compared with all.
"""

from collections.abc import Callable

import numpy as np

from fastmf_kernels._jit import device, inlined, parallel, prange, threads
from fastmf_kernels._types import Index, Int32Array, Int64Array
from fastmf_kernels.linalg.rows import exponential, multiply_row
from fastmf_kernels.negative_sampling import point
from fastmf_kernels.negative_sampling.arrays import TRIES, Ranked, Sampling
from fastmf_kernels.predict.arrays import Factors
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.cpu.rows import (
    Rates,
    Tables,
    copy_back,
    descend,
    descend_pair,
    load_user,
    make_rates,
    make_tables,
    score_of,
    state_of,
    store_user,
    take_item_norms,
)
from fastmf_kernels.sgd.schedule import Blocks

_TRIES = np.uint64(TRIES)
_ZERO, _ONE = np.float32(0), np.float32(1)
_Columns = tuple[np.int64, np.int64, np.int64, np.int64, float]
_hashed = device(point.hashed)
_share = device(point.share)


def run_bpr_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    step: Step,
    rows: RowSteps,
    sampling: Sampling,
    n_threads: int | None = None,
) -> Ranked:
    """Take one step for every rating and each item drawn beside it; see the reference."""
    return _run(_run_bpr_epoch, blocks, strata, factors, step, rows, sampling, n_threads)


def run_logistic_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    step: Step,
    rows: RowSteps,
    sampling: Sampling,
    n_threads: int | None = None,
) -> Ranked:
    """Take one step for every rating and one for each item drawn beside it; see the reference."""
    return _run(_run_logistic_epoch, blocks, strata, factors, step, rows, sampling, n_threads)


def _run(
    kernel: Callable[[Blocks, Int32Array, Tables, Rates, Sampling, Int64Array], None],
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    step: Step,
    rows: RowSteps,
    sampling: Sampling,
    n_threads: int | None,
) -> Ranked:
    tables, rates = make_tables(factors, rows), make_rates(step, factors.user_factors.shape[1])
    counts = np.zeros((*strata.shape[:2], len(Ranked._fields)), np.int64)
    with threads(n_threads):
        kernel(blocks, strata, tables, rates, sampling, counts)
    copy_back(tables, factors, rows)
    return Ranked(*counts.sum(axis=(0, 1)).tolist())


@parallel
def _run_bpr_epoch(
    blocks: Blocks, strata: Int32Array, tables: Tables, rates: Rates, sampling: Sampling, counts: Int64Array
) -> None:
    """Run every stratum; adds up what `Ranked` has for each of its tasks, shape (n_strata, n_tasks, 2)."""
    n_strata, n_tasks, width = strata.shape
    for s in range(n_strata):
        for t in prange(n_tasks):
            for w in range(width):
                _walk_bpr(blocks, strata[s, t, w], strata[s, t, width - 1 - w], tables, rates, sampling, counts[s, t])


@parallel
def _run_logistic_epoch(
    blocks: Blocks, strata: Int32Array, tables: Tables, rates: Rates, sampling: Sampling, counts: Int64Array
) -> None:
    """Run every stratum, as `_run_bpr_epoch`."""
    n_strata, n_tasks, width = strata.shape
    for s in range(n_strata):
        for t in prange(n_tasks):
            for w in range(width):
                _walk_logistic(
                    blocks, strata[s, t, w], strata[s, t, width - 1 - w], tables, rates, sampling, counts[s, t]
                )


@device
def _walk_bpr(
    blocks: Blocks, block: int, other_block: int, tables: Tables, rates: Rates, sampling: Sampling, counts: Int64Array
) -> None:
    width = np.uint64(tables.item_factors.shape[1])
    columns = _begin(blocks, block, other_block, tables)
    j, stop = np.uint64(blocks.offsets[block]), np.uint64(blocks.offsets[block + 1])
    while j < stop:
        user = np.uint64(blocks.users[j])
        row, state = load_user(tables, user)
        while j < stop and np.uint64(blocks.users[j]) == user:
            chosen = np.uint64(blocks.items[j])
            for n in range(np.uint64(sampling.n_negatives)):
                drawn = _draw(sampling, columns, user, j * np.uint64(sampling.n_negatives) + n)
                if drawn >= 0:
                    items = chosen, np.uint64(drawn)
                    states = state_of(tables.items, items[0]), state_of(tables.items, items[1])
                    difference = multiply_row(row, tables.item_factors, items[0] * width) - multiply_row(
                        row, tables.item_factors, items[1] * width
                    )
                    difference += states[0].bias - states[1].bias
                    error = _ONE / (_ONE + exponential(difference))
                    row, state = descend_pair(row, state, tables, rates, items, states, error)
                    counts[0] += 1
                    counts[1] += difference > 0
            j += np.uint64(1)
        store_user(row, state, tables, user)


@device
def _walk_logistic(
    blocks: Blocks, block: int, other_block: int, tables: Tables, rates: Rates, sampling: Sampling, counts: Int64Array
) -> None:
    width = np.uint64(tables.item_factors.shape[1])
    columns = _begin(blocks, block, other_block, tables)
    j, stop = np.uint64(blocks.offsets[block]), np.uint64(blocks.offsets[block + 1])
    while j < stop:
        user = np.uint64(blocks.users[j])
        row, state = load_user(tables, user)
        while j < stop and np.uint64(blocks.users[j]) == user:
            chosen_score = np.float32(0)
            for n in range(np.uint64(sampling.n_negatives + 1)):
                drawn = np.int64(blocks.items[j])
                if n > 0:
                    drawn = _draw(sampling, columns, user, j * np.uint64(sampling.n_negatives) + n - np.uint64(1))
                if drawn >= 0:
                    place = np.uint64(drawn)
                    item_state = state_of(tables.items, place)
                    dot = multiply_row(row, tables.item_factors, place * width)
                    score = score_of(dot, tables, state, item_state)
                    target = _ONE if n == 0 else _ZERO
                    error = target - _ONE / (_ONE + exponential(-score))
                    row, state = descend(row, row, state, tables, rates, place, item_state, error)
                    if n == 0:
                        chosen_score = score
                    else:
                        counts[0] += 1
                        counts[1] += chosen_score > score
            j += np.uint64(1)
        store_user(row, state, tables, user)


@inlined
def _begin(blocks: Blocks, block: int, other_block: int, tables: Tables) -> _Columns:
    """Take the norms of the items of both columns, and return the columns as `_draw` takes them."""
    n_columns = len(blocks.column_cuts) - 1
    own, other = block % n_columns, other_block % n_columns
    first, last = blocks.column_cuts[own], blocks.column_cuts[own + 1]
    other_first, other_last = blocks.column_cuts[other], blocks.column_cuts[other + 1]
    take_item_norms(tables, first, last)
    take_item_norms(tables, other_first, other_last)
    return first, last - first, other_first, other_last - other_first, np.float64(n_columns - 1)


@inlined
def _draw(sampling: Sampling, columns: _Columns, user: Index, place: Index) -> np.int64:
    """Draw an item that the user has not rated; -1 if none was found in so many tries."""
    first, n_own, other_first, n_other, n_others = columns
    start, stop = sampling.indptr[user], sampling.indptr[user + np.uint64(1)]
    for trial in range(_TRIES):
        random = _hashed(sampling.key, place * _TRIES + trial)
        # The other column stands for all others.
        position = _share(random) * (n_own + n_others * n_other)
        item = other_first + min(np.int64((position - n_own) / n_others), n_other - 1)
        if position < n_own:
            item = first + np.int64(position)
        low, high = start, stop
        while low < high:
            middle = (low + high) // 2
            if sampling.indices[middle] < item:
                low = middle + 1
            else:
                high = middle
        if low == stop or sampling.indices[low] != item:
            return item
    return np.int64(-1)
