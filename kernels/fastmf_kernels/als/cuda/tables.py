"""Tables of factors that stay on a GPU between half sweeps: rows copied, filled, split and measured there."""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import cuda, isa, kernel
from fastmf_kernels._cuda.memory import DeviceArray, fetch, put, require_room, zeros
from fastmf_kernels._cuda.rows import VECTOR, DeviceTable, fetch_rows, make_group, put_rows
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array, Int64Array

THREADS = 128


def part_of(table: DeviceTable, start: int, stop: int) -> DeviceTable:
    """Return some of a table's rows, where they are."""
    if (start, stop) == (0, table.shape[0]):
        return table
    numbers = table.numbers[start * table.width : stop * table.width]
    return DeviceTable(numbers, (stop - start, table.shape[1]), table.width)


def take_rows(table: DeviceTable, rows: Int64Array) -> Float32Array:
    """Return a copy of some rows on the host; no other rows go there."""
    taken = np.empty((len(rows), table.shape[1]), np.float32)
    if len(rows):
        numbers = zeros(len(rows) * table.width, np.float32)
        _copy(table.width, table.numbers, _put_places(rows), numbers, _put_places(np.arange(len(rows))))
        fetch_rows(numbers, taken)
    return taken


def write_rows(table: DeviceTable, rows: Int64Array, values: Float32Array) -> None:
    """Overwrite some rows with rows of the host."""
    if len(rows):
        numbers = put_rows(values, width=table.width)
        _copy(table.width, numbers, _put_places(np.arange(len(rows))), table.numbers, _put_places(rows))


def clear_rows(table: DeviceTable, rows: DeviceArray) -> None:
    """Set rows to 0, at least one, whose places, int32 numbers, are on the device."""
    _copy(table.width, zeros(table.width, np.float32), zeros(rows.size, np.int32), table.numbers, rows)


def fill_with_nan(table: DeviceTable) -> None:
    """Set all factors to NaN, but not the padding."""
    n_rows, n_factors = table.shape
    if n_rows:
        row = put_rows(np.full((1, n_factors), np.nan, np.float32), width=table.width)
        _copy(table.width, row, zeros(n_rows, np.int32), table.numbers, _put_places(np.arange(n_rows)))


def split_table(table: DeviceTable, unit: np.float32) -> tuple[DeviceTable, DeviceArray]:
    """Return the table with ``unit`` for the last factor of each row, as a copy, and the last factors times ``unit``.

    Raises
    ------
    MemoryError
        If there is no room for the copy.
    """
    (n_rows, n_factors), width = table.shape, table.width
    require_room(4 * n_rows * (width + 1), f"{n_rows} rows of {n_factors} factors without their biases")
    fixed, biases = zeros(n_rows * width, np.float32), zeros(n_rows, np.float32)
    if n_rows:
        make_split(width)[_n_blocks(n_rows, width), THREADS](table.numbers, n_factors - 1, unit, fixed, biases)
    return table._replace(numbers=fixed), biases


def squared_norms_of(table: DeviceTable) -> Float64Array:
    """Return ‖x‖² of each row."""
    n_rows, per_block = table.shape[0], THREADS // make_group(table.width).size
    if n_rows == 0:
        return np.zeros(0)
    norms = zeros(n_rows, np.float64)
    make_square(table.width)[-(-n_rows // per_block), THREADS](table.numbers, norms)
    return fetch(norms)


def _put_places(rows: Int64Array) -> DeviceArray:
    return put(rows.astype(np.int32))


def _n_blocks(n_rows: int, width: int) -> int:
    return -(-n_rows * (width // VECTOR) // THREADS)


def _copy(width: int, source: DeviceArray, sources: DeviceArray, target: DeviceArray, targets: DeviceArray) -> None:
    make_copy(width)[_n_blocks(targets.size, width), THREADS](source, sources, target, targets)


@functools.cache
def make_copy(width: int) -> Any:
    """Return the kernel that copies rows from places in one table to places in another: a thread for four numbers."""
    lanes, threads = width // VECTOR, THREADS

    @kernel
    def copy(source: Float32Array, sources: Int32Array, target: Float32Array, targets: Int32Array) -> None:
        at = np.int64(cuda.blockIdx.x) * threads + cuda.threadIdx.x
        if at < targets.size * lanes:
            row, f = at // lanes, at % lanes * VECTOR
            four = isa.load4(source, np.int64(sources[row]) * width + f)
            isa.store4(target, np.int64(targets[row]) * width + f, four)

    return copy


@functools.cache
def make_split(width: int) -> Any:
    """Return the kernel that copies rows [q, b] as [q, c], and each c·b: a thread for four numbers."""
    lanes, threads = width // VECTOR, THREADS

    @kernel
    def split(table: Float32Array, last: int, unit: np.float32, fixed: Float32Array, biases: Float32Array) -> None:
        at = np.int64(cuda.blockIdx.x) * threads + cuda.threadIdx.x
        if at < biases.size * lanes:
            row, f = at // lanes, at % lanes * VECTOR
            four = isa.load4(table, row * width + f)
            if f <= last < f + VECTOR:
                biases[row] = unit * table[row * width + last]
            isa.store4(
                fixed,
                row * width + f,
                (
                    unit if f == last else four[0],
                    unit if f + 1 == last else four[1],
                    unit if f + 2 == last else four[2],
                    unit if f + 3 == last else four[3],
                ),
            )

    return split


@functools.cache
def make_square(width: int) -> Any:
    """Return the kernel that adds up ‖x‖² of rows in float64: a group of threads for each."""
    size, chunks, number, lane_of, mask_of, total = make_group(width)
    per_block = THREADS // size

    @kernel
    def square(table: Float32Array, norms: Float64Array) -> None:
        row, lane = np.int64(cuda.blockIdx.x) * per_block + number(), lane_of()
        if row < norms.size:
            squares = np.float64(0)
            for chunk in range(chunks):
                four = isa.load4(table, row * width + VECTOR * (chunk * size + lane))
                for i in range(VECTOR):
                    squares += np.float64(four[i]) * np.float64(four[i])
            squares = total(squares, mask_of())
            if lane == 0:
                norms[row] = squares

    return square
