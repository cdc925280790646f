"""Users of a model with factors of their own, from a fit or folded in: their best items, and how good these are."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import fastmf
from fastmf import Interactions
from fastmf.answering.fitted import Fitted
from fastmf.models import Model
from fastmf_kernels._types import Float32Array, Float64Array, Int32Array

K = 10

Counts = npt.NDArray[np.int64]


class People(NamedTuple):
    """A row for each user of some ratings, whether or not the model was trained on him.

    Attributes
    ----------
    model : Model
        What predicts for them.
    fitted : Fitted
        Its items.
    factors : float32 array, shape (n_users, n_factors)
    biases : float32 array, shape (n_users,)
    """

    model: Model
    fitted: Fitted
    factors: Float32Array
    biases: Float32Array


def trained(model: Model) -> People:
    """Return the users of a model as its fit has left them."""
    factors = model.fitted.factors
    return People(model, model.fitted, factors.user_factors, factors.user_biases)


def folded(model: Model, ratings: Interactions) -> People:
    """Return the users of ratings in the id space of the model, folded in from these ratings."""
    found = model.fold_in(ratings)
    return People(model, model.fitted, found.factors, found.biases)


def largest_difference(first: People, second: People) -> float:
    """Return max |x - y| / max |y| over all factors and biases x of the first and y of the second."""
    x, y = (np.column_stack([people.factors, people.biases]) for people in (first, second))
    return float(np.abs(x - y).max() / np.abs(y).max())


def best_items(people: People, seen: Interactions, users: Int32Array) -> Int32Array:
    """Return the 10 best items of some users, without those that they have rated, shape (n_users, 10)."""
    factors = people.fitted.factors
    queries = np.column_stack([people.factors, np.ones_like(people.biases)])[users]
    biases = np.where(people.fitted.counts.of_items > 0, factors.item_biases, np.float32(-1e6))
    items = np.column_stack([factors.item_factors, biases]).astype(np.float32)
    exclude = _rows(seen, users)
    _, best = fastmf.top_k(np.ascontiguousarray(queries), items, K, exclude=exclude)
    return best


def agreement(first: Int32Array, second: Int32Array) -> dict[str, float]:
    """Return which share of lists has the same items, and which share of items two lists have in common on average."""
    overlaps = np.array([len(np.intersect1d(x, y)) for x, y in zip(first, second, strict=True)]) / K
    return {"same top-10": float((overlaps == 1).mean()), "overlap of top-10": float(overlaps.mean())}


def quality(people: People, seen: Interactions, test: Interactions) -> float:
    """Return the RMSE of a model of ratings, or nDCG@10 of an implicit one, on the test ratings of items it knows."""
    test = of_known_items(people.fitted, test)
    if people.model.is_implicit:
        users = np.unique(test.users).astype(np.int32)
        return fastmf.metrics.ndcg_at_k(best_items(people, seen, users), _rows(test, users), K)
    return fastmf.metrics.rmse(test.ratings, predictions(people, test))


def predictions(people: People, pairs: Interactions) -> Float64Array:
    """Return what a model predicts for pairs of users and items, float64, shape (n_pairs,)."""
    factors, link = people.fitted.factors, people.fitted.link
    users, items = pairs.users, pairs.items
    scores = float(factors.global_mean) + people.biases[users] + factors.item_biases[items].astype(np.float64)
    scores += np.einsum("nf,nf->n", people.factors[users], factors.item_factors[items])
    if link.span:
        scores = link.low + link.span / (1 + np.exp(-scores))
    return np.asarray(scores)


def of_known_items(fitted: Fitted, ratings: Interactions) -> Interactions:
    """Return the ratings of items that have training ratings."""
    return ratings.take(np.flatnonzero(fitted.counts.of_items[ratings.items] > 0))


def _rows(ratings: Interactions, users: Int32Array) -> tuple[Counts, Int32Array]:
    """Return the rated items of some users as sparse rows."""
    rows = ratings.by_user
    lists = [rows.indices[rows.indptr[user] : rows.indptr[user + 1]] for user in users]
    indptr = np.append(0, np.cumsum([len(items) for items in lists])).astype(np.int64)
    return indptr, np.concatenate([*lists, np.empty(0, np.int32)]).astype(np.int32)
