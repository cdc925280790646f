"""NumPy reference of the small solves: the specification of `fastmf_kernels.linalg.cpu`."""

import numpy as np

from fastmf_kernels._types import Float64Array


def cutoff(size: int) -> float:
    """Relative size below which an eigenvalue counts as 0: ``size`` times the spacing of float32 numbers at 1.

    This is the customary rank tolerance of numerical libraries (`numpy.linalg.matrix_rank`), at the precision in which
    the kernels accumulate.
    """
    return size * float(np.finfo(np.float32).eps)


def solve_symmetric(matrix: Float64Array, right_side: Float64Array) -> Float64Array:
    """Solve ``matrix @ x = right_side`` for a positive semi-definite matrix: the solution of minimum norm.

    Parameters
    ----------
    matrix : float array, shape (n, n)
        Symmetric, no eigenvalue below 0. It may be singular.
    right_side : float array, shape (n,)

    Returns
    -------
    float64 array, shape (n,)
        ``pinv(matrix) @ right_side``, where directions with an eigenvalue below `cutoff` times the largest are left
        out.
    """
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    kept = values > cutoff(len(matrix)) * values[-1]
    coefficients = np.divide(vectors.T @ right_side, values, out=np.zeros_like(values), where=kept)
    return np.asarray(vectors @ coefficients)
