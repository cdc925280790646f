"""SVD++ on all cores; the contract is that of `fastmf_kernels.svdpp.reference`.

Each part of a wave is cut into tasks that write to disjoint rows: its beginning by users, its ratings into strata of
blocks, and its end, where y_j moves, by items. The factors have the same bits for every number of threads.
"""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._jit import device, inlined, parallel, prange, threads
from fastmf_kernels._types import Float32Array, Float64Array, Index, Int32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.linalg.panels import WIDTH
from fastmf_kernels.linalg.rows import (
    Count,
    combine_rows,
    count,
    hold_row,
    inverse_roots,
    multiply_row,
    put_row,
)
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd import point
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.cpu.rows import (
    Rates,
    Tables,
    copy_back,
    descend,
    in_panels,
    make_rates,
    make_tables,
    predict,
    score_of,
    state_of,
    store_norm,
    store_user,
    take_item_norms,
)
from fastmf_kernels.sgd.schedule import Blocks, cut_by_count
from fastmf_kernels.svdpp.arrays import Implicit

_ONE = np.float32(1)
# Tasks that `add_implicit` is cut into, and the entries with which the calling thread is done before others start.
_PARTS, _FEW = 64, 1024

_damped_rate = device(point.damped_rate)


class ImplicitTables(NamedTuple):
    """`Implicit` for kernels, and scratch space for the users of a wave.

    Attributes
    ----------
    items : float32 array, shape (n_items, 16·n)
        y_j, padded to whole panels.
    accumulator : float32 array, shape (n_items,)
    rate, damping : float32
        γ_y and γ_y λ_y.
    sums, gradients : float32 arrays, shape (users of the longest wave, 16·n)
        z_u and g_u.
    """

    items: Float32Array
    accumulator: Float32Array
    rate: np.float32
    damping: np.float32
    sums: Float32Array
    gradients: Float32Array


def run_epoch(
    by_user: CSR,
    blocks: Blocks,
    waves: Int32Array,
    factors: Factors,
    implicit: Implicit,
    link: Link,
    step: Step,
    rows: RowSteps,
    n_threads: int | None = None,
) -> float:
    """Take one gradient step for every rating, wave by wave; see the reference."""
    tables, items = make_tables(factors, rows), in_panels(implicit.item_factors)
    longest = int(np.diff(blocks.row_cuts[:: waves.shape[2]]).max())
    room = (in_panels(np.zeros((longest, items.shape[1]), np.float32)) for _ in range(2))
    rate = implicit.share * step.learning_rate
    implicit_tables = ImplicitTables(items, implicit.item_accumulator, rate, rate * implicit.regularization, *room)
    rates = make_rates(step, factors.user_factors.shape[1])
    squared_errors = np.zeros(waves.shape[:3], np.float64)
    with threads(n_threads):
        _run_epoch(by_user, blocks, waves, tables, implicit_tables, link, rates, squared_errors)
    copy_back(tables, factors, rows)
    if items is not implicit.item_factors:
        implicit.item_factors[:] = items[:, : implicit.item_factors.shape[1]]
    return float(squared_errors.sum())


def add_implicit(
    by_user: CSR,
    user_factors: Float32Array,
    item_factors: Float32Array,
    whole: Float32Array,
    n_threads: int | None = None,
) -> None:
    """Add z_u to p_u for every user; see the reference."""
    users, items = in_panels(user_factors), in_panels(item_factors)
    filled = in_panels(whole)
    cuts = cut_by_count(np.diff(by_user.indptr), _PARTS)
    panels = count(items.shape[1] // WIDTH)
    if len(by_user.indices) <= _FEW:
        _add_implicit.serial(by_user, cuts, users, items, filled, panels)
    else:
        with threads(n_threads):
            _add_implicit(by_user, cuts, users, items, filled, panels)
    if filled is not whole:
        whole[:] = filled[:, : whole.shape[1]]


@parallel
def _add_implicit(
    by_user: CSR, cuts: Int64Array, users: Float32Array, items: Float32Array, whole: Float32Array, panels: Count
) -> None:
    for part in prange(len(cuts) - 1):
        for user in range(np.uint64(cuts[part]), np.uint64(cuts[part + 1])):
            place = user * np.uint64(items.shape[1])
            put_row(_add_sum(hold_row(users, place, panels), by_user, user, items, panels), whole, place)


@inlined
def _add_sum(row: Float32Array, by_user: CSR, user: Index, items: Float32Array, panels: Count) -> Float32Array:
    """Add z_u to a row in registers."""
    start, stop = np.uint64(by_user.indptr[user]), np.uint64(by_user.indptr[user + np.uint64(1)])
    weight = _weight_of(start, stop)
    for j in range(start, stop):
        place = np.uint64(by_user.indices[j]) * np.uint64(items.shape[1])
        row = combine_rows(row, hold_row(items, place, panels), _ONE, weight)
    return row


@inlined
def _weight_of(start: Index, stop: Index) -> np.float32:
    """Return |N(u)|^-½, or 1 for a user who has rated nothing."""
    n_rated = np.float32(max(stop - start, np.uint64(1)))
    return inverse_roots(n_rated, n_rated)[0]


@parallel
def _run_epoch(
    by_user: CSR,
    blocks: Blocks,
    waves: Int32Array,
    tables: Tables,
    implicit: ImplicitTables,
    link: Link,
    rates: Rates,
    squared_errors: Float64Array,
) -> None:
    """Run every wave; fills the squared error of each of its tasks, shape (n_waves, n_strata, n_tasks)."""
    n_waves, n_strata, n_tasks, _ = waves.shape
    for w in range(n_waves):
        first_row = waves[w, 0, 0, 0] // (n_tasks * n_tasks) * n_tasks
        first_user = np.uint64(blocks.row_cuts[first_row])
        for t in prange(n_tasks):
            take_item_norms(tables, blocks.column_cuts[t], blocks.column_cuts[t + 1])
            _begin_users(by_user, blocks, first_row + np.int64(t), first_user, tables, implicit)
        for s in range(n_strata):
            for t in prange(n_tasks):
                squared_errors[w, s, t] = _walk_block(
                    blocks, waves[w, s, t, 0], first_user, tables, implicit, link, rates
                )
        for t in prange(n_tasks):
            for row in range(first_row, first_row + n_tasks):
                _move_items(by_user, blocks, row * n_tasks + np.int64(t), first_user, tables, implicit, rates)


@device
def _begin_users(
    by_user: CSR, blocks: Blocks, row: int, first_user: np.uint64, tables: Tables, implicit: ImplicitTables
) -> None:
    """Find z_u, and ‖p_u + z_u‖² of the users of a row of blocks, and set g_u to 0."""
    width = np.uint64(tables.user_factors.shape[1])
    for user in range(np.uint64(blocks.row_cuts[row]), np.uint64(blocks.row_cuts[row + 1])):
        in_wave, place = user - first_user, user * width
        implicit.gradients[in_wave] = np.float32(0)
        zeros = hold_row(implicit.gradients, in_wave * width, tables.panels)
        total = _add_sum(zeros, by_user, user, implicit.items, tables.panels)
        put_row(total, implicit.sums, in_wave * width)
        whole = combine_rows(hold_row(tables.user_factors, place, tables.panels), total, _ONE, _ONE)
        norm = multiply_row(whole, tables.user_factors, place) + multiply_row(whole, implicit.sums, in_wave * width)
        store_norm(norm, tables.users, user)


@device
def _walk_block(
    blocks: Blocks,
    block: int,
    first_user: np.uint64,
    tables: Tables,
    implicit: ImplicitTables,
    link: Link,
    rates: Rates,
) -> float:
    squared_error = np.float64(0)
    width = np.uint64(tables.item_factors.shape[1])
    j, stop = np.uint64(blocks.offsets[block]), np.uint64(blocks.offsets[block + 1])
    while j < stop:
        user = np.uint64(blocks.users[j])
        in_wave = (user - first_user) * width
        row, state = hold_row(tables.user_factors, user * width, tables.panels), state_of(tables.users, user)
        total = hold_row(implicit.sums, in_wave, tables.panels)
        gradient = hold_row(implicit.gradients, in_wave, tables.panels)
        while j < stop and np.uint64(blocks.users[j]) == user:
            item = np.uint64(blocks.items[j])
            item_state = state_of(tables.items, item)
            whole = combine_rows(row, total, _ONE, _ONE)
            dot = multiply_row(whole, tables.item_factors, item * width)
            prediction, slope = predict(score_of(dot, tables, state, item_state), link)
            error = blocks.ratings[j] - prediction
            squared_error += np.float64(error) * np.float64(error)
            before = hold_row(tables.item_factors, item * width, tables.panels)
            gradient = combine_rows(gradient, before, _ONE, error * slope)
            row, state = descend(row, whole, state, tables, rates, item, item_state, error * slope)
            j += np.uint64(1)
        put_row(gradient, implicit.gradients, in_wave)
        store_user(row, state, tables, user)
    return squared_error


@device
def _move_items(
    by_user: CSR,
    blocks: Blocks,
    block: int,
    first_user: np.uint64,
    tables: Tables,
    implicit: ImplicitTables,
    rates: Rates,
) -> None:
    """Take the steps of y_j for every rating of a block."""
    width = np.uint64(tables.item_factors.shape[1])
    j, stop = np.uint64(blocks.offsets[block]), np.uint64(blocks.offsets[block + 1])
    while j < stop:
        user = np.uint64(blocks.users[j])
        in_wave = (user - first_user) * width
        gradient = hold_row(implicit.gradients, in_wave, tables.panels)
        norm = multiply_row(gradient, implicit.gradients, in_wave)
        weight = _weight_of(np.uint64(by_user.indptr[user]), np.uint64(by_user.indptr[user + np.uint64(1)]))
        square = rates.accumulator_weight * (weight * weight * norm)
        while j < stop and np.uint64(blocks.users[j]) == user:
            item = np.uint64(blocks.items[j])
            damping = implicit.damping * state_of(tables.items, item).scale
            keep, damped = _damped_rate(implicit.accumulator[item], implicit.rate, damping)
            y = hold_row(implicit.items, item * width, tables.panels)
            put_row(combine_rows(y, gradient, keep, damped * weight), implicit.items, item * width)
            implicit.accumulator[item] += square
            j += np.uint64(1)
