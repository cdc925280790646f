"""What a training run is made of, for all models."""

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from fastmf.interactions import Interactions
from fastmf_kernels._memory import in_huge_pages
from fastmf_kernels._types import Float32Array
from fastmf_kernels.predict.arrays import Factors, Link

Record = dict[str, Any]
# Called after every epoch as callback(model, record); a true answer ends training.
Callback = Callable[[Any, Record], object]


class Trainer(Protocol):
    """One run of training: holds the factors and improves them epoch by epoch, in place."""

    factors: Factors
    link: Link

    def run_epoch(self) -> Record:
        """Go over the data once, and return figures of the epoch."""


def best_record(history: list[Record], metric: str) -> Record:
    """Return the record with the best validation figure of a metric; of equal ones the earliest."""
    name = next(name for name in history[0] if name.partition("@")[0] == f"validation_{metric}")
    best = min if metric in ("rmse", "mae") else max
    return best(history, key=lambda record: record[name])


def copy_of(factors: Factors) -> Factors:
    """Copy the arrays."""
    user_factors, item_factors, user_biases, item_biases, global_mean = factors
    return Factors(user_factors.copy(), item_factors.copy(), user_biases.copy(), item_biases.copy(), global_mean)


def first_factors(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> Float32Array:
    """Draw normal factors with standard deviation scale / √n_factors: the size of p·q then depends on scale only."""
    factors = rng.standard_normal(shape, dtype=np.float32)
    factors *= np.float32(scale / np.sqrt(shape[1]))
    return in_huge_pages(factors, shape[1])


def describe(ratings: Interactions) -> dict[str, Any]:
    """Figures that tell one data set from another, for the manifest."""
    fingerprint = 0
    for array in ratings.by_user:
        fingerprint = zlib.crc32(array.view(np.uint8).data, fingerprint)
    return {
        "n_users": ratings.n_users,
        "n_items": ratings.n_items,
        "n_ratings": ratings.n_ratings,
        "mean": float(ratings.ratings.mean(dtype=np.float64)),
        "fingerprint": f"crc32:{fingerprint:08x}",
    }
