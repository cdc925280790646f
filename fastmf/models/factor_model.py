"""Models of factors: the parameters that all of them have, and the fit loop."""

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.backend import Kernels, get_backend
from fastmf.common.memory import needing
from fastmf.common.parameters import AUTO, require_integer, require_number_or_auto
from fastmf.common.progress import Progress
from fastmf.common.work_log import logged
from fastmf.errors import ParameterError, named
from fastmf.models.advice import advise_on_data, advise_on_fit
from fastmf.models.base import Model
from fastmf.models.checkpointing import Reached, Run, checkpointed, ending
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.learned import Learned
from fastmf.models.prior_means import with_described
from fastmf.models.starting import as_start, begin
from fastmf.models.training import (
    Callback,
    Prepared,
    Record,
    Trainer,
    as_held_out_part,
    as_training_part,
    diverged,
    in_narrower_lines,
    in_one_line,
    make_fitted,
)
from fastmf.models.warm import WarmTrainer, warm_part
from fastmf.reading.features import Features
from fastmf.reading.interactions import Interactions
from fastmf.reading.parquet import PathLike

# The ratings as sparse rows of users and of items, and as the blocks or tasks of a trainer.
_BYTES_PER_RATING = 28


@dataclass(kw_only=True, eq=False)
class FactorModel(Model):
    """Base of the models of factors: the parameters that all of them have, and the fit loop.

    Parameters
    ----------
    n_factors : int
        Length of each factor vector, at least 1.
    n_epochs : int
        Passes over the data, at least 1.
    regularization : float or "auto"
        L2 strength of the factors, at least 0: λ. "auto": chosen from the data.
    patience : int, optional
        Stop after this many epochs in a row without a better validation metric. It is the first of
        ``validation_metrics`` that is compared. The model keeps the factors of the best epoch, which `best_epoch`
        names. None: run all epochs and keep the last.
    """

    factor_copies: ClassVar[int] = 3
    """About how many tables as large as the factors of users and items a fit needs: these, and what it works on."""

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float | str = 0.01
    patience: int | None = None
    seed: int = 0
    backend: str = "cpu"
    n_threads: int | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        require_integer("n_factors", self.n_factors, minimum=1)
        require_integer("n_epochs", self.n_epochs, minimum=1)
        require_number_or_auto("regularization", self.regularization, minimum=0)
        self._require_run_parameters()
        if self.patience is not None:
            require_integer("patience", self.patience, minimum=1, otherwise="None to run all epochs")

    def _trained_with(self, chosen: Chosen) -> dict[str, Any]:
        """Return what tells what a fit has left: the parameters that it fixes, ``patience``, and what it has chosen."""
        return self.fixed_params() | {"patience": self.patience, "chosen": chosen}

    @abstractmethod
    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        """Check the data, lay it out as sparse rows, and draw the first factors."""

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
        item_features: Any = None,
        user_features: Any = None,
    ) -> Self:
        """Train on ratings.

        Other threads may use the model meanwhile: they get the answers of the fit before, until this one is done.

        With ``checkpoint``, a fit that was killed at any moment goes on when it is called again, and gives the bits
        of one that was not. Callbacks see the epochs that follow. A checkpoint of a finished fit gives the model at
        once; with a larger ``n_epochs``, training goes on.

        Parameters
        ----------
        ratings : Interactions, table or SciPy sparse matrix
            Ratings to train on. A table, of pyarrow, pandas or polars, has the columns ``user_id``, ``item_id`` and
            ``rating``; `Interactions.from_arrow` takes other names. A sparse matrix is users × items.
        y : None
            There is no target: ratings are a column of the table.
        validation : Interactions, table or SciPy sparse matrix, optional
            Ratings to measure the model on after every epoch. The metrics go to `history`; their names start with
            ``validation_``.
        callbacks : iterable of callable
            Each is called after every epoch as ``callback(model, record)``, with the last entry of `history`. If one
            returns a true value, training stops there; after the word ``"pause"``, the same call goes on from the
            checkpoint.
        checkpoint : path-like, optional
            Directory for what a fit needs to go on, which is replaced as a whole. Where it has a checkpoint, training
            goes on from there.
        checkpoint_every : int
            Epochs from one checkpoint to the next, at least 1. There is one after the last epoch in any case.
        start : Model, optional
            A fitted model of the same class, with as many factors: training begins at its factors and biases, and at
            the step sizes that it has reached, matched by outside ids. What it does not know begins as in any fit, and
            what ``ratings`` do not have is gone. Strengths and the baseline are those of ``ratings``.
        item_features, user_features : Features or table, optional
            What is known of items, or of users; `ALS` and `ImplicitALS` learn from it. The items and users that only
            features know become part of the model: they can be predicted, recommended and allowed. A table, of
            pyarrow, pandas or polars, has a row for each ``item_id`` or ``user_id``; see `Features.from_arrow`.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If the ratings do not suit the model, or the checkpoint is of other ratings. If no item (or user) with a
            rating has features, or ids are of another type.
        ParameterError
            If ``y`` is given. If features are given to a model that takes none. If ``patience`` is set and there is no
            validation set. If the checkpoint is of another model, of other parameters or another start, or of more
            epochs. If ``start`` is of another kind.
        ModelError, OutputError
            If the checkpoint is damaged; if one cannot be written. The one before is untouched then.
        DivergenceError
            If factors stop being finite. The model then is as it was before.
        OutOfMemoryError
            If there is too little memory; the message says about how much the fit needs.

        Warns
        -----
        QualityWarning
            If the ratings do not suit the model, or the fit has failed or ended too early: not of fewer than 1,000
            ratings, and only where it is certain.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> first = fastmf.ALS(n_factors=4, n_epochs=5).fit(ratings)
        >>> more = fastmf.ALS(n_factors=4, n_epochs=1).fit(ratings, start=first)
        >>> more.history[0]["objective"] <= first.history[-1]["objective"]
        True
        """
        features = self._given_features(item_features, user_features)
        interactions = with_described(as_training_part(ratings, y), features)
        held_out = as_held_out_part(validation, self.patience)
        run = Run(held_out, list(callbacks), as_start(self, start), features=features)
        sizes = interactions.n_users, interactions.n_items, interactions.n_ratings
        with (
            logged(self._work_in_words(*sizes)),
            self._needing_memory(*sizes),
            checkpointed(self, interactions, run, checkpoint, checkpoint_every) as run,
        ):
            interactions.lay_out(self.n_threads)
            # A copy has learned nothing: whether it is implicit is what its parameters say.
            advise_on_data(dataclasses.replace(self), interactions, held_out)
            self._fit(interactions, run)
        advise_on_fit(self, held_out)
        return self

    def _fit(self, ratings: Interactions, run: Run) -> None:
        """Train from the start, or from a checkpoint on."""
        trainer, chosen, features = self._make_warm_trainer(ratings, run)
        if run.start is not None:
            begin(trainer, ratings, run.start, nonnegative=getattr(self, "nonnegative", False))
        fitted = make_fitted(trainer, ratings, self._trained_with(chosen), features)
        with self._in_progress() as show:
            self._keep(self._run(trainer, fitted, run, show))

    def _given_features(self, item_features: Any, user_features: Any) -> dict[str, Features]:
        """Return the features that a fit is given, by side."""
        for name, given in (("item_features", item_features), ("user_features", user_features)):
            if given is not None:
                raise ParameterError(
                    f"{type(self).__name__} does not learn from {named(name)}; expected ALS or ImplicitALS, or no "
                    "features"
                )
        return {}

    def _make_warm_trainer(self, ratings: Interactions, run: Run) -> Prepared:
        """Return a trainer of the users and items that have ratings, and the parameters chosen for them."""
        part, kernels = warm_part(ratings), get_backend(self.backend)
        known = ratings if part is None else part.ratings
        chosen = self.choose_parameters(known) | (run.given or {})
        trainer = self._with(chosen)._make_trainer(known, kernels)
        if part is not None:
            trainer = WarmTrainer(trainer, part, ratings.n_users, ratings.n_items)
        return Prepared(trainer, chosen, {})

    def with_numbers(self, ratings: Interactions) -> Self:
        """Return an unfitted model with the numbers that `fit` would choose from ratings, in place of ``"auto"``."""
        return self._with(self.choose_parameters(ratings))

    def _with(self, chosen: Chosen) -> Self:
        """Return an unfitted model with what was chosen in the place of ``"auto"``."""
        return type(self)(**{**self.get_params(), **chosen}) if chosen else self

    def _number(self, name: str) -> float:
        """Return a parameter, or what the fit in progress has chosen for it."""
        value = getattr(self, name)
        return float(self.chosen[name] if value == AUTO else value)

    def _needing_memory(self, n_users: int, n_items: int, n_ratings: int) -> AbstractContextManager[None]:
        """Return a context in which want of memory is an error that says about how much the fit needs."""
        copies = self.factor_copies + (self.patience is not None)
        n_bytes = 4 * (n_users + n_items) * (self.n_factors + 2) * copies + _BYTES_PER_RATING * n_ratings
        return needing(n_bytes, self._work_in_words(n_users, n_items, n_ratings))

    def _work_in_words(self, n_users: int, n_items: int, n_ratings: int) -> str:
        sizes = f"{self.n_factors} factors of {n_users:,} users and {n_items:,} items, and {n_ratings:,} ratings"
        return f"training {type(self).__name__} ({sizes})"

    def _train(
        self, trainer: Trainer, fitted: Fitted, held_out: Interactions | None, callbacks: Iterable[Callback]
    ) -> Self:
        """Run epochs. The trainer changes the arrays of ``fitted`` in place."""
        with self._in_progress() as show:
            self._keep(self._run(trainer, fitted, Run(held_out, list(callbacks)), show))
        return self

    def _run(self, trainer: Trainer, fitted: Fitted, run: Run, show: Callable[[Learned], None]) -> Learned:
        held_out, callbacks, chosen = run.held_out, run.callbacks, fitted.trained_with.get("chosen", {})
        history, best, ended = self._resumed(trainer, fitted, run)
        epochs = range(len(history) + 1, 1 if ended else self.n_epochs + 1)
        with Progress(type(self).__name__, self.n_epochs, "epoch", self.verbose, n_done=len(history)) as progress:
            for epoch in epochs:
                started = time.perf_counter()
                metrics = trainer.run_epoch()
                if held_out is not None or callbacks or epoch == self.n_epochs:
                    trainer.to_host()
                # A new `Fitted` for each epoch: it caches what it derives from the factors, and these have changed.
                show(Learned(dataclasses.replace(fitted), history))
                record = {"epoch": epoch, "seconds": time.perf_counter() - started, **metrics}
                self._require_progress(record)
                if held_out is not None:
                    record |= self._validate(held_out)
                history.append(record)
                progress.advance(1, in_one_line(record), in_narrower_lines(record))
                is_over, ended = ending([callback(self, record) for callback in callbacks])
                is_best = True
                if self.patience and self.best_epoch:
                    is_best = self.best_epoch == epoch
                    best = fitted.copy() if is_best else best
                    if epoch - self.best_epoch >= self.patience:
                        is_over, ended = True, "patience"
                reached = Reached(history, None if is_best else best, ended)
                run.save(trainer, reached, chosen, is_over or epoch == self.n_epochs)
                if is_over:
                    break
        return Learned(dataclasses.replace(best), history)

    def _resumed(self, trainer: Trainer, fitted: Fitted, run: Run) -> tuple[list[Record], Fitted, str]:
        """Go on from the checkpoint, if there is one; return the history, the best model, and why it is over."""
        history, _, ended = run.resume(trainer, self.n_epochs, self.verbose)
        if not history or run.checkpoints is None:
            return history, fitted, ended
        trainer.to_host()
        return history, run.checkpoints.best_of(fitted) if self.patience else fitted, ended

    def _require_progress(self, record: Record) -> None:
        if not self.fitted.is_finite() or not all(np.isfinite(value) for value in record.values()):
            raise diverged(record["epoch"], f"factors are no longer finite with {self._blame_for_divergence()}")

    def _blame_for_divergence(self) -> str:
        return f"{named('regularization')}={self._number('regularization'):g}; raise it"
