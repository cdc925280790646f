"""Solve linear least squares: by Cholesky, by orthogonal factors, or by iteration."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    pass

Float64Array = npt.NDArray[np.float64]

MOST_DIRECT_COLUMNS = 5000
"""With more columns, no table of columns by columns is made."""
_MOST_DENSE_CELLS = 50_000_000  # 400 MB: of wide problems that are solved directly in spite of their columns
_CELLS_OF_A_BLOCK = 4_000_000  # 32 MB: rows that are dense at a time
_WELL_CONDITIONED = 1e-6  # reciprocal condition of the normal equations: 10 digits of the solution are right
_DEPENDENT = 1e-10  # of the squared length of a column: less than that is not in the span of the others
_PRECISION = 1e-10  # of LSMR, relative to the matrix and to the targets
_MOST_ITERATIONS = 2000


class Problem(NamedTuple):
    """Find W that minimises ‖Y - 1·b - X·W‖² + λ‖W‖², with b = 0 if there is no intercept.

    Attributes
    ----------
    x : float64 array or SciPy CSR array, shape (n_rows, n_columns)
    y : float64 array, shape (n_rows, n_targets)
    x_means : float64 array, shape (n_columns,)
        Subtracted from each row of ``x``: the means of its columns, or 0 without an intercept.
    y_means : float64 array, shape (n_targets,)
    strength : float
        λ.
    """

    x: Any
    y: Float64Array
    x_means: Float64Array
    y_means: Float64Array
    strength: float

    @property
    def is_sparse(self) -> bool:
        """Whether ``x`` is sparse."""
        return not isinstance(self.x, np.ndarray)


class Solution(NamedTuple):
    """Coefficients, and how they were found.

    Attributes
    ----------
    coefficients : float64 array, shape (n_columns, n_targets)
    rank : int or None
        Rank of X, or of X without its means if there is an intercept. None if it was not found out.
    solver : {"cholesky", "svd", "lsmr"}
    converged : bool
    """

    coefficients: Float64Array
    rank: int | None
    solver: str
    converged: bool = True


def centred(x: Any, y: Float64Array, strength: float, intercept: bool) -> Problem:
    """Return the problem without its intercept: b is the mean of Y minus that of X·W, whatever W is."""
    if not intercept:
        return Problem(x, y, np.zeros(x.shape[1]), np.zeros(y.shape[1]), strength)
    return Problem(x, y, np.asarray(x.mean(axis=0), np.float64).ravel(), y.mean(axis=0), strength)


def solve(problem: Problem) -> Solution:
    """Solve a problem by one of three methods: the first one in this list that suits it.

    1. ``"cholesky"``: the normal equations XᵀX + λI, if they are well conditioned once they are scaled to a diagonal
       of ones.
    2. ``"svd"``: X = Q·R by Householder reflections, block of rows by block of rows, and singular values of R. Those
       below ε·max(n_rows, n_columns) of the largest one are 0, which gives the solution of minimum norm where columns
       are collinear: that of the pseudo-inverse.
    3. ``"lsmr"``: iterations that multiply by X and Xᵀ, for more than `MOST_DIRECT_COLUMNS` columns. They begin at 0
       and so lead to the solution of minimum norm, too.

    References
    ----------
    G. H. Golub, C. F. Van Loan, *Matrix Computations*, 4th edition 2013, chapter 5. D. C.-L. Fong, M. Saunders, *LSMR*,
    SIAM J. Sci. Comput. 33(5), 2011.
    """
    n_rows, n_columns = problem.x.shape
    is_small = n_rows <= MOST_DIRECT_COLUMNS and n_rows * n_columns <= _MOST_DENSE_CELLS
    if n_columns > MOST_DIRECT_COLUMNS and not is_small:
        return _by_iteration(problem)
    if n_columns <= MOST_DIRECT_COLUMNS and (n_rows >= n_columns or problem.strength > 0):
        solution = _by_cholesky(problem)
        if solution is not None:
            return solution
    return _by_orthogonal_factors(problem)


def _blocks(problem: Problem) -> Iterator[tuple[Float64Array, Float64Array]]:
    """Yield blocks of rows of X and Y without their means, dense."""
    n_rows, n_columns = problem.x.shape
    size = max(1, _CELLS_OF_A_BLOCK // max(n_columns, 1))
    constant = _constant_columns(problem)
    for start in range(0, n_rows, size):
        rows = problem.x[start : start + size]
        block = (rows.toarray() if problem.is_sparse else rows) - problem.x_means
        block[:, constant] = 0.0
        yield block, problem.y[start : start + size] - problem.y_means


def _constant_columns(problem: Problem) -> npt.NDArray[np.bool_]:
    """Return which columns are their mean in every row: what is left without it is rounding, and no direction."""
    if not problem.x_means.any():
        return np.zeros(problem.x.shape[1], np.bool_)
    bounds = [np.asarray(_dense(edge)).ravel() for edge in (problem.x.min(axis=0), problem.x.max(axis=0))]
    return np.asarray(bounds[0] == bounds[1])


def _dense(values: Any) -> Any:
    return values.toarray() if hasattr(values, "toarray") else values


def _by_cholesky(problem: Problem) -> Solution | None:
    """Solve the normal equations; None if too few digits of the solution would be right."""
    import scipy.linalg

    gram, right = _normal_equations(problem)
    diagonal = gram.diagonal() + problem.strength
    lost = gram.diagonal() < _WELL_CONDITIONED * len(problem.y) * problem.x_means**2
    if (diagonal <= 0).any() or (problem.is_sparse and (lost & ~_constant_columns(problem)).any()):
        return None
    scale = 1 / np.sqrt(diagonal)
    scaled = gram * scale[:, None] * scale
    np.fill_diagonal(scaled, 1.0)
    norm = np.abs(scaled).sum(axis=0).max(initial=0)
    factor, fault = scipy.linalg.lapack.dpotrf(scaled)
    if fault:
        return None
    reciprocal, _ = scipy.linalg.lapack.dpocon(factor, norm)
    if reciprocal < _WELL_CONDITIONED:
        return None
    coefficients = scipy.linalg.cho_solve((factor, False), right * scale[:, None]) * scale[:, None]
    rank = len(gram) if problem.strength == 0 else _rank_of_gram(gram)
    return Solution(coefficients, rank, "cholesky")


def _normal_equations(problem: Problem) -> tuple[Float64Array, Float64Array]:
    """Return XᵀX and XᵀY without the means."""
    n_rows, n_columns = problem.x.shape
    gram, right = np.zeros((n_columns, n_columns)), np.zeros((n_columns, problem.y.shape[1]))
    if problem.is_sparse:
        gram += (problem.x.T @ problem.x).toarray()
        gram -= n_rows * np.outer(problem.x_means, problem.x_means)
        constant = _constant_columns(problem)
        gram[constant] = 0.0
        gram[:, constant] = 0.0
        right += problem.x.T @ (problem.y - problem.y_means)
        right[constant] = 0.0
        return gram, right
    for x, y in _blocks(problem):
        gram += x.T @ x
        right += x.T @ y
    return gram, right


def _rank_of_gram(gram: Float64Array) -> int:
    """Return the rank of XᵀX, by Cholesky with pivots."""
    import scipy.linalg

    diagonal = gram.diagonal()
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    _, _, rank, _ = scipy.linalg.lapack.dpstrf(gram * scale[:, None] * scale, tol=_DEPENDENT)
    return int(rank)


def _by_orthogonal_factors(problem: Problem) -> Solution:
    """Reduce the rows to a triangle by reflections, which change no length, and solve that by singular values."""
    import scipy.linalg

    n_rows, n_columns = problem.x.shape
    triangle = np.empty((0, n_columns + problem.y.shape[1]))
    for x, y in _blocks(problem):
        triangle = scipy.linalg.qr(np.vstack([triangle, np.hstack([x, y])]), mode="r", overwrite_a=True)[0]
        triangle = triangle[: triangle.shape[1]]
    left, singular, right = scipy.linalg.svd(triangle[:, :n_columns], full_matrices=False)
    threshold = np.finfo(np.float64).eps * max(n_rows, n_columns) * singular.max(initial=0)
    rank = int(np.count_nonzero(singular > threshold))
    left, singular, right = left[:, :rank], singular[:rank], right[:rank]
    with np.errstate(over="ignore"):
        inverse = 1 / (singular + problem.strength / singular)  # squares of small ones could be 0
    return Solution(right.T @ (inverse[:, None] * (left.T @ triangle[:, n_columns:])), rank, "svd")


def _by_iteration(problem: Problem) -> Solution:
    """Solve for one target after the other by products with X and Xᵀ."""
    from scipy.sparse.linalg import LinearOperator, lsmr

    x, means = problem.x, problem.x_means
    operator = LinearOperator(
        x.shape,
        matvec=lambda w: x @ w.ravel() - means @ w.ravel(),
        rmatvec=lambda r: x.T @ r.ravel() - means * r.sum(),
        dtype=np.float64,
    )
    coefficients = np.zeros((x.shape[1], problem.y.shape[1]))
    converged = True
    for target, y in enumerate((problem.y - problem.y_means).T):
        found = lsmr(operator, y, np.sqrt(problem.strength), _PRECISION, _PRECISION, conlim=0, maxiter=_MOST_ITERATIONS)
        coefficients[:, target] = found[0]
        converged = converged and found[1] != 7
    return Solution(coefficients, None, "lsmr", converged)
