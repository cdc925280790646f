"""What all models share: parameters, the fit loop, and the methods of a fitted model."""

import copy
import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fastmf.answering.answers import Recommendations, Similar
from fastmf.answering.fitted import Fitted
from fastmf.answering.neighbours import similar
from fastmf.answering.scoring import ItemFilter, Scorer
from fastmf.backend import BACKENDS, Kernels, get_backend
from fastmf.common.memory import needing
from fastmf.common.parameters import as_rows, require_choice, require_integer, require_number
from fastmf.common.progress import Progress
from fastmf.errors import DataError, ParameterError, named
from fastmf.keeping import model_directory
from fastmf.keeping.model_directory import Source
from fastmf.keeping.recommendations import write_recommendations
from fastmf.measuring.evaluation import evaluate
from fastmf.models.hyper_parameters import HyperParameters
from fastmf.models.learned import Learned, LearnedState
from fastmf.models.training import (
    Callback,
    Record,
    Trainer,
    as_held_out_part,
    as_training_part,
    best_record,
    diverged,
    in_one_line,
    make_fitted,
)
from fastmf.models.warm import WarmTrainer, warm_part
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf.reading.parquet import PathLike
from fastmf_kernels._types import Float32Array, Int32Array

_VALIDATION_K = 10
# The ratings as sparse rows of users and of items, and as the blocks or tasks of a trainer.
_BYTES_PER_RATING = 28


@dataclass(kw_only=True, eq=False)
class FactorModel(HyperParameters, LearnedState, ABC):
    """Base of the models: the parameters that all of them have, the fit loop, and what a fitted model answers.

    Parameters
    ----------
    n_factors : int
        Length of each factor vector, at least 1.
    n_epochs : int
        Passes over the data, at least 1.
    regularization : float
        L2 strength of the factors, at least 0: λ.
    patience : int, optional
        Stop after this many epochs in a row without a better validation metric. It is the first of
        ``validation_metrics`` that is compared. The model keeps the factors of the best epoch, which `best_epoch`
        names. None: run all epochs and keep the last.
    seed : int
        Seed of everything random, at least 0. The same seed and data give the same factors, bit for bit, for any
        number of threads.
    backend : {"cpu", "reference", "cuda"}
        Which kernels run: compiled ones on the CPU, slow and simple ones in NumPy, or those of an NVIDIA GPU.
    n_threads : int, optional
        Number of threads, at least 1. None: all cores.
    verbose : bool
        Show progress on standard error.
    """

    kernel_variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Parameters of fits that between them call every kernel of the model; ``fastmf warmup`` runs them."""
    fixed_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that a continued fit cannot change: the factors mean something else with others."""

    factor_copies: ClassVar[int] = 3
    """About how many tables as large as the factors of users and items a fit needs: these, and what it works on."""

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float = 0.01
    patience: int | None = None
    seed: int = 0
    backend: str = "cpu"
    n_threads: int | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        require_integer("n_factors", self.n_factors, minimum=1)
        require_integer("n_epochs", self.n_epochs, minimum=1)
        require_number("regularization", self.regularization, minimum=0)
        require_integer("seed", self.seed, minimum=0)
        require_choice("backend", self.backend, BACKENDS)
        if self.patience is not None:
            require_integer("patience", self.patience, minimum=1, otherwise="None to run all epochs")
        if self.n_threads is not None:
            require_integer("n_threads", self.n_threads, minimum=1, otherwise="None for all cores")

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Metrics that are measured on a validation set after each epoch; the first one selects the best epoch."""
        return ("rmse",)

    @property
    def is_implicit(self) -> bool:
        """Whether ratings only say what was chosen; such a model predicts preferences, not ratings."""
        return False

    def _trained_with(self) -> dict[str, Any]:
        """Return the parameters that tell what a fit has left: those that it fixes, and ``patience``."""
        return self.fixed_params() | {"patience": self.patience}

    def fixed_params(self) -> dict[str, Any]:
        """Return the parameters, by name, that a continued fit cannot change."""
        values = {name: getattr(self, name) for name in self.fixed_parameters}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    @abstractmethod
    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        """Check the data, lay it out as sparse rows, and draw the first factors."""

    def fit(self, ratings: Any, *, validation: Interactions | None = None, callbacks: Iterable[Callback] = ()) -> Self:
        """Train on ratings.

        Other threads may use the model meanwhile: they get the answers of the fit before, until this one is done.

        Parameters
        ----------
        ratings : Interactions, table or SciPy sparse matrix
            Ratings to train on. A table, of pyarrow, pandas or polars, has the columns ``user_id``, ``item_id`` and
            ``rating``; `Interactions.from_arrow` takes other names. A sparse matrix is users × items.
        validation : Interactions, table or SciPy sparse matrix, optional
            Ratings to measure the model on after every epoch. The metrics go to `history`; their names start with
            ``validation_``.
        callbacks : iterable of callable
            Each is called after every epoch as ``callback(model, record)``, with the last entry of `history`. If one
            returns a true value, training stops there.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If the ratings do not suit the model.
        ParameterError
            If ``patience`` is set and there is no validation set.
        DivergenceError
            If factors stop being finite. The model then is as it was before.
        OutOfMemoryError
            If there is too little memory; the message says about how much the fit needs.
        """
        interactions = as_training_part(ratings)
        held_out = as_held_out_part(validation, self.patience)
        with self._needing_memory(interactions.n_users, interactions.n_items, interactions.n_ratings):
            interactions.lay_out(self.n_threads)
            trainer = self._make_warm_trainer(interactions)
            return self._train(trainer, make_fitted(trainer, interactions, self._trained_with()), held_out, callbacks)

    def _make_warm_trainer(self, ratings: Interactions) -> Trainer:
        """Return a trainer of the users and items that have ratings."""
        part, kernels = warm_part(ratings), get_backend(self.backend)
        if part is None:
            return self._make_trainer(ratings, kernels)
        return WarmTrainer(self._make_trainer(part.ratings, kernels), part, ratings.n_users, ratings.n_items)

    def _needing_memory(self, n_users: int, n_items: int, n_ratings: int) -> AbstractContextManager[None]:
        """Return a context in which want of memory is an error that says about how much the fit needs."""
        copies = self.factor_copies + (self.patience is not None)
        n_bytes = 4 * (n_users + n_items) * (self.n_factors + 2) * copies + _BYTES_PER_RATING * n_ratings
        sizes = f"{self.n_factors} factors of {n_users:,} users and {n_items:,} items, and {n_ratings:,} ratings"
        return needing(n_bytes, f"training {type(self).__name__} ({sizes})")

    def _train(
        self, trainer: Trainer, fitted: Fitted, held_out: Interactions | None, callbacks: Iterable[Callback]
    ) -> Self:
        """Run epochs. The trainer changes the arrays of ``fitted`` in place."""
        with self._in_progress() as show:
            self._keep(self._run(trainer, fitted, held_out, list(callbacks), show))
        return self

    def _run(
        self,
        trainer: Trainer,
        fitted: Fitted,
        held_out: Interactions | None,
        callbacks: list[Callback],
        show: Callable[[Learned], None],
    ) -> Learned:
        history: list[Record] = []
        best = fitted
        with Progress(type(self).__name__, self.n_epochs, "epoch", self.verbose) as progress:
            for epoch in range(1, self.n_epochs + 1):
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
                progress.advance(1, in_one_line(record))
                answers = [callback(self, record) for callback in callbacks]
                if self.patience and self.best_epoch:
                    best = fitted.copy() if self.best_epoch == epoch else best
                    answers.append(epoch - self.best_epoch >= self.patience)
                if any(answers):
                    break
        return Learned(dataclasses.replace(best), history)

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose factors a fit with ``patience`` has kept, from 1; None for a fit without."""
        learned = self._learned()
        if learned is None or not learned.history:
            return None
        # Models saved before do not tell with what patience they were trained.
        if not learned.fitted.trained_with.get("patience", self.patience):
            return None
        return int(best_record(learned.history, self.validation_metrics[0])["epoch"])

    def _require_progress(self, record: Record) -> None:
        if not self.fitted.is_finite() or not all(np.isfinite(value) for value in record.values()):
            raise diverged(record["epoch"], f"factors are no longer finite with {self._blame_for_divergence()}")

    def _blame_for_divergence(self) -> str:
        return f"{named('regularization')}={self.regularization:g}; raise it"

    def _validate(self, validation: Interactions) -> Record:
        metrics = evaluate(self, validation, k=min(_VALIDATION_K, self.fitted.n_items), metrics=self.validation_metrics)
        return {f"validation_{name}": value for name, value in metrics.items() if not name.startswith("n_")}

    def predict(self, user_ids: Any, item_ids: Any) -> Float32Array:
        """Predict the rating (explicit models) or preference (implicit models) of each pair.

        Parameters
        ----------
        user_ids, item_ids : array-like, shape (n,)
            Outside ids. Of an unknown user or item, the prediction has neither bias nor factors: what is left is the
            mean and the bias of the other side, or 0 in a model without them.

        Returns
        -------
        float32 array, shape (n,)

        Raises
        ------
        DataError
            If the lengths differ, or ids are of the wrong type.
        """
        fitted = self.fitted
        users = ids.look_up(fitted.user_ids, user_ids, "user_ids")
        items = ids.look_up(fitted.item_ids, item_ids, "item_ids")
        if len(users) != len(items):
            raise DataError(f"got {len(users)} user ids and {len(items)} item ids; expected as many of each")
        return self._predict(fitted, users, items)

    def predict_indices(self, users: Int32Array, items: Int32Array) -> Float32Array:
        """Predict like `predict`, for users and items given as rows of the factors.

        Parameters
        ----------
        users, items : int32 arrays, shape (n,)
            -1 stands for an unknown user or item.

        Returns
        -------
        float32 array, shape (n,)

        Raises
        ------
        ParameterError
            If the arrays are not of integers, differ in length, or name a row that there is not.
        """
        fitted = self.fitted
        users, items = as_rows("users", users, fitted.n_users), as_rows("items", items, fitted.n_items)
        if len(users) != len(items):
            raise ParameterError(f"got {len(users)} users and {len(items)} items; expected as many of each")
        return self._predict(fitted, users, items)

    def _predict(self, fitted: Fitted, users: Int32Array, items: Int32Array) -> Float32Array:
        kernels = get_backend(self.backend)
        return kernels.predict_pairs(users, items, fitted.factors, fitted.link, self.n_threads)

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
    ) -> Recommendations:
        """Find the k best items of each user.

        Parameters
        ----------
        users : array-like of ids, optional
            All users if None.
        k : int
            At most the size of the catalogue.
        exclude : "seen", Interactions or None
            What is never returned to a user: the items of his training ratings, the pairs given, or nothing.
        allow, deny : list of item ids, dict of user id to list of item ids, or Interactions; optional
            Items that alone may, or may not, be returned: to all users, or to each. No entry in ``allow``: no items.
        cold : {"skip", "popular", "include"}
            Users without training ratings get nothing, popular items, or what their factors say;
            `Recommendations.n_cold_users` counts them. Only "include" also recommends items without training ratings.

        Returns
        -------
        Recommendations
            Best first. A user with fewer than k candidates gets fewer.

        Raises
        ------
        UnknownIdError, ParameterError
            If a user id is unknown; if ``k`` is larger than the catalogue.
        """
        scorer = Scorer(self.fitted, self.backend, self.n_threads)
        return scorer.recommend(users, k, exclude=exclude, allow=allow, deny=deny, cold=cold)

    def recommend_to_parquet(
        self,
        path: PathLike,
        k: int = 10,
        *,
        users: Any = None,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
        partitioned: bool = False,
        overwrite: bool = False,
    ) -> int:
        """Write the k best items of each user to Parquet, in bounded memory: a file, or ``partitioned`` a directory.

        The output has the columns of `Recommendations.to_arrow`. It appears whole or not at all: a call that was
        interrupted goes on where it stopped when it is made again. The other parameters are those of `recommend`.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false.
        """
        scorer = Scorer(self.fitted, self.backend, self.n_threads)
        batches = scorer.recommend_in_batches(users, k, exclude=exclude, allow=allow, deny=deny, cold=cold)
        return write_recommendations(batches, path, partitioned=partitioned, overwrite=overwrite, shown=self.verbose)

    def similar_items(self, item_ids: Any, k: int = 10) -> Similar:
        """Find the k items whose factors have the largest cosine with those of an item, the item itself left out.

        Parameters
        ----------
        item_ids : id or array-like of ids
        k : int

        Returns
        -------
        Similar
        """
        return similar(self.fitted, item_ids, k, "item", self.backend, self.n_threads)

    def similar_users(self, user_ids: Any, k: int = 10) -> Similar:
        """Find the k users whose factors have the largest cosine with those of a user, the user left out.

        Parameters
        ----------
        user_ids : id or array-like of ids
        k : int

        Returns
        -------
        Similar
        """
        return similar(self.fitted, user_ids, k, "user", self.backend, self.n_threads)

    def save(self, path: PathLike, *, overwrite: bool = False, source: Source | None = None) -> None:
        """Write the model to a directory, whole or not at all; `fastmf.load` reads it back.

        Parameters
        ----------
        path : path-like
        overwrite : bool
            Whether an existing model may be replaced.
        source : dict, optional
            Where the data came from, for the manifest.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false, or it is something else than a model.
        """
        model_directory.save(copy.copy(self), path, overwrite=overwrite, source=source)
