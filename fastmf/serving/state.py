"""A model with filters, as requests find it: nothing in it changes while they run."""

import copy
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.answering.rows import renumber_columns
from fastmf.backend import get_backend
from fastmf.errors import ParameterError
from fastmf.models.base import Model
from fastmf.models.loading import load
from fastmf.serving.catalogues import MOST_WITHOUT_INDEX, Catalogue, Catalogues, Key, places_of
from fastmf.serving.filters import NO_FILTER, keep, resolve
from fastmf.serving.user_rows import UserRows
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.topk.arrays import Found, Rows

_PAGE = 4096


class State:
    """What a request reads once, and then answers from.

    Parameters
    ----------
    model : Model
        Fitted. Nobody else changes it.
    filter_ids : mapping of str to Arrow array
        The item ids of each filter.
    capacity : int
        How many combinations of filters stay laid out.
    earlier : State, optional
        Of the same model: filters that it has are taken from there, and not looked up again.

    Attributes
    ----------
    fitted : Fitted
    kernels : Kernels
    filter_items : dict of str to int32 array
        The items of each filter, ascending.
    catalogues : Catalogues
    user_rows : UserRows
    """

    def __init__(
        self, model: Model, filter_ids: Mapping[str, pa.ChunkedArray], capacity: int, earlier: "State | None" = None
    ) -> None:
        self.model, self.fitted, self.kernels = model, model.fitted, get_backend(model.backend)
        self.filter_ids, self._capacity = dict(filter_ids), capacity
        self.filter_items: dict[str, Int32Array] = {
            name: resolve(name, given, self.fitted)
            if earlier is None or earlier.filter_ids.get(name) is not given
            else earlier.filter_items[name]
            for name, given in filter_ids.items()
        }
        self.catalogues = Catalogues(capacity, self._make)
        self.user_rows: UserRows = UserRows(self.fitted.user_ids) if earlier is None else earlier.user_rows

    def with_filters(self, filter_ids: Mapping[str, pa.ChunkedArray]) -> "State":
        """Return a state of the same model with other filters, in which the same combinations are laid out."""
        new = State(self.model, filter_ids, self._capacity, self)
        names = {*filter_ids, *self.filter_ids}
        changed = {name for name in names if filter_ids.get(name) is not self.filter_ids.get(name)}
        new.catalogues.take_over(self.catalogues, changed)
        for key in self.catalogues.known():
            if all(name in filter_ids for name, _ in key.wanted):
                new.catalogues.get(key)
        return new

    def with_model(self, model: Model) -> "State":
        """Return a state of another model with the same filters, in which the same combinations are laid out."""
        new = State(model, self.filter_ids, self._capacity)
        for key in self.catalogues.known():
            new.catalogues.get(key)
        return new

    def narrowed(self, catalogue: Catalogue, items: Int32Array) -> Catalogue:
        """Return a catalogue of some of the items of another, ascending."""
        return self._lay_out(catalogue.factors, items)

    def search(self, catalogue: Catalogue, queries: Float32Array, k: int, excluded: Rows) -> Found:
        """Find the k best items of a catalogue that is laid out, for queries that exclude items of the model."""
        top_k, n_threads = self.kernels.top_k, self.model.n_threads
        assert catalogue.item_index is not None
        if catalogue.items is None or catalogue.places is None:
            return top_k(queries, catalogue.item_index, k, excluded, n_threads)
        # Places are in the order of the items: of equal scores the lower item comes first.
        excluded = renumber_columns(excluded, catalogue.places)
        found = top_k(queries, catalogue.item_index, k, excluded, n_threads)
        places = found.top.indices
        np.copyto(places, catalogue.items.take(places, mode="clip"), where=places >= 0)
        return found

    def touch(self) -> None:
        """Read a number of each page of the model, so that no request waits for the disk."""
        fitted = self.fitted
        for array in (*fitted.factors[:4], *fitted.seen):
            flat = np.asarray(array).reshape(-1)
            flat[:: max(1, _PAGE // flat.itemsize)].sum()
        for vocabulary in (fitted.user_ids, fitted.item_ids):
            for buffer in vocabulary.buffers():
                if buffer is not None:
                    np.frombuffer(buffer, np.uint8)[::_PAGE].sum()

    def _make(self, key: Key) -> Catalogue:
        counts, n_items = self.fitted.counts, self.fitted.n_items
        factors = self._shares() if key.by_popularity else self.fitted.items_with_biases
        pool = None if key.with_cold else counts.warm_items
        if key.wanted != NO_FILTER:
            return self._lay_out(factors, keep(key.wanted, self.filter_items, pool, n_items))
        places = None if pool is None else counts.places_of_items
        if key.by_popularity:
            rows = factors if pool is None else factors[pool]
            return Catalogue(pool, places, factors, self.kernels.index_items(rows, True, self.model.n_threads))
        kind = "all items" if key.with_cold else "warm items"
        return Catalogue(pool, places, factors, self.fitted.index(kind, self.kernels, self.model.n_threads))

    def _lay_out(self, factors: Float32Array, items: Int32Array) -> Catalogue:
        index = None
        if len(items) > MOST_WITHOUT_INDEX:
            index = self.kernels.index_items(factors[items], True, self.model.n_threads)
        return Catalogue(items, places_of(items, self.fitted.n_items), factors, index)

    def _shares(self) -> Float32Array:
        """Return the share of users who have rated each item, as a table with one column: a query of 1 ranks by it."""
        return np.ascontiguousarray(self.fitted.counts.share_of_users[:, np.newaxis], np.float32)


def open_model(model_or_path: Any, n_threads: int | None, verify: bool) -> Model:
    """Return a model that nobody else changes, with so many threads.

    Raises
    ------
    ParameterError
        If it is neither a model nor a path; if ``verify`` is true of a model, of which there is nothing to verify.
    NotFittedError
        If it is not fitted.
    ModelError
        If the path has no model, or a damaged one.
    """
    if isinstance(model_or_path, (str, os.PathLike)):
        model = load(model_or_path, verify=verify)
    elif not isinstance(model_or_path, Model):
        raise ParameterError(
            f"the model is a {type(model_or_path).__name__}; expected a fitted model, or the path of a model directory"
        )
    elif verify:
        raise ParameterError("verify is True of a model in memory; expected the path of a model directory")
    else:
        model = copy.copy(model_or_path)
    _ = model.fitted
    return model.set_params(n_threads=n_threads)
