"""The kernels of an SGD epoch on a GPU."""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import cuda, device, isa, kernel
from fastmf_kernels._cuda.memory import DeviceArray
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array, Int64Array
from fastmf_kernels.predict import point as prediction
from fastmf_kernels.predict.arrays import Link
from fastmf_kernels.sgd import point
from fastmf_kernels.sgd.arrays import Step

THREADS = 128
# Numbers of a row besides its factors; see `Tables`.
STATE = 4
_ZERO, _ONE = np.float32(0), np.float32(1)


def first_place(run: int, start: int, stop: int) -> int:
    """Return where a run is entered; it goes round from there.

    Its items are ascending: if all groups began with their first, they would all be at the same few items at once, and
    would overshoot. The place is drawn by multiplicative hashing (Knuth, "The Art of Computer Programming" 3, 6.4).
    """
    return start + ((run * 2654435761 & 0xFFFFFFFF) * (stop - start) >> 32)


_first = device(first_place)
_apply_link, _slope = device(prediction.apply_link), device(point.slope)
_move = device(point.move)


@device
def _damped_rate(rate: np.float32, regularization: np.float32) -> np.float32:
    """Return η = γ/(1 + γλ), the `point.damped_rate`; a square of two roots costs less than a division."""
    root = isa.reciprocal_root(_ONE + rate * regularization)
    return np.float32(rate * (root * root))


class Tables(NamedTuple):
    """Factors and `RowSteps` on the device.

    Attributes
    ----------
    user_factors, item_factors : float32 or float16 arrays, shape (n·width,)
        Padded rows, one after the other.
    users, items : float32 arrays, shape (4·n,)
        Of each row b, G, the factor on its regularisation, and ‖p‖² as it was when the row's block began, in four
        consecutive numbers: one load reads them.
    global_mean : float32
    share : float32
        1 / n_factors: turns a sum of squares into a mean square.
    """

    user_factors: DeviceArray
    item_factors: DeviceArray
    users: DeviceArray
    items: DeviceArray
    global_mean: np.float32
    share: np.float32


class Runs(NamedTuple):
    """Ratings on the device, in runs of one user in one block, the longest of each block first.

    Attributes
    ----------
    users : int32 array, shape (n_runs,)
    starts, stops : int64 arrays, shape (n_runs,)
        The ratings of each run.
    offsets : int64 array, shape (n_blocks + 1,)
        The runs of each block.
    items : int32 array, shape (n_ratings,)
    ratings : float32 array, shape (n_ratings,)
    """

    users: DeviceArray
    starts: DeviceArray
    stops: DeviceArray
    offsets: DeviceArray
    items: DeviceArray
    ratings: DeviceArray


@functools.cache
def make_begin(width: int, in_halves: bool) -> Any:
    """Return the kernel that stores the norms of items at the beginning of a stratum."""
    load4 = isa.load4_halves if in_halves else isa.load4
    size, chunks, number, lane_of, mask_of, total = make_group(width)

    @kernel
    def begin(item_factors: Float32Array, items: Float32Array) -> None:
        item, lane = cuda.blockIdx.x * (THREADS // size) + number(), lane_of()
        if item < items.size // STATE:
            norm = _ZERO
            for chunk in range(chunks):
                q = load4(item_factors, item * width + VECTOR * (chunk * size + lane))
                norm += q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]
            norm = total(norm, mask_of())
            if lane == 0:
                items[STATE * item + 3] = norm

    return begin


@functools.cache
def make_steps(width: int, in_halves: bool, vector_atomics: bool) -> Any:
    """Return the kernel that takes the steps of a stratum: a group of threads for a run of ratings at a time."""
    size, _, number, lane_of, _, _ = make_group(width)
    walk_run = _make_walk_run(width, in_halves, vector_atomics)

    @kernel
    def take_steps(
        runs: Runs, blocks: Int64Array, tables: Tables, link: Link, step: Step, squared_errors: Float32Array
    ) -> None:
        block = blocks[cuda.blockIdx.y]
        run, stop = runs.offsets[block] + cuda.blockIdx.x * (THREADS // size) + number(), runs.offsets[block + 1]
        while run < stop:
            squared_error = walk_run(runs, run, tables, link, step)
            if lane_of() == 0:
                squared_errors[run] = squared_error
            run += cuda.gridDim.x * (THREADS // size)

    return take_steps


def _make_walk_run(width: int, in_halves: bool, vector_atomics: bool) -> Any:
    size, chunks, _, lane_of, mask_of, total = make_group(width)
    rated, read, of_a_lane = (
        _make_rated(width, in_halves, vector_atomics),
        _make_read(width, in_halves),
        VECTOR * chunks,
    )
    load4, store4 = (isa.load4_halves, isa.store4_halves) if in_halves else (isa.load4, isa.store4)

    @device
    def walk_run(runs: Runs, run: int, tables: Tables, link: Link, step: Step) -> np.float32:
        """Walk the ratings of a user in a block, with the user's row in registers.

        The row of the next item, and the number and rating of the one after it, are on their way while a rating is
        worked on: otherwise a step would wait for two reads, one after the other.
        """
        lane, user = lane_of(), np.int64(runs.users[run])
        p, norm = cuda.local.array(of_a_lane, np.float32), _ZERO
        q, next_q = cuda.local.array(of_a_lane, np.float32), cuda.local.array(of_a_lane, np.float32)
        for chunk in range(chunks):
            four = load4(tables.user_factors, user * width + VECTOR * (chunk * size + lane))
            for i in range(VECTOR):
                p[VECTOR * chunk + i] = four[i]
                norm += four[i] * four[i]
        bias, accumulator, scale, _ = isa.load4(tables.users, STATE * user)
        state = (bias, accumulator, scale, total(norm, mask_of()))
        squared_error, start = _ZERO, runs.starts[run]
        # Places are counted in 32 bits: 64 would take more registers than there are.
        n = np.int32(runs.stops[run] - start)
        j, n_left = np.int32(_first(run, start, runs.stops[run]) - start), n
        item, rating = runs.items[start + j], runs.ratings[start + j]
        of_item = read(tables, item, q)
        j = np.int32(j + 1 if j + 1 < n else 0)
        next_item, next_rating = runs.items[start + j], runs.ratings[start + j]
        while n_left > 0:
            n_left = np.int32(n_left - 1)
            j = np.int32(j + 1 if j + 1 < n else 0)
            later_item, later_rating = runs.items[start + j], runs.ratings[start + j]
            of_next = read(tables, next_item, next_q)
            state, error = rated(p, state, q, of_item, item, rating, tables, link, step)
            squared_error += error * error
            if next_item == item:  # it was read before this step was taken
                of_next = read(tables, next_item, next_q)
            item, rating, of_item = next_item, next_rating, of_next
            next_item, next_rating = later_item, later_rating
            for f in range(of_a_lane):
                q[f] = next_q[f]
        for chunk in range(chunks):
            four = (p[VECTOR * chunk], p[VECTOR * chunk + 1], p[VECTOR * chunk + 2], p[VECTOR * chunk + 3])
            store4(tables.user_factors, user * width + VECTOR * (chunk * size + lane), four)
        if lane == 0:
            isa.store4(tables.users, STATE * user, state)
        return squared_error

    return walk_run


def _make_read(width: int, in_halves: bool) -> Any:
    size, chunks, _, lane_of, _, _ = make_group(width)
    load4 = isa.load4_shared_halves if in_halves else isa.load4_shared

    @device
    def read(tables: Tables, item: int, q: Any) -> Any:
        """Read the thread's numbers of an item's row, which other groups add to, and return the item's state."""
        for chunk in range(chunks):
            four = load4(tables.item_factors, np.int64(item) * width + VECTOR * (chunk * size + lane_of()))
            for i in range(VECTOR):
                q[VECTOR * chunk + i] = four[i]
        return isa.load4_shared(tables.items, STATE * np.int64(item))

    return read


def _make_rated(width: int, in_halves: bool, vector_atomics: bool) -> Any:
    size, chunks, _, lane_of, mask_of, total = make_group(width)
    of_a_lane = VECTOR * chunks
    add4 = isa.add4 if vector_atomics else isa.add4_one_by_one
    add4_of_halves = isa.add4_halves if vector_atomics else isa.add4_halves_by_two
    add4_to_row = add4_of_halves if in_halves else add4

    @device
    def rated(
        p: Any,
        state: Any,
        q: Any,
        of_item: Any,
        item: int,
        rating: np.float32,
        tables: Tables,
        link: Link,
        step: Step,
    ) -> Any:
        """Take the step of one rating (equations in `point`): moves p and the item, returns the user's state."""
        lane, product = lane_of(), _ZERO
        for f in range(of_a_lane):
            product += p[f] * q[f]
        bias, accumulator, scale, norm = state
        item_bias, item_accumulator, item_scale, item_norm = of_item
        score = total(product, mask_of()) + tables.global_mean + bias + item_bias
        prediction, slope = _apply_link(score, link.low, link.span), _ONE
        if link.span != _ZERO:
            slope = _slope((prediction - link.low) / link.span, link.span)
        error = (rating - prediction) * slope

        user_root, item_root = isa.reciprocal_root(accumulator), isa.reciprocal_root(item_accumulator)
        user_pull, item_pull = scale * step.user_regularization, item_scale * step.item_regularization
        user_rate = _damped_rate(user_root * step.learning_rate, user_pull)
        item_rate = _damped_rate(item_root * step.learning_rate, item_pull)
        for chunk in range(chunks):
            at = VECTOR * chunk
            moves = (
                _move(q[at], error * p[at], item_rate, item_pull),
                _move(q[at + 1], error * p[at + 1], item_rate, item_pull),
                _move(q[at + 2], error * p[at + 2], item_rate, item_pull),
                _move(q[at + 3], error * p[at + 3], item_rate, item_pull),
            )
            add4_to_row(tables.item_factors, np.int64(item) * width + VECTOR * (chunk * size + lane), moves)
            for i in range(VECTOR):
                p[at + i] += _move(p[at + i], error * q[at + i], user_rate, user_pull)
        gained = step.adaptive * tables.share * error * error
        if lane == 0:
            pull = item_scale * step.item_bias_regularization
            bias_move = _move(item_bias, error, _damped_rate(item_root * step.bias_learning_rate, pull), pull)
            add4(tables.items, STATE * np.int64(item), (bias_move, gained * norm, _ZERO, _ZERO))
        cuda.syncwarp(mask_of())  # the item may come up again: all threads of the group then read what was added
        pull = scale * step.user_bias_regularization
        bias += _move(bias, error, _damped_rate(user_root * step.bias_learning_rate, pull), pull)
        return (bias, accumulator + gained * item_norm, scale, norm), rating - prediction

    return rated
