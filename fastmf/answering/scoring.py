"""The k best items of each user: batches of users against all items, and filters."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf._version import __version__
from fastmf.answering.answers import Batches, Recommendations, Similar, add_scans
from fastmf.answering.fitted import Fitted
from fastmf.answering.rows import rows_of_pairs, same_for_all, sorted_rows, take_rows, union
from fastmf.backend import Kernels, as_float32, get_backend, to_kind_of
from fastmf.common.parameters import require_integer
from fastmf.errors import ParameterError
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int32Array, Int64Array
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Rows, Scan, TopK, no_rows, without_layout

ItemFilter = Sequence[Any] | Mapping[Any, Sequence[Any]] | Interactions | None
# Users that are answered together, and most answers of theirs.
_BATCH, _CELLS = 8192, 1 << 20
# Up to so many queries are quicker than laying the items out for them.
_FEW = 8


def index_items(
    items: Float32Array, *, pruning: bool = True, backend: str = "cpu", n_threads: int | None = None
) -> ItemIndex:
    """Lay items out once for many calls of `top_k`.

    Parameters
    ----------
    items : float32 array, shape (n_items, n_factors)
    pruning : bool
        Whether items that cannot be among the best may be left out before they are scored. The answers are the same.
    backend : {"cpu", "reference", "cuda"}
        That of the calls.
    n_threads : int, optional
        All cores if None.

    Returns
    -------
    ItemIndex
        What `top_k` takes in place of the items.

    Examples
    --------
    >>> import numpy as np, fastmf
    >>> index = fastmf.index_items(np.array([[1, 2], [3, 4]]))
    >>> fastmf.top_k(np.array([1, 0]), index, k=1).indices.tolist()
    [[1]]
    """
    items = as_float32(items, backend)
    if items.ndim != 2:
        raise ParameterError(f"items have shape {items.shape}; expected (n_items, n_factors)")
    return get_backend(backend).index_items(items, pruning, n_threads)


def top_k(
    queries: Float32Array,
    items: Float32Array | ItemIndex,
    k: int,
    *,
    exclude: tuple[Int64Array, Int32Array] | None = None,
    pruning: bool = True,
    backend: str = "cpu",
    n_threads: int | None = None,
) -> TopK:
    """Find the k items with the largest dot product for every query, on plain arrays: the kernel for services.

    Safe to call from many threads; it releases the GIL, and a single query starts no parallel work.

    Parameters
    ----------
    queries : float32 array, shape (n_queries, n_factors) or (n_factors,)
        For "cuda" also on the GPU (``__cuda_array_interface__``, DLPack), as are the answers then; likewise items.
    items : float32 array, shape (n_items, n_factors), or ItemIndex
        What `index_items` has made of them is several times as fast for few queries.
    k : int
        At least 1; it may be larger than ``n_items``.
    exclude : (indptr, indices), optional
        Items not to return to query r: ``indices[indptr[r]:indptr[r + 1]]``.
    pruning : bool
        Whether items that cannot be among the best may be left out before they are scored. The answers are the same;
        with an `ItemIndex` it was settled there.
    backend : {"cpu", "reference", "cuda"}
    n_threads : int, optional
        All cores if None.

    Returns
    -------
    scores : float32 array, shape (n_queries, k)
        Summed in float64 and rounded once.
    indices : int32 array, shape (n_queries, k)
        Best first, of equal scores the lower index; -1, with score -inf, where there are no more candidates.

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
    given, kernels = queries, get_backend(backend)
    queries = np.atleast_2d(as_float32(queries, backend))
    factors = items.factors if isinstance(items, ItemIndex) else as_float32(items, backend)
    if queries.ndim != 2 or factors.ndim != 2 or queries.shape[1] != factors.shape[1]:
        raise ParameterError(
            f"queries have shape {queries.shape} and items {factors.shape}; expected (n_queries, n_factors) and "
            "(n_items, n_factors), with the same n_factors"
        )
    rows = no_rows(len(queries)) if exclude is None else _checked_rows(exclude, len(queries), len(factors))
    index = items if isinstance(items, ItemIndex) else _index_for(len(queries), factors, kernels, n_threads, pruning)
    return to_kind_of(given, kernels.top_k(queries, index, int(k), rows, n_threads).top)


def _index_for(
    n_queries: int, items: Float32Array, kernels: Kernels, n_threads: int | None, pruning: bool = True
) -> ItemIndex:
    """Lay items out, unless there are so few queries that it would take longer than they do."""
    return without_layout(items) if n_queries <= _FEW else kernels.index_items(items, pruning, n_threads)


def _checked_rows(exclude: tuple[Int64Array, Int32Array], n_queries: int, n_items: int) -> Rows:
    if not (isinstance(exclude, (tuple, list)) and len(exclude) == 2):
        raise ParameterError(f"exclude is a {type(exclude).__name__}; expected (indptr, indices), as in a CSR matrix")
    given = [np.asarray(part) for part in exclude]
    if any(part.ndim != 1 or (part.size and part.dtype.kind not in "iu") for part in given):
        raise ParameterError(
            f"exclude has an indptr of {given[0].dtype} {given[0].shape} and indices of {given[1].dtype} "
            f"{given[1].shape}; expected two integer arrays of one dimension"
        )
    indptr = given[0].astype(np.int64)
    indices = given[1].astype(np.int32 if given[1].dtype == np.int32 else np.int64, copy=False)
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
    return sorted_rows(indptr, indices, n_items)


class _Filter(NamedTuple):
    """A list of items for all users, or rows of items for each user (by user index); both None for no filter."""

    items: Int32Array | None
    rows: Rows | None


class _Request(NamedTuple):
    """What is looked for: for each user, the k best items of a catalogue that no filter takes away."""

    k: int
    catalogue: ItemIndex
    listed: Int32Array | None
    exclude: Rows
    allowed_rows: Rows | None
    denied: Int32Array | None
    denied_rows: Rows | None


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
        parts = self.recommend_in_batches(users, k, exclude=exclude, allow=allow, deny=deny)
        batches = [parts.compute(number) for number in range(parts.n_batches)]
        if len(batches) == 1:
            return batches[0]
        indices = np.concatenate([batch.users for batch in batches]) if batches else np.empty(0, np.int32)
        return Recommendations(
            indices,
            self._fitted.user_ids.take(pa.array(indices)),
            np.concatenate([batch.items for batch in batches]) if batches else np.empty((0, k), np.int32),
            np.concatenate([batch.scores for batch in batches]) if batches else np.empty((0, k), np.float32),
            self._fitted.item_ids,
            add_scans(batch.scan for batch in batches),
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
        request = self._request(indices, int(k), *filters)
        size = max(1, min(_BATCH, _CELLS // k))

        def compute(number: int) -> Recommendations:
            return self._answer(request, indices[number * size : (number + 1) * size])

        return Batches(len(indices), size, compute, partial(self._fingerprint, request, indices, size))

    def _request(self, users: Int32Array, k: int, exclude: Rows, allow: _Filter, deny: _Filter) -> _Request:
        """Choose the catalogue: globally excluded items are dropped up front if enough users share the index."""
        listed, denied = allow.items, deny.items
        if denied is not None and allow.rows is None and len(users) > _FEW:
            everything = np.arange(self._fitted.n_items, dtype=np.int32) if listed is None else listed
            listed, denied = np.setdiff1d(everything, denied), None
        if listed is None:
            return _Request(
                k,
                self._fitted.index("items", self._kernels, self._n_threads),
                None,
                exclude,
                allow.rows,
                denied,
                deny.rows,
            )
        index = _index_for(len(users), self._items[listed], self._kernels, self._n_threads)
        return _Request(k, index, listed, exclude, allow.rows, denied, deny.rows)

    def top_items(self, users: Int32Array, k: int, exclude: Rows) -> Int32Array:
        """Return the indices of the k best items of users given by index, shape (n, k), padded with -1."""
        index = self._fitted.index("items", self._kernels, self._n_threads)
        return self._kernels.top_k(self._queries(users), index, k, exclude, self._n_threads).top.indices

    def count_better(self, users: Int32Array, wanted: Rows, exclude: Rows) -> Counts:
        """Count, for items of users given by index, the other items that score higher, and those that score the same.

        ``wanted`` and ``exclude`` have a row for each of ``users``.
        """
        index = self._fitted.index("items", self._kernels, self._n_threads, pruning=False)
        return self._kernels.count_better(self._queries(users), index, wanted, exclude, self._n_threads)

    def exclusion(self, exclude: str | Interactions | None) -> Rows:
        """Resolve an ``exclude`` argument to item indices for every user of the model."""
        if exclude is None:
            return no_rows(self._fitted.n_users)
        if isinstance(exclude, str) and exclude == "seen":
            return self._fitted.seen
        if isinstance(exclude, Interactions):
            return self._rows_of(exclude)
        raise ParameterError(f'exclude is {exclude!r}; expected "seen", Interactions, or None')

    def _answer(self, request: _Request, users: Int32Array) -> Recommendations:
        barred = take_rows(request.exclude, users)
        if request.denied is not None:
            barred = union(barred, same_for_all(request.denied, len(users)), self._fitted.n_items)
        if request.denied_rows is not None:
            barred = union(barred, take_rows(request.denied_rows, users), self._fitted.n_items)
        found = self._best(request, users, barred)
        return Recommendations(
            users,
            self._fitted.user_ids.take(pa.array(users)),
            found.top.indices,
            self._predictions(users, found.top.scores),
            self._fitted.item_ids,
            found.scan,
        )

    def _best(self, request: _Request, users: Int32Array, barred: Rows) -> Found:
        queries, listed = self._queries(users), request.listed
        if request.allowed_rows is not None:
            candidates = take_rows(request.allowed_rows, users)
            top = self._kernels.top_k_among(queries, self._items, request.k, candidates, barred, self._n_threads)
            return Found(top, Scan(0, 0, len(candidates.indices)))
        if listed is None:
            return self._kernels.top_k(queries, request.catalogue, request.k, barred, self._n_threads)
        # The order of the listed items is kept, so ties go to the lower index as ever.
        position = np.full(self._fitted.n_items, -1, np.int32)
        position[listed] = np.arange(len(listed), dtype=np.int32)
        rows = np.repeat(np.arange(len(users)), np.diff(barred.indptr))
        kept = position[barred.indices] >= 0
        among = rows_of_pairs(rows[kept], position[barred.indices[kept]], len(users), len(listed))
        found = self._kernels.top_k(queries, request.catalogue, request.k, among, self._n_threads)
        real = found.top.indices >= 0
        found.top.indices[real] = listed[found.top.indices[real]]
        return found

    def _fingerprint(self, request: _Request, users: Int32Array, size: int) -> str:
        """Hash everything that the answers depend on."""
        digest = hashlib.blake2b(f"{__version__} {pa.__version__} {request.k} {size}".encode(), digest_size=12)
        rows = (request.exclude, request.allowed_rows, request.denied_rows)
        of_rows = (array for lists in rows for array in (() if lists is None else lists))
        listed = (array for array in (request.listed, request.denied) if array is not None)
        for array in (*self._fitted.factors, *self._fitted.link, users, *of_rows, *listed):
            digest.update(f"{np.shape(array)} ".encode() + np.ascontiguousarray(array).tobytes())
        for vocabulary in (self._fitted.user_ids, self._fitted.item_ids):
            digest.update(pa.RecordBatch.from_arrays([vocabulary], ["id"]).serialize())
        return digest.hexdigest()

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


def similar(fitted: Fitted, wanted_ids: Any, k: int, kind: str, backend: str, n_threads: int | None) -> Similar:
    """Find the items (or users) whose factors are nearest to those of some of them by cosine, themselves left out.

    Parameters
    ----------
    fitted : Fitted
    wanted_ids : id or array-like of ids
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
        raise ParameterError(f"k is {k}, but there are {len(all_ids)} {kind}s; expected fewer than that")
    wanted = ids.require_known(all_ids, wanted_ids, f"{kind}_ids")
    index = fitted.index(f"{kind} directions", kernels, n_threads)
    itself = Rows(np.arange(len(wanted) + 1, dtype=np.int64), wanted)
    top = kernels.top_k(index.factors[wanted], index, int(k), itself, n_threads).top
    return Similar(all_ids.take(pa.array(wanted)), top.indices, top.scores, all_ids, kind)
