"""What a request chooses from: the items that pass its filters, laid out to be searched, and kept for the next one."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from fastmf.common.locks import ProcessLock
from fastmf.serving.filters import NO_FILTER, Combination
from fastmf_kernels._types import Float32Array, Int32Array
from fastmf_kernels.topk.arrays import ItemIndex

# So many items are scored one by one, for a user at a time, sooner than an index would be searched.
MOST_WITHOUT_INDEX = 512


class Key(NamedTuple):
    """Which items, and by what they are ranked.

    Attributes
    ----------
    wanted : frozenset
        Filters that the items pass.
    with_cold : bool
        Whether items without training ratings are among them.
    by_popularity : bool
        Whether they are ranked by popularity.
    """

    wanted: Combination
    with_cold: bool
    by_popularity: bool


class Catalogue(NamedTuple):
    """Items that are searched together.

    Attributes
    ----------
    items : int32 array, or None
        Those to choose from, ascending; None for all items of the model.
    places : int32 array, shape (n_items,), or None
        The place of each item of the model among ``items``, -1 for others; None for all.
    factors : float32 array, shape (n_items, width)
        A row for each item of the model, whose product with a query is the item's score.
    item_index : ItemIndex or None
        Of the rows of ``items``; None where there are few, which are scored one by one.
    """

    items: Int32Array | None
    places: Int32Array | None
    factors: Float32Array
    item_index: ItemIndex | None


class Catalogues:
    """Catalogues by key: those without a filter are all kept, of the others the ones that were used last.

    Two threads that ask for the same new one both make it, and get equal ones: nobody waits for a lock meanwhile.

    Parameters
    ----------
    capacity : int
        How many with a filter are kept.
    make : callable
        Returns the catalogue of a key.
    """

    def __init__(self, capacity: int, make: Callable[[Key], Catalogue]) -> None:
        self._capacity, self._make, self._lock = capacity, make, ProcessLock()
        self._whole: dict[Key, Catalogue] = {}
        self._filtered: OrderedDict[Key, Catalogue] = OrderedDict()

    def get(self, key: Key) -> Catalogue:
        """Return a catalogue, and make it where it does not exist."""
        if key.wanted == NO_FILTER:
            found = self._whole.get(key)
            return found if found is not None else self._whole.setdefault(key, self._make(key))
        with self._lock.of_this_process:
            found = self._filtered.get(key)
            if found is not None:
                self._filtered.move_to_end(key)
                return found
        made = self._make(key)
        self._put(key, made)
        return made

    def _put(self, key: Key, catalogue: Catalogue) -> None:
        with self._lock.of_this_process:
            self._filtered[key] = catalogue
            self._filtered.move_to_end(key)
            while len(self._filtered) > self._capacity:
                self._filtered.popitem(last=False)

    def known(self) -> list[Key]:
        """Return the keys of the catalogues that there are, those used last at the end."""
        with self._lock.of_this_process:
            return [*self._whole, *self._filtered]

    def take_over(self, others: "Catalogues", names: Iterable[str]) -> None:
        """Take over from the same model the catalogues that do not depend on filters of some names."""
        changed = set(names)
        for key in others.known():
            if changed.isdisjoint(name for name, _ in key.wanted):
                source = self._whole if key.wanted == NO_FILTER else self._filtered
                known = others._whole if key.wanted == NO_FILTER else others._filtered
                catalogue = known.get(key)
                if catalogue is not None:
                    source[key] = catalogue


def places_of(items: Int32Array, n_items: int) -> Int32Array:
    """Return the place of each item among some, -1 for others."""
    places = np.full(n_items, -1, np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    return places
