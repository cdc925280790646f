"""What explicit and implicit alternating least squares share as models: folding in, and more ratings after a fit."""

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.backend import get_backend
from fastmf.common.parameters import AUTO
from fastmf.common.work_log import logged
from fastmf.errors import ParameterError, named
from fastmf.models.advice import advise_on_share
from fastmf.models.explaining import Person, Split
from fastmf.models.factor_model import FactorModel
from fastmf.models.folding import finite, objective, objective_of
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.learned import Learned
from fastmf.models.least_squares import FixedSide, LeastSquares
from fastmf.models.row_updates import Drift, join, refit_rows, share_since_fit, updated
from fastmf.models.training import Callback, as_held_out_part, as_training_part
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR


class _Folding(NamedTuple):
    """What folding in needs of a fitted model: the equations of rows, and the side that stays as it is."""

    equations: LeastSquares
    fixed: FixedSide


@dataclass(kw_only=True, eq=False)
class AlternatingModel(FactorModel):
    """Base of the models that are trained by alternating least squares."""

    objective_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that say what is minimised. A fit keeps their numbers; they hold for its factors until the next."""

    @abstractmethod
    def _least_squares(self, fitted: Fitted) -> LeastSquares:
        """Return the problems of rows that join a fitted model; all strengths are numbers."""

    def _trained_with(self, chosen: Chosen) -> dict[str, Any]:
        return super()._trained_with(chosen) | objective(self.get_params(), chosen, self.objective_parameters)

    def _as_trained(self, fitted: Fitted) -> Self:
        """Return an unfitted model with the objective that a fit had, whatever was set since."""
        kept = objective_of(fitted, self.get_params(), self.objective_parameters)
        # Not all solvers suit the kept parameters, and none matters to the objective.
        return self._with({**kept, "solver": "cholesky", "n_factors": fitted.factors.user_factors.shape[1]})

    def partial_fit(
        self, ratings: Any, *, validation: Interactions | None = None, callbacks: Iterable[Callback] = ()
    ) -> Self:
        """Continue the fit with more ratings: solve the rows that they change, from all their ratings, old and new.

        New ratings join those of training, and one of a pair that was rated before takes its place. Users and items
        that the model does not know get rows. The users with new ratings are solved, then the items with new ratings,
        then these users again, always exactly, for what the last fit has minimised; other rows stay bit for bit. The
        mean μ, the unit σ and what the fit has chosen for ``"auto"`` stay. `fold_in` then gives the factors of these
        users, as it does after a fit, but not those of other users, who were solved for the items as they were.

        `history` then has one record: ``epoch`` 1, ``partial`` True, ``seconds``, ``n_users_refitted``,
        ``n_items_refitted``, ``n_new_users``, ``n_new_items``; ``user_drift`` and ``item_drift``, by how much the
        factors X of those that were known have changed, ‖X' - X‖/‖X‖; over the ratings of all these users and
        of all these items ``prediction_drift``, the root mean square of changes of predictions, and ``rmse_before`` and
        ``rmse_after``, the error (of preferences, for implicit feedback); ``share_since_fit``, the share of all ratings
        that has come since the last `fit`; and validation metrics. ``patience`` has no effect. The baseline of a model
        of ratings is gone then, as it was fitted to the ratings before alone; that of an implicit model counts all.

        Other threads may use the model meanwhile: they get the answers of before, until this is done.

        Parameters
        ----------
        ratings : Interactions, table or SciPy sparse matrix
            As in `fit`; matched to the model by outside ids.
        validation : Interactions, table or SciPy sparse matrix, optional
            Ratings to measure the model on in the end.
        callbacks : iterable of callable
            Each is called once, as ``callback(model, record)``.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the model was saved without its training ratings, or ids are of another type.
        ParameterError
            If a parameter was changed after `fit` that says what is minimised, or ``n_factors``.
        DivergenceError, OutOfMemoryError
            As `fit`; the model then is as it was before.

        Warns
        -----
        QualityWarning
            If so many ratings have come since the last `fit` that a new one is due.

        Examples
        --------
        >>> import fastmf
        >>> first = fastmf.Interactions.from_arrays(["ann", "bob"], ["x", "y"], [4, 3])
        >>> more = fastmf.Interactions.from_arrays(["bob", "eve"], ["x", "z"], [5, 1])
        >>> len(fastmf.ALS(n_factors=2).fit(first).partial_fit(more).user_ids)
        3
        """
        known, interactions = self.fitted, as_training_part(ratings)
        held_out = as_held_out_part(validation, None)
        model = self._unchanged(known)
        sizes = (known.n_users + interactions.n_users, known.n_items + interactions.n_items)
        work = f"partial fit of {type(self).__name__} ({interactions.n_ratings:,} ratings)"
        with logged(work), self._needing_memory(*sizes, len(known.seen.indices) + interactions.n_ratings):
            started, kernels = time.perf_counter(), get_backend(self.backend)
            joined = join(known, interactions, kernels, self.n_threads)
            drift = Drift(joined, self.is_implicit, kernels, self.n_threads)
            refit_rows(joined, model._least_squares(joined.grown.start), kernels, self.n_threads)
            trained_with = known.trained_with | {"patience": None} | model._kept_objective()
            fitted = dataclasses.replace(updated(joined, known, interactions.n_ratings), trained_with=trained_with)
            seconds = {"epoch": 1, "partial": True, "seconds": time.perf_counter() - started}
            record = seconds | drift.record() | {"share_since_fit": share_since_fit(fitted)}
            self._finish_partial_fit(Learned(fitted, [record]), held_out, list(callbacks))
        advise_on_share(fitted, record["share_since_fit"])
        return self

    def _finish_partial_fit(self, learned: Learned, held_out: Interactions | None, callbacks: list[Callback]) -> None:
        """Check and validate what was learned, tell the callbacks, and keep it."""
        record = learned.history[0]
        with self._in_progress() as show:
            show(learned)
            self._require_progress(record)
            if held_out is not None:
                record |= self._validate(held_out)
            for callback in callbacks:
                callback(self, record)
        self._keep(learned)

    def _unchanged(self, known: Fitted) -> Self:
        """Return the model with the objective that its fit had.

        Raises
        ------
        ParameterError
            If another one was set since.
        """
        model, chosen = self._as_trained(known), known.trained_with.get("chosen", {})
        for name in ("n_factors", *self.objective_parameters):
            value, before = getattr(self, name), getattr(model, name)
            if value != before and not (value in (AUTO, None) and name in chosen):
                raise ParameterError(
                    f"{named(name)} is {value!r} but the model was trained with {before!r}, and going on cannot change "
                    "it; set it back, or call fit"
                )
        return model

    def _kept_objective(self) -> dict[str, Any]:
        return objective(self.get_params(), {}, self.objective_parameters)

    def _split(self, fitted: Fitted, person: Person, item: int) -> Split:
        equations, fixed = self._folding(fitted, "user")
        row, item_factors = person.row, fitted.factors.item_factors[item]
        observed, contributions = equations.observed(row), np.zeros(len(row.indices))
        if len(observed.indices):
            is_observed = np.isin(row.indices, observed.indices)
            solution = equations.to_table(person.factors[None], np.array([person.bias], np.float32))[0]
            influence = equations.influence(observed, fixed, solution, item_factors)
            contributions[is_observed] = influence.of_observations
        return Split(contributions)

    def _folding(self, fitted: Fitted, side: str) -> _Folding:
        """Return what rows of a side are solved with; it is made once."""
        kernels = get_backend(self.backend)

        def prepare() -> _Folding:
            equations = self._as_trained(fitted)._least_squares(fitted)
            return _Folding(equations, equations.against(fitted.factors, side, kernels, self.n_threads))

        return fitted.kept(("fold-in", side, kernels.name), prepare)

    def _fold_in(self, fitted: Fitted, rows: CSR, side: str) -> tuple[Float32Array, Float32Array]:
        kernels, folding = get_backend(self.backend), self._folding(fitted, side)
        equations = folding.equations
        with np.errstate(over="ignore", invalid="ignore"):
            solved = equations.solve(equations.observed(rows), folding.fixed, side, kernels, self.n_threads)
        return finite(*solved, rows)
