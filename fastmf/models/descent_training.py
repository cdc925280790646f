"""Training by stochastic gradient descent: ratings in blocks, factors, and the steps of rows."""

import math
import operator
from typing import Any

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.backend import Kernels
from fastmf.common.parameters import number
from fastmf.errors import named
from fastmf.models.descent import DescentModel, blame_for_divergence, make_row_steps, make_step
from fastmf.models.training import Record, TrainerState, diverged, finite_number, first_factors
from fastmf.models.units import deviation_of, trained_deviation
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Int32Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.sgd.arrays import Step
from fastmf_kernels.sgd.schedule import Grid, make_blocks, shuffled_strata
from fastmf_kernels.topk.arrays import Rows

# Training errors that rise by some percent do no harm; steps that are too large raise them by more.
_LARGEST_RISE = 1.1
# Errors below this share of the ratings' deviation rise and fall by rounding.
_ROUNDING = 0.01
# Errors this many times as large as before the first step, after more than an epoch: scores have run away, and the
# sigmoid of a rating range keeps errors from rising any further.
_WORSE_THAN_NOTHING = 1.5
# A rating range that is this many times as wide as the ratings it is for is a mistake.
_TOO_WIDE = 10
# Names in a model directory, and the fields of `RowSteps` that they keep.
_STATE = {"user_squares": "user_accumulator", "item_squares": "item_accumulator"}


class DescentTrainer:
    """Base of the trainers of these models: ratings in blocks, factors, and the steps of rows."""

    def __init__(
        self,
        model: DescentModel,
        ratings: Interactions,
        kernels: Kernels,
        start: Fitted | None,
        link: Link,
        mean_score: float,
        grid: Grid,
    ) -> None:
        self.link = link
        self._units = model._units(deviation_of(ratings) if start is None else trained_deviation(start.data))
        self._model, self._ratings, self._rng, self._epoch = model, ratings, np.random.default_rng(model.seed), 0
        n_users, n_items, by_user = ratings.n_users, ratings.n_items, ratings.by_user
        self._grid, self._blocks = grid, make_blocks(by_user, n_items, grid, kernels.group_by, model.n_threads)
        rows = make_row_steps(model, Rows(*by_user[:2]) if start is None else start.seen, n_items)
        if start is None:
            scale = model.init_scale * self._units.factors
            self.factors = Factors(
                first_factors((n_users, model.n_factors), scale, self._rng),
                first_factors((n_items, model.n_factors), scale, self._rng),
                np.zeros(n_users, np.float32),
                np.zeros(n_items, np.float32),
                np.float32(mean_score),
            )
        else:
            self.factors = start.factors
            rows = rows._replace(**{of: start.state[name] for name, of in _STATE.items() if name in start.state})
        self._rows = rows
        self.state = {name: getattr(rows, of) for name, of in _STATE.items()}
        self._lowest_error = math.inf
        self._error_before = self._error_of(float(self.factors.global_mean)) * (1 + model.init_scale**2)
        self._is_new = start is None
        self._centre()

    def _centre(self) -> None:
        """Let kernels work on ratings around 0: float32 numbers are too coarse for small differences of large ones."""
        if self.link.span:
            offset, self._centred = self.link.low, self.factors
        else:
            offset, self._centred = self.factors.global_mean, self.factors._replace(global_mean=np.float32(0))
        self._centred_link = Link(np.float32(0), self.link.span)
        np.subtract(self._blocks.ratings, np.float32(offset), out=self._blocks.ratings)

    def _error_of(self, score: float) -> float:
        """Return the root mean squared error of one score for all ratings, whose deviation counts as σ at least."""
        values = self._ratings.ratings
        low, span = float(self.link.low), float(self.link.span)
        r_hat = low + span * (1 + math.tanh(score / 2)) / 2 if span else score
        spread = max(deviation_of(self._ratings), self._units.deviation)
        return math.hypot(spread, float(values.mean(dtype=np.float64)) - r_hat)

    def to_host(self) -> None:
        """Do nothing: kernels change the factors in place. Trainers with tables on a device override it."""

    def from_host(self) -> None:
        """Begin at the factors and the state as they are: they are those of a model that has learned."""
        self._is_new = False
        self._reload()

    def _reload(self) -> None:
        """Do nothing: kernels read the factors in place. Trainers with tables of their own override it."""

    def checkpoint(self) -> TrainerState:
        """Return the factors, the accumulators, how far the step sizes have come, and the state of the generator."""
        self.to_host()
        p, q, user_biases, item_biases, _ = self._centred
        arrays = {
            "user_factors": p,
            "item_factors": q,
            "user_biases": user_biases,
            "item_biases": item_biases,
            "user_squares": self._rows.user_accumulator,
            "item_squares": self._rows.item_accumulator,
        }
        lowest = None if math.isinf(self._lowest_error) else self._lowest_error
        numbers = {"epoch": self._epoch, "lowest_error": lowest, "generator": self._rng.bit_generator.state}
        return TrainerState(arrays, numbers)

    def resume(self, numbers: dict[str, Any]) -> None:
        """Go on from the state in the arrays of `checkpoint`."""
        lowest = numbers["lowest_error"]
        self._lowest_error = math.inf if lowest is None else finite_number(lowest)
        self._epoch = operator.index(numbers["epoch"])
        self._rng.bit_generator.state = numbers["generator"]
        self._reload()

    def _error(self, squared_error: float) -> Record:
        """Return the training error of an epoch.

        Raises
        ------
        DivergenceError
            If it has risen so much that steps must be too large.
        """
        error = math.sqrt(squared_error / self._ratings.n_ratings)
        if error > max(_LARGEST_RISE * self._lowest_error, _ROUNDING * self._units.deviation):
            rise = f"train_rmse rose from {self._lowest_error:.4g} to {error:.4g}"
            raise diverged(self._epoch, f"{rise} with {self._blame()}")
        before = self._error_before
        if self._is_new and self._epoch >= min(2, self._model.n_epochs) and error > _WORSE_THAN_NOTHING * before:
            raise diverged(
                self._epoch, f"train_rmse is {error:.4g}, and was {before:.4g} at first, with {self._blame()}"
            )
        self._lowest_error = min(error, self._lowest_error)
        return {"train_rmse": error}

    def _blame(self) -> str:
        """Name the parameter at fault: a rating range that is far too wide, or the step size."""
        least, largest = float(self._ratings.ratings.min()), float(self._ratings.ratings.max())
        if self.link.span <= _TOO_WIDE * (largest - least):
            return blame_for_divergence(number(self._model.learning_rate), self._model.adaptive)
        low, high = float(self.link.low), float(self.link.low + self.link.span)
        return (
            f"{named('rating_range')}=({low:g}, {high:g}), while ratings go from {least:g} to {largest:g}; give the "
            "range that they have"
        )

    def _next_epoch(self) -> tuple[Step, Int32Array]:
        """Return the step sizes of an epoch and the order of its blocks."""
        return self._next_step(), shuffled_strata(self._grid, self._rng)

    def _next_step(self) -> Step:
        self._epoch += 1
        return make_step(self._model, self._epoch - 1, self._units)
