"""Models without factors, which others are compared with: biases of users and items, and popularity."""

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Never, Protocol, Self

import numpy as np
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.common.memory import needing
from fastmf.common.parameters import AUTO, number, require_integer, require_number, require_number_or_auto
from fastmf.common.progress import Progress
from fastmf.common.work_log import logged
from fastmf.errors import DataError, ParameterError, named
from fastmf.models.base import Model
from fastmf.models.bias_terms import MOST_SWEEPS, BiasSweeps, Strengths, bias_terms, biases_of_rows
from fastmf.models.checkpointing import Reached, Run, checkpointed, ending
from fastmf.models.folding import objective, objective_of
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.learned import Learned
from fastmf.models.starting import as_start, known_items, known_users
from fastmf.models.training import (
    Callback,
    Record,
    Resumable,
    TrainerState,
    as_held_out_part,
    as_training_part,
    describe,
    in_narrower_lines,
    in_one_line,
    require_chosen,
)
from fastmf.reading.interactions import Interactions
from fastmf.reading.parquet import PathLike
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, make_link
from fastmf_kernels.topk.arrays import Rows

# The ratings as sparse rows, and what is worked on.
_BYTES_PER_RATING, _BYTES_PER_ROW = 24, 64
_SECONDS_A_DAY = 86400
# The logarithm to base 2 of the least share that float32 numbers hold with ease.
_LOG_OF_LEAST_SHARE = -100.0
# Logarithms of shares that differ later are equal but for rounding.
_DIGITS = 6
_UNITS_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class BaselineTrainer(Resumable, Protocol):
    """One run of training of a model without factors."""

    def begin(self, ratings: Interactions, start: Fitted) -> None:
        """Begin at what a fitted model has learned, where that helps."""

    def run_epoch(self) -> Record:
        """Go over the data once, and return the training metrics of the epoch."""

    def factors(self) -> Factors:
        """Return the terms of the prediction as they are now."""

    def chosen(self) -> Chosen:
        """Return the parameters chosen so far."""

    @property
    def has_converged(self) -> bool:
        """Whether a further epoch would change little."""


class Baseline(Model):
    """Base of the models without factors: the one `fit`."""

    def _trained_with(self, chosen: Chosen) -> dict[str, Any]:
        """Return what tells what a fit has left: what it has minimised, and what it has chosen for that."""
        return {"chosen": chosen}

    @abstractmethod
    def _fold_in_biases(self, fitted: Fitted, rows: CSR, side: str) -> Float64Array:
        """Return the biases of rows with the other side fixed; 0 in a row without ratings."""

    def _fold_in(self, fitted: Fitted, rows: CSR, side: str, prior: Any = None) -> tuple[Float32Array, Float32Array]:
        biases = self._fold_in_biases(fitted, rows, side)
        return np.zeros((len(biases), 0), np.float32), biases.astype(np.float32)

    @abstractmethod
    def _make_trainer(self, ratings: Interactions) -> BaselineTrainer:
        """Check the data, and get ready for the first epoch."""

    def fit(
        self,
        ratings: Any,
        y: None = None,
        *,
        validation: Interactions | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: PathLike | None = None,
        checkpoint_every: int = 1,
        start: Model | None = None,
    ) -> Self:
        """Train on ratings. Parameters and errors are those of `fastmf.models.FactorModel.fit`.

        `Bias` begins its sweeps at the biases of ``start``, and at the strengths that it has chosen. `Popularity` is
        counted in one epoch, on which ``start`` has no influence.
        """
        interactions = as_training_part(ratings, y)
        held_out = as_held_out_part(validation, None)
        run = Run(held_out, list(callbacks), as_start(self, start))
        n_users, n_items, n_ratings = interactions.n_users, interactions.n_items, interactions.n_ratings
        n_bytes = _BYTES_PER_ROW * (n_users + n_items) + _BYTES_PER_RATING * n_ratings
        sizes = f"{n_users:,} users and {n_items:,} items, and {n_ratings:,} ratings"
        work = f"training {type(self).__name__} ({sizes})"
        with (
            logged(work),
            needing(n_bytes, work),
            checkpointed(self, interactions, run, checkpoint, checkpoint_every) as run,
        ):
            interactions.lay_out(self.n_threads)
            with self._in_progress() as show:
                self._keep(self._run(interactions, run, show))
        return self

    def _run(self, ratings: Interactions, run: Run, show: Callable[[Learned], None]) -> Learned:
        trainer = self._make_trainer(ratings)
        if run.start is not None:
            trainer.begin(ratings, run.start)
        n_epochs = getattr(self, "n_epochs", 1)
        history, _, ended = run.resume(trainer, n_epochs, self.verbose)
        fitted = self._make_fitted(ratings, trainer)
        with Progress(type(self).__name__, n_epochs, "epoch", self.verbose, n_done=len(history)) as progress:
            for epoch in range(len(history) + 1, 1 if ended else n_epochs + 1):
                started = time.perf_counter()
                metrics = trainer.run_epoch()
                terms, trained_with = trainer.factors(), self._trained_with(trainer.chosen())
                fitted = dataclasses.replace(fitted, factors=terms, trained_with=trained_with)
                show(Learned(fitted, history))
                record = {"epoch": epoch, "seconds": time.perf_counter() - started, **metrics}
                if run.held_out is not None:
                    record |= self._validate(run.held_out)
                history.append(record)
                progress.advance(1, in_one_line(record), in_narrower_lines(record))
                is_over, ended = ending([callback(self, record) for callback in run.callbacks])
                if trainer.has_converged:
                    is_over, ended = True, "converged"
                run.save(trainer, Reached(history, ended=ended), {}, is_over or epoch == n_epochs)
                if is_over:
                    break
        return Learned(fitted, history)

    def _make_fitted(self, ratings: Interactions, trainer: BaselineTrainer) -> Fitted:
        return Fitted(
            trainer.factors(),
            make_link(None),
            ratings.user_ids,
            ratings.item_ids,
            Rows(*ratings.by_user[:2]),
            describe(ratings),
            trained_with=self._trained_with(trainer.chosen()),
            values=ratings.by_user.values,
        )

    def similar_items(self, item_ids: Any = None, k: int = 10, **_: Any) -> Never:
        """Refuse: items without factors cannot be compared.

        Raises
        ------
        ParameterError
            Always.
        """
        self._refuse_to_compare("items")

    def similar_users(self, user_ids: Any = None, k: int = 10, **_: Any) -> Never:
        """Refuse: users without factors cannot be compared.

        Raises
        ------
        ParameterError
            Always.
        """
        self._refuse_to_compare("users")

    def _refuse_to_compare(self, what: str) -> Never:
        _ = self.fitted
        raise ParameterError(
            f"a model of class {type(self).__name__} has no factors, by which alone {what} are compared; train a model "
            "of factors, such as ALS or ImplicitALS"
        )


@dataclass(kw_only=True, eq=False)
class Bias(Baseline):
    """The mean rating and a bias of each user and item: what a model of ratings has to beat.

    r̂_ui = μ + b_u + b_i. Minimises Σ (r - r̂)² + λ_u Σ b_u² + λ_i Σ b_i² over observed ratings, with the mean rating μ,
    by alternating least squares: a bias of n ratings is n/(n + λ) times their mean residual ("damped means": Koren,
    "Factor in the Neighbors", ACM TKDD 4(1), 2010). By default λ_u = σ²/σ_u² and λ_i = σ²/σ_i² are learned from the
    ratings: the variance of the noise over that of the biases ("empirical Bayes": Efron, Morris, "Stein's Estimation
    Rule and Its Competitors", JASA 68(341), 1973). After each sweep the variances become σ_u² = Σ b_u²/γ_u with
    γ_u = Σ_u n_u/(n_u + λ_u), σ_i² likewise, and σ² = Σ (r - r̂)²/(N - γ_u - γ_i) for N ratings (MacKay, "Bayesian
    Interpolation", Neural Computation 4(3), 1992). Ratings a·r + b with a > 0 give the same ranking, and errors that
    are a times as large. A user or item without ratings has the bias 0.

    Parameters
    ----------
    regularization : float or "auto"
        L2 strength of the biases of users, at least 0: λ_u. "auto": learned from the ratings.
    item_regularization : float or "auto"
        L2 strength of the biases of items, at least 0: λ_i. "auto": learned from the ratings.
    n_epochs : int
        Most sweeps over the data, at least 1. They end earlier once they change the error and the strengths no more.

    Attributes
    ----------
    user_biases, item_biases, global_mean
        The terms of the prediction. There are no factors: `user_factors` has no columns.
    history : list of dict
        A record for each epoch: ``epoch``, ``seconds``, ``train_rmse``, and validation metrics.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2], [1, 2, 1, 2], [4, 5, 2, 3])
    >>> model = fastmf.Bias(regularization=0, item_regularization=0).fit(ratings)
    >>> model.predict([1, 2], [1, 2]).tolist()
    [4.0, 3.0]
    """

    objective_parameters: ClassVar[tuple[str, ...]] = ("regularization", "item_regularization")

    regularization: float | str = AUTO
    item_regularization: float | str = AUTO
    n_epochs: int = MOST_SWEEPS
    seed: int = 0
    backend: str = "cpu"
    n_threads: int | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        require_number_or_auto("regularization", self.regularization, minimum=0)
        require_number_or_auto("item_regularization", self.item_regularization, minimum=0)
        require_integer("n_epochs", self.n_epochs, minimum=1)
        self._require_run_parameters()

    def choose_parameters(self, ratings: Interactions) -> Chosen:
        """Return λ_u and λ_i where they are ``"auto"``; the class docstring has their formulas."""
        return self._chosen_of(bias_terms(ratings).strengths) if self.auto_parameters() else {}

    def _chosen_of(self, strengths: Strengths) -> Chosen:
        found = {"regularization": strengths.user, "item_regularization": strengths.item}
        return {name: found[name] for name in self.auto_parameters()}

    def _trained_with(self, chosen: Chosen) -> dict[str, Any]:
        return super()._trained_with(chosen) | objective(self.get_params(), chosen, self.objective_parameters)

    def _fold_in_biases(self, fitted: Fitted, rows: CSR, side: str) -> Float64Array:
        factors, strengths = fitted.factors, objective_of(fitted, self.get_params(), self.objective_parameters)
        others = factors.item_biases if side == "user" else factors.user_biases
        strength = strengths["regularization" if side == "user" else "item_regularization"]
        return biases_of_rows(rows, float(factors.global_mean), others, number(strength))

    def _make_trainer(self, ratings: Interactions) -> BaselineTrainer:
        return _BiasTrainer(self, ratings)


class _BiasTrainer:
    def __init__(self, model: Bias, ratings: Interactions) -> None:
        strengths = model.regularization, model.item_regularization
        given = (None if value == AUTO else number(value) for value in strengths)
        self._model, self._sweeps = model, BiasSweeps(ratings, *given)
        self.checkpoint, self.resume = self._sweeps.checkpoint, self._sweeps.resume

    def begin(self, ratings: Interactions, start: Fitted) -> None:
        self._sweeps.begin((known_users(ratings, start), known_items(ratings, start)), start)

    def run_epoch(self) -> Record:
        self._sweeps.run()
        return {"train_rmse": self._sweeps.error}

    def factors(self) -> Factors:
        terms = self._sweeps.terms()
        return _without_factors(terms.user_biases, terms.item_biases, terms.mean)

    def chosen(self) -> Chosen:
        return self._model._chosen_of(self._sweeps.strengths)

    @property
    def has_converged(self) -> bool:
        return self._sweeps.has_converged


@dataclass(kw_only=True, eq=False)
class Popularity(Baseline):
    """The share of users who have chosen an item: what a model of implicit feedback has to beat.

    r̂_ui = |U_i| / |U|, with the users U_i who have a rating above 0 of item i, and all users U with a rating. With
    ``half_life``, a choice counts 2^(-t/h), where t is how much older it is than the latest one of all: an item that
    everybody has chosen at last has 1, and one of old choices little. Shares below 2^-100 keep their order alone: each
    is the next float32 number below that of the item before. All users get the same ranking, but for what they have
    seen.

    Parameters
    ----------
    half_life : float, optional
        Days after which a choice counts half, above 0: h. Needs timestamps; a column of times or dates says what they
        are, and integers are seconds. None: all choices count alike.

    Attributes
    ----------
    item_biases
        r̂ of each item. There are no factors: `user_factors` has no columns.
    history : list of dict
        One record: ``epoch``, ``seconds``, and validation metrics.

    Examples
    --------
    >>> import fastmf
    >>> clicks = fastmf.Interactions.from_arrays(["ann", "ann", "bob", "eve"], ["x", "y", "x", "z"])
    >>> model = fastmf.Popularity().fit(clicks)
    >>> [round(share, 2) for share in model.predict(["bob", "bob"], ["x", "y"]).tolist()]
    [0.67, 0.33]
    """

    half_life: float | None = None
    seed: int = 0
    backend: str = "cpu"
    n_threads: int | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.half_life is not None:
            require_number("half_life", self.half_life, minimum=0, exclusive=True)
        self._require_run_parameters()

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Metrics that are measured on a validation set."""
        return ("ndcg", "recall")

    @property
    def is_implicit(self) -> bool:
        """Whether ratings only say what was chosen."""
        return True

    def _fold_in_biases(self, fitted: Fitted, rows: CSR, side: str) -> Float64Array:
        """Return 0 for users, and the share of users who have chosen an item for items, as if all had done so last."""
        if side == "user":
            return np.zeros(len(rows.indptr) - 1)
        before = np.concatenate([[0], np.cumsum(rows.values > 0)])[rows.indptr]
        return np.diff(before) / max(1, int(np.count_nonzero(fitted.counts.is_rated_user)))

    def _make_trainer(self, ratings: Interactions) -> BaselineTrainer:
        require_chosen(ratings)
        return _PopularityTrainer(self, ratings)

    def _shares(self, ratings: Interactions) -> Float64Array:
        """Return r̂ of each item."""
        is_chosen = ratings.ratings > 0
        n_users = int(np.count_nonzero(np.diff(ratings.by_user.indptr)))
        if self.half_life is None:
            return np.asarray(np.bincount(ratings.items, is_chosen, ratings.n_items) / n_users)
        half_lives = _ages_in_days(ratings, is_chosen) / self.half_life
        return _shares_of_age(ratings.items[is_chosen], half_lives[is_chosen], ratings.n_items, n_users)


class _PopularityTrainer:
    has_converged = False

    def __init__(self, model: Popularity, ratings: Interactions) -> None:
        self._model, self._ratings, self._shares = model, ratings, np.zeros(ratings.n_items)

    def begin(self, ratings: Interactions, start: Fitted) -> None:
        """Do nothing: shares are counted, whatever was there before."""

    def run_epoch(self) -> Record:
        self._shares[:] = self._model._shares(self._ratings)
        return {}

    def factors(self) -> Factors:
        return _without_factors(np.zeros(self._ratings.n_users), self._shares, 0.0)

    def chosen(self) -> Chosen:
        return {}

    def checkpoint(self) -> TrainerState:
        return TrainerState({"shares": self._shares}, {})

    def resume(self, numbers: dict[str, Any]) -> None:
        """Do nothing: the shares are all there is."""


Model.baselines.update(explicit=Bias, implicit=Popularity)


def _without_factors(user_biases: Float64Array, item_biases: Float64Array, mean: float) -> Factors:
    return Factors(
        np.zeros((len(user_biases), 0), np.float32),
        np.zeros((len(item_biases), 0), np.float32),
        user_biases.astype(np.float32),
        item_biases.astype(np.float32),
        np.float32(mean),
    )


def _shares_of_age(items: Int32Array, half_lives: Float64Array, n_items: int, n_users: int) -> Float64Array:
    """Return Σ 2^-t / |U| of each item, over the ages t of its choices in half-lives.

    Shares of old choices alone are too small for float32 numbers. They are replaced by others in the same order.
    """
    youngest = np.full(n_items, np.inf)
    np.minimum.at(youngest, items, half_lives)
    is_chosen = np.isfinite(youngest)
    sums = np.bincount(items, np.exp2(youngest[items] - half_lives), n_items)
    logs = np.log2(sums / n_users, out=np.full(n_items, -np.inf), where=is_chosen) - np.where(is_chosen, youngest, 0)
    shares = np.exp2(logs)
    faint = np.flatnonzero(is_chosen & (logs < _LOG_OF_LEAST_SHARE))
    places = np.unique(np.round(-logs[faint], _DIGITS), return_inverse=True)[1]
    bits = np.exp2(np.float32(_LOG_OF_LEAST_SHARE)).view(np.int32) - 1 - places
    shares[faint] = bits.astype(np.int32).view(np.float32)
    return np.asarray(shares)


def _ages_in_days(ratings: Interactions, is_chosen: BoolArray) -> Float64Array:
    """Return how much older each choice is than the latest one; 0 where nothing was chosen.

    Raises
    ------
    DataError
        If there are no timestamps.
    """
    if ratings.timestamps is None:
        raise DataError(
            f"{named('half_life')} needs the times of ratings, and these have none; name their column with "
            f"{named('timestamp')}, or leave {named('half_life')} out"
        )
    kind = ratings.timestamp_type
    if kind is not None and pa.types.is_date32(kind):
        units_a_day = 1
    else:
        unit = "s" if kind is None else getattr(kind, "unit", "ms")  # a date of 64 bits counts milliseconds
        units_a_day = _SECONDS_A_DAY * _UNITS_A_SECOND[unit]
    latest = int(ratings.timestamps[is_chosen].max())
    # As numbers of Python and of float64: differences of far times do not fit into int64.
    ages = (float(latest) - ratings.timestamps.astype(np.float64)) / units_a_day
    return np.where(is_chosen, np.maximum(ages, 0), 0)
