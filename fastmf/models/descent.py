"""Parameters, steps and the continued fit of models that are trained by stochastic gradient descent."""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.backend import Kernels, get_backend
from fastmf.common.parameters import AUTO, number, require_number, require_number_or_auto
from fastmf.common.work_log import logged
from fastmf.errors import DivergenceError, ParameterError, named
from fastmf.models.checkpointing import Run
from fastmf.models.explicit_strengths import SCALING, require_strengths, scales_of
from fastmf.models.factor_model import FactorModel
from fastmf.models.fit_steps import EPOCHS_BEFORE, epochs_to_fold_in, kept_steps
from fastmf.models.growth import grow
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.training import (
    Callback,
    Trainer,
    as_held_out_part,
    as_training_part,
)
from fastmf.models.units import Units, trained_deviation
from fastmf.models.warm import WarmPart, WarmTrainer
from fastmf.reading.interactions import Interactions
from fastmf_kernels.sgd.arrays import RowSteps, Step, first_row_steps
from fastmf_kernels.topk.arrays import Rows

# A bias is one number and takes the whole error of a rating; factors share it. Of steps of 0.01 to 0.1 for biases, with
# 0.1 for factors, 0.01 to 0.02 gave the lowest error on MovieLens-1M and on made-up ratings
# (docs/decisions/0011-steps-of-sgd.md).
_BIAS_SHARE = 0.2
# γ of steps of one size, where it is to be chosen.
_CONSTANT_RATE = 0.01
# λ_b where a model has none of its own.
_BIAS_REGULARIZATION = 0.02
# A step size that was chosen, and with which training diverges, becomes so much smaller, so many times at most.
_SMALLER, _MOST_RESTARTS = 0.25, 3
# The largest strength that kernels get: it shrinks rows to 0. A larger one may not be a float32 number.
_STRONGEST = 1e30
_NO_UNITS = Units()


@dataclass(kw_only=True, eq=False)
class DescentModel(FactorModel):
    """Base of the models that are trained by gradient steps: the parameters that all of them have, and `partial_fit`.

    Parameters
    ----------
    learning_rate : float
        Step size of the first epoch, above 0: γ. Steps are taken on ratings in units of their standard deviation.
    bias_learning_rate : float, optional
        Step size of biases, at least 0. None: a fifth of ``learning_rate``.
    learning_rate_decay : float
        Step sizes are multiplied by this after every epoch; above 0, at most 1.
    adaptive : bool
        Let the step sizes of a row shrink with its gradients: they are divided by √(1 + Σ g²), with the mean squares g²
        of its gradients so far. This is AdaGrad (Duchi, Hazan, Singer, JMLR 12, 2011). Without it all rows take steps
        of one size, for which a ``learning_rate`` of about 0.01 is right.
    biases : bool
        Whether users and items have a bias.
    item_regularization : float, optional
        L2 strength of item factors, at least 0. None: that of user factors.
    bias_regularization : float
        L2 strength of biases, at least 0: λ_b.
    item_bias_regularization : float, optional
        L2 strength of item biases, at least 0. None: that of user biases.
    regularization_scaling : {"count", "root", "none"}
        How often a row of n ratings pays its L2 strengths: n times ("count"), √n times ("root") or once ("none").
    init_scale : float
        Size of the first factors: they are normal with standard deviation ``init_scale`` / √n_factors.
    """

    factor_copies: ClassVar[int] = 2
    fixed_parameters: ClassVar[tuple[str, ...]] = ("biases",)

    learning_rate: float | str = 0.1
    bias_learning_rate: float | None = None
    learning_rate_decay: float = 1.0
    adaptive: bool = True
    biases: bool = True
    item_regularization: float | None = None
    bias_regularization: float | str | None = 0.02
    item_bias_regularization: float | None = None
    regularization_scaling: str | None = "count"
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number_or_auto("learning_rate", self.learning_rate, minimum=0, exclusive=True)
        require_number("learning_rate_decay", self.learning_rate_decay, minimum=0, exclusive=True)
        if self.learning_rate_decay > 1:
            raise ParameterError(f"{named('learning_rate_decay')} is {self.learning_rate_decay}; expected at most 1")
        require_strengths(self)
        for name in ("bias_learning_rate", "item_regularization"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), minimum=0)
        for name in ("adaptive", "biases"):
            if getattr(self, name) not in (True, False):
                raise ParameterError(f"{named(name)} is {getattr(self, name)!r}; expected True or False")
        require_number("init_scale", self.init_scale, minimum=0)

    @abstractmethod
    def _make_trainer(self, ratings: Interactions, kernels: Kernels, start: Fitted | None = None) -> Trainer:
        """Check the data, lay it out, and draw the first factors or take those of ``start``."""

    def partial_fit(
        self, ratings: Any, *, validation: Interactions | None = None, callbacks: Iterable[Callback] = ()
    ) -> Self:
        """Continue the fit with more ratings, from the factors as they are.

        Runs ``n_epochs`` epochs over the new ratings alone. Users and items that the model does not know get rows of
        factors. With ``adaptive``, rows of many ratings go on taking small steps, and new rows take large ones;
        otherwise steps start with ``learning_rate`` again. The mean μ stays. New ratings pay their share of the L2
        strengths of a row: with ``regularization_scaling="none"``, one of 20 ratings pays a twentieth. What the fit
        before has chosen for ``"auto"`` stays, and so does its ``regularization_scaling`` where that is None.
        `history` has the records of these epochs. The baseline of a model of ratings is gone then, as it was fitted to
        the ratings before alone; that of an implicit model counts the new ones, too.

        Parameters
        ----------
        ratings : Interactions, table or SciPy sparse matrix
            As in `fit`; matched to the model by outside ids. Ratings of pairs that were in training before count as
            new ones.
        validation, callbacks
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the ratings do not suit the model, or their ids are of another type.
        ParameterError
            If a parameter was changed after `fit` that the factors depend on: ``n_factors``, ``biases``,
            ``rating_range`` or ``loss``. If strengths are to be chosen that the fit before has not chosen, or has
            chosen for another ``regularization_scaling``.
        DivergenceError, OutOfMemoryError
            As `fit`; the model then is as it was before.

        Examples
        --------
        >>> import fastmf
        >>> first = fastmf.Interactions.from_arrays(["ann", "bob"], ["x", "y"], [4, 3])
        >>> more = fastmf.Interactions.from_arrays(["bob", "eve"], ["x", "z"], [5, 1])
        >>> len(fastmf.SGD(n_factors=2).fit(first).partial_fit(more).user_ids)
        3
        """
        known, interactions = self.fitted, as_training_part(ratings)
        self._require_unchanged(known)
        held_out = as_held_out_part(validation, self.patience)
        chosen = self._chosen_before(known, interactions)
        # At least so many: which users and items are new is found out on the way.
        n_users, n_items = max(known.n_users, interactions.n_users), max(known.n_items, interactions.n_items)
        work = f"partial fit of {type(self).__name__} ({interactions.n_ratings:,} ratings)"
        with logged(work), self._needing_memory(n_users, n_items, interactions.n_ratings):
            scale = self.init_scale * self._units(trained_deviation(known.data)).factors
            start, more, whole, *_ = grow(known, interactions, scale, self.seed, self.n_threads)
            trainer = self._with(chosen)._make_trainer(more, get_backend(self.backend), start)
            if whole is not None:
                sizes = {"n_users": len(whole.user_ids), "n_items": len(whole.item_ids)}
                trainer = WarmTrainer(
                    trainer, WarmPart(more, whole.users, whole.items), sizes["n_users"], sizes["n_items"]
                )
                start = dataclasses.replace(
                    start,
                    user_ids=whole.user_ids,
                    item_ids=whole.item_ids,
                    seen=whole.spread_rows(start.seen),
                    data=start.data | sizes,
                )
            trained_with = start.trained_with | self._with(chosen)._trained_with(chosen)
            trained_with |= {EPOCHS_BEFORE: epochs_to_fold_in(known, self.get_params(), self.best_epoch)}
            fitted = dataclasses.replace(start, factors=trainer.factors, state=trainer.state, trained_with=trained_with)
            return self._train(trainer, fitted, held_out, callbacks)

    def _trained_with(self, chosen: Chosen) -> dict[str, Any]:
        kept = super()._trained_with(chosen) | kept_steps(self.get_params(), chosen)
        return kept | {SCALING: self._scaling()}

    def _chosen_before(self, known: Fitted, ratings: Interactions) -> Chosen:
        """Return what the fit before has chosen for the parameters that are open, and how rows paid their strengths.

        Raises
        ------
        ParameterError
            If strengths are open that the fit before has not chosen, or has chosen for rows that pay otherwise: a few
            more ratings do not tell what suits all.
        """
        names, strengths = self._open_parameters(), self._strengths_from_data()
        before = known.trained_with.get("chosen", {})
        scaling, scaling_before = self.regularization_scaling, known.trained_with.get(SCALING, self._scaling())
        for name in strengths:
            if name not in before:
                raise ParameterError(
                    f"{named(name)} is to be chosen from the data, and the fit before did not choose it; going on "
                    "cannot choose it from the new ratings alone: give a number, or call fit"
                )
            if scaling not in (None, scaling_before):
                raise ParameterError(
                    f"{named(SCALING)} is {scaling!r}, but {named(name)} was chosen for {scaling_before!r}; set it "
                    f"back, give a number for {named(name)}, or call fit"
                )
        missing = {} if before.keys() >= set(names) else self.choose_parameters(ratings)
        chosen = {name: (missing | before)[name] for name in names}
        is_kept = scaling is None and (strengths or scaling_before != self._scaling())
        return chosen | ({SCALING: scaling_before} if is_kept else {})

    def _strengths_from_data(self) -> list[str]:
        """Return the names of the strengths that are open and depend on the data."""
        return []

    def _scaling(self) -> str:
        """Return how often a row pays its strengths."""
        return self.regularization_scaling or "count"

    def _units(self, deviation: float) -> Units:
        """Return what training measures in: nothing in particular, where the values of ratings do not matter."""
        return Units()

    def _require_unchanged(self, known: Fitted) -> None:
        """Check the parameters that a continued fit cannot change."""
        n_factors = known.factors.user_factors.shape[1]
        if n_factors != self.n_factors:
            raise ParameterError(
                f"n_factors is {self.n_factors} but the model has {n_factors} factors; set it back, or call fit"
            )
        for name, value in self.fixed_params().items():
            before = known.trained_with.get(name, value)
            if value != before:
                raise ParameterError(
                    f"{name} is {value!r} but the model was trained with {before!r}, and going on cannot change it; "
                    "set it back, or call fit"
                )

    def _fit(self, ratings: Interactions, run: Run) -> None:
        """Train from the start, with a smaller step size if the one that was chosen is too large."""
        most_restarts = _MOST_RESTARTS if self.learning_rate == AUTO else 0
        while run.n_restarts < most_restarts:
            try:
                super()._fit(ratings, run)
            except DivergenceError:
                chosen = self.choose_parameters(ratings) | (run.given or {})
                run = run.again({"learning_rate": _SMALLER * float(chosen["learning_rate"])})
            else:
                return
        super()._fit(ratings, run)

    def _blame_for_divergence(self) -> str:
        return blame_for_divergence(self._number("learning_rate"), self.adaptive)


def choose_learning_rate(model: DescentModel, where_chosen: float, where_given: float) -> Chosen:
    """Return γ if it is ``"auto"``: one for a λ that is chosen, one for a given λ; 0.01 for steps of one size."""
    if model.learning_rate != AUTO:
        return {}
    adaptive = where_chosen if model.regularization == AUTO else where_given
    return {"learning_rate": adaptive if model.adaptive else _CONSTANT_RATE}


def blame_for_divergence(learning_rate: float, adaptive: bool) -> str:
    """Name the step size, and say what to do with it."""
    lower = min(learning_rate / 4, 0.1 if adaptive else 0.01)
    return f"{named('learning_rate')}={learning_rate:g}; lower it, for example to {lower:.2g}"


def make_step(model: DescentModel, epoch: int, units: Units = _NO_UNITS) -> Step:
    """Return the steps of an epoch, numbered from 0, for factors and ratings as they are, not in units.

    With σ for `Units.deviation` and s for `Units.score`, training minimises Σ ((r - r̂)/σ)² + λ(‖p/√s‖² + ‖q/√s‖²) +
    λ_b((b_u/s)² + (b_i/s)²). A step of size γ along p/√s is one of size γs along p, and the derivative by the score, in
    its unit s, is s/σ² times (r - r̂)·dr̂/ds.
    """
    decay = model.learning_rate_decay**epoch
    learning_rate, bias_learning_rate = number(model.learning_rate), model.bias_learning_rate
    if bias_learning_rate is None:
        bias_learning_rate = _BIAS_SHARE * learning_rate
    user_bias = _BIAS_REGULARIZATION
    if model.biases and model.bias_regularization is not None:  # without biases nothing is chosen for "auto"
        user_bias = number(model.bias_regularization)
    slope, score = units.slope, units.score
    rates = (
        learning_rate * decay * slope,
        bias_learning_rate * decay * slope * score if model.biases else 0.0,
        slope**2 / score if model.adaptive else 0.0,
    )
    regularization = number(model.regularization)
    strengths = (
        regularization,
        regularization if model.item_regularization is None else model.item_regularization,
        user_bias / score,
        (user_bias if model.item_bias_regularization is None else model.item_bias_regularization) / score,
    )
    return Step(*(np.float32(rate) for rate in rates), *(make_strength(strength, units) for strength in strengths))


def make_strength(strength: float, units: Units) -> np.float32:
    """Return λ of factors as kernels take it, for factors and ratings as they are, not in units."""
    return np.float32(min(strength / units.slope, _STRONGEST))


def make_row_steps(model: DescentModel, seen: Rows, n_items: int) -> RowSteps:
    """Return the accumulators of all rows before the first step, and the share of λ that a rating pays.

    A continued fit shares λ among all ratings of a row, also those before: it pays for the new ones only.
    """
    rows = first_row_steps(len(seen.indptr) - 1, n_items)
    user_counts, item_counts = np.diff(seen.indptr), np.bincount(seen.indices, minlength=n_items)
    for scales, counts in ((rows.user_scales, user_counts), (rows.item_scales, item_counts)):
        scales[:] = scales_of(counts, model._scaling()) / np.maximum(counts, 1)
    return rows
