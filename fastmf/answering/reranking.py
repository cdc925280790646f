"""A new order for lists of recommendations: items that differ, caps on categories, and places for new items."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastmf.answering.answers import Recommendations, empty_top
from fastmf.answering.categories import caps_of, features_with_categories, require_limits
from fastmf.answering.directions import directions_of_factors, directions_of_features
from fastmf.answering.exploring import draws, few_ratings
from fastmf.answering.fitted import Fitted
from fastmf.backend import Kernels, get_backend
from fastmf.common.parameters import as_rows, require_choice, require_integer, require_number
from fastmf.errors import DataError, ParameterError, named
from fastmf_kernels._types import BoolArray, Float64Array
from fastmf_kernels.rerank.arrays import (
    Caps,
    Directions,
    Exploration,
    Lists,
    no_caps,
    no_directions,
    no_exploration,
)
from fastmf_kernels.topk.arrays import TopK

SIMILARITIES = ("factors", "features")
"""What makes two items similar."""
# Users whose lists are re-ranked together, which bounds the memory that it takes.
_USERS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """How k items are chosen from a longer list of candidates: settings for ``model.recommend(..., rerank=...)``.

    Items are chosen one after the other. A place of the list goes, with probability ``explore``, to a new item.
    Otherwise it goes to the candidate i of the largest marginal relevance,

        (1 - θ)·relevance(i) - θ·max over the items j chosen before of similarity(i, j),

    with θ = ``diversify``: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998). The relevance of a candidate
    is its score, scaled to the range of the user's list: 1 for the best candidate and 0 for the last one, and 1 for all
    if their scores are equal. So θ means the same for any scale of scores; with more candidates the first ones
    differ less in relevance, and θ counts for more. The similarity is the cosine of the item factors, or of the
    features of items, from -1 to 1.

    Without ``diversify`` and ``explore``, the order of the list stays, but for the items that ``at_most`` leaves out.
    The choice of a user's items depends on nothing
    but the user's own list and id: it is the same in any batch, and on any number of threads.

    Parameters
    ----------
    n_candidates : int
        Length of the list to choose from, at least k. The whole catalogue if it has fewer items.
    diversify : float
        θ, from 0 (relevance alone) to 1 (similarity alone). The first item is the most relevant one, unless its place
        is explored.
    at_most : dict of str to int, optional
        How many items of the same category a list may have, by column of ``item_features``: ``{"genre": 3}``. An item
        with several categories counts in each of them, and one without any is never left out. A name such as
        ``"genre=Horror"`` limits that category alone. A list has fewer than k items if its candidates do not
        suffice.
    item_features : Features or table, optional
        What ``at_most`` and ``similarity="features"`` are about. Of a table with a row for each item and the column
        ``item_id``, texts, lists of texts and texts with ``|`` between categories are understood, and integers in the
        columns that ``at_most`` names.
    similarity : {"factors", "features"}
        What ``diversify`` compares: the factors of the model, or the categories and tags of ``item_features``, without
        its numeric columns. Two items without common ones have the similarity 0.
    explore : float
        Probability, from 0 to 1, that a place goes to a new item: one that is drawn among the candidates with fewer
        than ``few_ratings`` training ratings, each with the same chance. If no such candidate is left, the place goes
        to the candidate of the largest marginal relevance. More candidates, and ``cold="include"``, bring more new
        items into the list.
    few_ratings : int
        An item with fewer training ratings than this is new.
    seed : int
        Seed of what is drawn, at least 0. Draws depend on it, on the user's id and on the place alone. A service that
        explores uses another seed each day.

    Raises
    ------
    ParameterError
        If a setting is out of its range, or two of them do not go together.
    DataError
        If the table of features cannot be used as it is.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=40, density=0.3, seed=0)
    >>> model = fastmf.ALS(n_factors=4).fit(ratings)
    >>> found = model.recommend(k=5, rerank=fastmf.Reranking(diversify=0.3, n_candidates=20))
    >>> found.items.shape
    (50, 5)
    """

    n_candidates: int = 100
    diversify: float = 0.0
    at_most: Mapping[str, int] | None = None
    item_features: Any = None
    similarity: str = "factors"
    explore: float = 0.0
    few_ratings: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("n_candidates", self.n_candidates, minimum=1)
        _require_share("diversify", self.diversify)
        _require_share("explore", self.explore)
        require_integer("few_ratings", self.few_ratings, minimum=1)
        require_integer("seed", self.seed, minimum=0)
        require_choice("similarity", self.similarity, SIMILARITIES)
        limits = None if self.at_most is None else require_limits(self.at_most)
        by_features = self.similarity == "features"
        if (bool(limits) or by_features) != (self.item_features is not None):
            raise ParameterError(
                f"{named('item_features')} {'is missing' if self.item_features is None else 'has no use'}; expected it "
                f'with {named("at_most")}, {named("similarity")}="features" or both'
            )
        features = self.item_features
        if features is not None:
            features = features_with_categories(features, list(limits or ()), others=by_features)
        object.__setattr__(self, "at_most", limits)
        object.__setattr__(self, "item_features", features)

    def length_for(self, k: int, n_items: int) -> int:
        """Return how many candidates to find for lists of k items, of a catalogue of ``n_items``.

        Raises
        ------
        ParameterError
            If there are fewer candidates than k.
        """
        if self.n_candidates < k:
            raise ParameterError(
                f"{named('n_candidates')} is {self.n_candidates}, but {named('k')} is {k}; expected at least as many "
                "candidates as items of a list"
            )
        return min(self.n_candidates, n_items)


def rerank(
    recommendations: Recommendations,
    k: int = 10,
    *,
    model: Any = None,
    diversify: float = 0.0,
    at_most: Mapping[str, int] | None = None,
    item_features: Any = None,
    similarity: str = "factors",
    explore: float = 0.0,
    few_ratings: int = 10,
    seed: int = 0,
) -> Recommendations:
    """Choose k items of each list of recommendations: so that they differ, with new items, or few of each category.

    It takes lists that are longer than k, and gives the same as ``model.recommend(k=k, rerank=Reranking(...))``, which
    also streams to Parquet. Scores stay those of the model, so they do not descend any more.

    Parameters
    ----------
    recommendations : Recommendations
        Lists of at least k items, such as ``model.recommend(k=100)``.
    k : int
    model : Model, optional
        The model that they are from. ``diversify`` needs its factors, ``explore`` its counts of ratings.
    diversify, at_most, item_features, similarity, explore, few_ratings, seed
        As in `Reranking`, which also has the method and its source.

    Returns
    -------
    Recommendations
        Lists of k of these items, in their new order. A list has fewer if it had fewer before, or if ``at_most`` leaves
        fewer.

    Raises
    ------
    ParameterError
        If lists are shorter than k, a setting is out of its range, or the model is missing or has other items.
    DataError
        If a score is not finite, or the features cannot be used as they are.

    Examples
    --------
    >>> import fastmf, pyarrow
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=40, density=0.3, seed=0)
    >>> model = fastmf.ALS(n_factors=4).fit(ratings)
    >>> found = fastmf.rerank(model.recommend(k=20), 5, model=model, diversify=0.3)
    >>> found.items.shape
    (50, 5)
    >>> items = {"item_id": range(40), "genre": ["Drama", "Crime|Drama", "Comedy", "War"] * 10}
    >>> few = fastmf.rerank(model.recommend(k=20), 5, at_most={"genre": 2}, item_features=pyarrow.table(items))
    >>> few.items.shape
    (50, 5)
    """
    if not isinstance(recommendations, Recommendations):
        raise ParameterError(f"recommendations is a {type(recommendations).__name__}; expected Recommendations")
    require_integer("k", k, minimum=1)
    as_rows("recommendations.items", recommendations.items.ravel(), len(recommendations.item_ids))
    length = recommendations.items.shape[1]
    if k > length:
        raise ParameterError(
            f"{named('k')} is {k}, but the lists have {length} items; expected at most as many: recommend more of them"
        )
    settings = Reranking(
        n_candidates=length,
        diversify=diversify,
        at_most=at_most,
        item_features=item_features,
        similarity=similarity,
        explore=explore,
        few_ratings=few_ratings,
        seed=seed,
    )
    fitted = None if model is None else _fitted_of(model, recommendations.item_ids)
    kernels, n_threads = get_backend(getattr(model, "backend", "cpu")), getattr(model, "n_threads", None)
    return Reranker(settings, recommendations.item_ids, fitted, kernels, n_threads).choose(recommendations, int(k))


class _Choice(NamedTuple):
    """What a choice depends on, beside the lists: a row of directions, caps and ``is_new`` for each item."""

    directions: Directions
    caps: Caps
    is_new: BoolArray


class Reranker:
    """Settings of re-ranking, resolved for one catalogue.

    Parameters
    ----------
    settings : Reranking
    item_ids : Arrow array
        The outside ids of the catalogue.
    fitted : Fitted or None
        The model of these items, if it is known.
    kernels : Kernels
    n_threads : int, optional
        All cores if None.

    Raises
    ------
    ParameterError
        If the settings need what the model does not have.
    """

    def __init__(
        self, settings: Reranking, item_ids: pa.Array, fitted: Fitted | None, kernels: Kernels, n_threads: int | None
    ) -> None:
        self.settings, self._kernels, self._n_threads = settings, kernels, n_threads
        n_items, features = len(item_ids), settings.item_features
        is_new = few_ratings(fitted, settings.few_ratings) if settings.explore > 0 else np.zeros(n_items, np.bool_)
        caps = caps_of(features, settings.at_most, item_ids) if settings.at_most else no_caps(n_items)
        directions = no_directions(n_items)
        if settings.diversify > 0 and settings.similarity == "features":
            directions = directions_of_features(features, item_ids)
        elif settings.diversify > 0:
            directions = directions_of_factors(fitted)
        self._choice = _Choice(directions, caps, is_new)

    def choose(self, recommendations: Recommendations, k: int) -> Recommendations:
        """Choose k items of each list; see `rerank`.

        Raises
        ------
        DataError
            If a score is not finite.
        """
        top = empty_top(len(recommendations.items), k)
        for start in range(0, len(top.indices), _USERS_AT_ONCE):
            rows = slice(start, start + _USERS_AT_ONCE)
            lists = TopK(recommendations.scores[rows], recommendations.items[rows])
            top.scores[rows], top.indices[rows] = self._choose(lists, recommendations.user_ids[rows], k)
        return dataclasses.replace(recommendations, items=top.indices, scores=top.scores)

    def key(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return all that the choice depends on, beside the lists and the factors of the model."""
        of_directions = self._choice.directions.sparse if self.settings.diversify > 0 else ()
        words = np.frombuffer(repr(self.settings).encode(), np.uint8)
        return (words, *of_directions, *self._choice.caps.categories, self._choice.caps.limits, self._choice.is_new)

    def _choose(self, lists: TopK, user_ids: pa.Array, k: int) -> TopK:
        directions, caps, is_new = self._choice
        settings, n_users = self.settings, len(user_ids)
        exploration = no_exploration(n_users, k, len(is_new))
        if settings.explore > 0:
            exploration = Exploration(draws(user_ids, k, settings.explore, settings.seed), is_new)
        given = Lists(np.ascontiguousarray(lists.indices, np.int32), _relevance(lists))
        places = self._kernels.rerank(given, settings.diversify, directions, caps, exploration, self._n_threads)
        chosen = np.maximum(places, 0)
        scores, indices = (np.take_along_axis(part, chosen, axis=1) for part in lists)
        return TopK(np.where(places >= 0, scores, np.float32(-np.inf)), np.where(places >= 0, indices, np.int32(-1)))


def _require_share(name: str, value: object) -> None:
    require_number(name, value, minimum=0)
    if value > 1:  # type: ignore[operator]
        raise ParameterError(f"{named(name)} is {value!r}; expected a number from 0 to 1")


def _fitted_of(model: Any, item_ids: pa.Array) -> Fitted:
    """Return the state of the model whose items lists are of.

    Raises
    ------
    ParameterError
        If it is no model, or has other items.
    """
    fitted = getattr(model, "fitted", None)
    if not isinstance(fitted, Fitted):
        raise ParameterError(f"{named('model')} is a {type(model).__name__}; expected a model that is fitted")
    if fitted.item_ids is not item_ids and not fitted.item_ids.equals(item_ids):
        raise ParameterError(
            f"{named('model')} has other items ({fitted.n_items:,}) than the recommendations ({len(item_ids):,}); "
            "expected the model that they are from"
        )
    return fitted


def _relevance(lists: TopK) -> Float64Array:
    """Scale the scores of each list to [0, 1]: 1 for its highest score, 0 for its lowest one, 1 if they are equal.

    Raises
    ------
    DataError
        If a score is not finite.
    """
    scores, is_there = lists.scores.astype(np.float64), lists.indices >= 0
    n_wrong = int(np.count_nonzero(is_there & ~np.isfinite(scores)))
    if n_wrong:
        raise DataError(f"{n_wrong:,} scores of recommended items are not finite; expected a model of smaller factors")
    high = np.where(is_there, scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    low = np.where(is_there, scores, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    varies = is_there & (high > low)
    relevance = np.ones(scores.shape)
    np.subtract(scores, low, out=relevance, where=varies)
    return np.asarray(np.divide(relevance, high - low, out=relevance, where=varies))
