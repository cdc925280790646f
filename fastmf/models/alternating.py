"""What explicit and implicit alternating least squares share as models: folding in, and more ratings after a fit."""

import dataclasses
import math
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

from fastmf.answering.explanation import ITEM_RATINGS
from fastmf.answering.fitted import Fitted
from fastmf.answering.side_features import Prior, SideFeatures
from fastmf.backend import Kernels, get_backend
from fastmf.common.parameters import AUTO, require_number
from fastmf.common.work_log import logged
from fastmf.errors import ParameterError, named
from fastmf.models.advice import advise_on_share
from fastmf.models.alternating_explaining import Row, Shares, ratings_of_item, shares_of
from fastmf.models.checkpointing import Run
from fastmf.models.explaining import Person, Split
from fastmf.models.factor_model import FactorModel
from fastmf.models.folding import finite, objective, objective_of
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.learned import Learned
from fastmf.models.least_squares import FixedSide, LeastSquares, Side
from fastmf.models.prior_means import Described, as_given, choose_regularization, describe_sides
from fastmf.models.row_updates import Drift, begin_at_means, join, refit_rows, share_since_fit, updated
from fastmf.models.training import Callback, Prepared, Trainer, as_held_out_part, as_training_part
from fastmf.models.warm import WarmPart, WarmTrainer, warm_part
from fastmf.reading.features import Features
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int64Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors

# The short fit that the strengths of maps of features are chosen by.
_TRIAL_FACTORS, _TRIAL_EPOCHS = 32, 3


class _Folding(NamedTuple):
    """What folding in needs of a fitted model: the equations of rows, and the side that stays as it is."""

    equations: LeastSquares
    fixed: FixedSide


class _Solution(NamedTuple):
    """The factors and the bias of a user or an item, and the factors that they are multiplied with."""

    factors: Float32Array
    bias: float
    other: Float32Array


class AlternatingTrainer(Trainer, Protocol):
    """A trainer whose tables of users and of items are sides of least-squares problems."""

    users: Side
    items: Side

    @property
    def equations(self) -> LeastSquares:
        """The problems of its rows."""


@dataclass(kw_only=True, eq=False)
class AlternatingModel(FactorModel):
    """Base of the models that are trained by alternating least squares.

    With ``item_features`` in `fit`, item factors are pulled to Wᵀx_i in place of 0, where x_i has the features of the
    item, numeric ones in units of their deviation, and a 1 after them, and is scaled to length 1; x_i is 0 for an item
    without features. The objective has Σ_i λ_i‖q_i - Wᵀx_i‖² + r·mean(λ_i)‖W‖² in the place of Σ_i λ_i‖q_i‖², with λ_i
    min(1, r/3) times what it is without features. Every half sweep begins with two steps of conjugate gradients for W.
    Items without ratings have the factors Wᵀx_i. The same holds for ``user_features`` (Agarwal, Chen, "Regression-based
    Latent Factor Models", KDD 2009).

    Parameters
    ----------
    item_feature_regularization, user_feature_regularization : float, optional
        L2 strength r of the map of features, above 0; chosen from the data where it is not set: by cross-validation of
        maps that predict the factors of a third of the items (or users) from those of the others, in a short fit.
    """

    takes_features: ClassVar[bool] = True
    objective_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that say what is minimised. A fit keeps their numbers; they hold for its factors until the next."""

    item_feature_regularization: float | None = None
    user_feature_regularization: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("item_feature_regularization", "user_feature_regularization"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), minimum=0, exclusive=True)

    @abstractmethod
    def _least_squares(self, fitted: Fitted) -> LeastSquares:
        """Return the problems of rows that join a fitted model; all strengths are numbers."""

    @abstractmethod
    def _trainer_of(
        self, ratings: Interactions, kernels: Kernels, features: Mapping[str, Described]
    ) -> AlternatingTrainer:
        """Make a trainer of ratings, all of whose users and items have some, with features of these."""

    @property
    def _n_terms(self) -> int:
        """Length of the rows of tables: factors, and a bias where there is one."""
        return self.n_factors

    def _given_features(self, item_features: Any, user_features: Any) -> dict[str, Features]:
        return as_given(item_features, user_features)

    def _make_warm_trainer(self, ratings: Interactions, run: Run) -> Prepared:
        if not run.features:
            return super()._make_warm_trainer(ratings, run)
        part, kernels = warm_part(ratings), get_backend(self.backend)
        known = ratings if part is None else part.ratings
        features = describe_sides(ratings, run.features, self._n_terms)
        chosen = self.choose_parameters(known) | (run.given or {})
        chosen |= self._choose_for_features(known, kernels, _part_of(features, part), chosen)
        model = self._with(chosen)
        strengths = {side: float(getattr(model, strength_of(side))) for side in features}
        features = {side: of_side.pulled_by(strengths[side]) for side, of_side in features.items()}
        described = {side: Described(of_side, strengths[side]) for side, of_side in _part_of(features, part).items()}
        trainer = model._trainer_of(known, kernels, described)
        if part is None:
            return Prepared(trainer, chosen, features)
        unrated = {
            side: _unrated(of_side, part.users if side == "user" else part.items) for side, of_side in features.items()
        }

        def fill(factors: Factors) -> None:
            for side, rows in unrated.items():
                trainer.equations.set_to_means(factors, side, features[side], rows)

        return Prepared(WarmTrainer(trainer, part, ratings.n_users, ratings.n_items, fill), chosen, features)

    def _choose_for_features(
        self, ratings: Interactions, kernels: Kernels, sides: Mapping[str, SideFeatures], chosen: Chosen
    ) -> Chosen:
        """Choose the strengths of maps of features that are not given, by a short fit with few factors."""
        open_sides = [side for side in sides if getattr(self, strength_of(side)) is None]
        open_sides = [side for side in open_sides if strength_of(side) not in chosen]
        if not open_sides:
            return {}
        of_trial: Chosen = {"n_factors": min(self.n_factors, _TRIAL_FACTORS), "solver": "cholesky"}
        trainer = self._with(chosen | of_trial)._trainer_of(ratings, kernels, {})
        for _ in range(_TRIAL_EPOCHS):
            trainer.run_epoch()
        trainer.to_host()
        found: Chosen = {}
        for side in open_sides:
            rows = trainer.users if side == "user" else trainer.items
            rng = np.random.default_rng([self.seed, len(rows.home)])
            found[strength_of(side)] = choose_regularization(rows.home, sides[side], rows.strengths, rng)
        return found

    def _trained_with(self, chosen: Chosen) -> dict[str, Any]:
        return super()._trained_with(chosen) | objective(self.get_params(), chosen, self.objective_parameters)

    def _as_trained(self, fitted: Fitted) -> Self:
        """Return an unfitted model with the objective that a fit had, whatever was set since."""
        kept = objective_of(fitted, self.get_params(), self.objective_parameters)
        # Not all solvers suit the kept parameters, and none matters to the objective.
        return self._with({**kept, "solver": "cholesky", "n_factors": fitted.factors.user_factors.shape[1]})

    def partial_fit(
        self,
        ratings: Any,
        *,
        validation: Interactions | None = None,
        callbacks: Iterable[Callback] = (),
        item_features: Any = None,
        user_features: Any = None,
    ) -> Self:
        """Continue the fit with more ratings: solve the rows that they change, from all their ratings, old and new.

        New ratings join those of training, and one of a pair that was rated before takes its place. Users and items
        that the model does not know get rows. The users with new ratings are solved, then the items with new ratings,
        then these users again, always exactly, for what the last fit has minimised; other rows stay bit for bit. The
        mean μ, the unit σ, the maps of features and what the fit has chosen for ``"auto"`` stay. `fold_in` then gives
        the factors of these users, as it does after a fit, but not those of other users, who were solved for the items
        as they were.

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
        item_features, user_features : Features or table, optional
            What is known of items and users, where the model was trained with features of this side. Those that only
            the features know join the model. Features that `fit` has not seen are left out. Given ones replace those of
            `fit`; a user or item with ratings, but no new ones, keeps its factors all the same. New ids without
            features are pulled to 0.

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
            If a parameter was changed after `fit` that says what is minimised, or ``n_factors``; if features are given
            of a side that the model has none of.
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
        held_out, features = as_held_out_part(validation, None), as_given(item_features, user_features)
        model = self._unchanged(known)
        sizes = (known.n_users + interactions.n_users, known.n_items + interactions.n_items)
        work = f"partial fit of {type(self).__name__} ({interactions.n_ratings:,} ratings)"
        with logged(work), self._needing_memory(*sizes, len(known.seen.indices) + interactions.n_ratings):
            started, kernels = time.perf_counter(), get_backend(self.backend)
            joined = join(known, interactions, features, kernels, self.n_threads)
            equations = model._least_squares(joined.grown.start)
            begin_at_means(joined, equations)
            drift = Drift(joined, self.is_implicit, kernels, self.n_threads)
            refit_rows(joined, equations, kernels, self.n_threads)
            trained_with = known.trained_with | {"patience": None} | model._kept_objective()
            fitted = updated(joined, known, interactions.n_ratings, equations)
            fitted = dataclasses.replace(fitted, trained_with=trained_with)
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
        solution = _Solution(person.factors, person.bias, fitted.factors.item_factors[item])
        return Split(*self._shares(fitted, "user", person.row, person.features, solution))

    def _split_item(self, fitted: Fitted, person: Person, item: int) -> Split:
        factors, known = fitted.factors, fitted.features.get("item")
        solution = _Solution(factors.item_factors[item], float(factors.item_biases[item]), person.factors)
        features = None if known is None else known.take(np.array([item])).rows
        shares = self._shares(fitted, "item", ratings_of_item(fitted, item), features, solution)
        return Split(np.zeros(0), shares.of_features, {ITEM_RATINGS: math.fsum(shares.of_ratings)})

    def _shares(self, fitted: Fitted, side: str, ratings: CSR, features: CSR | None, solution: "_Solution") -> Shares:
        """Return what the ratings and the features of a user (or an item) add to p·q."""
        equations, fixed = self._folding(fitted, side)
        table = equations.to_table(solution.factors[None], np.array([solution.bias], np.float32))[0]
        row = Row(side, ratings, features, table)
        return shares_of(row, equations, fixed, fitted.features.get(side), solution.other)

    def _folding(self, fitted: Fitted, side: str) -> _Folding:
        """Return what rows of a side are solved with; it is made once."""
        kernels = get_backend(self.backend)

        def prepare() -> _Folding:
            equations = self._as_trained(fitted)._least_squares(fitted)
            return _Folding(equations, equations.against(fitted.factors, side, kernels, self.n_threads))

        return fitted.kept(("fold-in", side, kernels.name), prepare)

    def _fold_in(
        self, fitted: Fitted, rows: CSR, side: str, prior: Prior | None = None
    ) -> tuple[Float32Array, Float32Array]:
        kernels, folding = get_backend(self.backend), self._folding(fitted, side)
        equations = folding.equations
        with np.errstate(over="ignore", invalid="ignore"):
            solved = equations.solve(equations.observed(rows), folding.fixed, side, kernels, self.n_threads, prior)
        return finite(*solved, rows)


def _unrated(features: SideFeatures, rated: Int64Array) -> Int64Array:
    """Return the rows that have features, but are not among those with ratings to train on; ascending."""
    is_meant = features.are_described
    is_meant[rated] = False
    return np.flatnonzero(is_meant)


def _part_of(features: Mapping[str, SideFeatures], part: WarmPart | None) -> Mapping[str, SideFeatures]:
    """Return the features of the users and items that have ratings; None stands for all of them."""
    if part is None:
        return features
    rows = {"user": part.users, "item": part.items}
    return {side: known.take(rows[side]) for side, known in features.items()}


def strength_of(side: str) -> str:
    """Return the name of the parameter that is the strength of the map of features of a side."""
    return f"{side}_feature_regularization"
