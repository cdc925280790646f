"""Alternating least squares for explicit ratings."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastmf.backend import Kernels
from fastmf.common.parameters import number, require_choice, require_number
from fastmf.errors import ParameterError, named
from fastmf.models.factor_model import FactorModel
from fastmf.models.least_squares import (
    KERNEL_VARIANTS,
    Side,
    first_item_factors,
    make_side,
    make_solver,
    require_solver,
)
from fastmf.models.training import Record, Trainer
from fastmf.models.units import deviation_of, make_units
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import HalfSweep, Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link, make_link


@dataclass(kw_only=True, eq=False)
class ALS(FactorModel):
    """Matrix factorisation of explicit ratings by alternating least squares.

    r̂_ui = μ + b_u + b_i + p_u·q_i, and Σ (r - r̂)² + Σ_u λ_u(σ‖p_u‖² + b_u²) + Σ_i λ_i(σ‖q_i‖² + b_i²) over observed
    ratings is minimised over all (p_u, b_u), then over all (q_i, b_i), and so on; σ is the standard deviation of the
    ratings. A missing cell is unknown, not 0.
    With ``regularization_scaling="count"``, λ_u = λ·(ratings of u): ALS-WR (Zhou, Wilkinson, Schreiber, Pan,
    "Large-Scale Parallel Collaborative Filtering for the Netflix Prize", AAIM 2008). So λ means the same on every
    scale: ratings a·r + b with a > 0 give the same ranking, and errors that are a times as large.

    Parameters
    ----------
    regularization : float
        L2 strength of the factors, at least 0: λ, for ratings in units of their standard deviation.
    regularization_scaling : {"count", "none"}
        How often a row pays its L2 strength: once for every rating that it has ("count"), or once in all ("none").
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

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float | str = 0.05
    regularization_scaling: str = "count"
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
        require_choice("regularization_scaling", self.regularization_scaling, ("count", "none"))
        require_solver(self.solver, self.cg_steps, self.block_size, self.nonnegative)
        require_number("init_scale", self.init_scale, minimum=0)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        return _ExplicitTrainer(self, ratings, kernels)


class _ExplicitTrainer:
    """Biases are fitted jointly with the factors: [p, b_u/√σ] solves against [q, √σ], [q, b_i/√σ] against [p, √σ].

    In units of σ, p and q are divided by √σ, and biases by σ; the penalty λ of (‖p‖²/σ + b²/σ²), times σ² like the
    squared errors, is λσ·‖[p, b/√σ]‖².
    """

    def __init__(self, model: ALS, ratings: Interactions, kernels: Kernels) -> None:
        self._model, self._n_ratings, self._kernels = model, ratings.n_ratings, kernels
        self._solver = make_solver(model, n_free=int(model.biases))
        self.link: Link = make_link(None)
        self.state: dict[str, Float32Array] = {}
        mean = float(ratings.ratings.mean(dtype=np.float64))
        self._units = make_units(deviation_of(ratings), has_sigmoid=False)
        self.factors = Factors(
            np.zeros((ratings.n_users, model.n_factors), np.float32),
            first_item_factors(model, ratings.n_items, self._units.factors),
            np.zeros(ratings.n_users, np.float32),
            np.zeros(ratings.n_items, np.float32),
            np.float32(mean if model.biases else 0),
        )
        p, q, user_biases, item_biases, _ = self.factors
        ratings.lay_out(model.n_threads, both=True)
        self._users = self._make_side(ratings.by_user, p, user_biases)
        self._items = self._make_side(ratings.by_item, q, item_biases)
        # G of explicit data: missing cells contribute nothing.
        self._gram = np.zeros((self._users.home.shape[1],) * 2, np.float32)
        self._weighting = Weighting(np.float32(1), np.float32(0), -self.factors.global_mean, np.float32(1))

    def _make_side(self, rows: CSR, factors: Float32Array, biases: Float32Array) -> Side:
        home = np.column_stack([factors, biases]) if self._model.biases else factors
        return make_side(rows, home, self._strengths(rows), self._kernels, self._solver)

    def _strengths(self, rows: CSR) -> Float64Array:
        counts = np.diff(rows.indptr)
        scaled = self._model.regularization_scaling == "count"
        strength = number(self._model.regularization) * self._units.deviation
        return np.asarray(strength * (counts if scaled else np.ones_like(counts)), np.float64)

    def run_epoch(self) -> Record:
        self._half_sweep(self._users, self._items)
        self._half_sweep(self._items, self._users)
        # The loss of the half sweep is not precise enough: where ratings are fitted well, it is a small difference of
        # large sums.
        terms = self._kernels.as_terms(self._users.table, self._items.table, self.factors, self._units.factors)
        squared_error = self._kernels.squared_error(self._users.rows, terms, self.link, self._model.n_threads)
        penalty = self._penalty(self._users) + self._penalty(self._items)
        return {"train_rmse": math.sqrt(squared_error / self._n_ratings), "objective": squared_error + penalty}

    def to_host(self) -> None:
        for side in (self._users, self._items):
            self._kernels.to_host(side.table, side.home)
        if self._model.biases:
            p, q, user_biases, item_biases, _ = self.factors
            for home, factors, biases in ((self._users.home, p, user_biases), (self._items.home, q, item_biases)):
                factors[:], biases[:] = home[:, :-1], home[:, -1] * np.float32(self._units.factors)

    def _half_sweep(self, side: Side, fixed: Side) -> None:
        if self._model.biases:
            fixed_factors, offsets = self._kernels.split_biases(fixed.table, self._units.factors)
        else:
            biases = self.factors.item_biases if side is self._users else self.factors.user_biases
            fixed_factors, offsets = fixed.table, biases
        problem = HalfSweep(side.rows, fixed_factors, offsets, self._gram, side.regularization, self._weighting)
        self._kernels.run_half_sweep(problem, side.table, self._model.n_threads, self._solver)

    def _penalty(self, side: Side) -> float:
        return float(side.regularization @ self._kernels.squared_norms(side.table, self._model.n_threads))
