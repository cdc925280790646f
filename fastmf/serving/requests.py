"""From the arguments of a request to arrays, in time that does not depend on the number of users or items."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.asked import read_once
from fastmf.answering.audience import Audience, UsersOfModel
from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import renumber_columns, rows_of_pairs, take_rows, union
from fastmf.answering.scoring import COLD, ItemFilter
from fastmf.common.parameters import require_choice, require_integer
from fastmf.errors import ParameterError, named
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf.serving.filters import Combination, combination
from fastmf.serving.state import State
from fastmf_kernels._types import Int32Array
from fastmf_kernels.topk.arrays import Rows


class Request(NamedTuple):
    """A request for the k best items of n users, checked.

    Attributes
    ----------
    audience : Audience
        All users of the model, or people who bring their ratings.
    users : int32 array, shape (n,)
        Those of the audience who are asked about; -1 for others, of whom nothing is known.
    user_ids : Arrow array, length n
        As they were given.
    k : int
    cold : str
    wanted : frozenset
        Filters that all items pass.
    without_seen : bool
        Whether the items that a user has rated are left out.
    excluded : Rows or None
        What else is left out, for each user.
    denied, allowed : int32 array or None
        Items that are left out, and the only ones to choose from, for all users; ascending.
    allowed_rows : Rows or None
        The only ones to choose from, for each user.
    """

    audience: Audience
    users: Int32Array
    user_ids: pa.Array
    k: int
    cold: str
    wanted: Combination
    without_seen: bool
    excluded: Rows | None
    denied: Int32Array | None
    allowed: Int32Array | None
    allowed_rows: Rows | None


class _ItemLists(NamedTuple):
    """A list of items for all users, or a row for each; both None for no list."""

    items: Int32Array | None
    rows: Rows | None


class Wishes(NamedTuple):
    """What a request says besides who is asked about; see `fastmf.Recommender.recommend`."""

    k: int
    exclude: Any
    allow: ItemFilter
    deny: ItemFilter
    filters: Any
    cold: str


def read_request(state: State, users: Any, wishes: Wishes) -> Request:
    """Check a request for users by their ids, whether or not the model knows them."""
    require_choice("cold", wishes.cold, COLD)
    if users is None:
        raise ParameterError(f"{named('users')} is None; expected ids: for all users call the model's own recommend")
    fitted = state.fitted
    user_ids = ids.normalise(read_once(users), "users")
    rows = ids.search(fitted.user_ids, user_ids, "users")
    if user_ids.type != fitted.user_ids.type:
        user_ids = user_ids.cast(fitted.user_ids.type)
    return _checked(state, UsersOfModel(fitted), rows, user_ids, wishes)


def read_request_for(state: State, interactions: Any, wishes: Wishes) -> Request:
    """Check a request for people who bring their ratings."""
    require_choice("cold", wishes.cold, COLD[:2])
    people = state.model.newcomers(interactions)
    return _checked(state, people, np.arange(len(people.ids), dtype=np.int32), people.ids, wishes)


def _checked(state: State, audience: Audience, users: Int32Array, user_ids: pa.Array, wishes: Wishes) -> Request:
    fitted, exclude = state.fitted, wishes.exclude
    require_k(fitted, wishes.k)
    without_seen = isinstance(exclude, str) and exclude == "seen"
    allowed, denied = _read(fitted, user_ids, wishes.allow, "allow"), _read(fitted, user_ids, wishes.deny, "deny")
    return Request(
        audience,
        users,
        user_ids,
        int(wishes.k),
        wishes.cold,
        combination(wishes.filters, state.filter_items),
        without_seen,
        _both(None if without_seen else _pairs_of(fitted, user_ids, exclude), denied.rows, fitted.n_items),
        denied.items,
        allowed.items,
        allowed.rows,
    )


def require_k(fitted: Fitted, k: object) -> None:
    """Raise `ParameterError` unless ``k`` is an integer from 1 to the size of the catalogue."""
    require_integer("k", k, minimum=1)
    if k > fitted.n_items:  # type: ignore[operator]
        raise ParameterError(
            f"{named('k')} is {k}, but the catalogue has {fitted.n_items} items; expected at most as many"
        )


def take_known_rows(rows: Rows, users: Int32Array) -> Rows:
    """Return the rows of some users, in that order; an empty one for each -1."""
    is_known = users >= 0
    if is_known.all():
        return take_rows(rows, users)
    taken = take_rows(rows, users[is_known])
    counts = np.zeros(len(users) + 1, np.int64)
    counts[1:][is_known] = np.diff(taken.indptr)
    return Rows(np.cumsum(counts), taken.indices)


def _both(a: Rows | None, b: Rows | None, n_items: int) -> Rows | None:
    if a is None or b is None:
        return b if a is None else a
    return union(a, b, n_items)


def _pairs_of(fitted: Fitted, user_ids: pa.Array, exclude: Any) -> Rows | None:
    if exclude is None:
        return None
    if isinstance(exclude, Interactions):
        return _rows_of_pairs(fitted, user_ids, exclude)
    raise ParameterError(f'exclude is {exclude!r}; expected "seen", Interactions, or None')


def _read(fitted: Fitted, user_ids: pa.Array, given: ItemFilter, name: str) -> _ItemLists:
    """Turn an ``allow`` or ``deny`` argument into indices; ids that the model does not know cannot match."""
    if given is None:
        return _ItemLists(None, None)
    if isinstance(given, Interactions):
        return _ItemLists(None, _rows_of_pairs(fitted, user_ids, given))
    if isinstance(given, Mapping):
        return _ItemLists(None, _rows_of_lists(fitted, user_ids, given, name))
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ParameterError(f"{name} is {given!r}; expected a list of item ids, a dict or Interactions")
    found = ids.look_up(fitted.item_ids, read_once(given), name)
    return _ItemLists(np.unique(found[found >= 0]), None)


def _rows_of_pairs(fitted: Fitted, user_ids: pa.Array, pairs: Interactions) -> Rows:
    """Return the items that each user has in some pairs."""
    given = take_known_rows(Rows(*pairs.by_user[:2]), ids.search(pairs.user_ids, user_ids, "user_ids"))
    items, places = np.unique(given.indices, return_inverse=True)
    numbers = ids.look_up(fitted.item_ids, pairs.item_ids.take(pa.array(items)), "item_ids")
    return renumber_columns(Rows(given.indptr, places.astype(np.int32)), numbers)


def _rows_of_lists(fitted: Fitted, user_ids: pa.Array, lists: Mapping[Any, Iterable[Any]], name: str) -> Rows:
    """Return the items that each user has in a dict of lists."""
    for user in lists:  # the first one tells whether its keys are of the right type
        ids.look_up(fitted.user_ids, [user], name)
        break
    rows: list[int] = []
    item_ids: list[Any] = []
    # Users may share an iterator, and a user may be asked for twice.
    read: dict[int, tuple[Any, list[Any]]] = {}
    for row, user in enumerate(user_ids.to_pylist()):
        found = _list_of(lists.get(user, ()), f"{name}[{user!r}]", read)
        rows.extend([row] * len(found))
        item_ids.extend(found)
    items = ids.look_up(fitted.item_ids, item_ids, name)
    is_known = items >= 0
    return rows_of_pairs(np.array(rows, np.int32)[is_known], items[is_known], len(user_ids), fitted.n_items)


def _list_of(given: Any, name: str, read: dict[int, tuple[Any, list[Any]]]) -> list[Any]:
    """Return a list of ids; an iterator is read once, and kept, so that no other object gets its number."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ParameterError(f"{name} is {given!r}; expected a list of item ids")
    if not isinstance(given, Iterator):
        return list(given)
    if id(given) not in read:
        read[id(given)] = given, list(given)
    return read[id(given)][1]
