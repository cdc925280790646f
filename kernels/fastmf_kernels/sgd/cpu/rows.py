"""The rows that a gradient step moves: their layout for kernels, the prediction, and the step itself."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._jit import device, inlined
from fastmf_kernels._memory import begins_a_cache_line, in_huge_pages
from fastmf_kernels._types import Float32Array, Index
from fastmf_kernels.linalg.panels import WIDTH
from fastmf_kernels.linalg.rows import (
    Count,
    count,
    exponential,
    hold_row,
    move_row,
    multiply_row,
    put_row,
)
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd import point
from fastmf_kernels.sgd.arrays import RowSteps, Step
from fastmf_kernels.sgd.cpu.step_sizes import step_sizes

# Columns of `Tables.users` and `Tables.items`.
_BIAS, _ACCUMULATOR, _SCALE, _NORM = range(4)

_ONE = np.float32(1)
_slope = device(point.slope)


class Tables(NamedTuple):
    """Factors and `RowSteps` as kernels see them.

    Attributes
    ----------
    user_factors, item_factors : float32 arrays, shape (n_users, 16·n) and (n_items, 16·n)
        Rows padded with zeros to whole panels of 16 numbers.
    users, items : float32 arrays, shape (n_users, 4) and (n_items, 4)
        The `State` of each row.
    global_mean : float32
    panels : Count
        Number of panels of a row.
    """

    user_factors: Float32Array
    item_factors: Float32Array
    users: Float32Array
    items: Float32Array
    global_mean: np.float32
    panels: Count


class State(NamedTuple):
    """A row's numbers besides its factors: b, G, the factor on its regularisation, and ‖p‖².

    The norm is taken when the row's block or wave begins; it changes little until the end.
    """

    bias: np.float32
    accumulator: np.float32
    scale: np.float32
    norm: np.float32


class Rates(NamedTuple):
    """A `Step` as kernels take it.

    Attributes
    ----------
    rates : float32 array, shape (16,)
        As `step_sizes` takes them.
    accumulator_weight : float32
        G of a row grows by this times e²‖q‖².
    """

    rates: Float32Array
    accumulator_weight: np.float32


class Sizes(NamedTuple):
    """Step sizes of a row and its bias, as `point.damped_rate` returns them: 1 - ηλ and η of each."""

    keep: np.float32
    rate: np.float32
    keep_bias: np.float32
    bias_rate: np.float32


def make_tables(factors: Factors, rows: RowSteps) -> Tables:
    """Lay factors and steps out for kernels; factors that `in_panels` need not copy are changed in place."""
    user_factors, item_factors = in_panels(factors.user_factors), in_panels(factors.item_factors)
    return Tables(
        user_factors,
        item_factors,
        _states(factors.user_biases, rows.user_accumulator, rows.user_scales),
        _states(factors.item_biases, rows.item_accumulator, rows.item_scales),
        factors.global_mean,
        count(user_factors.shape[1] // WIDTH),
    )


def copy_back(tables: Tables, factors: Factors, rows: RowSteps) -> None:
    """Copy tables that kernels have changed to the arrays that they were made of."""
    for table, array in ((tables.user_factors, factors.user_factors), (tables.item_factors, factors.item_factors)):
        if table is not array:
            array[:] = table[:, : array.shape[1]]
    factors.user_biases[:], factors.item_biases[:] = tables.users[:, _BIAS], tables.items[:, _BIAS]
    rows.user_accumulator[:], rows.item_accumulator[:] = tables.users[:, _ACCUMULATOR], tables.items[:, _ACCUMULATOR]


def in_panels(array: Float32Array) -> Float32Array:
    """Return a table padded to whole panels: itself if it is so, writable and begins a cache line, or else a copy."""
    missing = -array.shape[1] % WIDTH
    if not missing and begins_a_cache_line(array) and array.flags.writeable:
        return array
    return in_huge_pages(array, array.shape[1] + missing)


def _states(biases: Float32Array, accumulator: Float32Array, scales: Float32Array) -> Float32Array:
    states = np.zeros((len(biases), len(State._fields)), np.float32)
    states[:, _BIAS], states[:, _ACCUMULATOR], states[:, _SCALE] = biases, accumulator, scales
    return states


@inlined
def state_of(states: Float32Array, row: Index) -> State:
    """Load the state of a row."""
    return State(states[row, _BIAS], states[row, _ACCUMULATOR], states[row, _SCALE], states[row, _NORM])


@inlined
def store_state(state: State, states: Float32Array, row: Index) -> None:
    """Store the bias and accumulator of a row; its scale and norm stay."""
    states[row, _BIAS], states[row, _ACCUMULATOR] = state.bias, state.accumulator


@inlined
def store_norm(norm: np.float32, states: Float32Array, row: Index) -> None:
    """Store the norm of a row."""
    states[row, _NORM] = norm


@inlined
def load_user(tables: Tables, user: Index) -> tuple[Float32Array, State]:
    """Take a user's row and state into registers."""
    start = user * np.uint64(tables.user_factors.shape[1])
    row = hold_row(tables.user_factors, start, tables.panels)
    state = state_of(tables.users, user)
    return row, State(state.bias, state.accumulator, state.scale, multiply_row(row, tables.user_factors, start))


@inlined
def store_user(row: Float32Array, state: State, tables: Tables, user: Index) -> None:
    """Store a user's row and state."""
    put_row(row, tables.user_factors, user * np.uint64(tables.user_factors.shape[1]))
    store_state(state, tables.users, user)


@device
def take_item_norms(tables: Tables, first: int, last: int) -> None:
    """Store ‖q‖² of a range of items, as `State.norm` has it."""
    width = np.uint64(tables.item_factors.shape[1])
    for item in range(np.uint64(first), np.uint64(last)):
        row = hold_row(tables.item_factors, item * width, tables.panels)
        store_norm(multiply_row(row, tables.item_factors, item * width), tables.items, item)


def make_rates(step: Step, n_factors: int) -> Rates:
    """Lay a step out for kernels."""
    rates = np.zeros((4, 4), np.float32)
    rates[0, :2], rates[1, :2] = step.learning_rate, step.bias_learning_rate
    rates[2, :2] = step.user_regularization, step.item_regularization
    rates[3, :2] = step.user_bias_regularization, step.item_bias_regularization
    rates[2:] *= rates[:2]
    return Rates(rates.ravel(), np.float32(step.adaptive / n_factors))


@inlined
def predict(score: np.float32, link: Link) -> tuple[np.float32, np.float32]:
    """Return r̂ and dr̂/ds."""
    if link.span == 0:
        return score, np.float32(1)
    sigmoid = np.float32(1) / (np.float32(1) + exponential(-score))
    return link.low + link.span * sigmoid, _slope(sigmoid, link.span)


@inlined
def score_of(dot: np.float32, tables: Tables, user: State, item: State) -> np.float32:
    """Return μ + b_u + b_i + p·q."""
    return dot + (tables.global_mean + user.bias + item.bias)


@inlined
def descend(
    row: Float32Array,
    source: Float32Array,
    user: State,
    tables: Tables,
    rates: Rates,
    item: Index,
    item_state: State,
    error: np.float32,
) -> tuple[Float32Array, State]:
    """Move a user in registers and an item one step; ``error`` is e as in `fastmf_kernels.sgd.point`.

    The item moves along ``source``, the vector that it was multiplied with: p, or p + z in SVD++.
    Returns the user's row and state; the item's are stored.
    """
    of_user, of_item = _sizes(user, item_state, rates)
    add_to_user, add_to_item = of_user.rate * error, of_item.rate * error
    start = item * np.uint64(tables.item_factors.shape[1])
    row = move_row(row, source, tables.item_factors, start, of_user.keep, add_to_user, of_item.keep, add_to_item)
    store_state(_moved(item_state, of_item, rates, user.norm, error), tables.items, item)
    return row, _moved(user, of_user, rates, item_state.norm, error)


@inlined
def descend_pair(
    row: Float32Array,
    user: State,
    tables: Tables,
    rates: Rates,
    items: tuple[Index, Index],
    states: tuple[State, State],
    error: np.float32,
) -> tuple[Float32Array, State]:
    """Move a user in registers and two items one step; ``error`` is e as in `fastmf_kernels.negative_sampling.point`.

    The step raises the score of the first item and lowers that of the second. A user's bias, which is in both scores,
    stays.
    """
    of_user, of_first = _sizes(user, states[0], rates)
    _, of_second = _sizes(user, states[1], rates)
    width, add_to_user = np.uint64(tables.item_factors.shape[1]), of_user.rate * error
    table, starts = tables.item_factors, (items[0] * width, items[1] * width)
    moved = move_row(row, row, table, starts[0], of_user.keep, add_to_user, of_first.keep, of_first.rate * error)
    moved = move_row(moved, row, table, starts[1], _ONE, -add_to_user, of_second.keep, -of_second.rate * error)
    store_state(_moved(states[0], of_first, rates, user.norm, error), tables.items, items[0])
    store_state(_moved(states[1], of_second, rates, user.norm, -error), tables.items, items[1])
    grown = _moved(user, of_user, rates, states[0].norm + states[1].norm, error).accumulator
    return moved, State(user.bias, grown, user.scale, user.norm)


@inlined
def _sizes(user: State, item: State, rates: Rates) -> tuple[Sizes, Sizes]:
    """Return the step sizes of a user and an item."""
    keep_user, keep_item, keep_user_bias, keep_item_bias, user_rate, item_rate, user_bias_rate, item_bias_rate = (
        step_sizes(user.accumulator, item.accumulator, user.scale, item.scale, rates.rates)
    )
    return (
        Sizes(keep_user, user_rate, keep_user_bias, user_bias_rate),
        Sizes(keep_item, item_rate, keep_item_bias, item_bias_rate),
    )


@inlined
def _moved(own: State, sizes: Sizes, rates: Rates, other_norm: np.float32, error: np.float32) -> State:
    """Return a state after a step."""
    grown = own.accumulator + (rates.accumulator_weight * other_norm) * (error * error)
    return State(sizes.keep_bias * own.bias + sizes.bias_rate * error, grown, own.scale, own.norm)
