"""The best users of items: recommendation with users and items exchanged."""

from typing import Any

import numpy as np

from fastmf.answering.answers import UsersForItems
from fastmf.answering.asked import read_once
from fastmf.answering.fitted import Fitted
from fastmf.answering.scoring import ItemFilter, Scorer
from fastmf.backend import Kernels, get_backend
from fastmf.common.parameters import require_choice, require_integer
from fastmf.errors import ParameterError, named
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.topk.arrays import Rows

COLD = ("skip", "include")
"""What to do with items without training ratings or features: give them nobody, or what their factors say."""
_OTHER_SIDE = {"user": "item", "item": "user"}


class ItemScorer(Scorer):
    """Answers "which users" for the items of a fitted model.

    Parameters
    ----------
    fitted : Fitted
    backend : str
    n_threads : int, optional
    """

    chosen = "user"

    def __init__(self, fitted: Fitted, backend: str, n_threads: int | None) -> None:
        kernels = get_backend(backend)
        super().__init__(fitted.kept(("mirrored",), lambda: mirrored(fitted, kernels, n_threads)), backend, n_threads)

    def users_for(self, items: Any, k: int, exclude: Any, allow: Any, deny: Any, cold: str) -> UsersForItems:
        """Find the k best users of each item; see `fastmf.models.Model.users_for_item`."""
        require_integer("k", k, minimum=1)
        require_choice("cold", cold, COLD)
        item_ids, user_ids = self.fitted.user_ids, self.fitted.item_ids
        if k > len(user_ids):
            raise ParameterError(f"{named('k')} is {k}, but there are {len(user_ids)} users; expected at most as many")
        if items is not None:
            items = read_once(items)
            ids.require_known(item_ids, items, "items")
        if not (
            exclude is None or isinstance(exclude, Interactions) or (isinstance(exclude, str) and exclude == "seen")
        ):
            raise ParameterError(f'{named("exclude")} is {exclude!r}; expected "seen", Interactions, or None')
        lists: dict[str, Any] = {"exclude": exclude, "allow": allow, "deny": deny}
        lists = {name: _exchanged(given) for name, given in lists.items()}
        found = self.recommend(items, k, cold=cold, **lists)
        return UsersForItems(found.users, found.user_ids, found.items, found.scores, user_ids, found.n_cold_users)


def mirrored(fitted: Fitted, kernels: Kernels, n_threads: int | None) -> Fitted:
    """Return a fitted model with users and items exchanged; its predictions are the same.

    Parameters
    ----------
    fitted : Fitted
    kernels : Kernels
    n_threads : int, optional
    """
    ours, seen = fitted.factors, fitted.seen
    rows = CSR(seen.indptr, seen.indices, np.zeros(len(seen.indices), np.float32))
    indptr, indices, _ = kernels.transpose(rows, fitted.n_items, n_threads)
    factors = ours._replace(
        user_factors=ours.item_factors,
        item_factors=ours.user_factors,
        user_biases=ours.item_biases,
        item_biases=ours.user_biases,
    )
    features = {_OTHER_SIDE[side]: known for side, known in fitted.features.items()}  # who has some is not cold
    return Fitted(
        factors, fitted.link, fitted.item_ids, fitted.user_ids, Rows(indptr, indices), fitted.data, features=features
    )


def _exchanged(pairs: ItemFilter | str) -> Any:
    """Return pairs of users and items with both exchanged; anything else as it is."""
    if not isinstance(pairs, Interactions):
        return pairs
    return Interactions(pairs.items, pairs.users, pairs.ratings, None, pairs.item_ids, pairs.user_ids)
