"""The result of a fit: factors, ids, and what each user has seen. Everything that answers is computed from it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from fastmf.answering.closeness import as_rows
from fastmf.answering.side_features import SideFeatures
from fastmf.backend import Kernels
from fastmf_kernels._types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import ItemIndex, Rows

_COUNTED_AT_ONCE = 1 << 22
SIDES = ("user", "item")
T = TypeVar("T")


class TrainingCounts:
    """How many training ratings users and items have; counted at the first question, and kept.

    A user or item without any is cold, unless its features are known: its factors say nothing. Where nobody has any, as
    in a model that comes from another library, the training ratings are not known: nobody is cold then.

    Parameters
    ----------
    seen : Rows
        The items of each user in the training data.
    n_items : int
    described_users, described_items : bool arrays or None
        Who has features that the model has learned from; None for nobody.
    """

    def __init__(
        self,
        seen: Rows,
        n_items: int,
        described_users: BoolArray | None = None,
        described_items: BoolArray | None = None,
    ) -> None:
        self.seen = seen
        self._n_items = n_items
        self.described_users, self.described_items = described_users, described_items
        self._of_items: Int64Array | None = None
        self._warm_items: tuple[Int32Array | None] | None = None
        self._places: Int32Array | None = None

    @property
    def are_known(self) -> bool:
        """Whether the training ratings are known."""
        return len(self.seen.indices) > 0

    @property
    def of_items(self) -> Int64Array:
        """Ratings of each item, int64, shape (n_items,); 1 where they are not known."""
        counts = self._of_items
        if counts is None:
            start_at = 0 if self.are_known else 1
            counts, indices = np.full(self._n_items, start_at, np.int64), self.seen.indices
            for start in range(0, len(indices), _COUNTED_AT_ONCE):
                counts += np.bincount(indices[start : start + _COUNTED_AT_ONCE], minlength=self._n_items)
            self._of_items = counts
        return counts

    @property
    def is_rated_user(self) -> BoolArray:
        """Whether a user has a rating, shape (n_users,); True where they are not known."""
        is_rated = np.asarray(np.diff(self.seen.indptr) > 0)
        return is_rated if self.are_known else np.ones(len(is_rated), np.bool_)

    @property
    def is_cold_user(self) -> BoolArray:
        """Whether a user has neither a rating nor features, shape (n_users,)."""
        is_unrated = ~self.is_rated_user
        return is_unrated if self.described_users is None else is_unrated & ~self.described_users

    @property
    def is_cold_item(self) -> BoolArray:
        """Whether an item has neither a rating nor features, shape (n_items,)."""
        is_unrated = np.asarray(self.of_items == 0)
        return is_unrated if self.described_items is None else is_unrated & ~self.described_items

    def are_cold(self, users: Int32Array) -> BoolArray:
        """Tell which of some users have neither a rating nor features, shape (n,)."""
        is_unrated = np.asarray(self.seen.indptr[users + 1] == self.seen.indptr[users]) & self.are_known
        return is_unrated if self.described_users is None else is_unrated & ~self.described_users[users]

    @property
    def warm_items(self) -> Int32Array | None:
        """Indices of the items that have ratings or features, ascending; None if all have."""
        if self._warm_items is None:
            warm = np.flatnonzero(~self.is_cold_item).astype(np.int32)
            self._warm_items = (None if len(warm) == self._n_items else warm,)
        return self._warm_items[0]

    @property
    def places_of_items(self) -> Int32Array:
        """The place of each item among those that have ratings or features, -1 for others, int32, shape (n_items,)."""
        if self._places is None:
            is_warm = ~self.is_cold_item
            self._places = np.where(is_warm, np.cumsum(is_warm) - 1, -1).astype(np.int32)
        return self._places

    @property
    def share_of_users(self) -> Float64Array:
        """For each item, the share of the users with ratings who have rated it, shape (n_items,)."""
        return np.asarray(self.of_items / max(1, int(np.count_nonzero(self.is_rated_user))))


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
        The parameters that a continued fit cannot change, ``patience``, and those of what was minimised, as they were.
    counts : TrainingCounts
        Made of ``seen``, unless those of the same ``seen`` are given.
    values : float32 array, shape (n_ratings,), or None
        The training ratings, in the order of ``seen``; None in a model that was saved without them. It may be a view
        of one number, and not contiguous.
    features : dict of str to SideFeatures
        Those of the side "user" and of the side "item", where the model has learned from them.
    """

    factors: Factors
    link: Link
    user_ids: pa.Array
    item_ids: pa.Array
    seen: Rows
    data: dict[str, Any]
    state: dict[str, Float32Array] = field(default_factory=dict)
    trained_with: dict[str, Any] = field(default_factory=dict)
    counts: TrainingCounts = field(default=None, repr=False)  # type: ignore[assignment]
    values: Float32Array | None = None
    features: dict[str, SideFeatures] = field(default_factory=dict)
    # All are filled at first use. Two threads may fill an entry at the same time, with equal values.
    _indexes: dict[tuple[str, str, bool], ItemIndex] = field(default_factory=dict, init=False, repr=False)
    _items: dict[str, Float32Array] = field(default_factory=dict, init=False, repr=False)
    _derived: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.counts is None or self.counts.seen is not self.seen:
            described = (self.features[side].are_described if side in self.features else None for side in SIDES)
            object.__setattr__(self, "counts", TrainingCounts(self.seen, self.n_items, *described))

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items: the catalogue."""
        return len(self.item_ids)

    @property
    def items_with_biases(self) -> Float32Array:
        """Item factors with their biases as a last column, or as they are in a model without biases."""
        if "with biases" not in self._items:
            factors, biases = self.factors.item_factors, self.factors.item_biases
            self._items["with biases"] = np.column_stack([factors, biases]) if biases.any() else factors
        return self._items["with biases"]

    def index(self, kind: str, kernels: Kernels, n_threads: int | None, pruning: bool = True) -> ItemIndex:
        """Return an index to search, laid out for a backend at its first use, and kept.

        Parameters
        ----------
        kind : {"warm items", "all items"}, or "item" or "user" and one of `closeness.MEASURES`, as in "item cosine"
            Items with their biases, those that have training ratings or all; or the factors of items or users that
            have training ratings, as `closeness.as_rows` has them. Positions in an index of warm rows count warm rows
            only.
        kernels : Kernels
        n_threads : int, optional
            Number of threads that lay it out; all cores if None.
        pruning : bool
            Whether items that cannot be among the best may be skipped.
        """
        if kind == "item dot" and self.items_with_biases is self.factors.item_factors:
            kind = "warm items"
        if kind == "warm items" and self.counts.warm_items is None:
            kind = "all items"
        key = kernels.name, kind, pruning
        if key not in self._indexes:
            self._indexes[key] = kernels.index_items(self._rows(kind), pruning, n_threads)
        return self._indexes[key]

    def kept(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """Return what was made of this state at the first call with a key; it is kept as long as the state."""
        if key not in self._derived:
            self._derived[key] = make()
        made: T = self._derived[key]
        return made

    def warm(self, kind: str) -> Int32Array | None:
        """Return the indices of the items (``kind`` "user": users) with training ratings, ascending; None for all."""
        if kind == "item":
            return self.counts.warm_items
        return self.warm_users() if self.counts.is_cold_user.any() else None

    def warm_users(self) -> Int32Array:
        """Return the indices of the users that have training ratings or features, ascending."""
        return np.flatnonzero(~self.counts.is_cold_user).astype(np.int32)

    def _rows(self, kind: str) -> Float32Array:
        warm_items = self.counts.warm_items
        if kind == "all items":
            return self.items_with_biases
        if kind == "warm items":
            return np.asarray(self.items_with_biases[warm_items])
        side, _, measure = kind.partition(" ")
        factors, warm = self.factors.item_factors if side == "item" else self.factors.user_factors, self.warm(side)
        return as_rows(factors if warm is None else np.asarray(factors[warm]), measure)

    def copy(self) -> "Fitted":
        """Copy what training changes."""
        ours = self.factors
        factors = Factors(
            ours.user_factors.copy(),
            ours.item_factors.copy(),
            ours.user_biases.copy(),
            ours.item_biases.copy(),
            ours.global_mean,
        )
        state = {name: array.copy() for name, array in self.state.items()}
        features = {side: known._replace(weights=known.weights.copy()) for side, known in self.features.items()}
        return dataclasses.replace(self, factors=factors, state=state, features=features)

    def with_features(self, features: dict[str, SideFeatures]) -> "Fitted":
        """Return the same state with other features; who is cold depends on them."""
        counted_anew: Any = None
        return dataclasses.replace(self, features=features, counts=counted_anew)

    def is_finite(self) -> bool:
        """Whether no factor or bias is NaN or infinite."""
        return all(bool(np.isfinite(term).all()) for term in self.factors)
