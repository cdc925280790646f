"""The answer to a request: the best items of a model for those whom it knows, and popular ones for others."""

import numpy as np

from fastmf.answering.answers import Recommendations, add_scans, empty_top
from fastmf.answering.plain_arrays import MOST_QUERIES_WITHOUT_INDEX
from fastmf.answering.queries import as_predictions, as_queries
from fastmf.answering.rows import renumber_columns, same_for_all, take_rows, union
from fastmf.serving.catalogues import Catalogue, Key
from fastmf.serving.requests import Request, take_known_rows
from fastmf.serving.state import State
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array
from fastmf_kernels.topk.arrays import Found, Rows, Scan, TopK, no_rows

# The most users in a batch, and the most recommendations for them, k for each.
_BATCH, _CELLS = 8192, 1 << 20


class Search:
    """A request that is answered from a state.

    Parameters
    ----------
    state : State
    request : Request
    """

    def __init__(self, state: State, request: Request) -> None:
        self._state, self._request, self._fitted = state, request, state.fitted
        # For many users it pays to lay out the items that lists of the request leave; for a few they are scored.
        has_lists = request.allowed is not None or request.denied is not None
        self._is_narrowed = has_lists and len(request.users) > MOST_QUERIES_WITHOUT_INDEX
        self._catalogues: dict[bool, Catalogue] = {}

    def run(self) -> Recommendations:
        """Return the best items of all users."""
        request, n_users = self._request, len(self._request.users)
        top, scans = empty_top(n_users, request.k), []
        by_model, by_popularity, n_cold = self._parts()
        size = max(1, min(_BATCH, _CELLS // request.k))
        for start in range(0, n_users, size):
            for is_popular, chosen in ((False, by_model), (True, by_popularity)):
                rows = np.flatnonzero(chosen[start : start + size]).astype(np.int32) + start
                if len(rows):
                    found = self._best(rows, is_popular)
                    scans.append(found.scan)
                    if len(rows) == n_users:
                        top = found.top
                    else:
                        top.scores[rows], top.indices[rows] = found.top
        return Recommendations(
            request.audience.rows_of(request.users),
            request.user_ids,
            top.indices,
            top.scores,
            self._fitted.item_ids,
            add_scans(scans),
            n_cold,
            by_popularity,
            request.audience.unknown_items,
            request.audience.n_unknown_ratings,
        )

    def _parts(self) -> tuple[BoolArray, BoolArray, int]:
        """Tell whose items the model ranks, who gets popular ones, and of how many users nothing is known."""
        users, cold = self._request.users, self._request.cold
        is_known = users >= 0
        is_warm = is_known & ~self._request.audience.are_cold(users)
        n_cold = len(users) - int(np.count_nonzero(is_warm))
        if cold == "include":
            return is_known, ~is_known, n_cold
        return is_warm, ~is_warm if cold == "popular" else np.zeros(len(users), np.bool_), n_cold

    def _best(self, rows: Int32Array, is_popular: bool) -> Found:
        """Find the best items of some users of the request."""
        if is_popular:
            return self._find(self._catalogue(True), rows, np.ones((len(rows), 1), np.float32))
        terms = self._request.audience.terms(self._request.users[rows])
        found = self._find(self._catalogue(False), rows, as_queries(self._fitted, terms.factors))
        scores = as_predictions(self._fitted, terms.biases, found.top.scores)
        return Found(TopK(scores, found.top.indices), found.scan)

    def _catalogue(self, is_popular: bool) -> Catalogue:
        if is_popular not in self._catalogues:
            request = self._request
            found = self._state.catalogues.get(Key(request.wanted, request.cold == "include", is_popular))
            if self._is_narrowed:
                items = np.arange(self._fitted.n_items, dtype=np.int32) if found.items is None else found.items
                if request.allowed is not None:
                    items = np.intersect1d(items, request.allowed, assume_unique=True)
                if request.denied is not None:
                    items = np.setdiff1d(items, request.denied, assume_unique=True)
                found = self._state.narrowed(found, items)
            self._catalogues[is_popular] = found
        return self._catalogues[is_popular]

    def _find(self, catalogue: Catalogue, rows: Int32Array, queries: Float32Array) -> Found:
        kernels, k, n_threads = self._state.kernels, self._request.k, self._state.model.n_threads
        excluded, candidates = self._excluded(rows), self._candidates(catalogue, rows)
        if candidates is not None or catalogue.item_index is None:
            assert candidates is not None
            top = kernels.top_k_among(queries, catalogue.factors, k, candidates, excluded, n_threads)
            return Found(top, Scan(0, 0, len(candidates.indices)))
        return self._state.search(catalogue, queries, k, excluded)

    def _excluded(self, rows: Int32Array) -> Rows:
        """Return what each of some users of the request may not be given."""
        request, n_items = self._request, self._fitted.n_items
        excluded = no_rows(len(rows))
        if request.without_seen:
            excluded = take_known_rows(request.audience.seen, request.users[rows])
        if request.excluded is not None:
            excluded = union(excluded, take_rows(request.excluded, rows), n_items)
        if request.denied is not None and not self._is_narrowed:
            excluded = union(excluded, same_for_all(request.denied, len(rows)), n_items)
        return excluded

    def _candidates(self, catalogue: Catalogue, rows: Int32Array) -> Rows | None:
        """Return the items that are scored one by one for each of some users; None if an index is searched."""
        request, places = self._request, catalogue.places
        if request.allowed_rows is not None:
            allowed = take_rows(request.allowed_rows, rows)
            if catalogue.items is None or places is None:
                return allowed
            found = renumber_columns(allowed, places)
            return Rows(found.indptr, catalogue.items[found.indices])
        if request.allowed is not None and not self._is_narrowed:
            items = request.allowed if places is None else request.allowed[places[request.allowed] >= 0]
            return same_for_all(items, len(rows))
        if catalogue.item_index is None and catalogue.items is not None:
            return same_for_all(catalogue.items, len(rows))
        return None
