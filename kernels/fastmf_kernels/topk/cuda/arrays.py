"""What the top-k kernels on a GPU share: arrays on the device, and the shape of a tile."""

from typing import NamedTuple

from fastmf_kernels._cuda.jit import WARP
from fastmf_kernels._cuda.memory import DeviceArray


class Shape(NamedTuple):
    """How a block of threads screens a tile of queries × items.

    Attributes
    ----------
    rows, columns : int
        Queries and items of a thread, multiples of 4: their scores are in registers.
    down, across : int
        Threads in each direction.
    depth : int
        Factors that are in shared memory at a time; a multiple of 4 that divides the width of a row.
    """

    rows: int
    columns: int
    down: int
    across: int
    depth: int

    @property
    def n_threads(self) -> int:
        """Threads of a block."""
        return self.down * self.across

    @property
    def n_queries(self) -> int:
        """Queries of a tile."""
        return self.rows * self.down

    @property
    def n_items(self) -> int:
        """Items of a tile."""
        return self.columns * self.across

    @property
    def n_queries_of_a_warp(self) -> int:
        """Queries whose candidates a warp looks after, at most as many as it has threads."""
        return self.n_queries * WARP // self.n_threads


class WarpShape(Shape):
    """How the warps of a block screen a tile of queries × items with matrix instructions.

    Attributes
    ----------
    rows, columns : int
        Queries and items of a warp, multiples of 16: their scores are in its registers.
    down, across : int
        Warps in each direction; queries of a warp are at most 32 · across.
    depth : int
        Factors that are in shared memory at a time; a multiple of 16.
    """

    @property
    def n_threads(self) -> int:
        """Threads of a block."""
        return self.down * self.across * WARP


class Screen(NamedTuple):
    """How candidates are found.

    Attributes
    ----------
    shape : Shape
        A `WarpShape` if products are taken in float16.
    n_kept : int
        Candidates that a query has in the end.
    capacity : int
        Of a buffer.
    """

    shape: Shape
    n_kept: int
    capacity: int


class Catalogue(NamedTuple):
    """Items on the device, by their place.

    Attributes
    ----------
    factors : float32 array, shape (n_items·width,)
        Padded rows; for `halves.py` an int32 array of pairs.
    norms : float32 array, shape (n_items,)
        No vector from this place on is longer.
    order : int32 array, shape (n_items,)
        The item at each place.
    """

    factors: DeviceArray
    norms: DeviceArray
    order: DeviceArray


class Queries(NamedTuple):
    """A batch of queries on the device.

    Attributes
    ----------
    factors : float32 array, shape (n_queries·width,)
        Padded rows; for `halves.py` an int32 array of pairs.
    norms : float32 array, shape (n_queries,)
        Their lengths, rounded up; times an item's length, no score on the screen ought to be more.
    indptr : int64 array, shape (n_queries + 1,)
    excluded : int32 array
        The items that each query is not to be answered with, ascending.
    """

    factors: DeviceArray
    norms: DeviceArray
    indptr: DeviceArray
    excluded: DeviceArray


class Buffers(NamedTuple):
    """Candidates of each query, for each part of the catalogue; query ``r`` and part ``p`` have slot r·n_parts + p.

    Attributes
    ----------
    scores : float32 array, shape (n_slots·capacity,)
        As the screen has them, which is roughly.
    places : int32 array, shape (n_slots·capacity,)
    counts : int32 array, shape (n_slots,)
    thresholds : float32 array, shape (n_slots,)
        What was dropped scores no more than this on the screen; -inf if nothing was.
    """

    scores: DeviceArray
    places: DeviceArray
    counts: DeviceArray
    thresholds: DeviceArray


class Best(NamedTuple):
    """The answers on the device.

    Attributes
    ----------
    scores : float32 array, shape (n_queries·k,)
    items : int32 array, shape (n_queries·k,)
    proven : int32 array, shape (n_queries,)
        1 where no other item can be among the k best.
    """

    scores: DeviceArray
    items: DeviceArray
    proven: DeviceArray
