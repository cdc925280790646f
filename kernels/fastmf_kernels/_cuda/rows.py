"""Rows of factors on the device: padded, and worked on by a group of threads each."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import WARP, cuda, device
from fastmf_kernels._cuda.memory import DeviceArray, fetch, put
from fastmf_kernels._types import Float32Array

# Numbers that a thread reads with one instruction.
VECTOR = 4


def padded_width(n_factors: int) -> int:
    """Return how many numbers a row has on the device: 8, 16, 32, 64, and from there on multiples of 128.

    The padding is 0, and stays 0 in gradient steps, in normal equations with regularisation, and in products.
    """
    whole = VECTOR * WARP
    return max(8, 1 << (n_factors - 1).bit_length()) if n_factors < whole else -(-n_factors // whole) * whole


def put_rows(rows: Float32Array, storage: str = "float32", width: int | None = None) -> DeviceArray:
    """Return a table of rows on the device, padded to their width, as one sequence of numbers of a type."""
    missing = (width or padded_width(rows.shape[1])) - rows.shape[1]
    return put((np.pad(rows, ((0, 0), (0, missing))) if missing else rows).ravel().astype(storage, copy=False))


def fetch_rows(numbers: DeviceArray, rows: Float32Array) -> None:
    """Write a table on the device back into the one that it was made of."""
    n_rows, n_factors = rows.shape
    if n_rows:
        rows[:] = fetch(numbers).reshape(n_rows, -1)[:, :n_factors]


class DeviceTable(NamedTuple):
    """Rows of factors that stay on the device.

    Attributes
    ----------
    numbers : float32 array on the device, shape (n_rows·width,)
        Padded rows, one after the other.
    shape : (int, int)
        Number of rows, and of factors.
    width : int
        Numbers of a padded row.
    """

    numbers: DeviceArray
    shape: tuple[int, int]
    width: int


def put_table(rows: Float32Array, width: int) -> DeviceTable:
    """Return a table on the device that stays there."""
    return DeviceTable(put_rows(rows, width=width), rows.shape, width)


def fetch_table(table: DeviceTable) -> Float32Array:
    """Return a copy of a table on the host, without the padding."""
    rows = np.empty(table.shape, np.float32)
    fetch_rows(table.numbers, rows)
    return rows


class Group(NamedTuple):
    """A group of 2, 4, 8, 16 or 32 neighbouring threads of a warp that share a row.

    Attributes
    ----------
    size : int
    chunks : int
        How many times each of them reads four numbers of a row.
    number, lane : device functions
        The group's number in the block of threads, and the thread's in the group.
    mask : device function
        The group's threads among those of its warp.
    total : device function
        ``total(value, mask)``: the sum of the threads' values, returned to each of them.
    """

    size: int
    chunks: int
    number: Callable[[], int]
    lane: Callable[[], int]
    mask: Callable[[], Any]
    total: Callable[[Any, Any], Any]


@functools.cache
def make_group(width: int) -> Group:
    """Return the group of threads for rows of some padded width: a power of two of them, with as many numbers each."""
    vectors = width // VECTOR
    size = min(WARP, vectors & -vectors)
    members = (1 << size) - 1

    @device
    def number() -> int:
        return cuda.threadIdx.x // size  # type: ignore[no-any-return]

    @device
    def lane() -> int:
        return cuda.threadIdx.x % size  # type: ignore[no-any-return]

    @device
    def mask() -> Any:
        return members << (cuda.threadIdx.x % WARP // size * size)

    @device
    def total(value: Any, mask: Any) -> Any:
        distance = size // 2
        while distance > 0:
            value += cuda.shfl_xor_sync(mask, value, distance)
            distance //= 2
        return value

    return Group(size, width // (VECTOR * size), number, lane, mask, total)
