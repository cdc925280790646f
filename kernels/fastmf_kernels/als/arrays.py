"""The least-squares problem of one half sweep."""

from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._types import Float32Array
from fastmf_kernels.layout.arrays import CSR

Table = Any
"""Rows of factors where a backend's kernels read and write them: a float32 array of shape (n_rows, n_factors), C order,
or, of "cuda", what ``to_device`` has made of one."""


NOTHING_ADDED: Float32Array = np.zeros((0, 0), np.float32)


class Weighting(NamedTuple):
    """What an observed value v contributes to its row's normal equations.

    Attributes
    ----------
    weight, weight_slope : float32
        The observation adds (weight + weight_slope·|v|) q qᵀ to the matrix; that weight is at least 0.
    target, target_slope : float32
        The observation adds (target + target_slope·v - offset) q to the right side.
    disliked_below : float32
        An observation below it adds -offset·q in place of that: its weight pulls its score to 0.
    """

    weight: np.float32
    weight_slope: np.float32
    target: np.float32
    target_slope: np.float32
    disliked_below: np.float32 = np.float32(-np.inf)


class HalfSweep(NamedTuple):
    """One side's least-squares problems: row u solves (G + Σ w q qᵀ + λ_u I) x = Σ t q + a_u over its observed entries.

    Attributes
    ----------
    rows : CSR
        Observed values; one row for each target row, columns are rows of ``fixed_factors``.
    fixed_factors : Table
        The vectors q, as an array of shape (n_fixed, n_factors) or where ``to_device`` has put them.
    fixed_offsets : float32 array, shape (n_fixed,)
        Subtracted from the target of each entry: the biases of the fixed side.
    gram : float32 array, shape (n_factors, n_factors)
        G: what all cells together contribute. Zeros for explicit data, whose missing cells are unknown.
    regularization : float32 array, shape (n_rows,)
        λ_u, at least 0.
    weighting : Weighting
    added : float32 array, shape (n_rows, n_factors) or (0, 0)
        a_u: what is added to the right side of each row, λ_u m_u where rows are pulled to prior means m; nothing if
        there are no rows of it.
    """

    rows: CSR
    fixed_factors: Table
    fixed_offsets: Float32Array
    gram: Float32Array
    regularization: Float32Array
    weighting: Weighting
    added: Float32Array = NOTHING_ADDED


class Solver(NamedTuple):
    """How the problem of a row is solved.

    Attributes
    ----------
    name : {"cholesky", "cg", "subspace", "nonnegative"}
        "cholesky": exactly. "cg": by ``setting`` steps of conjugate gradients from the row's present factors.
        "subspace": by one pass over blocks of ``setting`` coordinates, each solved exactly while the others stay; the
        coordinates are those along the eigenvectors of ``gram``, by growing eigenvalue. "cg" and "subspace" solve rows
        of more than `longest_row` entries exactly. "nonnegative": exactly, among factors of which only the last
        ``setting`` may be negative.
    setting : int
    """

    name: str = "cholesky"
    setting: int = 0


EXACTLY = Solver()
# Float32 numbers of the vectors of a row that are kept in memory: 4 MiB.
_NUMBERS_KEPT = 1 << 20


def longest_row(n_factors: int) -> int:
    """Count the entries of the longest row that "cg" and "subspace" improve; longer rows are solved exactly.

    Both keep all vectors of a row in memory, 4 MiB at most. For a longer row, making the normal matrix once costs no
    more than gathering its vectors in every step.
    """
    return _NUMBERS_KEPT // n_factors


def block_width(block_size: int) -> int:
    """Round a size of blocks up to what kernels work on: a multiple of 16."""
    return -(-block_size // 16) * 16
