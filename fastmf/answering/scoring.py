"""The k best items of each user: batches of users against all items, and filters."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf._version import __version__
from fastmf.answering.answers import Batches, Recommendations, add_scans, empty_top
from fastmf.answering.asked import listed, read_once
from fastmf.answering.audience import Audience, UsersOfModel, UserTerms
from fastmf.answering.fitted import Fitted
from fastmf.answering.plain_arrays import MOST_QUERIES_WITHOUT_INDEX, index_for
from fastmf.answering.queries import as_predictions, as_queries
from fastmf.answering.reranking import Reranker, Reranking
from fastmf.answering.rows import keep_columns, renumber_columns, rows_of_pairs, same_for_all, take_rows, union
from fastmf.backend import get_backend
from fastmf.common.parameters import require_choice, require_integer
from fastmf.errors import ParameterError, named
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.topk.arrays import Counts, Found, ItemIndex, Rows, Scan, TopK, no_rows

ItemFilter = Iterable[Any] | Mapping[Any, Iterable[Any]] | Interactions | None
COLD = ("skip", "popular", "include")
"""What to do with users without training ratings: give them nothing, popular items, or what their factors say."""
# The most users in a batch, and the most recommendations for them, k for each.
_BATCH, _CELLS = 8192, 1 << 20


class _Filter(NamedTuple):
    """A list of items for all users, or rows of items for each user (by user index); both None for no filter."""

    items: Int32Array | None
    rows: Rows | None


class _Pool(NamedTuple):
    """The items to choose from, ascending, and the place of each item of the model among them, -1 for others.

    Both are None for all items.
    """

    items: Int32Array | None
    places: Int32Array | None


class _Catalogue(NamedTuple):
    """Items to score: their pool, a row of factors for each item of the model, and an index of the pool's rows."""

    pool: _Pool
    factors: Float32Array
    item_index: ItemIndex


class _Filters(NamedTuple):
    """Which items of the pool each user may be given; rows are those of all users of the audience.

    Attributes
    ----------
    exclude : Rows
    allowed_rows : Rows or None
        Candidates for each user; the whole pool if None.
    denied : int32 array or None
        Items of the pool that no user may be given; None if there are none.
    denied_rows : Rows or None
    """

    exclude: Rows
    allowed_rows: Rows | None
    denied: Int32Array | None
    denied_rows: Rows | None


class _Request(NamedTuple):
    """A checked request for the k best items of each user.

    ``popular`` is the catalogue for users without training ratings, None if they are not answered by popularity.
    """

    k: int
    cold: str
    filters: _Filters
    catalogue: _Catalogue
    popular: _Catalogue | None


class Scorer:
    """Answers "which items next" for the users of a fitted model, or for people who bring their ratings.

    Biases are folded into the factors, [p, 1]·[q, b_i]. The user's own bias and the mean do not change the order: they
    are added, and the link is applied, to the few scores that are returned.

    Items without training ratings are not recommended, and users without any get nothing, unless ``cold`` says so: see
    `fastmf.models.Model.recommend`.

    Parameters
    ----------
    fitted : Fitted
    backend : str
    n_threads : int, optional
    audience : Audience, optional
        The users to answer; those of the model if None.
    """

    chosen = "item"
    """What users get, for messages."""

    def __init__(self, fitted: Fitted, backend: str, n_threads: int | None, audience: Audience | None = None) -> None:
        self.fitted, self._kernels, self._n_threads = fitted, get_backend(backend), n_threads
        self._audience: Audience = UsersOfModel(fitted) if audience is None else audience
        self._items = fitted.items_with_biases

    def recommend(
        self,
        users: Any,
        k: int,
        *,
        exclude: str | Interactions | None,
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
        rerank: Reranking | None = None,
    ) -> Recommendations:
        """Find the k best items of each user; see `fastmf.models.Model.recommend`."""
        parts = self.recommend_in_batches(users, k, exclude=exclude, allow=allow, deny=deny, cold=cold, rerank=rerank)
        batches = [parts.compute(number) for number in range(parts.n_batches)]
        return batches[0] if len(batches) == 1 else self._joined(batches, k)

    def _joined(self, batches: list[Recommendations], k: int) -> Recommendations:
        """Return the answers of several batches of users as one, or of none."""
        popular = [batch.by_popularity for batch in batches if batch.by_popularity is not None]
        user_ids = [self._audience.ids.slice(0, 0), *(batch.user_ids for batch in batches)]
        return Recommendations(
            np.concatenate([batch.users for batch in batches]) if batches else np.empty(0, np.int32),
            pa.concat_arrays(user_ids),
            np.concatenate([batch.items for batch in batches]) if batches else np.empty((0, k), np.int32),
            np.concatenate([batch.scores for batch in batches]) if batches else np.empty((0, k), np.float32),
            self.fitted.item_ids,
            add_scans(batch.scan for batch in batches),
            sum(batch.n_cold_users for batch in batches),
            np.concatenate(popular) if popular else np.zeros(0, np.bool_),
            self._audience.unknown_items,
            self._audience.n_unknown_ratings,
        )

    def recommend_in_batches(
        self,
        users: Any,
        k: int,
        *,
        exclude: str | Interactions | None,
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
        rerank: Reranking | None = None,
    ) -> Batches:
        """Check the request and return its answers as batches still to be computed."""
        require_integer("k", k, minimum=1)
        require_choice("cold", cold, COLD)
        k = int(k)
        if k > self.fitted.n_items:
            raise ParameterError(
                f"{named('k')} is {k}, but the catalogue has {self.fitted.n_items} items; expected at most as many"
            )
        if users is None:
            indices = np.arange(len(self._audience.ids), dtype=np.int32)
        else:
            indices = ids.require_known(self._audience.ids, read_once(users), "users")
        filters = self.exclusion(exclude), self._resolve(allow, "allow"), self._resolve(deny, "deny")
        n_cold_users = int(np.count_nonzero(self._audience.are_cold(indices)))
        reranker = self._reranker(rerank)
        length = k if rerank is None else rerank.length_for(k, self.fitted.n_items)
        request = self._request(len(indices), n_cold_users, length, cold, *filters)
        size = max(1, min(_BATCH, _CELLS // length))

        def compute(number: int) -> Recommendations:
            found = self._answer(request, indices[number * size : (number + 1) * size])
            return found if reranker is None else reranker.choose(found, k)

        fingerprint = partial(self._fingerprint, request, indices, size, reranker, k)
        return Batches(len(indices), size, compute, fingerprint, n_cold_users)

    def _reranker(self, settings: Reranking | None) -> Reranker | None:
        if settings is None:
            return None
        if not isinstance(settings, Reranking):
            raise ParameterError(
                f"{named('rerank')} is a {type(settings).__name__}; expected fastmf.Reranking(...), or None"
            )
        return Reranker(settings, self.fitted.item_ids, self.fitted, self._kernels, self._n_threads)

    def _request(
        self, n_users: int, n_cold: int, k: int, cold: str, exclude: Rows, allow: _Filter, deny: _Filter
    ) -> _Request:
        """Choose the pool: globally excluded items are dropped up front if enough users share the index."""
        items, denied, allowed_rows = allow.items, deny.items, allow.rows
        warm = None if cold == "include" else self.fitted.counts.warm_items
        if warm is not None:
            items = warm if items is None else np.intersect1d(items, warm)
            allowed_rows = None if allow.rows is None else keep_columns(allow.rows, warm, self.fitted.n_items)
        if denied is not None and allow.rows is None and n_users > MOST_QUERIES_WITHOUT_INDEX:
            everything = np.arange(self.fitted.n_items, dtype=np.int32) if items is None else items
            items, denied = np.setdiff1d(everything, denied), None
        if items is warm:
            catalogue = self._whole_catalogue(cold)
        else:
            index = index_for(n_users, self._items[items], self._kernels, self._n_threads)
            catalogue = _Catalogue(self._pool(items), self._items, index)
        popular = self._popular(catalogue.pool, n_cold) if cold == "popular" and n_cold else None
        return _Request(k, cold, _Filters(exclude, allowed_rows, denied, deny.rows), catalogue, popular)

    def top(self, users: Int32Array, k: int, exclude: Rows, cold: str, among: Rows | None = None) -> TopK:
        """Find the k best items of users given by index, with scores that only order the items of a user.

        Parameters
        ----------
        users : int32 array, shape (n,)
            -1 asks for the most popular items.
        k : int
        exclude : Rows
            A row for each of ``users``.
        cold : str
            "include" also ranks items without training ratings.
        among : Rows, optional
            The only items to rank, whatever ``cold`` is; a row for each of ``users``.

        Returns
        -------
        TopK
        """
        top = empty_top(len(users), k)
        for rows, catalogue, queries in self._parts(users, cold):
            left_out = take_rows(exclude, rows)
            if among is None:
                found = self._search(catalogue, queries, k, left_out).top
            else:
                candidates = take_rows(among, rows)
                found = self._kernels.top_k_among(queries, catalogue.factors, k, candidates, left_out, self._n_threads)
            top.scores[rows], top.indices[rows] = found
        return top

    def count_better(self, users: Int32Array, relevant: Rows, exclude: Rows, cold: str) -> Counts:
        """Count, for relevant items of users, the other items that score higher, and those that score the same.

        Parameters are those of `top`; ``relevant`` and ``exclude`` have a row for each of ``users``, and all relevant
        items are among those that are ranked.
        """
        counts = Counts(np.zeros(len(relevant.indices), np.int64), np.zeros(len(relevant.indices), np.int64))
        row_of_pair = np.repeat(np.arange(len(users)), np.diff(relevant.indptr))
        for rows, catalogue, queries in self._parts(users, cold, pruning=False):
            compared, left_out = take_rows(relevant, rows), take_rows(exclude, rows)
            if catalogue.pool.places is not None:
                compared, left_out = (renumber_columns(each, catalogue.pool.places) for each in (compared, left_out))
            found = self._kernels.count_better(queries, catalogue.item_index, compared, left_out, self._n_threads)
            pairs = np.isin(row_of_pair, rows, kind="table")
            counts.higher[pairs], counts.equal[pairs] = found
        return counts

    def _parts(
        self, users: Int32Array, cold: str, pruning: bool = True
    ) -> Iterator[tuple[Int32Array, _Catalogue, Float32Array]]:
        """Part rows of users into those who are answered by the model, and those by popularity (-1)."""
        by_model, by_popularity = (np.flatnonzero(chosen).astype(np.int32) for chosen in (users >= 0, users < 0))
        if len(by_model):
            yield by_model, self._whole_catalogue(cold, pruning), self._queries(self._audience.terms(users[by_model]))
        if len(by_popularity):
            catalogue = self._popular(self._warm_pool(), None, pruning)
            yield by_popularity, catalogue, np.ones((len(by_popularity), 1), np.float32)

    def exclusion(self, exclude: str | Interactions | None) -> Rows:
        """Resolve an ``exclude`` argument to item indices for every user of the audience."""
        if exclude is None:
            return no_rows(len(self._audience.ids))
        if isinstance(exclude, str) and exclude == "seen":
            return self._audience.seen
        if isinstance(exclude, Interactions):
            return self._rows_of(exclude)
        raise ParameterError(f'exclude is {exclude!r}; expected "seen", Interactions, or None')

    def _pool(self, items: Int32Array | None) -> _Pool:
        if items is None:
            return _Pool(None, None)
        places = np.full(self.fitted.n_items, -1, np.int32)
        places[items] = np.arange(len(items), dtype=np.int32)
        return _Pool(items, places)

    def _warm_pool(self) -> _Pool:
        counts = self.fitted.counts
        return _Pool(None, None) if counts.warm_items is None else _Pool(counts.warm_items, counts.places_of_items)

    def _whole_catalogue(self, cold: str, pruning: bool = True) -> _Catalogue:
        kind, pool = ("all items", _Pool(None, None)) if cold == "include" else ("warm items", self._warm_pool())
        return _Catalogue(pool, self._items, self.fitted.index(kind, self._kernels, self._n_threads, pruning))

    def _popular(self, pool: _Pool, n_users: int | None, pruning: bool = True) -> _Catalogue:
        """Return items with one factor, the share of users who have rated them: a query of 1 ranks by popularity."""
        shares = self.fitted.counts.share_of_users.astype(np.float32)[:, np.newaxis]
        rows = shares if pool.items is None else shares[pool.items]
        if n_users is None:
            return _Catalogue(pool, shares, self._kernels.index_items(rows, pruning, self._n_threads))
        return _Catalogue(pool, shares, index_for(n_users, rows, self._kernels, self._n_threads, pruning))

    def _answer(self, request: _Request, users: Int32Array) -> Recommendations:
        filters, n_items = request.filters, self.fitted.n_items
        excluded = take_rows(filters.exclude, users)
        if filters.denied is not None:
            excluded = union(excluded, same_for_all(filters.denied, len(users)), n_items)
        if filters.denied_rows is not None:
            excluded = union(excluded, take_rows(filters.denied_rows, users), n_items)
        is_cold = self._audience.are_cold(users)
        if request.cold == "include" or not is_cold.any():
            top, scan = self._answer_by_factors(request, users, excluded)
        else:
            top, scan = self._answer_warm_and_cold(request, users, excluded, is_cold)
        return Recommendations(
            self._audience.rows_of(users),
            self._audience.ids.take(pa.array(users)),
            top.indices,
            top.scores,
            self.fitted.item_ids,
            scan,
            int(np.count_nonzero(is_cold)),
            is_cold & (request.cold == "popular"),
            self._audience.unknown_items,
            self._audience.n_unknown_ratings,
        )

    def _answer_by_factors(self, request: _Request, users: Int32Array, excluded: Rows) -> Found:
        terms = self._audience.terms(users)
        found = self._best(request.catalogue, self._queries(terms), request, users, excluded)
        scores = as_predictions(self.fitted, terms.biases, found.top.scores)
        return Found(TopK(scores, found.top.indices), found.scan)

    def _answer_warm_and_cold(
        self, request: _Request, users: Int32Array, excluded: Rows, is_cold: Any
    ) -> tuple[TopK, Scan]:
        top, scans = empty_top(len(users), request.k), []
        warm, cold = (np.flatnonzero(chosen).astype(np.int32) for chosen in (~is_cold, is_cold))
        if len(warm):
            found = self._answer_by_factors(request, users[warm], take_rows(excluded, warm))
            top.scores[warm], top.indices[warm] = found.top
            scans.append(found.scan)
        if request.popular is not None:
            queries = np.ones((len(cold), 1), np.float32)
            found = self._best(request.popular, queries, request, users[cold], take_rows(excluded, cold))
            top.scores[cold], top.indices[cold] = found.top
            scans.append(found.scan)
        return top, add_scans(scans)

    def _best(
        self, catalogue: _Catalogue, queries: Float32Array, request: _Request, users: Int32Array, excluded: Rows
    ) -> Found:
        allowed_rows = request.filters.allowed_rows
        if allowed_rows is None:
            return self._search(catalogue, queries, request.k, excluded)
        candidates = take_rows(allowed_rows, users)
        factors = catalogue.factors
        top = self._kernels.top_k_among(queries, factors, request.k, candidates, excluded, self._n_threads)
        return Found(top, Scan(0, 0, len(candidates.indices)))

    def _search(self, catalogue: _Catalogue, queries: Float32Array, k: int, excluded: Rows) -> Found:
        pool = catalogue.pool
        if pool.items is None or pool.places is None:
            return self._kernels.top_k(queries, catalogue.item_index, k, excluded, self._n_threads)
        # The pool keeps the order of the items: ties go to the lower index.
        excluded = renumber_columns(excluded, pool.places)
        found = self._kernels.top_k(queries, catalogue.item_index, k, excluded, self._n_threads)
        indices = found.top.indices
        indices[indices >= 0] = pool.items[indices[indices >= 0]]
        return found

    def _fingerprint(self, request: _Request, users: Int32Array, size: int, reranker: Reranker | None, k: int) -> str:
        """Hash everything that the answers depend on."""
        request_in_words = f"{__version__} {pa.__version__} {request.k} {size} {request.cold}"
        digest = hashlib.blake2b(request_in_words.encode(), digest_size=12)
        filters, pool = request.filters, request.catalogue.pool
        rows = (filters.exclude, filters.allowed_rows, filters.denied_rows)
        of_rows = (array for lists in rows for array in (() if lists is None else lists))
        popularity = None if request.popular is None else request.popular.factors
        others = (array for array in (pool.items, filters.denied, popularity) if array is not None)
        of_model = (*self.fitted.factors, *self.fitted.link)
        of_reranking = () if reranker is None else (np.array(k), *reranker.key())
        for array in (*of_model, users, *of_rows, *others, *self._audience.key(), *of_reranking):
            digest.update(f"{np.shape(array)} ".encode() + np.ascontiguousarray(array).tobytes())
        for vocabulary in (self._audience.ids, self.fitted.item_ids):
            digest.update(pa.RecordBatch.from_arrays([vocabulary], ["id"]).serialize())
        return digest.hexdigest()

    def _queries(self, terms: UserTerms) -> Float32Array:
        return as_queries(self.fitted, terms.factors)

    def _resolve(self, items: ItemFilter, name: str) -> _Filter:
        """Turn an ``allow`` or ``deny`` argument into indices; ids that the model does not know cannot match."""
        if items is None:
            return _Filter(None, None)
        if isinstance(items, Interactions):
            return _Filter(None, self._rows_of(items))
        if isinstance(items, Mapping):
            return _Filter(None, self._rows_of_lists(items, name))
        expected = f"a list of {self.chosen} ids, a dict or Interactions"
        return _Filter(listed(self.fitted.item_ids, items, name, expected), None)

    def _rows_of(self, pairs: Interactions) -> Rows:
        """Rows of item indices in the model's id space, for every user of the audience."""
        user_ids = self._audience.ids
        if pairs.user_ids is user_ids and pairs.item_ids is self.fitted.item_ids:
            return Rows(pairs.by_user.indptr, pairs.by_user.indices)
        user_of = ids.look_up(user_ids, pairs.user_ids, "user_ids")
        item_of = ids.look_up(self.fitted.item_ids, pairs.item_ids, "item_ids")
        return self._known_pairs(user_of[pairs.users], item_of[pairs.items])

    def _rows_of_lists(self, lists: Mapping[Any, Iterable[Any]], name: str) -> Rows:
        user_ids: list[Any] = []
        item_ids: list[Any] = []
        # Users may share an iterator. It is kept, so that no other object gets its number.
        read: dict[int, tuple[Any, list[Any]]] = {}
        for user, row in lists.items():
            if isinstance(row, (str, bytes)) or not isinstance(row, Iterable):
                raise ParameterError(f"{name}[{user!r}] is {row!r}; expected a list of {self.chosen} ids")
            before = len(item_ids)
            if isinstance(row, Iterator):
                if id(row) not in read:
                    read[id(row)] = row, list(row)
                row = read[id(row)][1]
            item_ids.extend(row)
            user_ids.extend([user] * (len(item_ids) - before))
        return self._known_pairs(
            ids.look_up(self._audience.ids, user_ids, name),
            ids.look_up(self.fitted.item_ids, item_ids, name),
        )

    def _known_pairs(self, users: Int32Array, items: Int32Array) -> Rows:
        known = (users >= 0) & (items >= 0)
        return rows_of_pairs(users[known], items[known], len(self._audience.ids), self.fitted.n_items)
