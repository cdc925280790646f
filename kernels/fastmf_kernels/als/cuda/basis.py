"""Rotation into the eigenbasis of G on a GPU: G, the part of the normal matrix that all rows share, is diagonal."""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import cuda, isa, kernel
from fastmf_kernels._cuda.memory import DeviceArray, put
from fastmf_kernels._cuda.rows import VECTOR
from fastmf_kernels._types import Float32Array

# Numbers of a table that a block of threads rotates at a time, in its shared memory.
_MOST_STAGED = 8192
_MOST_ROWS = 32
_ZERO = np.float32(0)


class Basis(NamedTuple):
    """The eigenvectors of G, by growing eigenvalue.

    Attributes
    ----------
    there, back : float32 arrays on the device, shape (width·width,)
        A row times ``there`` is in the basis; times ``back`` it is in the original coordinates again.
    gram : float32 array, shape (n_factors, n_factors)
        G in the basis.
    """

    there: DeviceArray
    back: DeviceArray
    gram: Float32Array


def find_basis(gram: Float32Array, width: int) -> Basis:
    """Return the basis of a matrix G whose rows are padded to ``width``."""
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    padding = width - len(gram)
    padded = np.pad(vectors.astype(np.float32), ((0, padding), (0, padding)))
    diagonal = np.diag(np.maximum(values, 0).astype(np.float32))
    return Basis(put(padded.ravel()), put(np.ascontiguousarray(padded.T).ravel()), diagonal)


def rows_in_block(width: int) -> int:
    """Count the rows that a block of threads rotates."""
    return min(_MOST_ROWS, _MOST_STAGED // width // VECTOR * VECTOR)


def rotate_rows(table: DeviceArray, basis: DeviceArray, width: int, rotated: DeviceArray) -> None:
    """Multiply each row of a padded table with a matrix; ``rotated`` takes the rows, and may be the table itself."""
    rows = rows_in_block(width)
    n_blocks = -(-table.size // (width * rows))
    if n_blocks:
        make_rotate(width, rows)[n_blocks, rows // VECTOR * (width // VECTOR)](table, basis, rotated)


@functools.cache
def make_rotate(width: int, rows: int) -> Any:
    """Return the kernel that multiplies rows with a matrix: a thread for every four rows and four columns.

    A block of threads has read its rows before it writes them, and no other block reads them.
    """
    lanes, n_staged = width // VECTOR, rows * width
    threads, n_numbers = rows // VECTOR * lanes, VECTOR * VECTOR

    @kernel
    def rotate_tile(table: Float32Array, basis: Float32Array, rotated: Float32Array) -> None:
        staged = cuda.shared.array(n_staged, np.float32, 16)
        first = np.int64(cuda.blockIdx.x) * n_staged
        at = cuda.threadIdx.x * VECTOR
        while at < n_staged:
            if first + at < table.size:
                isa.store4(staged, at, isa.load4(table, first + at))
            else:
                isa.store4(staged, at, (_ZERO, _ZERO, _ZERO, _ZERO))
            at += threads * VECTOR
        cuda.syncthreads()
        tile, left = cuda.local.array(n_numbers, np.float32), cuda.local.array(n_numbers, np.float32)
        for e in range(n_numbers):
            tile[e] = _ZERO
        row, column = cuda.threadIdx.x // lanes * VECTOR, cuda.threadIdx.x % lanes * VECTOR
        f = 0
        while f < width:
            for a in range(VECTOR):
                four = isa.load4(staged, (row + a) * width + f)
                for s in range(VECTOR):
                    left[VECTOR * a + s] = four[s]
            for s in range(VECTOR):
                four = isa.load4(basis, (f + s) * width + column)
                for a in range(VECTOR):
                    for e in range(VECTOR):
                        tile[VECTOR * a + e] += left[VECTOR * a + s] * four[e]
            f += VECTOR
        for a in range(VECTOR):
            place, e = first + (row + a) * width + column, VECTOR * a
            if place < table.size:
                isa.store4(rotated, place, (tile[e], tile[e + 1], tile[e + 2], tile[e + 3]))

    return rotate_tile
