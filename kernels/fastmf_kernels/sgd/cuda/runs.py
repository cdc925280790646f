"""Ratings in runs of one user: on the device for all of training, or brought there stratum by stratum."""

from typing import NamedTuple

import numpy as np

from fastmf_kernels._cuda.memory import free_bytes, put
from fastmf_kernels._types import Int32Array, Int64Array
from fastmf_kernels.sgd.cuda.walk import Runs
from fastmf_kernels.sgd.schedule import Blocks

# Share of the free memory that the ratings may take. The rest is for the runtime and for the arrays of a stratum.
_SHARE = 0.8
# Memory on the device: an item and a rating take 8 bytes; a user and the two ends of a run take 20.
BYTES_OF_A_RATING, BYTES_OF_A_RUN = 8, 20
# Runs that take a step of the same item at the same time, on average. They start from the same row, and what they add
# is added up: with 280 of them training diverged on an H200, and in the model of `bench/lockstep.py`; with 140 it
# came to the error of the CPU there.
_MOST_AT_AN_ITEM = 64


class Walk(NamedTuple):
    """Ratings as the kernels walk them.

    Attributes
    ----------
    runs : Runs
        Of all blocks.
    runs_before, ratings_before : int64 arrays, shape (n_blocks + 1,)
        The runs and the ratings of each block; on the host.
    is_on_device : bool
        Whether ``runs`` are on the device: where they do not fit, they are arrays of the host.
    most_at_once : int
        Runs that may be under way at the same time.
    """

    runs: Runs
    runs_before: Int64Array
    ratings_before: Int64Array
    is_on_device: bool
    most_at_once: int


def make_walk(blocks: Blocks) -> Walk:
    """Cut blocks into runs, those that take longest first, and put them on the device if they fit there."""
    n_ratings, n_blocks = len(blocks.ratings), len(blocks.offsets) - 1
    begins = np.ones(n_ratings, np.bool_)
    begins[1:] = blocks.users[1:] != blocks.users[:-1]
    begins[blocks.offsets[:-1][np.diff(blocks.offsets) > 0]] = True
    starts = np.flatnonzero(begins)
    stops = np.append(starts[1:], n_ratings)[: len(starts)]
    block = np.searchsorted(blocks.offsets, starts, side="right") - 1
    order = np.lexsort((starts - stops, block))
    before = np.searchsorted(block, np.arange(n_blocks + 1))
    users = blocks.users[starts[order]]
    runs = Runs(users, starts[order], stops[order], before, blocks.items, blocks.ratings)
    walk = Walk(runs, before, blocks.offsets, False, _most_at_once(blocks.items))
    if sum(array.nbytes for array in runs) > _SHARE * free_bytes():
        return walk
    return walk._replace(runs=Runs(*(put(array) for array in runs)), is_on_device=True)


def _most_at_once(items: Int32Array) -> int:
    """Return how many runs may be under way: so many that the most popular item meets `_MOST_AT_AN_ITEM` of them."""
    largest = int(np.bincount(items).max(initial=1))
    return max(1, _MOST_AT_AN_ITEM * max(1, len(items)) // largest)


def take_stratum(walk: Walk, stratum: Int32Array) -> Runs:
    """Bring the blocks of a stratum to the device, numbered in its order."""
    runs, blocks = walk.runs, [int(block) for block in stratum]
    of_blocks = [slice(walk.runs_before[b], walk.runs_before[b + 1]) for b in blocks]
    ratings = [slice(walk.ratings_before[b], walk.ratings_before[b + 1]) for b in blocks]
    begin_at = np.cumsum([0, *(part.stop - part.start for part in ratings)])
    moves = [place - part.start for place, part in zip(begin_at, ratings, strict=False)]
    return Runs(
        put(np.concatenate([runs.users[part] for part in of_blocks])),
        put(np.concatenate([runs.starts[part] + move for part, move in zip(of_blocks, moves, strict=True)])),
        put(np.concatenate([runs.stops[part] + move for part, move in zip(of_blocks, moves, strict=True)])),
        put(np.cumsum([0, *(part.stop - part.start for part in of_blocks)])),
        put(np.concatenate([runs.items[part] for part in ratings])),
        put(np.concatenate([runs.ratings[part] for part in ratings])),
    )
