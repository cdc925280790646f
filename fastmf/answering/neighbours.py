"""Items, or users, whose factors are near to those of others, or to vectors."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastmf.answering.answers import Similar, empty_top
from fastmf.answering.asked import listed, read_once
from fastmf.answering.closeness import MEASURES, Queries, as_queries, as_rows, nearest, prunes
from fastmf.answering.fitted import Fitted
from fastmf.answering.plain_arrays import MOST_QUERIES_WITHOUT_INDEX, index_for
from fastmf.answering.rows import rows_of_pairs, same_for_all, union
from fastmf.backend import as_float32, get_backend
from fastmf.common.parameters import require_choice, require_integer
from fastmf.errors import ParameterError, named
from fastmf.reading import ids
from fastmf_kernels._types import BoolArray, Float32Array, Int32Array
from fastmf_kernels.topk.arrays import ItemIndex, Rows, TopK, no_rows


class Wanted(NamedTuple):
    """Which neighbours are wanted.

    Attributes
    ----------
    kind : {"item", "user"}
    k : int
        At most as many as there are; of ids one fewer.
    measure : {"cosine", "dot", "euclidean"}
    allow, deny : iterable of ids, optional
        The only neighbours, and those left out; ids that the model does not know cannot match.
    """

    kind: str
    k: int
    measure: str = "cosine"
    allow: Iterable[Any] | None = None
    deny: Iterable[Any] | None = None


class _Candidates(NamedTuple):
    """What is searched.

    Attributes
    ----------
    item_index : ItemIndex
    rows : int32 array or None
        The item (or user) of each row of the index, ascending; None if they are all, in order.
    denied : int32 array
        Items (or users) of the index that are left out all the same, ascending.
    """

    item_index: ItemIndex
    rows: Int32Array | None
    denied: Int32Array


class Neighbours:
    """Searches a fitted model for neighbours.

    Items and users with neither training ratings nor features have no neighbours and are nobody's neighbour.

    Parameters
    ----------
    fitted : Fitted
    wanted : Wanted
    backend : str
    n_threads : int, optional

    Raises
    ------
    ParameterError
        If ``k`` or ``measure`` is none, or ``allow`` or ``deny`` is no list.
    """

    def __init__(self, fitted: Fitted, wanted: Wanted, backend: str, n_threads: int | None) -> None:
        self._fitted, self._wanted, self._kernels, self._n_threads = fitted, wanted, get_backend(backend), n_threads
        require_integer("k", wanted.k, minimum=1)
        require_choice("measure", wanted.measure, MEASURES)
        is_of_items, factors = wanted.kind == "item", fitted.factors
        self.ids = fitted.item_ids if is_of_items else fitted.user_ids
        self._factors = factors.item_factors if is_of_items else factors.user_factors
        self._warm = fitted.warm(wanted.kind)
        self._allowed = listed(self.ids, wanted.allow, "allow", f"a list of {wanted.kind} ids")
        denied = listed(self.ids, wanted.deny, "deny", f"a list of {wanted.kind} ids")
        self._denied = np.empty(0, np.int32) if denied is None else denied

    def of_ids(self, asked_ids: Any) -> Similar:
        """Find the neighbours of some items (or users), themselves left out."""
        k, n, kind = self._wanted.k, len(self.ids), self._wanted.kind
        if k >= n:
            raise ParameterError(f"{named('k')} is {k}, but there are {n} {kind}s; expected fewer than that")
        asked = self.require_known(asked_ids, f"{kind}_ids")
        answered = np.flatnonzero(self.are_warm(asked))
        top = self._no_answers(len(asked))
        themselves = asked[answered]
        found = self._search(np.asarray(self._factors[themselves]), self._denied, themselves)
        top.scores[answered], top.indices[answered] = found
        return self._answer(self.ids.take(pa.array(asked)), top, n_cold=len(asked) - len(answered))

    def of_vectors(self, vector: Any, left_out: Int32Array | None = None) -> Similar:
        """Find the neighbours of one or several vectors.

        Parameters
        ----------
        vector : array-like of float, shape (n_factors,) or (n, n_factors)
        left_out : int32 array, optional
            Items (or users) that are no answer to any of them.
        """
        k, n, kind = self._wanted.k, len(self.ids), self._wanted.kind
        if k > n:
            raise ParameterError(f"{named('k')} is {k}, but there are {n} {kind}s; expected at most as many")
        vectors = self._as_vectors(vector)
        denied = self._denied if left_out is None else np.union1d(self._denied, left_out)
        found = self._search(vectors, denied)
        return self._answer(pa.array(np.arange(len(vectors))), found, by_vector=True)

    def require_known(self, asked_ids: Any, name: str) -> Int32Array:
        """Return the indices of ids; raises `UnknownIdError` if the model does not know one."""
        return ids.require_known(self.ids, read_once(asked_ids), name)

    def are_warm(self, indices: Int32Array) -> BoolArray:
        """Tell which of some items (or users) have training ratings."""
        return np.ones(len(indices), np.bool_) if self._warm is None else np.isin(indices, self._warm)

    def _as_vectors(self, vector: Any) -> Float32Array:
        """Check vectors, and return one a row; for cosines they have length 1."""
        name, n_factors = named("vector"), self._factors.shape[1]
        vectors = as_float32(vector, name, self._kernels.name)
        if vectors.ndim not in (1, 2) or vectors.shape[-1] != n_factors:
            raise ParameterError(
                f"{name} has shape {vectors.shape}; expected ({n_factors},) or (n, {n_factors}), as the model has "
                f"{n_factors} factors"
            )
        if not np.isfinite(vectors).all():
            raise ParameterError(
                f"{name} has {np.count_nonzero(~np.isfinite(vectors))} numbers that are NaN or infinite; expected "
                "finite ones"
            )
        vectors = np.atleast_2d(vectors)
        if self._wanted.measure != "cosine":
            return vectors
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not norms.all():
            raise ParameterError(
                f"{name} has only zeros in row {int(np.argmin(norms))} (from 0), which has no direction; expected "
                f'another, or {named("measure")} "dot" or "euclidean"'
            )
        return np.asarray(vectors / norms, np.float32)

    def _search(self, vectors: Float32Array, denied: Int32Array, themselves: Int32Array | None = None) -> TopK:
        """Return the nearest items (or users) of vectors, by index; each is left out for its own vector."""
        n, n_columns, measure = len(vectors), len(self.ids), self._wanted.measure
        index, rows, denied = self._candidates(n, denied)
        exclude = no_rows(n) if themselves is None else _one_each(_places(themselves, rows), n_columns)
        if len(denied):
            exclude = union(exclude, same_for_all(_places(denied, rows), n), n_columns)
        queries = Queries(as_queries(vectors, measure), int(self._wanted.k), exclude)
        found = nearest(queries, index, measure, self._kernels, self._n_threads)
        if rows is not None and len(rows):
            found.indices[:] = np.where(found.indices >= 0, rows[found.indices], -1)
        return found

    def _candidates(self, n_queries: int, denied: Int32Array) -> _Candidates:
        """Choose the rows to search: an index that is kept, or the factors that lists leave."""
        rows, measure = self._warm, self._wanted.measure
        if self._allowed is None and (len(denied) == 0 or n_queries <= MOST_QUERIES_WITHOUT_INDEX):
            index = self._fitted.index(
                f"{self._wanted.kind} {measure}", self._kernels, self._n_threads, prunes(measure)
            )
            return _Candidates(index, rows, denied if rows is None else np.intersect1d(denied, rows))
        if rows is None:
            rows = np.arange(len(self.ids), dtype=np.int32)
        if self._allowed is not None:
            rows = np.intersect1d(rows, self._allowed)
        rows = np.setdiff1d(rows, denied)
        factors = as_rows(np.asarray(self._factors[rows]), measure)
        index = index_for(n_queries, factors, self._kernels, self._n_threads, prunes(measure))
        return _Candidates(index, rows, np.empty(0, np.int32))

    def _no_answers(self, n_rows: int) -> TopK:
        top = empty_top(n_rows, int(self._wanted.k))
        return top if self._wanted.measure != "euclidean" else TopK(-top.scores, top.indices)

    def _answer(self, asked: pa.Array, top: TopK, n_cold: int = 0, by_vector: bool = False) -> Similar:
        kind, measure = self._wanted.kind, self._wanted.measure
        return Similar(asked, top.indices, top.scores, self.ids, kind, n_cold, measure, by_vector)


def similar(
    fitted: Fitted, asked_ids: Any, vector: Any, wanted: Wanted, backend: str, n_threads: int | None
) -> Similar:
    """Find the neighbours of ids, or of vectors.

    Parameters
    ----------
    fitted : Fitted
    asked_ids : id or array-like of ids; None for vectors
    vector : array-like of float, shape (n_factors,) or (n, n_factors); None for ids
    wanted : Wanted
    backend : str
    n_threads : int, optional

    Raises
    ------
    ParameterError
        If both are given, or neither; or if something given is not valid.
    UnknownIdError
        If an id is unknown.
    """
    search = Neighbours(fitted, wanted, backend, n_threads)
    if (asked_ids is None) == (vector is None):
        raise ParameterError(
            f"got {'neither' if vector is None else 'both'} of {wanted.kind}_ids and vector; expected one of them"
        )
    return search.of_ids(asked_ids) if vector is None else search.of_vectors(vector)


def _places(indices: Int32Array, among: Int32Array | None) -> Int32Array:
    """Return the place of each index in a list that ascends, -1 where it is not there; of all indices, the index."""
    if among is None:
        return indices
    if len(among) == 0:
        return np.full(len(indices), -1, np.int32)
    places = np.minimum(np.searchsorted(among, indices), len(among) - 1).astype(np.int32)
    return np.where(among[places] == indices, places, np.int32(-1))


def _one_each(places: Int32Array, n_columns: int) -> Rows:
    """Return rows of at most one place; -1 for none."""
    there = np.flatnonzero(places >= 0)
    return rows_of_pairs(there, places[there], len(places), n_columns)
