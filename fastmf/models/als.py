"""Alternating least squares, for explicit ratings and for implicit feedback."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastmf.backend import Kernels
from fastmf.errors import DataError
from fastmf.interactions import Interactions
from fastmf.models.base import FactorModel
from fastmf.models.training import Record, Trainer, first_factors
from fastmf.parameters import require_choice, require_number
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import HalfSweep, Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors, Link, make_link

SOLVERS = ("cholesky",)
_CHUNK = 1 << 20


@dataclass(kw_only=True, eq=False)
class ALS(FactorModel):
    """Matrix factorisation of explicit ratings by alternating least squares.

    r̂_ui = μ + b_u + b_i + p_u·q_i, and Σ (r - r̂)² + Σ_u λ_u(‖p_u‖² + b_u²) + Σ_i λ_i(‖q_i‖² + b_i²) over observed
    ratings is minimised exactly in all (p_u, b_u), then in all (q_i, b_i), and so on. With
    ``regularization_scaling="count"``, λ_u = λ·(ratings of u): ALS-WR (Zhou, Wilkinson, Schreiber, Pan, "Large-Scale
    Parallel Collaborative Filtering for the Netflix Prize", AAIM 2008).

    Parameters
    ----------
    n_factors, n_epochs, regularization, seed, backend, n_threads, verbose
        As in every model. ``regularization`` is λ.
    regularization_scaling : {"count", "none"}
        Whether λ is multiplied by the number of ratings of each row.
    biases : bool
        Without them the prediction is p_u·q_i alone.
    solver : {"cholesky"}
    init_scale : float
        First item factors are normal with standard deviation ``init_scale`` / √n_factors.

    Attributes
    ----------
    user_factors, item_factors, user_biases, item_biases, global_mean
        The terms of the prediction.
    history : list of dict
        One an epoch: ``epoch``, ``seconds``, ``train_rmse``, ``objective``, and validation figures.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2], [5, 4, 4, 2, 5])
    >>> model = fastmf.ALS(n_factors=2, n_epochs=5, regularization=0.1).fit(ratings)
    >>> model.user_factors.shape
    (3, 2)
    """

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float = 0.05
    regularization_scaling: str = "count"
    biases: bool = True
    solver: str = "cholesky"
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("regularization_scaling", self.regularization_scaling, ("count", "none"))
        require_choice("solver", self.solver, SOLVERS)
        require_number("init_scale", self.init_scale, minimum=0)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        return _ExplicitTrainer(self, ratings, kernels)


@dataclass(kw_only=True, eq=False)
class ImplicitALS(FactorModel):
    """Matrix factorisation of implicit feedback by alternating least squares (iALS).

    With ``weighting="rendle"`` it minimises

        Σ_S w(1 - r̂)² + α₀ Σ_all r̂² + λ(Σ_u (|S_u| + α₀ n_items)^ν ‖p_u‖² + Σ_i (|S_i| + α₀ n_users)^ν ‖q_i‖²),

    where S are the observed cells, r̂_ui = p_u·q_i, and w is 1, or alpha·r where alpha is given (Rendle, Krichene,
    Zhang, Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022). With
    ``weighting="hu"`` it minimises

        Σ_all c(p - r̂)² + λ(‖P‖² + ‖Q‖²),

    with p = 1 and c = 1 + alpha·r on observed cells, p = 0 and c = 1 elsewhere (Hu, Koren, Volinsky, "Collaborative
    Filtering for Implicit Feedback Datasets", ICDM 2008).

    Parameters
    ----------
    n_factors, n_epochs, regularization, seed, backend, n_threads, verbose
        As in every model. ``regularization`` is λ.
    unobserved_weight : float
        α₀, for "rendle".
    alpha : float, optional
        Weight of one unit of rating. None: w = 1 ("rendle"), or alpha = 1 ("hu").
    regularization_exponent : float
        ν, for "rendle": 0 for the same λ in every row, 1 for λ in proportion to the row's data.
    weighting : {"rendle", "hu"}
    solver : {"cholesky"}
    init_scale : float
        First item factors are normal with standard deviation ``init_scale`` / √n_factors.

    Attributes
    ----------
    user_factors, item_factors
        p and q. There are no biases.
    history : list of dict
        One an epoch: ``epoch``, ``seconds``, ``objective`` (the sum above), and validation figures.

    Examples
    --------
    >>> import fastmf
    >>> clicks = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 3, 2])
    >>> model = fastmf.ImplicitALS(n_factors=2, n_epochs=3).fit(clicks)
    >>> model.recommend([3], k=1).items.shape
    (1, 1)
    """

    n_factors: int = 64
    n_epochs: int = 15
    regularization: float = 0.01
    unobserved_weight: float = 0.1
    alpha: float | None = None
    regularization_exponent: float = 1.0
    weighting: str = "rendle"
    solver: str = "cholesky"
    init_scale: float = 0.1

    validation_metrics: ClassVar[tuple[str, ...]] = ("ndcg", "recall")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("unobserved_weight", self.unobserved_weight, minimum=0)
        if self.alpha is not None:
            require_number("alpha", self.alpha, minimum=0, exclusive=True)
        require_number("regularization_exponent", self.regularization_exponent, minimum=0)
        require_choice("weighting", self.weighting, ("rendle", "hu"))
        require_choice("solver", self.solver, SOLVERS)
        require_number("init_scale", self.init_scale, minimum=0)

    def _make_trainer(self, ratings: Interactions, kernels: Kernels) -> Trainer:
        negative = np.flatnonzero(ratings.ratings < 0)
        if len(negative):
            raise DataError(
                f"{len(negative)} ratings are negative, for example {ratings.ratings[negative[0]]:g}; an implicit "
                "model takes them as weights, expected at least 0: drop those rows, or use ALS or SGD for ratings"
            )
        return _ImplicitTrainer(self, ratings, kernels)


class _ExplicitTrainer:
    """Biases are fitted jointly with the factors: [p, b_u] solves against [q, 1], [q, b_i] against [p, 1]."""

    def __init__(self, model: ALS, ratings: Interactions, kernels: Kernels) -> None:
        self._model, self._ratings, self._kernels = model, ratings, kernels
        self.link: Link = make_link(None)
        mean = float(ratings.ratings.mean(dtype=np.float64))
        self.factors = Factors(
            np.zeros((ratings.n_users, model.n_factors), np.float32),
            first_factors((ratings.n_items, model.n_factors), model.init_scale, np.random.default_rng(model.seed)),
            np.zeros(ratings.n_users, np.float32),
            np.zeros(ratings.n_items, np.float32),
            np.float32(mean if model.biases else 0),
        )

    def run_epoch(self) -> Record:
        p, q, user_biases, item_biases, _ = self.factors
        self._half_sweep(self._ratings.by_user, q, item_biases, p, user_biases)
        self._half_sweep(self._ratings.by_item, p, user_biases, q, item_biases)
        squared_error = _sum_over_observed(
            self._ratings.by_user,
            self.factors,
            self._kernels,
            self._model.n_threads,
            lambda r, r_hat: (r - r_hat) ** 2,
        )
        penalty = self._penalty(self._ratings.by_user, p, user_biases)
        penalty += self._penalty(self._ratings.by_item, q, item_biases)
        n_ratings = self._ratings.n_ratings
        return {"train_rmse": math.sqrt(squared_error / n_ratings), "objective": squared_error + penalty}

    def _half_sweep(
        self,
        rows: CSR,
        fixed_factors: Float32Array,
        fixed_biases: Float32Array,
        factors: Float32Array,
        biases: Float32Array,
    ) -> None:
        if self._model.biases:
            fixed_factors = np.column_stack([fixed_factors, np.ones(len(fixed_factors), np.float32)])
        size = fixed_factors.shape[1]
        solution = np.empty((len(factors), size), np.float32)
        problem = HalfSweep(
            rows,
            fixed_factors,
            fixed_biases,
            np.zeros((size, size), np.float32),
            self._regularization(rows),
            Weighting(np.float32(1), np.float32(0), -self.factors.global_mean, np.float32(1)),
        )
        self._kernels.run_half_sweep(problem, solution, self._model.n_threads)
        factors[:] = solution[:, : factors.shape[1]]
        if self._model.biases:
            biases[:] = solution[:, -1]

    def _regularization(self, rows: CSR) -> Float32Array:
        counts = np.diff(rows.indptr)
        scaled = self._model.regularization_scaling == "count"
        return (self._model.regularization * (counts if scaled else np.ones_like(counts))).astype(np.float32)

    def _penalty(self, rows: CSR, factors: Float32Array, biases: Float32Array) -> float:
        squares = _squared_norms(factors) + biases.astype(np.float64) ** 2
        return float(self._regularization(rows) @ squares)


class _ImplicitTrainer:
    def __init__(self, model: ImplicitALS, ratings: Interactions, kernels: Kernels) -> None:
        self._model, self._ratings, self._kernels = model, ratings, kernels
        self.link: Link = make_link(None)
        self.factors = Factors(
            np.zeros((ratings.n_users, model.n_factors), np.float32),
            first_factors((ratings.n_items, model.n_factors), model.init_scale, np.random.default_rng(model.seed)),
            np.zeros(ratings.n_users, np.float32),
            np.zeros(ratings.n_items, np.float32),
            np.float32(0),
        )
        self._weighting = self._make_weighting()
        self._unobserved_weight = 1.0 if model.weighting == "hu" else model.unobserved_weight

    def _make_weighting(self) -> Weighting:
        """Bring both papers to one form: the observed entry adds w q qᵀ and t q to what all cells contribute."""
        model = self._model
        if model.weighting == "hu":  # all cells count 1, an observed one alpha·r more
            alpha = 1.0 if model.alpha is None else model.alpha
            terms = (0.0, alpha, 1.0, alpha)
        elif model.alpha is None:
            terms = (1.0, 0.0, 1.0, 0.0)
        else:
            terms = (0.0, model.alpha, 0.0, model.alpha)
        return Weighting(*(np.float32(term) for term in terms))

    def run_epoch(self) -> Record:
        p, q = self.factors.user_factors, self.factors.item_factors
        self._half_sweep(self._ratings.by_user, q, p)
        self._half_sweep(self._ratings.by_item, p, q)
        return {"objective": self._objective()}

    def _half_sweep(self, rows: CSR, fixed_factors: Float32Array, factors: Float32Array) -> None:
        gram = np.float32(self._unobserved_weight) * self._kernels.gram(fixed_factors)
        offsets = np.zeros(len(fixed_factors), np.float32)
        regularization = self._regularization(rows, len(fixed_factors)).astype(np.float32)
        problem = HalfSweep(rows, fixed_factors, offsets, gram, regularization, self._weighting)
        self._kernels.run_half_sweep(problem, factors, self._model.n_threads)

    def _regularization(self, rows: CSR, n_fixed: int) -> Float64Array:
        counts = np.diff(rows.indptr).astype(np.float64)
        if self._model.weighting == "hu":
            return np.full(len(counts), self._model.regularization)
        scale = (counts + self._model.unobserved_weight * n_fixed) ** self._model.regularization_exponent
        return np.asarray(self._model.regularization * scale)

    def _objective(self) -> float:
        """Evaluate the sum in the class docstring; Σ_all r̂² = ⟨PᵀP, QᵀQ⟩ needs no cell of its own."""
        p, q = self.factors.user_factors, self.factors.item_factors
        all_cells = self._unobserved_weight * float(np.sum(_float64_gram(p) * _float64_gram(q)))
        weight, weight_slope, target, target_slope = (float(term) for term in self._weighting)

        def beyond_all_cells(r: Float64Array, r_hat: Float64Array) -> Float64Array:
            # w r̂² - 2 t r̂ + t: for both weightings, the observed cell's loss less what `all_cells` has of it.
            t = target + target_slope * r
            return (weight + weight_slope * r) * r_hat**2 - 2 * t * r_hat + t

        observed = _sum_over_observed(
            self._ratings.by_user, self.factors, self._kernels, self._model.n_threads, beyond_all_cells
        )
        penalty = float(self._regularization(self._ratings.by_user, len(q)) @ _squared_norms(p))
        penalty += float(self._regularization(self._ratings.by_item, len(p)) @ _squared_norms(q))
        return all_cells + observed + penalty


def _squared_norms(factors: Float32Array) -> Float64Array:
    return np.asarray(np.einsum("nf,nf->n", factors, factors, dtype=np.float64))


def _float64_gram(factors: Float32Array) -> Float64Array:
    total = np.zeros((factors.shape[1], factors.shape[1]))
    for start in range(0, len(factors), _CHUNK):
        chunk = factors[start : start + _CHUNK].astype(np.float64)
        total += chunk.T @ chunk
    return total


def _sum_over_observed(
    by_user: CSR,
    factors: Factors,
    kernels: Kernels,
    n_threads: int | None,
    term: Callable[[Float64Array, Float64Array], Float64Array],
) -> float:
    """Add up ``term(r, r̂)`` over all observed cells, a chunk at a time, in float64."""
    total, link = 0.0, make_link(None)
    cuts = np.unique(np.searchsorted(by_user.indptr, np.arange(0, len(by_user.indices), _CHUNK)))
    for first, last in itertools.pairwise([*cuts, len(by_user.indptr) - 1]):
        entries = slice(by_user.indptr[first], by_user.indptr[last])
        users = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(by_user.indptr[first : last + 1]))
        r_hat = kernels.predict_pairs(users, by_user.indices[entries], factors, link, n_threads)
        total += float(term(by_user.values[entries].astype(np.float64), r_hat.astype(np.float64)).sum())
    return total
