"""Analogies: what is to one item as another is to a third."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastmf.answering.answers import Similar
from fastmf.answering.asked import read_once
from fastmf.answering.neighbours import Neighbours, Wanted
from fastmf.common.parameters import require_choice
from fastmf.errors import ParameterError, UnknownIdError, named
from fastmf.models.base import Model
from fastmf.reading import ids
from fastmf_kernels._types import Float64Array, Int32Array

# So many ids are shown in a message.
_SHOWN = 5


def analogy(
    model: Model,
    positive: Any = (),
    negative: Any = (),
    k: int = 10,
    *,
    side: str = "item",
    measure: str = "cosine",
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
) -> Similar:
    """Find the items that are nearest to a sum and difference of items, such as "c is to ? as b is to a".

    ``positive=["a", "c"], negative=["b"]`` asks for the items near c - b + a, a, b and c left out. By cosine, the
    vectors are added at length 1 (3CosAdd: Mikolov, Yih, Zweig, "Linguistic Regularities in Continuous Space Word
    Representations", NAACL-HLT 2013); by the other measures, factors are added as they are. Biases do not count.

    Parameters
    ----------
    model : Model
        Fitted, of factors.
    positive, negative : id or array-like of ids
        What is added, and what is subtracted; an id that occurs twice counts twice. At least one id in all.
    k : int
    side : {"item", "user"}
        What the ids are of.
    measure : {"cosine", "dot", "euclidean"}
    allow, deny : iterable of ids, optional
        As in `fastmf.models.Model.similar_items`.

    Returns
    -------
    Similar
        The neighbours of one vector.

    Raises
    ------
    UnknownIdError
        If the model does not know an id, or has learned nothing of it, for want of training ratings.
    ParameterError
        If no id is given, one is on both sides, or the sum is zero; if another parameter is not valid.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> model = fastmf.ALS(n_factors=4).fit(ratings)
    >>> found = fastmf.analogy(model, positive=[3, 5], negative=[7], k=2)
    >>> len(set(found.to_arrow()["similar_item_id"].to_pylist()) - {3, 5, 7})
    2
    """
    if not isinstance(model, Model):
        raise ParameterError(f"model is a {type(model).__name__}; expected a fitted model of factors")
    require_choice("side", side, ("item", "user"))
    fitted = model.fitted
    factors = fitted.factors.item_factors if side == "item" else fitted.factors.user_factors
    if not factors.shape[1]:
        model.similar_items([])  # a model without factors refuses, and says why
    search = Neighbours(fitted, Wanted(side, k, measure, allow, deny), model.backend, model.n_threads)
    added, subtracted = _known(search, positive, "positive"), _known(search, negative, "negative")
    inputs = np.union1d(added, subtracted)
    _require_distinct(search, added, subtracted)
    vector = _directions(factors[added], measure).sum(axis=0) - _directions(factors[subtracted], measure).sum(axis=0)
    if not vector.any():
        raise ParameterError(
            f"the vectors of {named('positive')} and {named('negative')} add up to zero, which has no neighbours; "
            "expected others"
        )
    return search.of_vectors(vector, inputs)


def _known(search: Neighbours, given: Any, name: str) -> Int32Array:
    """Return the indices of ids, all of which have training ratings."""
    given = ids.to_arrow([] if given is None else read_once(given), name)
    indices = search.require_known(given, name) if len(given) else np.empty(0, np.int32)
    cold = indices[~search.are_warm(indices)]
    if len(cold):
        raise UnknownIdError(
            f"{len(cold)} of {len(indices)} ids in {named(name)} have no training ratings, and so no direction: "
            f"{_shown(search, cold)}; expected ids that have"
        )
    return indices


def _require_distinct(search: Neighbours, added: Int32Array, subtracted: Int32Array) -> None:
    if not len(added) + len(subtracted):
        raise ParameterError(f"{named('positive')} and {named('negative')} have no id; expected at least one")
    both = np.intersect1d(added, subtracted)
    if len(both):
        raise ParameterError(
            f"{named('positive')} and {named('negative')} both have {_shown(search, both)}; expected an id in one of "
            "them"
        )


def _directions(factors: Any, measure: str) -> Float64Array:
    rows = np.asarray(factors, np.float64)
    if measure != "cosine":
        return rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


def _shown(search: Neighbours, indices: Int32Array) -> str:
    some = ", ".join(repr(search.ids[int(index)].as_py()) for index in indices[:_SHOWN])
    return some + ", ..." * (len(indices) > _SHOWN)
