"""Which places of a list of recommendations are for new items, and which items are new."""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.answering.fitted import Fitted
from fastmf.errors import ParameterError, named
from fastmf_kernels._types import BoolArray, Float64Array, UInt64Array


def few_ratings(fitted: Fitted | None, fewer_than: int) -> BoolArray:
    """Tell which items have few training ratings, shape (n_items,).

    Raises
    ------
    ParameterError
        If they are not known.
    """
    if fitted is None:
        raise ParameterError(
            f"{named('explore')} is for items with few training ratings; expected the {named('model')} that the "
            "recommendations are from"
        )
    if not fitted.counts.are_known:
        raise ParameterError(
            f"{named('explore')} is for items with few training ratings, and this model does not know them; expected "
            "a model that was trained here, or 0"
        )
    return np.asarray(fitted.counts.of_items < fewer_than)


def draws(user_ids: pa.Array, k: int, share: float, seed: int) -> Float64Array:
    """Decide which places of lists are for new items: a share of them.

    Parameters
    ----------
    user_ids : Arrow array, length n
    k : int
    share : float
        From 0 to 1.
    seed : int

    Returns
    -------
    float64 array, shape (n, k)
        A number from 0 to just below 1 that chooses among new items, or -1 where a place is not for them. It depends on
        the user's id, the place, and the parameters alone.
    """
    keys = _mixed(_as_bits(user_ids) + _mixed(np.array([seed % 2**64], np.uint64)))
    is_explored = _uniform(keys, np.arange(0, 2 * k, 2)) < share
    return np.where(is_explored, _uniform(keys, np.arange(1, 2 * k, 2)), np.float64(-1))


def _as_bits(user_ids: pa.Array) -> UInt64Array:
    """Return 64 bits of each id, which depend on nothing else."""
    if pa.types.is_int64(user_ids.type):
        return np.asarray(user_ids).view(np.uint64)
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in user_ids.to_pylist())
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _uniform(keys: UInt64Array, counters: npt.NDArray[np.int64]) -> Float64Array:
    """Return numbers from 0 to just below 1 of random sequences: SplitMix64, shape (n_keys, n_counters).

    Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    steps = (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = _mixed(keys[:, np.newaxis] + steps) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def _mixed(z: UInt64Array) -> UInt64Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
