"""What a fit leaves behind, and everything scoring needs to know of a model."""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fastmf.backend import Kernels
from fastmf_kernels._types import Float32Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import ItemIndex, Rows


@dataclass(frozen=True, eq=False)
class Fitted:
    """Factors, the ids they belong to, and what each user has seen.

    Attributes
    ----------
    factors : Factors
    link : Link
        How scores become predictions.
    user_ids, item_ids : Arrow arrays
        The outside id of each row of the factors.
    seen : Rows
        The items of each user in the training data.
    data : dict
        The training data in figures: ``n_users``, ``n_items``, ``n_ratings``, ``mean``, ``fingerprint``,
        and the ``deviation`` that training measured ratings in.
    state : dict of str to float32 array
        What training needs to go on, beside the factors; see `fastmf.models.training.Trainer`.
    trained_with : dict
        The parameters that a continued fit cannot change, as they were.
    """

    factors: Factors
    link: Link
    user_ids: pa.Array
    item_ids: pa.Array
    seen: Rows
    data: dict[str, Any]
    state: dict[str, Float32Array] = field(default_factory=dict)
    trained_with: dict[str, Any] = field(default_factory=dict)
    _indexes: dict[tuple[str, str, bool], ItemIndex] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items: the catalogue."""
        return len(self.item_ids)

    @functools.cached_property
    def items_with_biases(self) -> Float32Array:
        """Item factors with their biases as a last column, or as they are in a model without: what queries meet."""
        _, item_factors, _, item_biases, _ = self.factors
        return np.column_stack([item_factors, item_biases]) if item_biases.any() else item_factors

    def index(self, kind: str, kernels: Kernels, n_threads: int | None, pruning: bool = True) -> ItemIndex:
        """Return what queries are searched in, laid out for a backend at its first use, and kept.

        Parameters
        ----------
        kind : {"items", "item directions", "user directions"}
            Items with their biases; items or users of length 1, whose products are cosines.
        kernels : Kernels
        n_threads : int, optional
            That lay it out; all cores if None.
        pruning : bool
            Whether what cannot be among the best may be left out.
        """
        key = kernels.name, kind, pruning
        if key not in self._indexes:  # two threads may both come here: they make the same
            self._indexes[key] = kernels.index_items(self._rows(kind), pruning, n_threads)
        return self._indexes[key]

    def _rows(self, kind: str) -> Float32Array:
        if kind == "items":
            return self.items_with_biases
        factors = self.factors.item_factors if kind == "item directions" else self.factors.user_factors
        norms = np.linalg.norm(factors, axis=1, keepdims=True)
        return np.asarray(np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0))

    def copy(self) -> "Fitted":
        """Copy what training changes."""
        user_factors, item_factors, user_biases, item_biases, global_mean = self.factors
        factors = Factors(user_factors.copy(), item_factors.copy(), user_biases.copy(), item_biases.copy(), global_mean)
        state = {name: array.copy() for name, array in self.state.items()}
        return dataclasses.replace(self, factors=factors, state=state)

    def is_finite(self) -> bool:
        """Whether no factor or bias is NaN or infinite."""
        return all(bool(np.isfinite(term).all()) for term in self.factors)
