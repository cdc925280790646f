"""Rotation into the eigenbasis of G, the part of the normal matrix that all rows share: G is diagonal there."""

import functools

import numpy as np
from threadpoolctl import ThreadpoolController

from fastmf_kernels._jit import run_tasks
from fastmf_kernels._types import Float32Array
from fastmf_kernels.als.cpu.rows import PaneledSweep
from fastmf_kernels.linalg.cpu import from_panels, rotate, to_panels
from fastmf_kernels.linalg.panels import WIDTH

# Rows that a task rotates.
_ROWS_OF_A_TASK = 1 << 12


def to_eigenbasis(problem: PaneledSweep, factors: Float32Array, n_threads: int | None) -> Float32Array:
    """Rotate the fixed factors of a problem and the factors to be improved, so that the matrix G becomes diagonal.

    Parameters
    ----------
    problem : PaneledSweep
        ``fixed_factors``, ``added`` and ``gram`` are changed in place.
    factors : float32 array, shape (n_rows, n_factors)
        Changed in place.
    n_threads : int, optional

    Returns
    -------
    float32 array, shape (n_factors, n_factors)
        The basis B, an eigenvector a column: ``factors`` times Bᵀ rotates them back.
    """
    n_factors = problem.n_factors
    gram = from_panels(problem.gram)[:n_factors, :n_factors].astype(np.float64)
    # After a call, BLAS threads spin for a while and take CPU time from the kernels: 0.2 CPU s a sweep were measured.
    with _blas().limit(limits=1):
        values, basis = np.linalg.eigh(gram)
    diagonal = np.zeros(len(problem.gram) * WIDTH, np.float32)
    diagonal[:n_factors] = np.maximum(values, 0)
    problem.gram[:] = to_panels(np.diag(diagonal))
    rotate_rows(problem.fixed_factors, basis.astype(np.float32), n_threads)
    rotate_rows(problem.added, basis.astype(np.float32), n_threads)
    rotate_rows(factors, basis.astype(np.float32), n_threads)
    return basis.astype(np.float32)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def rotate_rows(rows: Float32Array, basis: Float32Array, n_threads: int | None) -> None:
    """Multiply the first columns of each row with a matrix, in place; its further columns are 0."""
    panels = to_panels(np.pad(basis, ((0, rows.shape[1] - len(basis)), (0, 0))))

    def rotate_chunk(chunk: int, _: None) -> None:
        rotate(rows, chunk * _ROWS_OF_A_TASK, min(len(rows), (chunk + 1) * _ROWS_OF_A_TASK), panels, rows)

    run_tasks(rotate_chunk, -(-len(rows) // _ROWS_OF_A_TASK), n_threads, lambda: None)
