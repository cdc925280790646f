"""Alternating least squares for implicit feedback: iALS."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.backend import Kernels
from fastmf.common.parameters import AUTO, number, require_choice, require_number, require_number_or_auto
from fastmf.models.alternating import AlternatingModel, AlternatingTrainer
from fastmf.models.checkpointing import Run
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.least_squares import (
    KERNEL_VARIANTS,
    FixedSide,
    LeastSquares,
    Ready,
    Side,
    first_item_factors,
    make_exact_solver,
    make_side,
    make_solver,
    moved,
    other_side,
    refresh,
    require_solver,
    tables_of,
)
from fastmf.models.prior_means import Described
from fastmf.models.training import (
    Prepared,
    Record,
    Trainer,
    TrainerState,
    finite_number,
    popularity_state,
    require_chosen,
)
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int64Array
from fastmf_kernels.als.arrays import Table, Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link, make_link

# ρ, and the share κ in c = κ(√(n_users / |S|) + √(n_items / |S|)), of the class docstring
# (docs/decisions/0021-defaults-for-implicit-data.md).
_ALL_OVER_OBSERVED, _NOISE_SHARE = 8.0, 0.3
# Scores that are such a share of what they were after the first epoch have collapsed.
_COLLAPSED = 1e-12


@dataclass(kw_only=True, eq=False)
class ImplicitALS(AlternatingModel):
    """Matrix factorisation of implicit feedback by alternating least squares (iALS).

    With ``weighting="rendle"`` it minimises

        Σ_S w(p - r̂)² + α₀ Σ_all r̂² + λ(Σ_u (|S_u| + α₀ n_items)^ν ‖p_u‖² + Σ_i (|S_i| + α₀ n_users)^ν ‖q_i‖²),

    where S are the observed cells, r̂_ui = p_u·q_i, p is the preference, w is 1, or alpha·|r| where alpha is given, and
    n_users and n_items count those that have an observed cell; nobody else takes part (Rendle, Krichene, Zhang, Koren,
    "Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022). With ``weighting="hu"`` it
    minimises

        Σ_all c(p - r̂)² + λ(‖P‖² + ‖Q‖²),

    with c = 1 + alpha·|r| on observed cells and c = 1 elsewhere (Hu, Koren, Volinsky, "Collaborative Filtering for
    Implicit Feedback Datasets", ICDM 2008).

    Every epoch minimises over all q_i, then over all p_u; the first items are drawn, and the first users solved for
    them.

    The preference p is 1 where the rating r is above 0, and 0 elsewhere. A stored 0 is no observation: it counts like a
    cell that is not stored. A negative rating is a dislike: an observation of preference 0, which weighs by its
    magnitude like any other, so w = 1 if alpha is None ("rendle"). Items with a stored 0 and disliked ones were seen:
    they are not recommended, like all items of the training ratings.

    Parameters
    ----------
    regularization : float or "auto"
        L2 strength, at least 0: λ. "auto": c·W / √(Σ_u s_u · Σ_i s_i) with c = 0.3(√(n_users/|S|) + √(n_items/|S|)),
        where |S| observed cells weigh W, w summed up, and λs is the strength of a row: s_u = (|S_u| + α₀ n_items)^ν, or
        1 for "hu". So the strengths of all users, and those of all items, come to c·W.
    unobserved_weight : float or "auto"
        Weight of every cell, observed or not, at least 0, for "rendle": α₀. "auto": 8·W / (n_users n_items), so that
        all cells together weigh 8 times as much as the observed ones.
    alpha : float, optional
        Weight of one unit of rating, above 0. None: every rating weighs 1, whatever its size ("rendle"), or alpha is 1
        ("hu").
    regularization_exponent : float
        Exponent of the amount of a row's data in its L2 strength, at least 0, for "rendle": ν. With 0, λ is the same in
        every row; with 1, it is in proportion to the data.
    weighting : {"rendle", "hu"}
        Whose objective is minimised: the first of the two sums above, or the second.
    solver : {"cholesky", "cg", "subspace"}
        How a sweep solves each row. "cholesky": exactly. "cg": by ``cg_steps`` steps of conjugate gradients from the
        row's present factors (Takács, Pilászy, Tikk, "Applications of the Conjugate Gradient Method for Implicit
        Feedback Collaborative Filtering", RecSys 2011). "subspace": block by block, ``block_size`` factors at a time,
        each block exactly (iALS++: Rendle, Krichene, Zhang, Koren, arXiv:2110.14044). The last two are faster with many
        factors; all three end at the same objective.
    cg_steps : int
        Steps of conjugate gradients a row and sweep, at least 1, for "cg".
    block_size : int
        Factors in a block, at least 1, for "subspace"; rounded up to a multiple of 16.
    nonnegative : bool
        Keep all factors at 0 or above; needs the solver "cholesky".
    init_scale : float
        Size of the first item factors: they are normal with standard deviation ``init_scale`` / √n_factors.

    Attributes
    ----------
    user_factors, item_factors
        p and q. There are no biases.
    history : list of dict
        A record for each epoch: ``epoch``, ``seconds``, ``objective`` (the sum above), and validation metrics.

    Examples
    --------
    >>> import fastmf
    >>> clicks = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2])
    >>> model = fastmf.ImplicitALS(n_factors=2, n_epochs=3).fit(clicks)
    >>> model.recommend([3], k=1).items.shape
    (1, 1)
    """

    kernel_variants: ClassVar[tuple[dict[str, Any], ...]] = KERNEL_VARIANTS
    objective_parameters: ClassVar[tuple[str, ...]] = (
        "regularization",
        "unobserved_weight",
        "alpha",
        "regularization_exponent",
        "weighting",
        "nonnegative",
    )

    n_factors: int = 128
    n_epochs: int = 10
    regularization: float | str = AUTO
    unobserved_weight: float | str = AUTO
    alpha: float | None = None
    regularization_exponent: float = 1.0
    weighting: str = "rendle"
    solver: str = "cholesky"
    cg_steps: int = 3
    block_size: int = 32
    nonnegative: bool = False
    init_scale: float = 0.1

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Metrics that are measured on a validation set after each epoch; the first one selects the best epoch."""
        return ("ndcg", "recall")

    @property
    def is_implicit(self) -> bool:
        """Whether ratings only say what was chosen."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number_or_auto("unobserved_weight", self.unobserved_weight, minimum=0)
        if self.alpha is not None:
            require_number("alpha", self.alpha, minimum=0, exclusive=True)
        require_number("regularization_exponent", self.regularization_exponent, minimum=0)
        require_choice("weighting", self.weighting, ("rendle", "hu"))
        require_solver(self.solver, self.cg_steps, self.block_size, self.nonnegative)
        require_number("init_scale", self.init_scale, minimum=0)

    def choose_parameters(self, ratings: Interactions) -> Chosen:
        """Return λ and α₀ where they are ``"auto"``; the class docstring has their formulas."""
        if not self.auto_parameters():
            return {}
        observed = _observed_part(ratings, self.n_threads)
        observed.lay_out(self.n_threads, both=True)
        user_counts, item_counts = _counts(observed.by_user), _counts(observed.by_item)
        n_users, n_items = float(len(user_counts)), float(len(item_counts))
        weight, model = _weight_of(self, observed), self
        if self.unobserved_weight == AUTO:
            of_a_cell = 1.0 if self.weighting == "hu" else _ALL_OVER_OBSERVED * weight / (n_users * n_items)
            model = self._with({"unobserved_weight": of_a_cell})
        scales = _row_scales(model, user_counts, n_items), _row_scales(model, item_counts, n_users)
        # The first term in the sum is 1/√ of a user's mean number of observed cells. About this sum is the largest
        # singular value of what chance puts in the cells, where rows and columns are scaled to sums of squares of 1.
        noise = math.sqrt(n_users / len(observed)) + math.sqrt(n_items / len(observed))
        strength = _NOISE_SHARE * noise * weight / math.sqrt(float(scales[0].sum()) * float(scales[1].sum()))
        found = {"unobserved_weight": number(model.unobserved_weight), "regularization": strength}
        return {name: found[name] for name in self.auto_parameters()}

    def _make_warm_trainer(self, ratings: Interactions, run: Run) -> Prepared:
        require_chosen(ratings)
        return super()._make_warm_trainer(_observed_part(ratings, self.n_threads), run)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        return self._trainer_of(ratings, kernels, {})

    def _trainer_of(
        self, ratings: Interactions, kernels: Kernels, features: Mapping[str, Described]
    ) -> AlternatingTrainer:
        return _ImplicitTrainer(self, ratings, kernels, features)

    def _least_squares(self, fitted: Fitted) -> LeastSquares:
        observed = _observed_of(fitted)
        sizes = int(observed.users.sum()), int(observed.items.sum())
        return _Implicit(self, *sizes, observed if fitted.features else None)


def _observed_part(ratings: Interactions, n_threads: int | None) -> Interactions:
    """Return the ratings that are not 0, laid out by user."""
    is_observed = ratings.ratings != 0
    observed = ratings if is_observed.all() else ratings.take(np.flatnonzero(is_observed))
    observed.lay_out(n_threads)
    return observed


def _counts(rows: CSR) -> Int64Array:
    """Return the number of entries of each row that has any."""
    counts = np.diff(rows.indptr)
    return counts[counts > 0]


def _alpha(model: ImplicitALS) -> float | None:
    return 1.0 if model.alpha is None and model.weighting == "hu" else model.alpha


def _weight_of(model: ImplicitALS, observed: Interactions) -> float:
    """Return W: what all observed cells weigh, with "hu" how much more than other cells."""
    alpha = _alpha(model)
    return len(observed) if alpha is None else alpha * float(np.abs(observed.ratings).sum(dtype=np.float64))


def _row_scales(model: ImplicitALS, counts: Int64Array, n_others: float) -> Float64Array:
    """Return s: what λ is multiplied by in each row, of ``counts`` observed cells and ``n_others`` in all."""
    if model.weighting == "hu":
        return np.ones(len(counts))
    return np.asarray((counts + number(model.unobserved_weight) * n_others) ** model.regularization_exponent)


class _Observed(NamedTuple):
    """Which users and items of a fitted model have an observed cell: bool arrays."""

    users: BoolArray
    items: BoolArray


def _observed_of(fitted: Fitted) -> _Observed:
    counts, values, seen = fitted.counts, fitted.values, fitted.seen
    if values is None or values.strides == (0,) or values.all():
        return _Observed(counts.is_rated_user, counts.of_items > 0)
    is_observed = values != 0
    before = np.concatenate([[0], np.cumsum(is_observed)])[seen.indptr]
    of_items = np.bincount(seen.indices[is_observed], minlength=fitted.n_items)
    return _Observed(np.diff(before) > 0, of_items > 0)


class _Implicit(LeastSquares):
    """Both papers in one form: an observed cell adds w q qᵀ and t q to what all cells together add.

    Parameters
    ----------
    model : ImplicitALS
        With numbers for λ and α₀.
    n_users, n_items : int
        How many have an observed cell.
    observed : _Observed, optional
        Who they are, where others have factors, too, of their features alone: these take no part in what all cells add.
    """

    def __init__(self, model: ImplicitALS, n_users: int, n_items: int, observed: _Observed | None = None) -> None:
        self._model, self._sizes = model, {"user": n_items, "item": n_users}
        self._observed = observed
        self.exactly = make_exact_solver(model.nonnegative)
        self.unobserved_weight = 1.0 if model.weighting == "hu" else number(model.unobserved_weight)
        alpha = _alpha(model)
        if alpha is None:
            terms = (1.0, 0.0, 1.0, 0.0, 0.0)
        else:  # with "hu" all cells count 1, an observed one alpha·|r| more
            terms = (0.0, alpha, 1.0 if model.weighting == "hu" else 0.0, alpha, 0.0)
        self.weighting = Weighting(*(np.float32(term) for term in terms))

    def observed(self, rows: CSR) -> CSR:
        is_observed = rows.values != 0
        if is_observed.all():
            return rows
        before = np.concatenate([[0], np.cumsum(is_observed)])
        return CSR(before[rows.indptr], rows.indices[is_observed], rows.values[is_observed])

    def strengths(self, counts: Int64Array, side: str) -> Float64Array:
        return number(self._model.regularization) * _row_scales(self._model, counts, self._sizes[side])

    def against(self, factors: Factors, side: str, kernels: Kernels, n_threads: int | None) -> FixedSide:
        table, biases = other_side(factors, side)
        if self._observed is None:
            return self.against_table(table, biases, table, kernels, n_threads)
        is_observed = self._observed.items if side == "user" else self._observed.users
        return self.against_table(table, biases, table[is_observed], kernels, n_threads)

    def against_table(
        self, table: Table, biases: Float32Array, cells: Table, kernels: Kernels, n_threads: int | None
    ) -> FixedSide:
        """Return what rows are solved against: a table of the other side, and its biases, which are all 0.

        ``cells`` has the rows of the table that are part of all cells.
        """
        gram = self.unobserved_weight * kernels.gram(cells, n_threads)
        return FixedSide(table, biases, gram.astype(np.float32), self.weighting)


class _ImplicitTrainer:
    def __init__(
        self, model: ImplicitALS, ratings: Interactions, kernels: Kernels, features: Mapping[str, Described]
    ) -> None:
        self._model, self._kernels, self._features = model, kernels, features
        self.link: Link = make_link(None)
        self.state: dict[str, Float32Array] = popularity_state(ratings)
        self.factors = Factors(
            np.zeros((ratings.n_users, model.n_factors), np.float32),
            first_item_factors(model, ratings.n_items),
            np.zeros(ratings.n_users, np.float32),
            np.zeros(ratings.n_items, np.float32),
            np.float32(0),
        )
        self._solver = make_solver(model)
        self.equations = _Implicit(model, ratings.n_users, ratings.n_items)
        ratings.lay_out(model.n_threads, both=True)
        self.users = self._make_side(ratings.by_user, self.factors.user_factors, "user")
        self.items = self._make_side(ratings.by_item, self.factors.item_factors, "item")
        weighting, liked = self.equations.weighting, ratings.by_user.values[ratings.by_user.values > 0]
        target, target_slope = float(weighting.target), float(weighting.target_slope)
        # Σ_S w p², where p is 0 for dislikes.
        self._total_target = target * len(liked) + target_slope * float(liked.sum(dtype=np.float64))
        self._first_size = 0.0
        self._is_first_epoch = True

    def _make_side(self, rows: CSR, factors: Float32Array, side: str) -> Side:
        strengths = self.equations.strengths(np.diff(rows.indptr), side)
        return make_side(rows, factors, strengths, Ready(self._kernels, self._solver), self._features.get(side))

    def run_epoch(self) -> Record:
        if self._is_first_epoch and not self.users.home.any(axis=1).all():
            self._half_sweep(self.users, self.items)
        self._is_first_epoch = False
        self._half_sweep(self.items, self.users)
        losses = self._half_sweep(self.users, self.items)
        user_squares, item_squares = (
            self._kernels.squared_norms(side.table, self._model.n_threads) for side in (self.users, self.items)
        )
        self._clear_if_collapsed(float(user_squares.sum()) * float(item_squares.sum()))
        return {"objective": self._objective(losses, item_squares)}

    def to_host(self) -> None:
        for side in (self.users, self.items):
            self._kernels.to_host(side.table, side.home)

    def from_host(self) -> None:
        self.users, self.items = (moved(side, self._kernels, self._solver) for side in (self.users, self.items))

    def checkpoint(self) -> TrainerState:
        self.to_host()
        return TrainerState(tables_of(self.users, self.items), {"first_size": self._first_size})

    def resume(self, numbers: dict[str, Any]) -> None:
        self._is_first_epoch = False
        self._first_size = finite_number(numbers["first_size"])
        refresh(self.users, self.items)
        self.from_host()

    def _half_sweep(self, side: Side, fixed: Side) -> Float64Array:
        biases = self.factors.item_biases if side is self.users else self.factors.user_biases
        against = self.equations.against_table(fixed.table, biases, fixed.table, self._kernels, self._model.n_threads)
        problem = against.problem(side.rows, side.regularization, side.added(self._kernels))
        return self._kernels.run_half_sweep(problem, side.table, self._model.n_threads, self._solver)

    def _objective(self, user_losses: Float64Array, item_squares: Float64Array) -> float:
        """Evaluate the sum in the class docstring from the losses of the half sweep.

        With the items fixed, the sum is Σ_u (p_uᵀA p_u - 2bᵀp_u) + Σ_S t + Σ_i λ_i‖q_i‖², with A and b of user u's
        normal equations: A holds all cells and the user's own penalty.
        """
        if self.items.prior is None:
            penalty = float(self.items.strengths @ item_squares)
        else:
            penalty = self.items.penalty(self._kernels)
        return float(user_losses.sum()) + self._total_target + penalty + self.users.penalty_of_means()

    def _clear_if_collapsed(self, size: float) -> None:
        """Set all factors to 0 where ``size``, ‖P‖²‖Q‖², is a tiny share of what it was after the first epoch.

        While scores are small, an epoch multiplies P by a matrix that does not change, and every factor grows or
        shrinks by one of its eigenvalues. Had the largest of them been above 1, P would have grown from its first
        epoch on, or shrunk a little while the parts of small eigenvalues died out. So scores that have become so small
        go on shrinking, and on the CPU arithmetic on numbers below 1e-38 is some ten times as slow.
        """
        self._first_size = self._first_size or size
        if 0 < size < _COLLAPSED**2 * self._first_size:
            for side in (self.users, self.items):
                side.home.fill(0)
                if side.prior is not None:
                    side.prior.weights.fill(0)
                    side.prior.refresh()
            self.from_host()
