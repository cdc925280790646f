"""Parameters, solvers and tables that explicit and implicit alternating least squares share."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from fastmf.backend import Kernels
from fastmf.common.parameters import require_choice, require_integer
from fastmf.errors import ParameterError, named
from fastmf.models.training import first_factors
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.arrays import Solver, Table
from fastmf_kernels.layout.arrays import CSR

SOLVERS = ("cholesky", "cg", "subspace")
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
    """

    rows: CSR
    home: Float32Array
    table: Table
    strengths: Float64Array
    regularization: Float32Array


def make_side(rows: CSR, factors: Float32Array, strengths: Float64Array, kernels: Kernels, solver: Solver) -> Side:
    """Move the factors of a side to the device of the kernels."""
    return Side(rows, factors, kernels.to_device(factors, solver), strengths, strengths.astype(np.float32))


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


def first_item_factors(model: _Parameters, n_items: int, unit: float = 1) -> Float32Array:
    """Draw the item factors with which the first sweep begins; ``unit`` is what `init_scale` is measured in."""
    factors = first_factors((n_items, model.n_factors), unit * model.init_scale, np.random.default_rng(model.seed))
    return np.abs(factors) if model.nonnegative else factors
