"""Items, or users, whose factors point the same way."""

from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.answers import Similar, empty_top
from fastmf.answering.asked import read_once
from fastmf.answering.fitted import Fitted
from fastmf.backend import get_backend
from fastmf.common.parameters import require_integer
from fastmf.errors import ParameterError, named
from fastmf.reading import ids
from fastmf_kernels.topk.arrays import Rows


def similar(fitted: Fitted, asked_ids: Any, k: int, kind: str, backend: str, n_threads: int | None) -> Similar:
    """Find the items (or users) whose factors are nearest to those of some of them by cosine, themselves left out.

    Those without training ratings have no neighbours and are nobody's neighbour.

    Parameters
    ----------
    fitted : Fitted
    asked_ids : id or array-like of ids
    k : int
        At most n - 1.
    kind : {"item", "user"}
    backend : str
    n_threads : int, optional

    Returns
    -------
    Similar
    """
    kernels, all_ids = get_backend(backend), fitted.item_ids if kind == "item" else fitted.user_ids
    require_integer("k", k, minimum=1)
    if k >= len(all_ids):
        raise ParameterError(f"{named('k')} is {k}, but there are {len(all_ids)} {kind}s; expected fewer than that")
    asked = ids.require_known(all_ids, read_once(asked_ids), f"{kind}_ids")
    warm = fitted.warm_users() if kind == "user" else fitted.counts.warm_items
    if warm is None:
        warm = np.arange(len(all_ids), dtype=np.int32)
    # A cold one would get the place of another.
    place = np.minimum(np.searchsorted(warm, asked), max(0, len(warm) - 1)).astype(np.int32)
    rows = np.flatnonzero(warm[place] == asked).astype(np.int32)
    index, itself = fitted.index(f"{kind} directions", kernels, n_threads), place[rows]
    exclude = Rows(np.arange(len(rows) + 1, dtype=np.int64), itself)
    found = kernels.top_k(index.factors[itself], index, int(k), exclude, n_threads).top
    top = empty_top(len(asked), int(k))
    top.scores[rows] = found.scores
    top.indices[rows] = np.where(found.indices >= 0, warm[found.indices], -1)
    n_cold = len(asked) - len(rows)
    return Similar(all_ids.take(pa.array(asked)), top.indices, top.scores, all_ids, kind, n_cold)
