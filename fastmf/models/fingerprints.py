"""Fingerprints of everything that a training depends on: whether two are the same, and what differs."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.answering.fitted import Fitted
from fastmf.reading.features import Features
from fastmf.reading.interactions import Interactions

Fingerprint = dict[str, Any]
# What may also differ in order.
_IN_ORDER = ("pairs", "values", "times")


def fingerprint_of(ratings: Interactions) -> Fingerprint:
    """Return counts and SHA-256 checksums of ratings, their times and their ids, in the order in which they are given.

    The order counts: sums of floats depend on it, and with them the last bits of a model.
    """
    pairs = [np.ascontiguousarray(array) for array in (ratings.users, ratings.items)]
    times = ratings.timestamps
    return {
        "n_users": ratings.n_users,
        "n_items": ratings.n_items,
        "n_ratings": ratings.n_ratings,
        "user ids": digest_of_ids(ratings.user_ids),
        "item ids": digest_of_ids(ratings.item_ids),
        "pairs": _digest(*pairs),
        "values": _digest(ratings.ratings),
        "times": None if times is None else f"{ratings.timestamp_type} {_digest(times)}",
    }


def fingerprint_of_start(start: Fitted) -> Fingerprint:
    """Return counts and checksums of what a fit begins at."""
    return {
        "n_users": start.n_users,
        "n_items": start.n_items,
        "user ids": digest_of_ids(start.user_ids),
        "item ids": digest_of_ids(start.item_ids),
        "factors": _digest(*start.factors[:4]),
        "state": _digest(*(start.state[name] for name in sorted(start.state))),
    }


def fingerprint_of_features(features: Features) -> Fingerprint:
    """Return counts and checksums of features and their names."""
    return {
        "n_ids": len(features),
        "n_features": features.n_features,
        "ids": digest_of_ids(features.ids),
        "names": digest_of_ids(pa.array(features.names, pa.large_string())),
        "values": _digest(*features.rows, features.is_numeric),
    }


def difference(before: Fingerprint, now: Fingerprint) -> str | None:
    """Say what the second has that the first had not: "30 users, not 25", or "other user ids"; None if nothing."""
    for name, value in now.items():
        if name.startswith("n_") and before.get(name) != value:
            was = before.get(name)
            return f"{value:,} {name.removeprefix('n_')}, not {f'{was:,}' if isinstance(was, int) else was}"
    other = next((name for name, value in now.items() if before.get(name) != value), None)
    if other in _IN_ORDER:
        return f"other {other}, or the same in another order"
    return None if other is None else f"other {other}"


def digest_of_ids(ids: pa.Array) -> str:
    """Return the SHA-256 of ids, whatever their layout in memory."""
    if pa.types.is_int64(ids.type):
        return _digest(ids.to_numpy(zero_copy_only=False))
    texts = ids.cast(pa.large_string())
    digest = hashlib.sha256(_digest(pc.binary_length(texts).to_numpy(zero_copy_only=False)).encode())
    if len(texts):
        _, offsets, letters = texts.buffers()
        ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        digest.update(memoryview(letters)[ends[0] : ends[-1]] if letters is not None else b"")
    return digest.hexdigest()


def _digest(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
