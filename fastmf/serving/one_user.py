"""A request for one user of the model: the frequent kind, answered with few calls.

Calls of Arrow, and many of NumPy, release the interpreter lock (GIL), and then wait until other threads have released
it. With four threads on two cores, the median request took five times as long as with one. Here only the search
releases the lock.
"""

import numpy as np

from fastmf.answering.answers import Recommendations
from fastmf.answering.queries import as_predictions, as_queries
from fastmf.answering.scoring import COLD
from fastmf.common.parameters import require_choice
from fastmf.serving.catalogues import Key
from fastmf.serving.filters import combination
from fastmf.serving.requests import Wishes, require_k
from fastmf.serving.state import State
from fastmf_kernels.topk.arrays import Rows


def answer_one(state: State, users: object, wishes: Wishes) -> Recommendations | None:
    """Return the best items of a user who has training ratings.

    Parameters
    ----------
    state : State
    users : object
        Who is asked about, as `Recommender.recommend` takes it.
    wishes : Wishes

    Returns
    -------
    Recommendations or None
        None if it is another request: for several users, for one who is unknown or cold, or with lists of items.
    """
    without_seen = isinstance(wishes.exclude, str) and wishes.exclude == "seen"
    if not (without_seen or wishes.exclude is None) or wishes.allow is not None or wishes.deny is not None:
        return None
    user = users[0] if isinstance(users, list) and len(users) == 1 else users
    row = state.user_rows.find(int(user) if isinstance(user, np.integer) else user)
    if row < 0:
        return None
    fitted = state.fitted
    seen = fitted.seen
    start, end = int(seen.indptr[row]), int(seen.indptr[row + 1])
    if start == end:
        return None
    require_choice("cold", wishes.cold, COLD)
    require_k(fitted, wishes.k)
    wanted = combination(wishes.filters, state.filter_items)
    catalogue = state.catalogues.get(Key(wanted, wishes.cold == "include", False))
    if catalogue.item_index is None:
        return None
    n_excluded = end - start if without_seen else 0
    excluded = Rows(np.array([0, n_excluded], np.int64), seen.indices[start : start + n_excluded])
    factors, chosen = fitted.factors, slice(row, row + 1)
    queries = as_queries(fitted, factors.user_factors[chosen])
    found = state.search(catalogue, queries, int(wishes.k), excluded)
    return Recommendations(
        np.array([row], np.int32),
        fitted.user_ids[chosen],
        found.top.indices,
        as_predictions(fitted, factors.user_biases[chosen], found.top.scores),
        fitted.item_ids,
        found.scan,
        0,
        np.zeros(1, np.bool_),
    )
