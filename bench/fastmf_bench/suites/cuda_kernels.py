"""The kernels that measure a GPU's ceilings."""

from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import cuda, isa, kernel, vector_atomics
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array, Int32Array

_THREADS, _BLOCKS = 256, 132 * 8
_ZERO, _ONE = np.float32(0), np.float32(1)


def n_groups(width: int) -> int:
    """Return how many groups of threads gather rows of some width."""
    return _BLOCKS * (_THREADS // make_group(width).size)


def run(work: Any, *arguments: Any) -> None:
    """Launch a kernel on as many threads as keep a large GPU busy."""
    work[_BLOCKS, _THREADS](*arguments)


def make_gather(width: int) -> Any:
    """Return the kernel that reads rows of a table in some order, and adds them up so that nothing is left out."""
    size, chunks, number, lane_of, mask_of, total = make_group(width)
    count = n_groups(width)

    @kernel
    def gather(table: Float32Array, order: Int32Array, sums: Float32Array) -> None:
        group = cuda.blockIdx.x * (_THREADS // size) + number()
        sum_of_rows, j = _ZERO, group
        while j < order.size:
            row = np.int64(order[j])
            for chunk in range(chunks):
                four = isa.load4(table, row * width + VECTOR * (chunk * size + lane_of()))
                sum_of_rows += four[0] + four[1] + four[2] + four[3]
            j += count
        sum_of_rows = total(sum_of_rows, mask_of())
        if lane_of() == 0:
            sums[group] = sum_of_rows

    return gather


def make_add(width: int) -> Any:
    """Return the kernel that adds to rows of a table, in some order."""
    size, chunks, number, lane_of, _, _ = make_group(width)
    count, add4 = n_groups(width), isa.add4 if vector_atomics() else isa.add4_one_by_one

    @kernel
    def add(table: Float32Array, order: Int32Array) -> None:
        j = cuda.blockIdx.x * (_THREADS // size) + number()
        while j < order.size:
            row = np.int64(order[j])
            for chunk in range(chunks):
                place = row * width + VECTOR * (chunk * size + lane_of())
                add4(table, place, (_ONE, _ONE, _ONE, _ONE))
            j += count

    return add


def make_nothing() -> Any:
    """Return a kernel that does nothing with two arrays."""

    @kernel
    def nothing(first: Float32Array, second: Float32Array) -> None:
        if first.size < 0:
            second[0] = _ONE

    return nothing
