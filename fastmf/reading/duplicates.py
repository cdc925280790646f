"""What to do with (user, item) pairs that occur more than once."""

from typing import TYPE_CHECKING

import numpy as np

from fastmf.errors import DataError, named

if TYPE_CHECKING:
    from fastmf.reading.interactions import Interactions

DUPLICATES = ("error", "first", "last", "mean", "sum")


def without_duplicates(
    ratings: "Interactions", duplicates: str, fault: str = "ratings repeat a (user, item) pair"
) -> "Interactions":
    """Apply the rule for repeated (user, item) pairs; data without repeated pairs is returned unchanged.

    ``fault`` words what repeats in the error.
    """
    indptr, indices, _ = ratings.by_user
    same = indices[1:] == indices[:-1]
    starts = indptr[1:-1]
    same[starts[(starts > 0) & (starts < len(indices))] - 1] = False
    n_duplicates = int(np.count_nonzero(same))
    if n_duplicates == 0:
        return ratings
    if duplicates == "error":
        position = int(np.argmax(same))
        user = ratings.user_ids[int(np.searchsorted(indptr, position, side="right")) - 1].as_py()
        item = ratings.item_ids[int(indices[position])].as_py()
        raise DataError(
            f"{n_duplicates} {fault}, for example ({user!r}, {item!r}); expected each pair "
            f'once: choose {named("duplicates")}="first", "last", "mean" or "sum"'
        )
    return _merge(ratings, duplicates)


def _merge(ratings: "Interactions", rule: str) -> "Interactions":
    """Merge repeated pairs, in the order of first occurrence; "mean" and "sum" keep the last timestamp.

    First and last go by time if there are timestamps, and by row among equal times.
    """
    pair = ratings.users.astype(np.int64) * ratings.n_items + ratings.items
    order = np.argsort(pair, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(pair[order]) != 0]))
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    first_rows = order[starts]
    if ratings.timestamps is not None:
        order = np.lexsort((ratings.timestamps, pair))
    chosen = order[starts] if rule == "first" else order[starts + sizes - 1]
    values = ratings.ratings[chosen]
    if rule in ("mean", "sum"):
        totals = np.add.reduceat(ratings.ratings[order].astype(np.float64), starts)
        with np.errstate(over="ignore"):
            values = (totals / sizes if rule == "mean" else totals).astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError("the sum of a repeated (user, item) pair is not finite in float32; scale the ratings first")
    in_order = np.argsort(first_rows, kind="stable")
    chosen, values = chosen[in_order], values[in_order]
    timestamps = None if ratings.timestamps is None else ratings.timestamps[chosen]
    return ratings.with_rows(ratings.users[chosen], ratings.items[chosen], values, timestamps)
