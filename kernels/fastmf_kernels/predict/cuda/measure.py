"""The kernel that measures predictions on a GPU."""

import functools
from typing import Any

import numpy as np

from fastmf_kernels._cuda.jit import cuda, device, isa, kernel
from fastmf_kernels._cuda.rows import VECTOR, make_group
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.predict import point
from fastmf_kernels.predict.arrays import Factors, Link

THREADS = 128
_ZERO = np.float32(0)

_apply_link = device(point.apply_link)


@functools.cache
def make_measure(width: int) -> Any:
    """Return the kernel that adds up the squared errors of users: a group of threads for each, the longest first."""
    size, chunks, number, lane_of, mask_of, total = make_group(width)
    of_a_lane, per_block = VECTOR * chunks, THREADS // size

    @kernel
    def measure(rows: CSR, order: Int32Array, factors: Factors, link: Link, errors: Float32Array) -> None:
        place, lane = cuda.blockIdx.x * per_block + number(), lane_of()
        if place < order.size:
            user, squares = np.int64(order[place]), _ZERO
            p = cuda.local.array(of_a_lane, np.float32)
            for chunk in range(chunks):
                four = isa.load4(factors.user_factors, user * width + VECTOR * (chunk * size + lane))
                for i in range(VECTOR):
                    p[VECTOR * chunk + i] = four[i]
            j, stop = rows.indptr[user], rows.indptr[user + 1]
            while j < stop:
                item, product = np.int64(rows.indices[j]), _ZERO
                for chunk in range(chunks):
                    q = isa.load4(factors.item_factors, item * width + VECTOR * (chunk * size + lane))
                    for i in range(VECTOR):
                        product += p[VECTOR * chunk + i] * q[i]
                biases = factors.global_mean + factors.user_biases[user] + factors.item_biases[item]
                error = rows.values[j] - _apply_link(total(product, mask_of()) + biases, link.low, link.span)
                squares += error * error
                j += 1
            if lane == 0:
                errors[user] = squares

    return measure
