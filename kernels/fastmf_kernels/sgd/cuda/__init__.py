"""SGD on a GPU; the contract is that of `fastmf_kernels.sgd.reference`, but for ratings of one item that meet.

A group of 2 to 32 threads walks the ratings of one user in a block, with the user's row in registers. The blocks of a
stratum share no row, so the user is the group's own. Rows of items are not: groups add what they have to add to them
atomically, so that no step is lost, but each starts from the row as it was a moment ago ("Hogwild", Recht, Re, Wright,
Niu, NIPS 2011; on GPUs Xie, Tan, Fong, Liang, "CuMF_SGD", HPDC 2017, whose ratings come in any order).
"""

from functools import partial

import numpy as np

from fastmf_kernels._cuda.jit import vector_atomics
from fastmf_kernels._cuda.memory import DeviceArray, fetch, free_bytes, put, require_room, zeros
from fastmf_kernels._cuda.rows import fetch_rows, make_group, padded_width, put_rows
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd import schedule
from fastmf_kernels.sgd.arrays import RowSteps, Step, TrainingState
from fastmf_kernels.sgd.cuda.runs import BYTES_OF_A_RATING, BYTES_OF_A_RUN, Walk, make_walk, take_stratum
from fastmf_kernels.sgd.cuda.walk import STATE, THREADS, Runs, Tables, make_begin, make_steps
from fastmf_kernels.sgd.schedule import Blocks, Grid

# From so many users on, one block serves: a large GPU (132 multiprocessors of 128 groups of threads) walks the ratings
# of only a quarter of them at the same time.
_MANY_USERS = 1 << 16


def run_epoch(
    blocks: Blocks,
    strata: Int32Array,
    factors: Factors,
    link: Link,
    step: Step,
    rows: RowSteps,
    n_threads: int | None = None,
) -> float:
    """Take one gradient step for every rating; see the reference. A state from `to_device` stays there."""
    state = TrainingState(blocks, factors, rows)
    if isinstance(state.blocks, Walk):
        return _run_epoch(state.blocks, strata, state.factors, link, step)
    state = to_device(blocks, factors, rows)
    squared_error = _run_epoch(state.blocks, strata, state.factors, link, step)
    to_host(state, factors, rows)
    return squared_error


def make_grid(n_users: int, n_items: int, n_ratings: int, width: int = 1) -> Grid:
    """Choose the grid for a table: a single block, unless there are few users, or too many ratings for the memory.

    Each stratum waits for the longest run of the one before. Where there are few users, nearly all of them would be
    under way at the same time, and each would take its steps from rows that the others are about to change.
    """
    fits = BYTES_OF_A_RATING * n_ratings + BYTES_OF_A_RUN * n_users < free_bytes() // 2
    return Grid(1) if fits and n_users >= _MANY_USERS else schedule.make_grid(n_users, n_items, n_ratings, width)


def to_device(blocks: Blocks, factors: Factors, rows: RowSteps, factor_dtype: str = "float32") -> TrainingState:
    """Move the training state to the device; see the reference."""
    users, items = factors.user_factors.shape, factors.item_factors.shape
    of_a_row = padded_width(users[1]) * np.dtype(factor_dtype).itemsize + STATE * 4
    require_room((users[0] + items[0]) * of_a_row, "factors")
    tables = Tables(
        put_rows(factors.user_factors, factor_dtype),
        put_rows(factors.item_factors, factor_dtype),
        _put_states(factors.user_biases, rows.user_accumulator, rows.user_scales),
        _put_states(factors.item_biases, rows.item_accumulator, rows.item_scales),
        factors.global_mean,
        np.float32(1 / factors.user_factors.shape[1]),
    )
    return TrainingState(make_walk(blocks), tables, rows)


def to_host(state: TrainingState, factors: Factors, rows: RowSteps) -> None:
    """Write what epochs have changed back to the host; see the reference."""
    tables: Tables = state.factors
    fetch_rows(tables.user_factors, factors.user_factors)
    fetch_rows(tables.item_factors, factors.item_factors)
    for states, biases, accumulator in (
        (tables.users, factors.user_biases, rows.user_accumulator),
        (tables.items, factors.item_biases, rows.item_accumulator),
    ):
        biases[:], accumulator[:] = fetch(states).reshape(-1, STATE).T[:2]


def _put_states(biases: Float32Array, accumulator: Float32Array, scales: Float32Array) -> DeviceArray:
    return put(np.stack([biases, accumulator, scales, np.zeros_like(biases)], axis=1).ravel())


def _run_epoch(walk: Walk, strata: Int32Array, tables: Tables, link: Link, step: Step) -> float:
    launch = partial(_launch, tables, link, step)
    errors = zeros(len(walk.runs.users), np.float32) if walk.is_on_device else None
    squared_error = 0.0
    # The blocks of a task follow one another; those of different tasks run side by side.
    for stratum in strata.swapaxes(-1, -2).reshape(-1, strata.shape[-2]):
        most_runs = int((walk.runs_before[stratum + 1] - walk.runs_before[stratum]).max())
        if most_runs == 0:
            continue
        most_runs = min(most_runs, -(-walk.most_at_once // len(stratum)))
        if errors is not None:
            launch(walk.runs, stratum, most_runs, errors)
        else:
            runs = take_stratum(walk, stratum)
            of_stratum = zeros(len(runs.users), np.float32)
            launch(runs, np.arange(len(stratum), dtype=np.int32), most_runs, of_stratum)
            squared_error += float(fetch(of_stratum).sum(dtype=np.float64))
    return squared_error if errors is None else float(fetch(errors).sum(dtype=np.float64))


def _launch(
    tables: Tables, link: Link, step: Step, runs: Runs, blocks: Int32Array, most_runs: int, errors: DeviceArray
) -> None:
    n_items = len(tables.items) // STATE
    width = len(tables.item_factors) // n_items
    groups = THREADS // make_group(width).size
    in_halves = tables.item_factors.dtype == np.float16
    make_begin(width, in_halves)[-(-n_items // groups), THREADS](tables.item_factors, tables.items)
    grid = -(-most_runs // groups), len(blocks)
    make_steps(width, in_halves, vector_atomics())[grid, THREADS](runs, put(blocks), tables, link, step, errors)
