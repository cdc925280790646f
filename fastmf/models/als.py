"""Alternating least squares for explicit ratings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastmf.answering.fitted import Fitted
from fastmf.backend import Kernels
from fastmf.common.parameters import AUTO, number, require_number
from fastmf.errors import ParameterError, named
from fastmf.models.alternating import AlternatingModel, AlternatingTrainer
from fastmf.models.bias_terms import baseline_state
from fastmf.models.explicit_strengths import choose_strengths, names_to_choose, require_strengths, scales_of, scaling_of
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
from fastmf.models.training import Record, Trainer, TrainerState
from fastmf.models.units import deviation_of, make_units, trained_deviation
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Float64Array, Int64Array
from fastmf_kernels.als.arrays import Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link, make_link


@dataclass(kw_only=True, eq=False)
class ALS(AlternatingModel):
    """Matrix factorisation of explicit ratings by alternating least squares.

    r̂_ui = μ + b_u + b_i + p_u·q_i, and Σ (r - r̂)² + Σ_u s_u(λ_p·σ‖p_u‖² + λ_bu·b_u²) + Σ_i s_i(λ_q·σ‖q_i‖² +
    λ_bi·b_i²) over observed ratings is minimised: every epoch minimises it over all (q_i, b_i), then over all
    (p_u, b_u); the first items are drawn, and the first users solved for them. σ is the standard deviation of the
    ratings. A missing cell is unknown, not 0. λ_p = λ√(λ_bu/λ_bi), λ_q = λ√(λ_bi/λ_bu): of these only the product
    matters, as p may become larger and q smaller. With ``regularization_scaling="count"``, s_u is the number of ratings
    of u: ALS-WR (Zhou, Wilkinson, Schreiber, Pan, "Large-Scale Parallel Collaborative Filtering for the Netflix Prize",
    AAIM 2008). λ means the same on every scale: ratings a·r + b with a > 0 give the same ranking, and errors that are a
    times as large.

    Parameters
    ----------
    regularization : float or "auto"
        L2 strength of the factors, at least 0: λ, for ratings in units of their standard deviation. "auto": chosen from
        the ratings, c·(σ_e/σ)(√n_u + √n_i + √log n)/(n_u·n_i)^(a/2) with c = 0.62, the deviation σ_e of ratings from
        mean and biases (`Bias`), the mean numbers n_u and n_i of ratings of the user and of the item of a rating, the
        number n of users and items, and the exponent a of ``regularization_scaling``: 1, ½ or 0.
    regularization_scaling : {"count", "root", "none"}, optional
        How often a row of n ratings pays its L2 strengths: n times ("count"), √n times ("root") or once ("none"). None:
        "none" where all strengths are chosen from the ratings and there are biases, else "count".
    bias_regularization : float or "auto", optional
        L2 strength of user biases, above 0: λ_b. "auto": chosen from the ratings, the variance of noise over that of
        the biases (`Bias`). None: "auto" where ``regularization`` is, else λ.
    item_bias_regularization : float, optional
        L2 strength of item biases, above 0. None: that of user biases, or its own where that is chosen.
    biases : bool
        Whether users and items have a bias. Without biases the prediction is p_u·q_i alone.
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
        Keep all factors at 0 or above; needs the solver "cholesky". Biases may be negative.
    init_scale : float
        Size of the first item factors: they are normal with standard deviation ``init_scale`` / √n_factors.

    Attributes
    ----------
    user_factors, item_factors, user_biases, item_biases, global_mean
        The terms of the prediction.
    history : list of dict
        A record for each epoch: ``epoch``, ``seconds``, ``train_rmse``, ``objective`` (the sum above), and validation
        metrics.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2], [5, 4, 4, 2, 5])
    >>> model = fastmf.ALS(n_factors=2, n_epochs=5, regularization=0.1).fit(ratings)
    >>> model.user_factors.shape
    (3, 2)
    """

    kernel_variants: ClassVar[tuple[dict[str, Any], ...]] = KERNEL_VARIANTS
    fixed_parameters: ClassVar[tuple[str, ...]] = ("biases",)
    objective_parameters: ClassVar[tuple[str, ...]] = (
        "regularization",
        "regularization_scaling",
        "bias_regularization",
        "item_bias_regularization",
        "biases",
        "nonnegative",
    )

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float | str = AUTO
    regularization_scaling: str | None = None
    bias_regularization: float | str | None = None
    item_bias_regularization: float | None = None
    biases: bool = True
    solver: str = "cholesky"
    cg_steps: int = 3
    block_size: int = 32
    nonnegative: bool = False
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.biases not in (True, False):
            raise ParameterError(f"{named('biases')} is {self.biases!r}; expected True or False")
        require_strengths(self)
        for name in ("bias_regularization", "item_bias_regularization"):
            if getattr(self, name) == 0 or (self.regularization == 0 and getattr(self, name) is not None):
                given = (
                    f"{named('regularization')} is {self.regularization!r} and {named(name)} {getattr(self, name)!r}"
                )
                raise ParameterError(f"{given}; expected both above 0, or {named(name)} left out")
        require_solver(self.solver, self.cg_steps, self.block_size, self.nonnegative)
        require_number("init_scale", self.init_scale, minimum=0)

    def choose_parameters(self, ratings: Interactions) -> Chosen:
        """Return λ, and those of the biases, where they are chosen from the data."""
        return choose_strengths(self, ratings, self._scaling())

    def _scaling(self) -> str:
        return scaling_of(self, where_chosen="none")

    def _open_parameters(self) -> list[str]:
        return names_to_choose(self)

    @property
    def _n_terms(self) -> int:
        return self.n_factors + int(self.biases)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        return self._trainer_of(ratings, kernels, {})

    def _trainer_of(
        self, ratings: Interactions, kernels: Kernels, features: Mapping[str, Described]
    ) -> AlternatingTrainer:
        return _ExplicitTrainer(self, ratings, kernels, features)

    def _least_squares(self, fitted: Fitted) -> LeastSquares:
        units = make_units(trained_deviation(fitted.data), has_sigmoid=False)
        return _Explicit(self, units.deviation, fitted.factors.global_mean)


class _Balance(NamedTuple):
    """What biases are measured in, and how strong the penalties of users and of items are.

    Attributes
    ----------
    unit : float
        c: the tables have [p, b_u/c] and [q, b_i/c].
    user_strength, item_strength : float
        Of ‖[p, b_u/c]‖² and ‖[q, b_i/c]‖², for a row that pays once.
    """

    unit: float
    user_strength: float
    item_strength: float

    @classmethod
    def of(cls, model: ALS, deviation: float) -> "_Balance":
        """Return c² = λσ/√(λ_bu·λ_bi), with which one strength a side serves factors and biases."""
        strength = number(model.regularization)
        if not model.biases:
            return cls(math.sqrt(deviation), strength * deviation, strength * deviation)
        of_users = strength if model.bias_regularization is None else number(model.bias_regularization)
        of_items = of_users if model.item_bias_regularization is None else model.item_bias_regularization
        mean = math.sqrt(of_users * of_items)
        square = deviation if of_users == of_items == strength else strength * deviation / mean
        return cls(math.sqrt(square), square * of_users, square * of_items)


class _Explicit(LeastSquares):
    """Biases are fitted jointly with the factors: [p, b_u/c] solves against [q, c], and [q, b_i/c] against [p, c].

    A penalty of L_u‖[p, b_u/c]‖² + L_i‖[q, b_i/c]‖² is one of L_u/c² on b_u² and of L_i/c² on b_i². Of L_u and L_i only
    the product matters to p·q, as p may become larger and q smaller. So c and both follow from the three strengths.

    Parameters
    ----------
    model : ALS
        With a number for every strength.
    deviation : float
        σ of the ratings.
    mean : float32
        μ.
    """

    def __init__(self, model: ALS, deviation: float, mean: np.float32) -> None:
        self.has_biases, self._scaling = model.biases, model._scaling()
        self._balance = _Balance.of(model, deviation)
        self.unit = self._balance.unit
        self.exactly = make_exact_solver(model.nonnegative, n_free=int(model.biases))
        self.weighting = Weighting(np.float32(1), np.float32(0), -mean, np.float32(1))
        # G of explicit data: missing cells contribute nothing.
        self.gram = np.zeros((model.n_factors + int(model.biases),) * 2, np.float32)

    def strengths(self, counts: Int64Array, side: str) -> Float64Array:
        strength = self._balance.user_strength if side == "user" else self._balance.item_strength
        return strength * scales_of(counts, self._scaling)

    def against(self, factors: Factors, side: str, kernels: Kernels, n_threads: int | None) -> FixedSide:
        vectors, biases = other_side(factors, side)
        if self.has_biases:
            vectors = np.column_stack([vectors, np.full(len(vectors), self.unit, np.float32)])
        return FixedSide(vectors, biases, self.gram, self.weighting)

    def to_table(self, factors: Float32Array, biases: Float32Array) -> Float32Array:
        return np.column_stack([factors, biases / np.float32(self.unit)]) if self.has_biases else factors

    def from_table(self, table: Float32Array) -> tuple[Float32Array, Float32Array]:
        if not self.has_biases:
            return super().from_table(table)
        return np.ascontiguousarray(table[:, :-1]), table[:, -1] * np.float32(self.unit)


class _ExplicitTrainer:
    def __init__(self, model: ALS, ratings: Interactions, kernels: Kernels, features: Mapping[str, Described]) -> None:
        self._model, self._n_ratings, self._kernels = model, ratings.n_ratings, kernels
        self._features = features
        self._solver = make_solver(model, n_free=int(model.biases))
        self.link: Link = make_link(None)
        self.state: dict[str, Float32Array] = baseline_state(ratings)
        mean = float(ratings.ratings.mean(dtype=np.float64))
        units = make_units(deviation_of(ratings), has_sigmoid=False)
        self.factors = Factors(
            np.zeros((ratings.n_users, model.n_factors), np.float32),
            first_item_factors(model, ratings.n_items, units.factors),
            np.zeros(ratings.n_users, np.float32),
            np.zeros(ratings.n_items, np.float32),
            np.float32(mean if model.biases else 0),
        )
        self.equations = _Explicit(model, units.deviation, self.factors.global_mean)
        p, q, user_biases, item_biases, _ = self.factors
        ratings.lay_out(model.n_threads, both=True)
        self.users = self._make_side(ratings.by_user, p, user_biases, "user")
        self.items = self._make_side(ratings.by_item, q, item_biases, "item")
        self._is_first_epoch = True

    def _make_side(self, rows: CSR, factors: Float32Array, biases: Float32Array, side: str) -> Side:
        strengths = self.equations.strengths(np.diff(rows.indptr), side)
        table, how = self.equations.to_table(factors, biases), Ready(self._kernels, self._solver)
        return make_side(rows, table, strengths, how, self._features.get(side))

    def run_epoch(self) -> Record:
        if self._is_first_epoch and not self.users.home.any(axis=1).all():
            self._half_sweep(self.users, self.items)
        self._is_first_epoch = False
        self._half_sweep(self.items, self.users)
        self._half_sweep(self.users, self.items)
        # The loss of the half sweep is not precise enough: where ratings are fitted well, it is a small difference of
        # large sums.
        terms = self._kernels.as_terms(self.users.table, self.items.table, self.factors, self.equations.unit)
        squared_error = self._kernels.squared_error(self.users.rows, terms, self.link, self._model.n_threads)
        penalty = self._penalty(self.users) + self._penalty(self.items)
        return {"train_rmse": math.sqrt(squared_error / self._n_ratings), "objective": squared_error + penalty}

    def to_host(self) -> None:
        for side in (self.users, self.items):
            self._kernels.to_host(side.table, side.home)
        if self._model.biases:
            p, q, user_biases, item_biases, _ = self.factors
            for home, factors, biases in ((self.users.home, p, user_biases), (self.items.home, q, item_biases)):
                factors[:], biases[:] = self.equations.from_table(home)

    def from_host(self) -> None:
        if self._model.biases:
            p, q, user_biases, item_biases, _ = self.factors
            for home, factors, biases in ((self.users.home, p, user_biases), (self.items.home, q, item_biases)):
                home[:] = self.equations.to_table(factors, biases)
        self._move()

    def checkpoint(self) -> TrainerState:
        for side in (self.users, self.items):
            self._kernels.to_host(side.table, side.home)
        return TrainerState(tables_of(self.users, self.items), {})

    def resume(self, numbers: dict[str, Any]) -> None:
        self._is_first_epoch = False
        refresh(self.users, self.items)
        self._move()

    def _move(self) -> None:
        self.users, self.items = (moved(side, self._kernels, self._solver) for side in (self.users, self.items))

    def _half_sweep(self, side: Side, fixed: Side) -> None:
        if self._model.biases:
            fixed_factors, offsets = self._kernels.split_biases(fixed.table, self.equations.unit)
        else:
            biases = self.factors.item_biases if side is self.users else self.factors.user_biases
            fixed_factors, offsets = fixed.table, biases
        against = FixedSide(fixed_factors, offsets, self.equations.gram, self.equations.weighting)
        problem = against.problem(side.rows, side.regularization, side.added(self._kernels))
        self._kernels.run_half_sweep(problem, side.table, self._model.n_threads, self._solver)

    def _penalty(self, side: Side) -> float:
        """Return Σ λ‖x - m‖² + ρ‖W‖², where m and W are 0 without features."""
        if side.prior is not None:
            return side.penalty(self._kernels)
        return float(side.regularization @ self._kernels.squared_norms(side.table, self._model.n_threads))
