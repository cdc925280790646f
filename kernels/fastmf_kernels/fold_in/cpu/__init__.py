"""Folding in by gradient steps on all cores; the contract is that of `fastmf_kernels.fold_in.reference`.

Rows are independent, and each is walked by one thread, with x and its mean in registers. Few steps are taken by the
calling thread alone: a single row starts no thread.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._jit import device, inlined, kernel, run_tasks
from fastmf_kernels._types import Float32Array, Index, Int32Array, Int64Array, UInt64Array
from fastmf_kernels.fold_in.arrays import Descent, Draws, Fixed, Folded, Rivals
from fastmf_kernels.fold_in.cpu.drawing import draw, draw_beside, mark, unmark
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.linalg.panels import WIDTH
from fastmf_kernels.linalg.rows import (
    Count,
    combine_rows,
    count,
    exponential,
    hold_row,
    multiply_row,
    put_row,
)
from fastmf_kernels.negative_sampling import point as draws_point
from fastmf_kernels.predict.arrays import Link
from fastmf_kernels.sgd import point
from fastmf_kernels.sgd.cpu.rows import in_panels
from fastmf_kernels.sgd.schedule import cut_by_count

# Tasks that many rows are cut into, and the steps that make a task of its own worth while.
_PARTS, _STEPS_OF_A_TASK = 64, 1 << 16
_ZERO, _ONE = np.float32(0), np.float32(1)

_hashed = device(draws_point.hashed)
_share = device(draws_point.share)
_damped_rate = device(point.damped_rate)
_slope = device(point.slope)


class _Problem(NamedTuple):
    """Rows, and where their results go.

    Attributes
    ----------
    indptr, indices, values
        Of the rows.
    fixed, descent, scales
        As in the reference.
    bases, folded : float32 arrays, shape (n_rows, 16·n)
        Where rows begin and what they become, padded to whole panels.
    biases : float32 array, shape (n_rows,)
    panels : Count
        Number of panels of a row.
    """

    indptr: Int64Array
    indices: Int32Array
    values: Float32Array
    fixed: Fixed
    descent: Descent
    scales: Float32Array
    bases: Float32Array
    folded: Float32Array
    biases: Float32Array
    panels: Count


class _State(NamedTuple):
    """The numbers of a row besides x and its mean.

    Attributes
    ----------
    bias : float32
    accumulator : float
        G, in float64: squares of errors may be too large for float32.
    mean_bias, n_averaged : float32
        The mean of b so far, and how many steps it is of.
    """

    bias: np.float32
    accumulator: float
    mean_bias: np.float32
    n_averaged: np.float32


class _Rates(NamedTuple):
    """The step sizes of a row in an epoch.

    Attributes
    ----------
    rate, bias_rate, damping, bias_damping : float32
        γ, γ_b, γλ and γ_b λ_b.
    growth : float
        G grows by this times e²‖y‖².
    weight : float32
        What a step adds to ``n_averaged``: 0 in the first half of the epochs, then 1.
    """

    rate: np.float32
    bias_rate: np.float32
    damping: np.float32
    bias_damping: np.float32
    growth: float
    weight: np.float32


class _Scratch(NamedTuple):
    """What a thread needs beside its rows.

    Attributes
    ----------
    order : int32 array
        The order of a row's entries.
    marks : uint64 array
        A bit for each column, set for those of the row.
    """

    order: Int32Array
    marks: UInt64Array


def _scratch(n_entries: int, n_columns: int) -> _Scratch:
    return _Scratch(np.empty(n_entries, np.int32), np.zeros((n_columns >> 6) + 1, np.uint64))


def fix(factors: Float32Array, biases: Float32Array) -> Fixed:
    """Make the fixed side; see the reference. A table in whole panels is not copied."""
    panels = factors if factors.shape[1] % WIDTH == 0 and factors.flags.c_contiguous else in_panels(factors)
    norms = np.einsum("nf,nf->n", panels, panels)
    return Fixed(panels, np.ascontiguousarray(biases), norms, factors.shape[1])


def fold_in_ratings(
    rows: CSR,
    fixed: Fixed,
    base: Float32Array,
    mean: float,
    link: Link,
    descent: Descent,
    scales: Float32Array,
    n_threads: int | None = None,
) -> Folded:
    """Fold rows in from ratings; see the reference."""
    problem = _problem(rows, fixed, descent, scales, base)
    return _run(_walk_ratings, problem, np.zeros(len(scales), np.int64), n_threads, mean, link)


def fold_in_choices(
    rows: CSR,
    fixed: Fixed,
    mean: float,
    descent: Descent,
    scales: Float32Array,
    draws: Draws,
    n_threads: int | None = None,
) -> Folded:
    """Fold rows in from choices; see the reference."""
    return _run(_walk_choices, _problem(rows, fixed, descent, scales), draws.counts, n_threads, mean, draws)


def fold_in_user_pairs(
    rows: CSR, fixed: Fixed, descent: Descent, scales: Float32Array, draws: Draws, n_threads: int | None = None
) -> Folded:
    """Fold users in from pairs; see the reference."""
    return _run(_walk_user_pairs, _problem(rows, fixed, descent, scales), draws.counts, n_threads, draws)


def fold_in_item_pairs(
    rows: CSR,
    fixed: Fixed,
    rivals: Rivals,
    descent: Descent,
    scales: Float32Array,
    draws: Draws,
    n_threads: int | None = None,
) -> Folded:
    """Fold items in from pairs; see the reference."""
    return _run(_walk_item_pairs, _problem(rows, fixed, descent, scales), draws.counts, n_threads, rivals, draws)


def _problem(
    rows: CSR, fixed: Fixed, descent: Descent, scales: Float32Array, base: Float32Array | None = None
) -> _Problem:
    n_rows, width = len(scales), fixed.factors.shape[1]
    bases, folded = (np.zeros((n_rows, width), np.float32) for _ in range(2))
    if base is not None:
        bases[:, : base.shape[1]] = base
    biases, panels = np.zeros(n_rows, np.float32), count(width // WIDTH)
    return _Problem(*rows, fixed, descent, scales, bases, folded, biases, panels)


def _run(
    walk: Callable[..., None], problem: _Problem, n_drawn: Int64Array, n_threads: int | None, *terms: Any
) -> Folded:
    """Walk all rows, in tasks of about as many steps."""
    lengths = np.diff(problem.indptr)
    n_steps = problem.descent.n_epochs * (lengths + n_drawn)
    n_parts = int(min(_PARTS, max(1, len(lengths)), 1 + n_steps.sum() // _STEPS_OF_A_TASK))
    cuts = cut_by_count(n_steps, n_parts)
    longest = int(lengths.max(initial=0))

    def walk_part(part: int, scratch: _Scratch) -> None:
        walk(problem, cuts[part], cuts[part + 1], scratch, *terms)

    run_tasks(walk_part, n_parts, n_threads, lambda: _scratch(longest, len(problem.fixed.biases)))
    return Folded(np.ascontiguousarray(problem.folded[:, : problem.fixed.n_factors]), problem.biases)


@kernel
def _walk_ratings(problem: _Problem, first: int, last: int, scratch: _Scratch, mean: float, link: Link) -> None:
    """Walk rows of ratings: e = (r - r̂)·dr̂/ds along y = q_i, with s = μ + (x + z)·q_i + b + b_i."""
    fixed, descent, order = problem.fixed, problem.descent, scratch.order
    width = np.uint64(fixed.factors.shape[1])
    for r in range(first, last):
        start, stop, row, state = _begin(problem, r, order)
        base = hold_row(problem.bases, np.uint64(r) * width, problem.panels)
        average, counter = row, np.uint64(1)
        for epoch in range(descent.n_epochs):
            rates = _rates_of(descent, problem.scales[r], fixed.n_factors, epoch)
            counter = _shuffle(order, stop - start, descent.key, counter)
            for n in range(stop - start):
                j = start + np.uint64(order[n])
                column = np.uint64(problem.indices[j])
                dot = multiply_row(combine_rows(row, base, _ONE, _ONE), fixed.factors, column * width)
                score = dot + state.bias + fixed.biases[column]
                value = np.float64(problem.values[j])
                if link.span == 0:
                    error = value - mean - np.float64(score)
                else:
                    share = _sigmoid(np.float32(mean) + score)
                    error = (value - link.low - link.span * share) * _slope(share, link.span)
                row, average, state = _step(problem, row, average, state, rates, column, error)
        if stop > start:
            average = combine_rows(average, base, _ONE, _ONE)
        _store(problem, r, average, state)


@kernel
def _walk_choices(problem: _Problem, first: int, last: int, scratch: _Scratch, mean: float, draws: Draws) -> None:
    """Walk rows of choices: e = t - σ(s) along y = q_i, with t = 1 for a choice and t = 0 for a column drawn."""
    fixed, descent, order, marks = problem.fixed, problem.descent, scratch.order, scratch.marks
    offset = _share(_hashed(descent.key, np.uint64(0)))
    for r in range(first, last):
        start, stop, row, state = _begin(problem, r, order)
        average, counter, n_drawn = row, np.uint64(1), np.int64(0)
        mark(marks, problem.indices, start, stop)
        for epoch in range(descent.n_epochs):
            rates = _rates_of(descent, problem.scales[r], fixed.n_factors, epoch)
            counter = _shuffle(order, stop - start, descent.key, counter)
            for n in range(stop - start):
                n_draws = _n_draws(draws.counts[r], n, stop - start)
                for d in range(n_draws + 1):
                    drawn = np.int64(problem.indices[start + np.uint64(order[n])])
                    if d > 0:
                        drawn, _, n_drawn = draw(draws.weights, marks, offset, n_drawn)
                    if drawn >= 0:
                        column = np.uint64(drawn)
                        score = _alone(row, state, fixed, column) + fixed.biases[column]
                        target = _ONE if d == 0 else _ZERO
                        error = np.float64(target - _sigmoid(np.float32(mean) + score))
                        row, average, state = _step(problem, row, average, state, rates, column, error)
        _store(problem, r, average, state)
        unmark(marks, problem.indices, start, stop)


@kernel
def _walk_user_pairs(problem: _Problem, first: int, last: int, scratch: _Scratch, draws: Draws) -> None:
    """Walk rows of users: e = σ(s_j - s_i) along y = q_i - q_j for a choice i and an item j drawn."""
    fixed, descent, order, marks = problem.fixed, problem.descent, scratch.order, scratch.marks
    width, offset = np.uint64(fixed.factors.shape[1]), _share(_hashed(descent.key, np.uint64(0)))
    for r in range(first, last):
        start, stop, row, state = _begin(problem, r, order)
        average, counter, n_drawn = row, np.uint64(1), np.int64(0)
        mark(marks, problem.indices, start, stop)
        for epoch in range(descent.n_epochs):
            rates = _rates_of(descent, problem.scales[r], fixed.n_factors, epoch)
            counter = _shuffle(order, stop - start, descent.key, counter)
            for n in range(stop - start):
                chosen = np.uint64(problem.indices[start + np.uint64(order[n])])
                for _ in range(_n_draws(draws.counts[r], n, stop - start)):
                    found, _, n_drawn = draw(draws.weights, marks, offset, n_drawn)
                    if found >= 0:
                        drawn = np.uint64(found)
                        behind = _alone(row, state, fixed, drawn) + fixed.biases[drawn]
                        ahead = _alone(row, state, fixed, chosen) + fixed.biases[chosen]
                        error = np.float64(_sigmoid(behind - ahead))
                        y = hold_row(fixed.factors, chosen * width, problem.panels)
                        y = combine_rows(y, hold_row(fixed.factors, drawn * width, problem.panels), _ONE, -_ONE)
                        square = np.float64(fixed.squared_norms[chosen]) + np.float64(fixed.squared_norms[drawn])
                        row, average, state = _move(row, average, y, state, rates, 0.0, error, square)
        _store(problem, r, average, state)
        unmark(marks, problem.indices, start, stop)


@kernel
def _walk_item_pairs(problem: _Problem, first: int, last: int, scratch: _Scratch, rivals: Rivals, draws: Draws) -> None:
    """Walk rows of items: e = σ(s_uj - s_ui) along y = p_u where u has chosen i, and -σ(s_ui - s_uj) where u has j."""
    fixed, descent, order, marks = problem.fixed, problem.descent, scratch.order, scratch.marks
    width, offset = np.uint64(fixed.factors.shape[1]), _share(_hashed(descent.key, np.uint64(0)))
    for r in range(first, last):
        start, stop, row, state = _begin(problem, r, order)
        average, counter, n_drawn = row, np.uint64(1), np.int64(0)
        mark(marks, problem.indices, start, stop)
        for epoch in range(descent.n_epochs):
            rates = _rates_of(descent, problem.scales[r], fixed.n_factors, epoch)
            counter = _shuffle(order, stop - start, descent.key, counter)
            for n in range(stop - start):
                chosen = np.int64(problem.indices[start + np.uint64(order[n])])
                begin, end = np.uint64(rivals.indptr[chosen]), np.uint64(rivals.indptr[chosen + 1])
                n_draws = _n_draws(draws.counts[r], n, stop - start)
                for d in range(rivals.n_negatives + n_draws):
                    if d < rivals.n_negatives:
                        user = chosen
                        rival, _, n_drawn = draw_beside(rivals.weights, rivals.indices, begin, end, offset, n_drawn)
                    else:
                        user, position, n_drawn = draw(draws.weights, marks, offset, n_drawn)
                        rival = np.int64(rivals.indices[np.uint64(position)]) if user >= 0 else np.int64(-1)
                    if rival >= 0:
                        column = np.uint64(user)
                        y = hold_row(fixed.factors, column * width, problem.panels)
                        item = np.uint64(rival)
                        other = multiply_row(y, rivals.items.factors, item * width) + rivals.items.biases[item]
                        ahead = _alone(row, state, fixed, column) - other
                        error = np.float64(_sigmoid(-ahead) if d < rivals.n_negatives else -_sigmoid(ahead))
                        row, average, state = _step(problem, row, average, state, rates, column, error)
        _store(problem, r, average, state)
        unmark(marks, problem.indices, start, stop)


@inlined
def _begin(problem: _Problem, r: Index, order: Int32Array) -> tuple[np.uint64, np.uint64, Float32Array, _State]:
    """Return where the entries of a row start and stop, a row of 0, and its state before the first step.

    The order becomes that of the entries.
    """
    start, stop = np.uint64(problem.indptr[r]), np.uint64(problem.indptr[r + 1])
    for n in range(np.int64(stop - start)):
        order[n] = n
    width = np.uint64(problem.fixed.factors.shape[1])
    row = hold_row(problem.folded, np.uint64(r) * width, problem.panels)
    return start, stop, row, _State(_ZERO, 1.0, _ZERO, _ZERO)


@inlined
def _store(problem: _Problem, r: Index, average: Float32Array, state: _State) -> None:
    """Store the mean of a row."""
    put_row(average, problem.folded, np.uint64(r) * np.uint64(problem.fixed.factors.shape[1]))
    problem.biases[r] = state.mean_bias


@inlined
def _rates_of(descent: Descent, scale: np.float32, n_factors: int, epoch: int) -> _Rates:
    """Return the step sizes of an epoch."""
    decay = descent.decay**epoch
    rate, bias_rate = np.float32(decay * descent.learning_rate), np.float32(decay * descent.bias_learning_rate)
    return _Rates(
        rate,
        bias_rate,
        rate * scale * np.float32(descent.regularization),
        bias_rate * scale * np.float32(descent.bias_regularization),
        descent.adaptive / n_factors,
        _ONE if epoch >= descent.n_epochs // 2 else _ZERO,
    )


@inlined
def _step(
    problem: _Problem,
    row: Float32Array,
    average: Float32Array,
    state: _State,
    rates: _Rates,
    column: np.uint64,
    error: float,
) -> tuple[Float32Array, Float32Array, _State]:
    """Take a step along the factors of a column."""
    fixed = problem.fixed
    y = hold_row(fixed.factors, column * np.uint64(fixed.factors.shape[1]), problem.panels)
    return _move(row, average, y, state, rates, error, error, np.float64(fixed.squared_norms[column]))


@inlined
def _move(
    row: Float32Array,
    average: Float32Array,
    y: Float32Array,
    state: _State,
    rates: _Rates,
    bias_error: float,
    error: float,
    square: float,
) -> tuple[Float32Array, Float32Array, _State]:
    """Take a step along y, and add the row to its mean in the later half of the epochs.

    x ← (x + γ e y/√G)/(1 + γλ/√G), b likewise, and then G ← G + e²‖y‖²/k; see the reference.
    """
    accumulator = np.float32(state.accumulator)
    keep, rate = _damped_rate(accumulator, rates.rate, rates.damping)
    keep_bias, bias_rate = _damped_rate(accumulator, rates.bias_rate, rates.bias_damping)
    row = combine_rows(row, y, keep, np.float32(np.float64(rate) * error))
    bias = np.float32(np.float64(keep_bias * state.bias) + np.float64(bias_rate) * bias_error)
    n_averaged = state.n_averaged + rates.weight
    share = rates.weight / max(n_averaged, _ONE)
    average = combine_rows(average, row, _ONE - share, share)
    mean_bias = (_ONE - share) * state.mean_bias + share * bias
    return row, average, _State(bias, state.accumulator + rates.growth * error * error * square, mean_bias, n_averaged)


@inlined
def _alone(row: Float32Array, state: _State, fixed: Fixed, column: np.uint64) -> np.float32:
    """Return x·y + b."""
    return multiply_row(row, fixed.factors, column * np.uint64(fixed.factors.shape[1])) + state.bias


@inlined
def _sigmoid(score: np.float32) -> np.float32:
    """Return 1/(1 + e^-s)."""
    return _ONE / (_ONE + exponential(-score))


@inlined
def _n_draws(n_drawn: np.int64, n: int, n_entries: Index) -> np.int64:
    """Return how many of the draws of an epoch follow its n-th entry."""
    place, of_all = np.int64(n), np.int64(n_entries)
    return (place + 1) * n_drawn // of_all - place * n_drawn // of_all


@device
def _shuffle(order: Int32Array, n: Index, key: np.uint64, counter: np.uint64) -> np.uint64:
    """Shuffle an order (Fisher, Yates), and return the counter of random numbers."""
    for last in range(np.int64(n) - 1, 0, -1):
        other = np.int64(_share(_hashed(key, counter)) * (last + 1))
        counter += np.uint64(1)
        order[last], order[other] = order[other], order[last]
    return counter
