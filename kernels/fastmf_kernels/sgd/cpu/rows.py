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
    inverse_roots,
    move_row,
    multiply_row,
    put_row,
)
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd import point
from fastmf_kernels.sgd.arrays import RowSteps, Step

# Columns of `Tables.users` and `Tables.items`.
_BIAS, _ACCUMULATOR, _SCALE, _NORM = range(4)

_ONE = np.float32(1)
_slope = device(point.slope)
_move, _weights = device(point.move), device(point.weights)


class Tables(NamedTuple):
    """Factors and `RowSteps` as kernels see them.

    Attributes
    ----------
    user_factors, item_factors : float32 arrays, shape (n_users, 16·n) and (n_items, 16·n)
        Rows padded with zeros to whole panels of 16 numbers.
    users, items : float32 arrays, shape (n_users, 4) and (n_items, 4)
        The `State` of each row.
    global_mean : float32
    share : float32
        1 / n_factors: turns a sum of squares into a mean square.
    panels : Count
        Number of panels of a row.
    """

    user_factors: Float32Array
    item_factors: Float32Array
    users: Float32Array
    items: Float32Array
    global_mean: np.float32
    share: np.float32
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
    """A `Step` for one side; ``accumulator_weight`` turns e²‖q‖² into the growth of G."""

    learning_rate: np.float32
    bias_learning_rate: np.float32
    regularization: np.float32
    bias_regularization: np.float32
    accumulator_weight: np.float32


def make_tables(factors: Factors, rows: RowSteps) -> Tables:
    """Lay factors and steps out for kernels; factors that `in_panels` need not copy are changed in place."""
    user_factors, item_factors = in_panels(factors.user_factors), in_panels(factors.item_factors)
    return Tables(
        user_factors,
        item_factors,
        _states(factors.user_biases, rows.user_accumulator, rows.user_scales),
        _states(factors.item_biases, rows.item_accumulator, rows.item_scales),
        factors.global_mean,
        np.float32(1 / factors.user_factors.shape[1]),
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


@inlined
def rates_of(step: Step, share: np.float32) -> tuple[Rates, Rates]:
    """Return the rates of users and of items."""
    weight = step.adaptive * share
    users = Rates(
        step.learning_rate, step.bias_learning_rate, step.user_regularization, step.user_bias_regularization, weight
    )
    items = Rates(
        step.learning_rate, step.bias_learning_rate, step.item_regularization, step.item_bias_regularization, weight
    )
    return users, items


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
    rates: tuple[Rates, Rates],
    item: Index,
    item_state: State,
    error: np.float32,
) -> tuple[Float32Array, State]:
    """Move a user in registers and an item one step, given the derivative of the loss by the score, -e.

    The item moves along ``source``, the vector that it was multiplied with: p, or p + z in SVD++.
    Returns the user's row and state; the item's are stored.
    """
    user_root, item_root = inverse_roots(user.accumulator, item_state.accumulator)
    user_after, keep_user, add_to_user = _moved(user, user_root, rates[0], item_state.norm, error)
    item_after, keep_item, add_to_item = _moved(item_state, item_root, rates[1], user.norm, error)
    start = item * np.uint64(tables.item_factors.shape[1])
    row = move_row(row, source, tables.item_factors, start, keep_user, add_to_user, keep_item, add_to_item)
    store_state(item_after, tables.items, item)
    return row, user_after


@inlined
def descend_pair(
    row: Float32Array,
    user: State,
    tables: Tables,
    rates: tuple[Rates, Rates],
    items: tuple[Index, Index],
    states: tuple[State, State],
    error: np.float32,
) -> tuple[Float32Array, State]:
    """Move a user in registers and two items one step, given the derivative of the loss by s_i - s_j, -e.

    The step raises the score of the first item and lowers that of the second. A user's bias, which is in both scores,
    stays.
    """
    user_root, first_root = inverse_roots(user.accumulator, states[0].accumulator)
    second_root, _ = inverse_roots(states[1].accumulator, states[1].accumulator)
    moved_user, keep_user, add_to_user = _moved(user, user_root, rates[0], states[0].norm + states[1].norm, error)
    first, keep_first, add_to_first = _moved(states[0], first_root, rates[1], user.norm, error)
    second, keep_second, add_to_second = _moved(states[1], second_root, rates[1], user.norm, -error)
    width = np.uint64(tables.item_factors.shape[1])
    table, starts = tables.item_factors, (items[0] * width, items[1] * width)
    moved = move_row(row, row, table, starts[0], keep_user, add_to_user, keep_first, add_to_first)
    moved = move_row(moved, row, table, starts[1], _ONE, -add_to_user, keep_second, add_to_second)
    store_state(first, tables.items, items[0])
    store_state(second, tables.items, items[1])
    return moved, State(user.bias, moved_user.accumulator, user.scale, user.norm)


@inlined
def _moved(
    own: State, root: np.float32, rates: Rates, other_norm: np.float32, error: np.float32
) -> tuple[State, np.float32, np.float32]:
    """Return a state after a step, and the `point.weights` of its row, given the row's 1/√G."""
    bias_move = _move(own.bias, error, root * rates.bias_learning_rate, own.scale * rates.bias_regularization)
    grown = own.accumulator + rates.accumulator_weight * (error * error * other_norm)
    keep, add = _weights(error, root * rates.learning_rate, own.scale * rates.regularization)
    return State(own.bias + bias_move, grown, own.scale, own.norm), keep, add
