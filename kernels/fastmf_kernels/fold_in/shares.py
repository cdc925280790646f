"""What each column has added to a row that is folded in: the steps of one row, taken again and counted.

A step changes x to (x + a y)/(1 + d), so the mean x̄ over the later half of the epochs is a weighted sum of the vectors
y along which steps went. The weights follow from the a and d of all steps, from the last one backwards. The steps are
those of `fastmf_kernels.fold_in.reference`, in NumPy and in float64; a test holds Σ w y against its result.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, UInt64Array
from fastmf_kernels.fold_in.arrays import GOLDEN_RATIO, TRIES, Descent, Fixed, Weights
from fastmf_kernels.predict.arrays import Link

_DRAWN_AT_ONCE = 1 << 12


class Row(NamedTuple):
    """One row that is folded in.

    Attributes
    ----------
    columns : int32 array, shape (n,)
        Rows of the fixed side, ascending.
    fixed : Fixed
    descent : Descent
    scale : float
        Factor on both strengths.
    """

    columns: Int32Array
    fixed: Fixed
    descent: Descent
    scale: float


class Drawing(NamedTuple):
    """What is drawn for the row beside its own columns.

    Attributes
    ----------
    weights : Weights
    n_draws : int
        Columns drawn in an epoch.
    """

    weights: Weights
    n_draws: int


class Shares(NamedTuple):
    """The terms of x̄ = Σ_j own_j·y_j + Σ_d w_d·y_d.

    Attributes
    ----------
    own : float64 array, shape (n,)
        The weight of each column of the row.
    drawn : int64 array, shape (m,)
        Columns that were drawn, ascending.
    drawn_weights : float64 array, shape (m,)
    """

    own: Float64Array
    drawn: Int64Array
    drawn_weights: Float64Array


def shares_of_ratings(row: Row, values: Float32Array, base: Float64Array, mean: float, link: Link) -> Shares:
    """Return the shares of a row that `fold_in_ratings` folds in.

    Parameters
    ----------
    row : Row
    values : float32 array, shape (n,)
        Ratings.
    base : float64 array, shape (n_factors,)
        z of SVD++, or 0; it is in no share.
    mean : float
        μ of the score.
    link : Link

    Returns
    -------
    Shares
        Nothing is drawn.
    """
    walk, ratings = _Walk(row), values.astype(np.float64).tolist()
    low, span = float(link.low), float(link.span)
    offsets = (walk.own @ base + walk.own_biases + mean).tolist()
    for entry in walk.entries():
        score = float(walk.own[entry] @ walk.x) + walk.bias + offsets[entry]
        if span == 0:
            error = ratings[entry] - score
        else:
            share = _sigmoid(score)
            error = (ratings[entry] - low - span * share) * span * share * (1 - share)
        walk.step(walk.own[entry], error, error, walk.own_squares[entry], (entry, -1))
    return walk.shares()


def shares_of_choices(row: Row, mean: float, drawing: Drawing) -> Shares:
    """Return the shares of a row that `fold_in_choices` folds in; the parameters are those of `shares_of_ratings`."""
    walk = _Walk(row)
    draw, factors, biases = walk.drawer(drawing.weights), row.fixed.factors, row.fixed.biases
    for entry, n_draws in walk.choices(drawing.n_draws):
        score = float(walk.own[entry] @ walk.x) + walk.bias + walk.own_biases[entry] + mean
        error = 1 - _sigmoid(score)
        walk.step(walk.own[entry], error, error, walk.own_squares[entry], (entry, -1))
        for column in filter(_is_found, (draw() for _ in range(n_draws))):
            y = factors[column, : row.fixed.n_factors].astype(np.float64)
            error = -_sigmoid(float(y @ walk.x) + walk.bias + float(biases[column]) + mean)
            walk.step(y, error, error, float(row.fixed.squared_norms[column]), (-1, column))
    return walk.shares()


def shares_of_user_pairs(row: Row, drawing: Drawing) -> Shares:
    """Return the shares of a row that `fold_in_user_pairs` folds in."""
    walk, fixed = _Walk(row), row.fixed
    draw = walk.drawer(drawing.weights)
    for entry, n_draws in walk.choices(drawing.n_draws):
        for column in filter(_is_found, (draw() for _ in range(n_draws))):
            y = walk.own[entry] - fixed.factors[column, : fixed.n_factors]
            error = _sigmoid(-float(y @ walk.x) - walk.own_biases[entry] + float(fixed.biases[column]))
            square = walk.own_squares[entry] + float(fixed.squared_norms[column])
            walk.step(y, 0.0, error, square, (entry, column))
    return walk.shares(drawn_sign=-1.0)


class _Walk:
    """A row on its way: x and b, the accumulator G, and a record of each step."""

    def __init__(self, row: Row) -> None:
        columns, fixed, self._descent, self._scale = row
        self._columns, self._n_columns, self.x, self.bias = columns, len(fixed.biases), np.zeros(fixed.n_factors), 0.0
        self.own = fixed.factors[columns, : fixed.n_factors].astype(np.float64)
        self.own_biases = fixed.biases[columns].astype(np.float64)
        self.own_squares = fixed.squared_norms[columns].astype(np.float64).tolist()
        self._accumulator, self._epoch, self._first_averaged = 1.0, 0, 0
        self._sizes: list[float] = []
        self._keeps: list[float] = []
        self._places: list[tuple[int, int]] = []

    def entries(self) -> Iterator[int]:
        """Go over the numbers of the entries in every epoch, each time in another order (Fisher, Yates)."""
        order = list(range(len(self._columns)))
        counter = 1
        for epoch in range(self._descent.n_epochs):
            self._epoch = epoch
            if epoch == self._descent.n_epochs // 2:
                self._first_averaged = len(self._sizes)
            numbers = _random(self._descent.key, counter, len(order) - 1).tolist()
            counter += max(0, len(order) - 1)
            for last, number in zip(range(len(order) - 1, 0, -1), numbers, strict=True):
                other = int(number * (last + 1))
                order[last], order[other] = order[other], order[last]
            yield from order

    def choices(self, n_draws: int) -> Iterator[tuple[int, int]]:
        """Go over the entries in every epoch, each with how many columns are drawn after it."""
        n_entries = len(self._columns)
        for n, entry in enumerate(self.entries()):
            place = n % n_entries
            yield entry, (place + 1) * n_draws // n_entries - place * n_draws // n_entries

    def drawer(self, weights: Weights) -> Callable[[], int]:
        """Return a function that draws a column which the row lacks; -1 if it finds none."""
        is_own = np.zeros(self._n_columns, np.bool_)
        is_own[self._columns] = True
        drawn = _drawn(weights, is_own, float(_random(self._descent.key, 0, 1)[0]))

        def draw() -> int:
            return next((column for _, column in zip(range(TRIES), drawn, strict=False) if column >= 0), -1)

        return draw

    def step(self, y: Float64Array, bias_error: float, error: float, square: float, place: tuple[int, int]) -> None:
        """Take a step along y, which is that of an entry, of a column drawn, or the difference of both.

        Parameters
        ----------
        y : float64 array
        bias_error, error : float
        square : float
            The ‖y‖² that G grows by.
        place : (entry, column drawn)
            -1 where there is none.
        """
        descent, decay = self._descent, self._descent.decay**self._epoch / math.sqrt(self._accumulator)
        rate, bias_rate = decay * descent.learning_rate, decay * descent.bias_learning_rate
        keep = 1 / (1 + rate * self._scale * descent.regularization)
        self.x = (self.x + rate * error * y) * keep
        self.bias = (self.bias + bias_rate * bias_error) / (1 + bias_rate * self._scale * descent.bias_regularization)
        self._accumulator += descent.adaptive * error * error * square / len(y)
        self._sizes.append(rate * error)
        self._keeps.append(keep)
        self._places.append(place)

    def shares(self, drawn_sign: float = 1.0) -> Shares:
        """Return what the steps add up to; with the sign -1, vectors of columns drawn were subtracted in each y."""
        weights = self._weights()
        entries, columns = np.array(self._places, np.int64).reshape(-1, 2).T
        is_own, is_drawn = entries >= 0, columns >= 0
        own: Float64Array = np.bincount(entries[is_own], weights[is_own], len(self._columns)).astype(np.float64)
        drawn, places = np.unique(columns[is_drawn], return_inverse=True)
        of_drawn: Float64Array = np.bincount(places, weights[is_drawn], len(drawn)).astype(np.float64)
        return Shares(own, drawn, drawn_sign * of_drawn)

    def _weights(self) -> Float64Array:
        """Return the weight of the y of each step in the mean x̄ of the last K states.

        The y of step t is in every later state, shrunk by the steps from t on: w_t = a_t·k_t·R_t with the factor k_t of
        step t, and R_t = [t is averaged]/K + k_(t+1)·R_(t+1).
        """
        n_steps, later, after = len(self._sizes), 0.0, 0.0
        share = 1 / max(1, n_steps - self._first_averaged)
        weights = np.zeros(n_steps)
        for t in range(n_steps - 1, -1, -1):
            later = (share if t >= self._first_averaged else 0.0) + after
            after = self._keeps[t] * later
            weights[t] = self._sizes[t] * after
        return weights


def _random(key: np.uint64, first: int, n: int) -> Float64Array:
    """Return n numbers from 0 to just below 1, those of a row from number ``first`` on: SplitMix64."""
    with np.errstate(over="ignore"):
        counters = np.arange(first + 1, first + max(0, n) + 1, dtype=np.uint64)
        z: UInt64Array = np.uint64(key) + counters * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _drawn(weights: Weights, is_own: BoolArray, offset: float) -> Iterator[int]:
    """Go over the columns that are drawn, without end; -1 stands for one that the row has."""
    n_positions, n_drawn = int(weights.cumulative[-1]), 0
    while True:
        numbers = offset + np.arange(n_drawn + 1, n_drawn + _DRAWN_AT_ONCE + 1) * GOLDEN_RATIO
        positions = np.minimum(((numbers - np.floor(numbers)) * n_positions).astype(np.int64), n_positions - 1)
        columns = np.searchsorted(weights.cumulative, positions, side="right") - 1
        yield from np.where(is_own[columns], -1, columns).tolist()
        n_drawn += _DRAWN_AT_ONCE


def _is_found(column: int) -> bool:
    return column >= 0


def _sigmoid(score: float) -> float:
    """Return 1/(1 + e^-s), also where e^-s is too large for a number."""
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    power = math.exp(score)
    return power / (1 + power)
