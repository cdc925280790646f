"""The methods that rank items without training ratings: baselines, and `ImplicitALS` with features and without."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow.compute as pc

from fastmf import Features, ImplicitALS, Interactions
from fastmf_bench.cold_recall import Scores
from fastmf_bench.cold_sets import Parts
from fastmf_kernels._types import Float32Array, Int32Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class Given(NamedTuple):
    """What a method may use.

    Attributes
    ----------
    parts : Parts
        Of which it sees the training part, and which items are cold.
    features : Features
    seed, n_threads : int
    """

    parts: Parts
    features: Features
    seed: int
    n_threads: int

    @property
    def train(self) -> Interactions:
        """The training ratings."""
        return self.parts.train


Method = Callable[[Given], Scores]


def at_random(given: Given) -> Scores:
    """Give all items the same score: what a random order reaches."""
    return lambda users: np.zeros((len(users), given.train.n_items), np.float32)


def popularity(given: Given) -> Scores:
    """Score an item by the number of its training ratings."""
    counts = given.parts.n_train.astype(np.float32)
    return lambda users: np.broadcast_to(counts, (len(users), len(counts)))


def summed_cosines(given: Given) -> Scores:
    """Score an item by the sum of the cosines of its features with those of the items that the user has."""
    _, unit = _content(given)
    seen = seen_by(given.train)
    return lambda users: ((seen[users] @ unit) @ unit.T).toarray()


def mean_profile(given: Given) -> Scores:
    """Score an item by the cosine of its features with the mean features of the items that the user has."""
    weighted, unit = _content(given)
    seen = seen_by(given.train)
    return lambda users: ((seen[users] @ weighted) @ unit.T).toarray()


def near_neighbours(given: Given) -> Scores:
    """Score an item by the sum of cubed cosines: items that are nearly alike outweigh many that are not."""
    _, unit = _content(given)
    near = (unit @ unit.T).tocsr()
    near.data **= 3
    seen = seen_by(given.train)
    return lambda users: (seen[users] @ near).toarray()


def plain(given: Given) -> Scores:
    """Train `ImplicitALS` with default settings on the ratings alone."""
    return _of_model(_model(given).fit(given.train), given.train)


def hybrid(given: Given) -> Scores:
    """Train `ImplicitALS` with default settings on the ratings and the features."""
    return _of_model(_model(given).fit(given.train, item_features=given.features), given.train)


def standardized(given: Given) -> "csr_array":
    """Return the features of the items of the ratings, in their order, numeric ones with mean 0 and deviation 1.

    Returns
    -------
    csr_array, shape (n_items, n_features)
        An absent entry of a numeric feature stands for its mean.
    """
    matrix = _features(given)
    numeric = given.features.is_numeric[matrix.indices]
    columns, n = matrix.indices[numeric], matrix.shape[1]
    counts = np.maximum(np.bincount(columns, minlength=n), 1)
    means = np.bincount(columns, matrix.data[numeric], minlength=n) / counts
    deviations = np.bincount(columns, (matrix.data[numeric] - means[columns]) ** 2, minlength=n) / counts
    scales = np.sqrt(np.where(deviations > 0, deviations, 1))
    matrix.data[numeric] = (matrix.data[numeric] - means[columns]) / scales[columns]
    return matrix


def _features(given: Given) -> "csr_array":
    """Return the rows of features of the items of the ratings; an item without features has an empty row."""
    from scipy.sparse import csr_array

    indptr, indices, values = given.features.rows_for(given.train.item_ids)
    return csr_array((values, indices, indptr), shape=(given.train.n_items, given.features.n_features))


def _content(given: Given) -> "tuple[csr_array, csr_array]":
    """Return categories and tags, weighted by the logarithm of their rarity, and the same in rows of length 1."""
    from scipy.sparse import csr_array, diags_array

    matrix = csr_array(_features(given)[:, np.flatnonzero(~given.features.is_numeric)])
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    rarity = np.log(matrix.shape[0] / np.maximum(counts, 1)).astype(np.float32)
    weighted = csr_array(matrix @ diags_array(rarity))
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    unit = csr_array(diags_array((1 / np.where(lengths > 0, lengths, 1)).astype(np.float32)) @ weighted)
    return weighted, unit


def seen_by(train: Interactions) -> "csr_array":
    """Return a 1 for each training rating."""
    return train.to_scipy().astype(np.float32)


def _model(given: Given) -> ImplicitALS:
    return ImplicitALS(seed=given.seed, n_threads=given.n_threads)


def _of_model(model: ImplicitALS, train: Interactions) -> Scores:
    """Return the scores of a model for the users and the items of the ratings, in their order."""
    fitted = model.fitted
    users, items = (
        pc.index_in(ids, value_set=known).to_numpy(zero_copy_only=False)
        for ids, known in ((train.user_ids, fitted.user_ids), (train.item_ids, fitted.item_ids))
    )
    return of_factors(model.user_factors[users], model.item_factors[items])


def of_factors(users: Float32Array, items: Float32Array, biases: Float32Array | None = None) -> Scores:
    """Return the scores p·q, or p·q + b, of given factors."""

    def scores(chosen: Int32Array) -> Float32Array:
        found: Float32Array = users[chosen] @ items.T
        return found if biases is None else found + biases

    return scores
