"""Metrics of single users as a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.measuring.measurement import Measurement
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import BoolArray


def as_table(metrics: Sequence[Measurement], test: Interactions, is_relevant: BoolArray | None) -> pa.Table:
    """Return a row for each user with a test rating; see `fastmf.evaluate`.

    Parameters
    ----------
    metrics : sequence of Measurement
        With values of the users of the test part.
    test : Interactions
    is_relevant : bool array, shape (n_ratings,), or None
        Which test ratings are relevant; None for all.
    """
    n_ratings = np.bincount(test.users, minlength=test.n_users)
    n_relevant = n_ratings if is_relevant is None else np.bincount(test.users[is_relevant], minlength=test.n_users)
    rows = np.flatnonzero(n_ratings)
    columns: dict[str, Any] = {"user_id": test.user_ids.take(pa.array(rows))}
    for metric in metrics:
        if metric.of_users is not None:
            values = metric.of_users.values[rows]
            columns[metric.name] = pa.array(values, mask=np.isnan(values))
            if metric.name == "fcp":
                columns["n_pairs"] = pa.array(metric.of_users.weights[rows].astype(np.int64))
    return pa.table(columns | {"n_relevant": pa.array(n_relevant[rows]), "n_ratings": pa.array(n_ratings[rows])})
