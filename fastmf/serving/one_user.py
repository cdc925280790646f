"""A request for one user of the model, answered in few steps of the interpreter.

Threads take turns in the interpreter. A call that lets go of it, as those of Arrow and many of NumPy do, gives the turn
away and then waits for another one: with four threads on two cores, requests took five times as long as the search.
Here only the search lets go of it.
"""

import numpy as np

from fastmf.answering.answers import Recommendations
from fastmf.answering.queries import as_predictions, as_queries
from fastmf.answering.rows import renumber_columns
from fastmf.answering.scoring import COLD
from fastmf.common.parameters import require_choice
from fastmf.serving.catalogues import Key
from fastmf.serving.filters import combination
from fastmf.serving.requests import Wishes, require_k
from fastmf.serving.state import State
from fastmf_kernels.topk.arrays import Rows, no_rows


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
    excluded = no_rows(1)
    if without_seen:
        excluded = Rows(np.array([0, end - start], np.int64), seen.indices[start:end])
        if catalogue.places is not None:
            excluded = renumber_columns(excluded, catalogue.places)
    factors, chosen = fitted.factors, slice(row, row + 1)
    queries = as_queries(fitted, factors.user_factors[chosen])
    found = state.kernels.top_k(queries, catalogue.item_index, int(wishes.k), excluded, state.model.n_threads)
    items = found.top.indices
    if catalogue.items is not None:
        np.copyto(items, catalogue.items.take(items, mode="clip"), where=items >= 0)
    return Recommendations(
        np.array([row], np.int32),
        fitted.user_ids[chosen],
        items,
        as_predictions(fitted, factors.user_biases[chosen], found.top.scores),
        fitted.item_ids,
        found.scan,
        0,
        np.zeros(1, np.bool_),
    )
