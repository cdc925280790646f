"""`LinearMap`: linear least squares from features to one target or many."""

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.common.parameters import require_number, require_truth
from fastmf.errors import DataError, NotFittedError, ParameterError, QualityWarning, named
from fastmf.models.hyper_parameters import HyperParameters
from fastmf.models.linear_map_inputs import Matrix, read_matrix, read_matrix_like, read_targets
from fastmf.models.linear_map_solvers import centred, solve
from fastmf_kernels._notes import level_of_user

Float64Array = npt.NDArray[np.float64]


class _Fitted(NamedTuple):
    """A fitted map; coefficients and offsets have a column for each target, also for a single one."""

    coefficients: Float64Array
    offsets: Float64Array
    rank: int | None
    solver: str
    names: tuple[str, ...] | None
    fill: Float64Array | None
    target_names: tuple[str, ...] | None
    has_one_target: bool


@dataclass(kw_only=True, eq=False)
class LinearMap(HyperParameters):
    """Linear least squares: ŷ = b + Wᵀx, in float64, with the pseudo-inverse where columns are collinear.

    W and b minimise ‖Y - 1·b - X·W‖² + λ‖W‖². Columns are not scaled, and b is not penalised. Where several W are as
    good, because columns are collinear or more than the rows, W is the one of minimum norm: the pseudo-inverse of X
    (without its column means, if there is an intercept) times Y.

    The normal equations are solved by Cholesky where they are well conditioned, and otherwise X is decomposed by
    singular values; those below ε·max(n_rows, n_columns) of the largest one count as 0. With more than 5,000 columns,
    LSMR iterates to a relative precision of 1e-10. `solver` says which of them ran, and `rank` what was found.

    In `Features`, a missing value of a numeric column stands for the mean of the known values that were fitted.

    Parameters
    ----------
    regularization : float
        Strength λ of the penalty on squared coefficients, at least 0. With 0 there is none.
    intercept : bool
        Fit b; without it, b is 0.

    Raises
    ------
    ParameterError
        If a parameter makes no sense.

    References
    ----------
    G. H. Golub, C. F. Van Loan, *Matrix Computations*, 4th edition 2013, chapter 5. R. Penrose, *On best approximate
    solutions of linear matrix equations*, Proc. Cambridge Phil. Soc. 52, 1956.

    Examples
    --------
    >>> import fastmf
    >>> areas, prices = [[50.0], [70.0], [100.0]], [150.0, 210.0, 300.0]
    >>> rents = fastmf.LinearMap().fit(areas, prices)
    >>> rents.predict([[80.0]]).round(6)
    array([240.])
    >>> rents.rank, rents.solver
    (1, 'cholesky')
    """

    regularization: float = 0.0
    intercept: bool = True

    def __post_init__(self) -> None:
        self._require_parameters()
        self._fitted: _Fitted | None = None

    def _require_parameters(self) -> None:
        require_number("regularization", self.regularization, minimum=0)
        require_truth("intercept", self.intercept)

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fit coefficients to features and targets.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_columns), SciPy sparse matrix, table of numbers, or Features
            The rows of `Features` are in the order of their ``ids``.
        y : array-like of shape (n_rows,) or (n_rows, n_targets), or table of numbers

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If one of them is no matrix of numbers, or they differ in their number of rows; if a parameter was set to
            something that makes no sense.
        DataError
            If a value is null, not finite or beyond 1e100, or there are no rows or no columns.

        Warns
        -----
        QualityWarning
            If the iterations for more than 5,000 columns did not converge.
        """
        self._require_parameters()
        matrix = read_matrix(X)
        n_rows, n_columns = matrix.cells.shape
        targets, target_names = read_targets(y, n_rows)
        if not n_rows or not n_columns:
            raise DataError(f"X has {n_rows} rows and {n_columns} columns; expected at least one of each")
        problem = centred(matrix.cells, targets.reshape(n_rows, -1), float(self.regularization), bool(self.intercept))
        solution = solve(problem)
        if not solution.converged:
            warnings.warn(
                QualityWarning(
                    f"the coefficients of {n_columns:,} columns have not converged; scale the columns to similar "
                    f"lengths, or raise {named('regularization')}"
                ),
                stacklevel=level_of_user(),
            )
        offsets = problem.y_means - problem.x_means @ solution.coefficients
        self._fitted = _Fitted(
            solution.coefficients,
            offsets,
            solution.rank,
            solution.solver,
            matrix.names,
            matrix.fill,
            target_names,
            targets.ndim == 1,
        )
        return self

    def predict(self, X: Any) -> Float64Array:  # noqa: N803
        """Return b + Wᵀx of each row.

        Parameters
        ----------
        X : as in `fit`
            Columns of tables and of `Features` are found by their names. Features that were not fitted count as 0.

        Returns
        -------
        float64 array, shape (n_rows,) or (n_rows, n_targets), as the targets were

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        ParameterError
            If it has another number of columns, or is no matrix of numbers.
        DataError
            If a column is missing, or a value is null or not finite.

        Warns
        -----
        QualityWarning
            If there are entries of features that were not fitted; the message gives their number.
        """
        fitted = self._require_fitted()
        cells, n_unknown = read_matrix_like(X, Matrix(None, fitted.names, fitted.fill))
        if cells.shape[1] != len(fitted.coefficients):
            raise ParameterError(
                f"X has {cells.shape[1]} columns; expected {len(fitted.coefficients)}, as the map was fitted to"
            )
        if n_unknown:
            warnings.warn(
                QualityWarning(
                    f"{n_unknown:,} entries of X are of features that the map was not fitted to; they count as 0"
                ),
                stacklevel=level_of_user(),
            )
        predicted = np.asarray(cells @ fitted.coefficients + fitted.offsets)
        return predicted[:, 0] if fitted.has_one_target else predicted

    @property
    def coefficients(self) -> Float64Array:
        """W, shape (n_columns,) for a single target, else (n_columns, n_targets)."""
        fitted = self._require_fitted()
        return fitted.coefficients[:, 0] if fitted.has_one_target else fitted.coefficients

    @property
    def offset(self) -> Any:
        """b: a number for a single target, else an array of shape (n_targets,)."""
        fitted = self._require_fitted()
        return float(fitted.offsets[0]) if fitted.has_one_target else fitted.offsets

    @property
    def rank(self) -> int | None:
        """Rank of X, or with an intercept that of X without its column means; None where LSMR iterated.

        With a penalty and Cholesky, a column counts as dependent if less than 10⁻⁵ of its length is outside the span of
        others.
        """
        return self._require_fitted().rank

    @property
    def solver(self) -> str:
        """What found the coefficients: "cholesky", "svd" (the pseudo-inverse) or "lsmr"."""
        return self._require_fitted().solver

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of X: those of a table or of `Features`, otherwise "x0", "x1", ..."""
        fitted = self._require_fitted()
        return fitted.names or tuple(f"x{column}" for column in range(len(fitted.coefficients)))

    def to_arrow(self) -> pa.Table:
        """Return the coefficients as a table, a row for each column of X.

        Returns
        -------
        pyarrow.Table
            ``feature`` (string), and ``coefficient`` (double) or, for many targets, a column for each: with the name
            that it has in a table, otherwise "y0", "y1", ...

        Examples
        --------
        >>> import fastmf
        >>> fastmf.LinearMap(intercept=False).fit([[1.0], [0.0]], [3.0, 6.0]).to_arrow().to_pydict()
        {'feature': ['x0'], 'coefficient': [3.0]}
        """
        fitted = self._require_fitted()
        targets: tuple[str, ...] = ("coefficient",)
        if not fitted.has_one_target:
            targets = fitted.target_names or tuple(f"y{target}" for target in range(fitted.coefficients.shape[1]))
        arrays = [pa.array(self.names, pa.string()), *map(pa.array, np.ascontiguousarray(fitted.coefficients.T))]
        return pa.Table.from_arrays(arrays, names=["feature", *targets])

    def _require_fitted(self) -> _Fitted:
        if self._fitted is None:
            raise NotFittedError("this LinearMap is not fitted; call fit(X, y) first")
        return self._fitted
