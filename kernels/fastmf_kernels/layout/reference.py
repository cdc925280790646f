"""NumPy reference of the layout operations: the specification of `fastmf_kernels.layout.cpu`."""

import numpy as np

from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR, Groups, empty_positions


def group_by(keys: Int32Array, n_groups: int, n_threads: int | None = None) -> Groups:
    """Group the positions of ``keys`` by key; the order of equal keys stays as it is.

    Parameters
    ----------
    keys : int32 array, shape (n,)
        Values in ``0 .. n_groups - 1``.
    n_groups : int
    n_threads : int, optional
        Not used here.

    Returns
    -------
    Groups
    """
    counts = np.bincount(keys, minlength=n_groups)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    order = empty_positions(len(keys))
    order[:] = np.argsort(keys, kind="stable")
    return Groups(offsets, order)


def coo_to_csr(
    rows: Int32Array, columns: Int32Array, values: Float32Array, n_rows: int, n_threads: int | None = None
) -> CSR:
    """Turn coordinate triples into rows; the entries of a row stay in the order of the input.

    Parameters
    ----------
    rows, columns : int32 arrays, shape (n,)
    values : float32 array, shape (n,)
    n_rows : int
    n_threads : int, optional
        Not used here.

    Returns
    -------
    CSR
    """
    offsets, order = group_by(rows, n_rows)
    return CSR(offsets, columns[order], values[order])


def transpose(csr: CSR, n_columns: int, n_threads: int | None = None) -> CSR:
    """Turn rows into columns; the entries of a row of the result are in ascending order of their index.

    Parameters
    ----------
    csr : CSR
    n_columns : int
    n_threads : int, optional
        Not used here.

    Returns
    -------
    CSR
    """
    return coo_to_csr(csr.indices, csr.row_of_each_entry(), csr.values, n_columns)
