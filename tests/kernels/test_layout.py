"""Layout kernels against their reference: exactly equal, whatever the shape and the number of threads."""

import numpy as np
import pytest

from fastmf.backend import Kernels
from fastmf_kernels._types import Int32Array
from fastmf_kernels.layout.arrays import CSR

# From 32768 keys on the CPU kernel cuts them into several chunks, from 512 groups on into ranges of several groups.
LONG = 70_000
RNG = np.random.default_rng(0)
KEYS = {
    "random": (RNG.integers(0, 50, 1000), 50),
    "no keys": (np.zeros(0), 7),
    "no groups": (np.zeros(0), 0),
    "one key": (np.array([3]), 5),
    "one group": (np.zeros(100), 1),
    "ascending": (np.arange(300), 300),
    "descending": (np.arange(300)[::-1], 300),
    "all in the last group": (np.full(100, 9), 10),
    "one heavy group": (np.where(RNG.random(LONG) < 0.9, 700, RNG.integers(0, 1500, LONG)), 1500),
    "511 groups": (RNG.integers(0, 511, 2000), 511),
    "512 groups": (RNG.integers(0, 512, 2000), 512),
    "513 groups": (RNG.integers(0, 513, 2000), 513),
    "mostly empty groups": (RNG.integers(0, 100_000, 500), 100_000),
    "several chunks": (RNG.integers(0, 3000, LONG), 3000),
}
THREADS = (1, 2, None)


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("name", KEYS)
def test_group_by(name: str, n_threads: int | None, kernels: Kernels, reference: Kernels) -> None:
    keys, n_groups = KEYS[name]
    groups = kernels.group_by(keys.astype(np.int32), n_groups, n_threads)
    expected = reference.group_by(keys.astype(np.int32), n_groups, None)
    _assert_same_arrays(groups, expected)


def test_reference_group_by_hand(reference: Kernels) -> None:
    groups = reference.group_by(np.array([2, 0, 2, 3, 0], np.int32), 5, None)
    assert groups.offsets.tolist() == [0, 2, 2, 4, 5, 5]
    assert groups.order.tolist() == [1, 4, 0, 2, 3]


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("name", KEYS)
def test_coo_to_csr(name: str, n_threads: int | None, kernels: Kernels, reference: Kernels) -> None:
    rows, n_rows = KEYS[name]
    columns, values = _columns_and_values(len(rows))
    csr = kernels.coo_to_csr(rows.astype(np.int32), columns, values, n_rows, n_threads)
    _assert_same_arrays(csr, reference.coo_to_csr(rows.astype(np.int32), columns, values, n_rows, None))


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("name", KEYS)
def test_transpose(name: str, n_threads: int | None, kernels: Kernels, reference: Kernels) -> None:
    rows, n_rows = KEYS[name]
    csr = reference.coo_to_csr(rows.astype(np.int32), *_columns_and_values(len(rows)), n_rows, None)
    _assert_same_arrays(kernels.transpose(csr, 90, n_threads), reference.transpose(csr, 90, None))


def test_transpose_is_that_of_the_dense_table(kernels: Kernels) -> None:
    table = np.where(RNG.random((30, 20)) < 0.2, RNG.random((30, 20)), 0).astype(np.float32)
    rows, columns = np.nonzero(table)
    csr = kernels.coo_to_csr(rows.astype(np.int32), columns.astype(np.int32), table[rows, columns], 30, None)
    transposed = kernels.transpose(csr, 20, None)
    dense = np.zeros((20, 30), np.float32)
    dense[transposed.row_of_each_entry(), transposed.indices] = transposed.values
    np.testing.assert_array_equal(dense, table.T)


def test_row_of_each_entry_skips_empty_rows() -> None:
    csr = CSR(np.array([0, 2, 2, 3]), np.zeros(3, np.int32), np.zeros(3, np.float32))
    assert csr.row_of_each_entry().tolist() == [0, 0, 2]


def _columns_and_values(size: int) -> tuple[Int32Array, "np.typing.NDArray[np.float32]"]:
    # Every value is different, so that no entry can be mistaken for another.
    return np.arange(size, dtype=np.int32)[::-1].copy() % 90, np.arange(size, dtype=np.float32)


def _assert_same_arrays(result: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    assert len(result) == len(expected)
    for array, expected_array in zip(result, expected, strict=True):
        assert array.dtype == expected_array.dtype
        np.testing.assert_array_equal(array, expected_array)
