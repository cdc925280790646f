"""What explicit and implicit alternating least squares share as models: users and items that are folded in."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from fastmf.answering.fitted import Fitted
from fastmf.backend import get_backend
from fastmf.models.factor_model import FactorModel
from fastmf.models.folding import objective, objective_of
from fastmf.models.hyper_parameters import Chosen
from fastmf.models.least_squares import FixedSide, LeastSquares
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

    def _fold_in(self, fitted: Fitted, rows: CSR, side: str) -> tuple[Float32Array, Float32Array]:
        kernels = get_backend(self.backend)

        def prepare() -> _Folding:
            equations = self._as_trained(fitted)._least_squares(fitted)
            return _Folding(equations, equations.against(fitted.factors, side, kernels, self.n_threads))

        folding = fitted.kept(("fold-in", side, kernels.name), prepare)
        equations = folding.equations
        return equations.solve(equations.observed(rows), folding.fixed, side, kernels, self.n_threads)
