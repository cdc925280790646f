"""The k best items of each user: batches of users against all items, and filters."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf import ids
from fastmf.answers import Batches, Recommendations, Similar
from fastmf.backend import get_backend
from fastmf.errors import ParameterError
from fastmf.interactions import Interactions
from fastmf.models.fitted import Fitted
from fastmf.parameters import require_integer
from fastmf.rows import rows_of_pairs, same_for_all, take_rows, union
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.topk.arrays import Rows, TopK, no_rows

ItemFilter = Sequence[Any] | Mapping[Any, Sequence[Any]] | Interactions | None
_BATCH = 8192


def top_k(
    queries: Float32Array,
    items: Float32Array,
    k: int,
    *,
    exclude: tuple[Int64Array, Int32Array] | None = None,
    backend: str = "cpu",
    n_threads: int | None = None,
) -> TopK:
    """Find the k items with the largest dot product for every query, on plain arrays: the kernel for services.

    Safe to call from many threads; it releases the GIL, and a single query starts no parallel work.

    Parameters
    ----------
    queries : float32 array, shape (n_queries, n_factors) or (n_factors,)
    items : float32 array, shape (n_items, n_factors)
    k : int
        At least 1; it may be larger than ``n_items``.
    exclude : (indptr, indices), optional
        Items not to return to query r: ``indices[indptr[r]:indptr[r + 1]]``.
    backend : {"cpu", "reference", "cuda"}
    n_threads : int, optional
        All cores if None.

    Returns
    -------
    scores : float32 array, shape (n_queries, k)
    indices : int32 array, shape (n_queries, k)
        Best first, of equal scores the lower index first. Rows with fewer than k candidates are padded with index -1
        and score -inf.

    Raises
    ------
    ParameterError
        If the widths differ, or an excluded index is not that of an item.

    Examples
    --------
    >>> import numpy as np, fastmf
    >>> scores, indices = fastmf.top_k(np.array([[1, 0]]), np.array([[1, 2], [3, 4]]), k=1)
    >>> int(indices[0, 0]), float(scores[0, 0])
    (1, 3.0)
    """
    require_integer("k", k, minimum=1)
    queries = np.ascontiguousarray(np.atleast_2d(queries), np.float32)
    items = np.ascontiguousarray(items, np.float32)
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ParameterError(
            f"queries have shape {queries.shape} and items {items.shape}; expected (n_queries, n_factors) and "
            "(n_items, n_factors), with the same n_factors"
        )
    rows = no_rows(len(queries)) if exclude is None else _checked_rows(exclude, len(queries), len(items))
    return get_backend(backend).top_k(queries, items, int(k), rows, n_threads)


def _checked_rows(exclude: tuple[Int64Array, Int32Array], n_queries: int, n_items: int) -> Rows:
    if not (isinstance(exclude, (tuple, list)) and len(exclude) == 2):
        raise ParameterError(f"exclude is a {type(exclude).__name__}; expected (indptr, indices), as in a CSR matrix")
    given = [np.asarray(part) for part in exclude]
    if any(part.ndim != 1 or (part.size and part.dtype.kind not in "iu") for part in given):
        raise ParameterError(
            f"exclude has an indptr of {given[0].dtype} {given[0].shape} and indices of {given[1].dtype} "
            f"{given[1].shape}; expected two integer arrays of one dimension"
        )
    indptr, indices = (part.astype(np.int64) for part in given)
    valid_indptr = indptr.shape == (n_queries + 1,) and indptr[0] == 0 and indptr[-1] == len(indices)
    if not valid_indptr or np.any(np.diff(indptr) < 0):
        raise ParameterError(
            f"exclude has an indptr of shape {indptr.shape} for {n_queries} queries and {len(indices)} indices; "
            f"expected {n_queries + 1} offsets that rise from 0 to {len(indices)}"
        )
    if len(indices) and not (indices.min() >= 0 and indices.max() < n_items):
        raise ParameterError(
            f"exclude names items {indices.min()} to {indices.max()}; expected indices of the {n_items} items, from 0"
        )
    queries = np.repeat(np.arange(n_queries), np.diff(indptr))
    return rows_of_pairs(queries, indices, n_queries, n_items)


class _Filter(NamedTuple):
    """A list of items for all users, or rows of items for each user (by user index); both None for no filter."""

    items: Int32Array | None
    rows: Rows | None


class Scorer:
    """Answers "which items next" for the users of a fitted model.

    Biases are folded into the factors, [p, 1]·[q, b_i]: the user's own bias and the mean do not change the order and
    are added, and the link applied, to the few scores that are returned.

    Parameters
    ----------
    fitted : Fitted
    backend : str
    n_threads : int, optional
    """

    def __init__(self, fitted: Fitted, backend: str, n_threads: int | None) -> None:
        self._fitted, self._kernels, self._n_threads = fitted, get_backend(backend), n_threads
        self._items = fitted.items_with_biases

    def recommend(
        self,
        users: Any,
        k: int,
        *,
        exclude: str | Interactions | None,
        allow: ItemFilter = None,
        deny: ItemFilter = None,
    ) -> Recommendations:
        """Find the k best items of each user; see `fastmf.models.FactorModel.recommend`."""
        batches = list(self.recommend_in_batches(users, k, exclude=exclude, allow=allow, deny=deny).batches)
        if len(batches) == 1:
            return batches[0]
        indices = np.concatenate([batch.users for batch in batches]) if batches else np.empty(0, np.int32)
        return Recommendations(
            indices,
            self._fitted.user_ids.take(pa.array(indices)),
            np.concatenate([batch.items for batch in batches]) if batches else np.empty((0, k), np.int32),
            np.concatenate([batch.scores for batch in batches]) if batches else np.empty((0, k), np.float32),
            self._fitted.item_ids,
        )

    def recommend_in_batches(
        self,
        users: Any,
        k: int,
        *,
        exclude: str | Interactions | None,
        allow: ItemFilter = None,
        deny: ItemFilter = None,
    ) -> Batches:
        """Check the request and return its answers as batches still to be computed."""
        require_integer("k", k, minimum=1)
        if k > self._fitted.n_items:
            raise ParameterError(
                f"k is {k}, but the catalogue has {self._fitted.n_items} items; expected at most as many"
            )
        if users is None:
            indices = np.arange(self._fitted.n_users, dtype=np.int32)
        else:
            indices = ids.require_known(self._fitted.user_ids, users, "users")
        filters = self.exclusion(exclude), self._resolve(allow, "allow"), self._resolve(deny, "deny")
        return Batches(len(indices), self._batches(indices, int(k), *filters))

    def top_items(self, users: Int32Array, k: int, exclude: Rows) -> Int32Array:
        """Return the indices of the k best items of users given by index, shape (n, k), padded with -1."""
        return self._top_k(users, self._items, k, exclude).indices

    def scores(self, users: Int32Array) -> Float32Array:
        """Score all items for users given by index, shape (n, n_items): in the right order, not as predictions."""
        return np.asarray(self._queries(users) @ self._items.T)

    def exclusion(self, exclude: str | Interactions | None) -> Rows:
        """Resolve an ``exclude`` argument to item indices for every user of the model."""
        if exclude is None:
            return no_rows(self._fitted.n_users)
        if isinstance(exclude, str) and exclude == "seen":
            return self._fitted.seen
        if isinstance(exclude, Interactions):
            return self._rows_of(exclude)
        raise ParameterError(f'exclude is {exclude!r}; expected "seen", Interactions, or None')

    def _batches(
        self, users: Int32Array, k: int, exclude: Rows, allow: _Filter, deny: _Filter
    ) -> Iterator[Recommendations]:
        for start in range(0, len(users), _BATCH):
            batch = users[start : start + _BATCH]
            barred = take_rows(exclude, batch)
            if deny.items is not None:
                barred = union(barred, same_for_all(deny.items, len(batch)), self._fitted.n_items)
            if deny.rows is not None:
                barred = union(barred, take_rows(deny.rows, batch), self._fitted.n_items)
            top = self._best(batch, k, barred, allow)
            yield Recommendations(
                batch,
                self._fitted.user_ids.take(pa.array(batch)),
                top.indices,
                self._predictions(batch, top.scores),
                self._fitted.item_ids,
            )

    def _best(self, users: Int32Array, k: int, barred: Rows, allow: _Filter) -> TopK:
        if allow.rows is not None:
            candidates = take_rows(allow.rows, users)
            return self._kernels.top_k_among(self._queries(users), self._items, k, candidates, barred, self._n_threads)
        if allow.items is None:
            return self._top_k(users, self._items, k, barred)
        # Only the allowed items are scored; their order is kept, so ties go to the lower index as ever.
        position = np.full(self._fitted.n_items, -1, np.int32)
        position[allow.items] = np.arange(len(allow.items), dtype=np.int32)
        rows = np.repeat(np.arange(len(users)), np.diff(barred.indptr))
        kept = position[barred.indices] >= 0
        among = rows_of_pairs(rows[kept], position[barred.indices[kept]], len(users), len(allow.items))
        top = self._top_k(users, self._items[allow.items], k, among)
        found = top.indices >= 0
        top.indices[found] = allow.items[top.indices[found]]
        return top

    def _top_k(self, users: Int32Array, items: Float32Array, k: int, exclude: Rows) -> TopK:
        return self._kernels.top_k(self._queries(users), items, k, exclude, self._n_threads)

    def _queries(self, users: Int32Array) -> Float32Array:
        factors = np.asarray(self._fitted.factors.user_factors[users])
        if self._items.shape[1] == factors.shape[1]:
            return factors
        return np.column_stack([factors, np.ones(len(factors), np.float32)])

    def _predictions(self, users: Int32Array, scores: Float32Array) -> Float32Array:
        factors, link = self._fitted.factors, self._fitted.link
        predictions = scores + (factors.global_mean + factors.user_biases[users])[:, None]
        if link.span != 0:
            predictions = link.low + link.span / (1 + np.exp(-predictions, dtype=np.float32))
        return np.where(scores == -np.inf, scores, predictions).astype(np.float32)

    def _resolve(self, items: ItemFilter, name: str) -> _Filter:
        """Turn an ``allow`` or ``deny`` argument into indices; ids that the model does not know cannot match."""
        if items is None:
            return _Filter(None, None)
        if isinstance(items, Interactions):
            return _Filter(None, self._rows_of(items))
        if isinstance(items, Mapping):
            for user, row in items.items():
                if isinstance(row, (str, bytes)) or not isinstance(row, Iterable):
                    raise ParameterError(f"{name}[{user!r}] is {row!r}; expected a list of item ids")
            users = [user for user, listed in items.items() for _ in listed]
            listed = [item for row in items.values() for item in row]
            return _Filter(None, self._rows_of_ids(users, listed, name))
        if isinstance(items, (str, bytes)):
            raise ParameterError(f"{name} is {items!r}; expected a list of item ids, a dict or Interactions")
        found = ids.look_up(self._fitted.item_ids, items, name)
        return _Filter(np.unique(found[found >= 0]), None)

    def _rows_of(self, pairs: Interactions) -> Rows:
        """Rows of item indices in the model's id space, for every user of the model."""
        if pairs.user_ids is self._fitted.user_ids and pairs.item_ids is self._fitted.item_ids:
            return Rows(pairs.by_user.indptr, pairs.by_user.indices)
        user_of = ids.look_up(self._fitted.user_ids, pairs.user_ids, "user_ids")
        item_of = ids.look_up(self._fitted.item_ids, pairs.item_ids, "item_ids")
        return self._known_pairs(user_of[pairs.users], item_of[pairs.items])

    def _rows_of_ids(self, user_ids: Any, item_ids: Any, name: str) -> Rows:
        return self._known_pairs(
            ids.look_up(self._fitted.user_ids, user_ids, name),
            ids.look_up(self._fitted.item_ids, item_ids, name),
        )

    def _known_pairs(self, users: Int32Array, items: Int32Array) -> Rows:
        known = (users >= 0) & (items >= 0)
        return rows_of_pairs(users[known], items[known], self._fitted.n_users, self._fitted.n_items)


def similar(
    factors: Float32Array,
    all_ids: pa.Array,
    wanted_ids: Any,
    k: int,
    kind: str,
    backend: str,
    n_threads: int | None,
) -> Similar:
    """Find the rows of ``factors`` nearest to some of them by cosine, themselves left out.

    Parameters
    ----------
    factors : float32 array, shape (n, n_factors)
    all_ids : Arrow array
        The outside id of each row.
    wanted_ids : id or array-like of ids
    k : int
        At most n - 1.
    kind : str
        "item" or "user", for names and errors.
    backend : str
    n_threads : int, optional

    Returns
    -------
    Similar
    """
    require_integer("k", k, minimum=1)
    if k >= len(all_ids):
        raise ParameterError(f"k is {k}, but there are {len(all_ids)} {kind}s; expected fewer than that")
    wanted = ids.require_known(all_ids, wanted_ids, f"{kind}_ids")
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    directions = np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0)
    itself = Rows(np.arange(len(wanted) + 1, dtype=np.int64), wanted)
    top = get_backend(backend).top_k(directions[wanted], directions, int(k), itself, n_threads)
    return Similar(all_ids.take(pa.array(wanted)), top.indices, top.scores, all_ids, kind)
