"""Parameters, solvers and tables that explicit and implicit alternating least squares share."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastmf.answering.side_features import Prior, SideFeatures
from fastmf.backend import Kernels
from fastmf.common.parameters import require_choice, require_integer
from fastmf.errors import ParameterError, named
from fastmf.models.prior_means import Described, PriorMeans
from fastmf.models.training import first_factors
from fastmf_kernels._types import Float32Array, Float64Array, Int64Array
from fastmf_kernels.als.arrays import EXACTLY, NOTHING_ADDED, HalfSweep, Solver, Table, Weighting
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict.arrays import Factors

SOLVERS = ("cholesky", "cg", "subspace")
# Where rows rate a smaller share of the other side, that part alone is laid out for the kernels.
_SMALL_PART = 0.25
KERNEL_VARIANTS: tuple[dict[str, Any], ...] = (*({"solver": solver} for solver in SOLVERS), {"nonnegative": True})


class Side(NamedTuple):
    """The users or the items of a training run.

    Attributes
    ----------
    rows : CSR
        The ratings of each user or item.
    home : float32 array, shape (n_rows, n_factors)
        The factors on the host.
    table : Table
        The same factors on the device of the kernels; on the CPU the same array.
    strengths : float64 array, shape (n_rows,)
        λ of each row.
    regularization : float32 array, shape (n_rows,)
        The same λ, rounded to what kernels take.
    prior : PriorMeans or None
        What rows are pulled to; None: to 0.
    """

    rows: CSR
    home: Float32Array
    table: Table
    strengths: Float64Array
    regularization: Float32Array
    prior: PriorMeans | None = None

    def added(self, kernels: Kernels) -> Float32Array:
        """Fit the prior means to the factors as they are, and return λm of each row; nothing without a prior."""
        if self.prior is None:
            return NOTHING_ADDED
        kernels.to_host(self.table, self.home)
        self.prior.update(self.home)
        return self.regularization[:, None] * self.prior.means

    def penalty_of_means(self) -> float:
        """Return Σ λ‖m‖² + ρ‖W‖², what features add to the objective that does not depend on the factors."""
        if self.prior is None:
            return 0.0
        squares = np.einsum("nf,nf->n", self.prior.means, self.prior.means, dtype=np.float64)
        return float(self.strengths @ squares) + self.prior.penalty()

    def penalty(self, kernels: Kernels) -> float:
        """Return Σ λ‖x - m‖² + ρ‖W‖², with a prior."""
        assert self.prior is not None
        kernels.to_host(self.table, self.home)
        away = self.home - self.prior.means
        return float(self.strengths @ np.einsum("nf,nf->n", away, away, dtype=np.float64)) + self.prior.penalty()


def tables_of(users: Side, items: Side) -> dict[str, Float32Array]:
    """Return everything of both sides that epochs change, by names for files."""
    sides = {"user": users, "item": items}
    weights = {f"{name}_weights": side.prior.weights for name, side in sides.items() if side.prior is not None}
    return {f"{name}_table": side.home for name, side in sides.items()} | weights


def refresh(*sides: Side) -> None:
    """Compute prior means anew, after the maps of features were changed from outside."""
    for side in sides:
        if side.prior is not None:
            side.prior.refresh()


class Ready(NamedTuple):
    """How half sweeps are run: the kernels and the solver."""

    kernels: Kernels
    solver: Solver


def make_side(
    rows: CSR, factors: Float32Array, strengths: Float64Array, how: Ready, features: Described | None = None
) -> Side:
    """Move the factors of a side to the device of the kernels; with features, rows are pulled to their means."""
    prior = None
    if features is not None:
        strengths = strengths * features.known.pull
        prior = PriorMeans(features.known, strengths, features.regularization)
    table = how.kernels.to_device(factors, how.solver)
    return Side(rows, factors, table, strengths, strengths.astype(np.float32), prior)


def moved(side: Side, kernels: Kernels, solver: Solver) -> Side:
    """Move the factors of a side to the device again, after they were changed on the host."""
    return side._replace(table=kernels.to_device(side.home, solver))


class FixedSide(NamedTuple):
    """The side that stays as it is while rows of the other side are solved.

    Attributes
    ----------
    factors : Table
        The vectors q, as `HalfSweep.fixed_factors` has them.
    offsets : float32 array, shape (n_fixed,)
        What is subtracted from the target of each observation: biases of this side.
    gram : float32 array, shape (n_factors, n_factors)
        What all cells together add to the normal matrix of a row.
    weighting : Weighting
    """

    factors: Table
    offsets: Float32Array
    gram: Float32Array
    weighting: Weighting

    def problem(self, rows: CSR, regularization: Float32Array, added: Float32Array = NOTHING_ADDED) -> HalfSweep:
        """Return the least-squares problems of rows that have these L2 strengths, with what is added to right sides."""
        return HalfSweep(rows, self.factors, self.offsets, self.gram, regularization, self.weighting, added)

    def part_for(self, rows: CSR) -> "tuple[CSR, FixedSide]":
        """Return the rows, and of this side only what they rate; all of it unless that is a small part."""
        if len(rows.indices) > len(self.offsets) * _SMALL_PART:
            return rows, self
        columns, places = np.unique(rows.indices, return_inverse=True)
        part = self._replace(factors=self.factors[columns], offsets=self.offsets[columns])
        return rows._replace(indices=places.astype(np.int32)), part


def other_side(factors: Factors, side: str) -> tuple[Float32Array, Float32Array]:
    """Return the factors and the biases of items for the side "user", and of users for "item"."""
    if side == "user":
        return factors.item_factors, factors.item_biases
    return factors.user_factors, factors.user_biases


class LeastSquares(ABC):
    """The least-squares problems of rows, as the parameters of a model and its training data determine them.

    Attributes
    ----------
    exactly : Solver
        The solver that finds the solution of a row, whatever was there before.
    """

    exactly: Solver

    @abstractmethod
    def strengths(self, counts: Int64Array, side: str) -> Float64Array:
        """Return λ of rows of a side ("user" or "item"), given their numbers of observations."""

    @abstractmethod
    def against(self, factors: Factors, side: str, kernels: Kernels, n_threads: int | None) -> FixedSide:
        """Return what rows of ``side`` are solved against: the other side of ``factors``, on the host."""

    def observed(self, rows: CSR) -> CSR:
        """Return the observations among the ratings of rows: all of them, unless a 0 is none."""
        return rows

    def to_table(self, factors: Float32Array, biases: Float32Array) -> Float32Array:
        """Return rows as half sweeps solve them: factors alone where there are no biases."""
        return factors

    def from_table(self, table: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Return factors and biases of rows that a half sweep has solved."""
        return table, np.zeros(len(table), np.float32)

    def solve(
        self,
        rows: CSR,
        fixed: FixedSide,
        side: str,
        kernels: Kernels,
        n_threads: int | None,
        prior: Prior | None = None,
    ) -> tuple[Float32Array, Float32Array]:
        """Solve rows of a side exactly; nothing is changed.

        Parameters
        ----------
        rows : CSR
            Their observations; columns are rows of the other side.
        fixed : FixedSide
            What `against` has returned for ``side``.
        side : {"user", "item"}
        kernels : Kernels
        n_threads : int, optional
        prior : Prior, optional
            What the rows are pulled to; None: to 0.

        Returns
        -------
        factors : float32 array, shape (n_rows, n_factors)
        biases : float32 array, shape (n_rows,)
            Those of the prior, or 0, in a row without observations.
        """
        counts = np.diff(rows.indptr)
        strengths = self.strengths(counts, side)
        regularization = (strengths if prior is None else strengths * prior.pull).astype(np.float32)
        added = NOTHING_ADDED if prior is None else regularization[:, None] * prior.means
        rows, part = fixed.part_for(rows)
        home = np.zeros((len(regularization), part.factors.shape[1]), np.float32)
        if len(rows.indices):
            table = kernels.to_device(home, self.exactly)
            on_device = part._replace(factors=kernels.to_device(part.factors, self.exactly))
            kernels.run_half_sweep(on_device.problem(rows, regularization, added), table, n_threads, self.exactly)
            kernels.to_host(table, home)
        if prior is not None:
            home[counts == 0] = self.feasible(prior.means[counts == 0])
        return self.from_table(home)

    def set_to_means(self, factors: Factors, side: str, features: SideFeatures, rows: Int64Array) -> None:
        """Set rows of a side to the means that their features give them, in place.

        Parameters
        ----------
        factors : Factors
            Of all users and items.
        side : {"user", "item"}
        features : SideFeatures
            Of all rows of the side.
        rows : int64 array, shape (n,)
        """
        means = self.feasible(features.prior(features.take(rows).rows).means)
        of_users = (factors.user_factors, factors.user_biases)
        vectors, biases = of_users if side == "user" else (factors.item_factors, factors.item_biases)
        vectors[rows], biases[rows] = self.from_table(means)

    def feasible(self, table: Float32Array) -> Float32Array:
        """Return rows, or the nearest ones that the constraints of the solver allow."""
        if self.exactly.name != "nonnegative":
            return table
        n_bound = table.shape[1] - self.exactly.setting
        return np.column_stack([np.maximum(table[:, :n_bound], 0), table[:, n_bound:]])


class _Parameters(Protocol):
    n_factors: int
    seed: int
    init_scale: float
    solver: str
    cg_steps: int
    block_size: int
    nonnegative: bool


def require_solver(solver: str, cg_steps: int, block_size: int, nonnegative: bool) -> None:
    """Check the parameters of a solver.

    Raises
    ------
    ParameterError
        If one is wrong, or ``nonnegative`` is set and the solver is not the exact one.
    """
    require_choice("solver", solver, SOLVERS)
    require_integer("cg_steps", cg_steps, minimum=1)
    require_integer("block_size", block_size, minimum=1)
    if nonnegative not in (True, False):
        raise ParameterError(f"{named('nonnegative')} is {nonnegative!r}; expected True or False")
    if nonnegative and solver != "cholesky":
        raise ParameterError(
            f'{named("solver")} is {solver!r} and {named("nonnegative")} is True; expected "cholesky": only exact '
            "sweeps keep factors from falling below 0"
        )


def make_solver(model: _Parameters, n_free: int = 0) -> Solver:
    """Return the solver of a model. The last ``n_free`` coordinates of a row may be negative in any case."""
    if model.nonnegative:
        return Solver("nonnegative", n_free)
    return Solver(model.solver, {"cholesky": 0, "cg": model.cg_steps, "subspace": model.block_size}[model.solver])


def make_exact_solver(nonnegative: bool, n_free: int = 0) -> Solver:
    """Return the solver that finds the solution of a row, as `make_solver` does for sweeps."""
    return Solver("nonnegative", n_free) if nonnegative else EXACTLY


def first_item_factors(model: _Parameters, n_items: int, unit: float = 1) -> Float32Array:
    """Draw the item factors with which the first sweep begins; ``unit`` is what `init_scale` is measured in."""
    factors = first_factors((n_items, model.n_factors), unit * model.init_scale, np.random.default_rng(model.seed))
    return np.abs(factors) if model.nonnegative else factors
