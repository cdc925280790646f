"""The two rows that a gradient step moves: how kernels see them, the prediction, and the step itself."""

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

_BIAS, _SQUARES, _SCALE, _NORM = range(4)

_ONE = np.float32(1)
_slope = device(point.slope)
_updated_bias = device(point.updated_bias)


class Tables(NamedTuple):
    """Factors and `RowSteps` as kernels see them.

    Attributes
    ----------
    user_factors, item_factors : float32 arrays, shape (n_users, 16·n) and (n_items, 16·n)
        Whole panels: filled up with zeros on the right.
    users, items : float32 arrays, shape (n_users, 4) and (n_items, 4)
        What else a step needs of a row, side by side: see `State`.
    global_mean : float32
    share : float32
        1 / n_factors: what turns a sum of squares into their mean.
    panels : Count
        How many a row has.
    """

    user_factors: Float32Array
    item_factors: Float32Array
    users: Float32Array
    items: Float32Array
    global_mean: np.float32
    share: np.float32
    panels: Count


class State(NamedTuple):
    """What a step needs of a row besides its factors: b, G, the scale of its regularisation, and ‖p‖².

    The norm is that of the row when its block was begun, or its wave: it moves little there.
    """

    bias: np.float32
    squares: np.float32
    scale: np.float32
    norm: np.float32


class Rates(NamedTuple):
    """A `Step` as one side sees it."""

    learning_rate: np.float32
    bias_learning_rate: np.float32
    regularization: np.float32
    bias_regularization: np.float32
    squares_weight: np.float32


def make_tables(factors: Factors, rows: RowSteps) -> Tables:
    """Lay factors and steps out for kernels; factors of whole panels that begin a cache line are not copied."""
    user_factors, item_factors = in_panels(factors.user_factors), in_panels(factors.item_factors)
    return Tables(
        user_factors,
        item_factors,
        _states(factors.user_biases, rows.user_squares, rows.user_scales),
        _states(factors.item_biases, rows.item_squares, rows.item_scales),
        factors.global_mean,
        np.float32(1 / factors.user_factors.shape[1]),
        count(user_factors.shape[1] // WIDTH),
    )


def put_back(tables: Tables, factors: Factors, rows: RowSteps) -> None:
    """Copy what kernels have changed to where it came from."""
    for table, array in ((tables.user_factors, factors.user_factors), (tables.item_factors, factors.item_factors)):
        if table is not array:
            array[:] = table[:, : array.shape[1]]
    factors.user_biases[:], factors.item_biases[:] = tables.users[:, _BIAS], tables.items[:, _BIAS]
    rows.user_squares[:], rows.item_squares[:] = tables.users[:, _SQUARES], tables.items[:, _SQUARES]


def in_panels(array: Float32Array) -> Float32Array:
    """Return a table in whole panels: itself where that is what it is, or else a copy."""
    missing = -array.shape[1] % WIDTH
    if not missing and begins_a_cache_line(array) and array.flags.writeable:
        return array
    return in_huge_pages(array, array.shape[1] + missing)


def _states(biases: Float32Array, squares: Float32Array, scales: Float32Array) -> Float32Array:
    states = np.zeros((len(biases), len(State._fields)), np.float32)
    states[:, _BIAS], states[:, _SQUARES], states[:, _SCALE] = biases, squares, scales
    return states


@inlined
def state_of(states: Float32Array, row: Index) -> State:
    """Load the state of a row."""
    return State(states[row, _BIAS], states[row, _SQUARES], states[row, _SCALE], states[row, _NORM])


@inlined
def put_state(state: State, states: Float32Array, row: Index) -> None:
    """Store the state of a row."""
    states[row, _BIAS], states[row, _SQUARES] = state.bias, state.squares


@inlined
def put_norm(norm: np.float32, states: Float32Array, row: Index) -> None:
    """Store the norm of a row."""
    states[row, _NORM] = norm


@inlined
def hold_user(tables: Tables, user: Index) -> tuple[Float32Array, State]:
    """Take a user's row and state into registers."""
    place = user * np.uint64(tables.user_factors.shape[1])
    row = hold_row(tables.user_factors, place, tables.panels)
    state = state_of(tables.users, user)
    return row, State(state.bias, state.squares, state.scale, multiply_row(row, tables.user_factors, place))


@inlined
def put_user(row: Float32Array, state: State, tables: Tables, user: Index) -> None:
    """Store a user's row and state."""
    put_row(row, tables.user_factors, user * np.uint64(tables.user_factors.shape[1]))
    put_state(state, tables.users, user)


@device
def begin_items(tables: Tables, first: int, last: int) -> None:
    """Find the norms of a column's items, which a block is begun with."""
    width = np.uint64(tables.item_factors.shape[1])
    for item in range(np.uint64(first), np.uint64(last)):
        row = hold_row(tables.item_factors, item * width, tables.panels)
        put_norm(multiply_row(row, tables.item_factors, item * width), tables.items, item)


@inlined
def rates_of(step: Step, share: np.float32) -> tuple[Rates, Rates]:
    """Return what a step is for users and for items."""
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
    """Move a held user and an item one step, given the derivative of the loss by the score, -e.

    The item moves along ``source``, the vector that it was multiplied with: p, or p + z in SVD++.
    Returns the user's row and state; the item's are stored.
    """
    user_rate, item_rate = inverse_roots(user.squares, item_state.squares)
    user_after, keep_user, add_to_user = _moved(user, user_rate, rates[0], item_state.norm, error)
    item_after, keep_item, add_to_item = _moved(item_state, item_rate, rates[1], user.norm, error)
    place = item * np.uint64(tables.item_factors.shape[1])
    row = move_row(row, source, tables.item_factors, place, keep_user, add_to_user, keep_item, add_to_item)
    put_state(item_after, tables.items, item)
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
    """Move a held user and two items one step, given the derivative of the loss by the scores' difference, -e.

    The first item's score is to rise above the second's. A user's bias is in both scores and stays as it is.
    """
    user_rate, first_rate = inverse_roots(user.squares, states[0].squares)
    second_rate, _ = inverse_roots(states[1].squares, states[1].squares)
    moved_user, keep_user, add_to_user = _moved(user, user_rate, rates[0], states[0].norm + states[1].norm, error)
    first, keep_first, add_to_first = _moved(states[0], first_rate, rates[1], user.norm, error)
    second, keep_second, add_to_second = _moved(states[1], second_rate, rates[1], user.norm, -error)
    width = np.uint64(tables.item_factors.shape[1])
    table, places = tables.item_factors, (items[0] * width, items[1] * width)
    moved = move_row(row, row, table, places[0], keep_user, add_to_user, keep_first, add_to_first)
    moved = move_row(moved, row, table, places[1], _ONE, -add_to_user, keep_second, add_to_second)
    put_state(first, tables.items, items[0])
    put_state(second, tables.items, items[1])
    return moved, State(user.bias, moved_user.squares, user.scale, user.norm)


@inlined
def _moved(
    own: State, rate: np.float32, rates: Rates, other_norm: np.float32, error: np.float32
) -> tuple[State, np.float32, np.float32]:
    """Return a state after a step, and the weights of its row and of the other in the row after it."""
    learning_rate = rate * rates.learning_rate
    after = State(
        _updated_bias(own.bias, error, rate * rates.bias_learning_rate, own.scale * rates.bias_regularization),
        own.squares + rates.squares_weight * (error * error * other_norm),
        own.scale,
        own.norm,
    )
    return after, _ONE - learning_rate * (own.scale * rates.regularization), learning_rate * error
