"""FᵀF on a GPU: products of chunks of rows in float32, added up in float64 in a fixed order."""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastmf_kernels._cuda.jit import cuda, device, isa, kernel
from fastmf_kernels._cuda.rows import VECTOR
from fastmf_kernels._types import Float32Array, Float64Array
from fastmf_kernels.als.cuda.tiles import make_add, make_place, tile_size

# Rows whose products are added up in float32: the work of a block of threads. Small enough for short tables to be
# shared out among many blocks.
CHUNK = 1024
# Threads of a block that adds up products.
THREADS = 128
# Rows that are in shared memory at a time.
_STAGED = 16
_ZERO = np.float32(0)


class Panels(NamedTuple):
    """The work of a block of threads: ``width`` columns times as many, each thread a square tile of the products."""

    width: int
    tile: int

    @property
    def threads(self) -> int:
        """How many threads a block has."""
        return (self.width // self.tile) ** 2


def panels_for(width: int) -> Panels:
    """Return how the columns of a padded table are cut."""
    panel = min(width, 128)
    return Panels(panel, tile_size(panel))


@functools.cache
def make_multiply(width: int, panels: Panels, chunk: int) -> Any:
    """Return the kernel that multiplies two panels of columns over a chunk of rows.

    Blocks of threads are numbered by chunk, left panel and right panel. ``products``, shape (n_chunks·width·width,),
    takes a matrix for each chunk.
    """
    panel, size = panels
    across, parts, n_numbers, n_staged = panel // size, size // VECTOR, size * size, _STAGED * panel
    add, stage, staged = make_add(panel, size, np.float32(1)), _make_stage(width, panels), _STAGED

    @kernel
    def multiply(factors: Float32Array, products: Float32Array) -> None:
        left = cuda.shared.array(n_staged, np.float32, 16)
        right = cuda.shared.array(n_staged, np.float32, 16)
        tile = cuda.local.array(n_numbers, np.float32)
        for e in range(n_numbers):
            tile[e] = _ZERO
        i, j = cuda.threadIdx.x // across, cuda.threadIdx.x % across
        first = np.int64(cuda.blockIdx.x) * chunk
        stop = min(first + chunk, np.int64(factors.size // width))
        while first < stop:
            n = min(staged, stop - first)
            stage(factors, first, n, left, right)
            cuda.syncthreads()
            add(tile, left, right, 0, n, i, j)
            cuda.syncthreads()
            first += staged
        row = (np.int64(cuda.blockIdx.x) * width + cuda.blockIdx.y * panel + i * size) * width
        for a in range(size):
            for part in range(parts):
                e = a * size + part * VECTOR
                place = row + a * width + cuda.blockIdx.z * panel + j * size + part * VECTOR
                isa.store4(products, place, (tile[e], tile[e + 1], tile[e + 2], tile[e + 3]))

    return multiply


def _make_stage(width: int, panels: Panels) -> Any:
    panel, size = panels
    threads, lanes, place = panels.threads, panel // VECTOR, make_place(panel, size)

    @device
    def stage(factors: Float32Array, first: int, n: int, left: Float32Array, right: Float32Array) -> None:
        """Copy two panels of n rows to shared memory."""
        at = cuda.threadIdx.x
        while at < n * lanes:
            t, f = at // lanes, at % lanes * VECTOR
            row, to = (first + t) * width + f, t * panel + place(f)
            isa.store4(left, to, isa.load4(factors, row + cuda.blockIdx.y * panel))
            isa.store4(right, to, isa.load4(factors, row + cuda.blockIdx.z * panel))
            at += threads

    return stage


@functools.cache
def make_add_up() -> Any:
    """Return the kernel that adds up the products of chunks, one after the other: a thread for each number."""

    @kernel
    def add_up(products: Float32Array, total: Float64Array) -> None:
        place = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if place < total.size:
            number, at = total[place], np.int64(place)
            while at < products.size:
                number += np.float64(products[at])
                at += total.size
            total[place] = number

    return add_up
