"""Libraries that learn from features of items, with sensible settings: the best of a few on amazon-beauty-seq."""

from typing import TYPE_CHECKING

import numpy as np

from fastmf import ImplicitALS
from fastmf_bench.cold_methods import Given, of_factors, seen_by, standardized
from fastmf_bench.cold_recall import Scores

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# ρ of the default settings of `ImplicitALS`; irspack gets the same weight of unobserved cells.
_ALL_OVER_OBSERVED = 8.0
_IRSPACK_REG, _IRSPACK_FEATURE_REG = 0.01, 0.1
_CMFREC_LAMBDA, _CMFREC_ALPHA, _CMFREC_FEATURE_WEIGHT = 5.0, 10.0, 0.5
_LIGHTFM_EPOCHS = 30
# irspack solves for the weights of features by a dense matrix with a row and a column for each.
_MOST_FEATURES = 10_000


def irspack(given: Given) -> Scores:
    """Train irspack's iALS with features; cold items get the map of their features.

    They are no columns of the training matrix: the model takes an absent rating as a weak dislike, and shrinks them.
    """
    from irspack import IALSRecommender
    from scipy.sparse import csr_matrix

    known, features = np.flatnonzero(given.parts.n_train), _frequent_features(given)
    matrix = csr_matrix(seen_by(given.train)[:, known])
    n_users = int((np.diff(matrix.indptr) > 0).sum())
    model = IALSRecommender(
        matrix,
        n_components=_n_factors(),
        alpha0=_ALL_OVER_OBSERVED * matrix.nnz / (n_users * len(known)),
        reg=_IRSPACK_REG,
        nu=1.0,
        item_features=csr_matrix(features[known]),
        lambda_item_feature=_IRSPACK_FEATURE_REG,
        random_seed=given.seed,
        n_threads=given.n_threads,
    ).learn()
    items = np.asarray(features @ model.trainer_as_ials.core_trainer.item_feature_weight, np.float32)
    items[known] = model.get_item_embedding()
    return of_factors(model.get_user_embedding(), items)


def lightfm(given: Given) -> Scores:
    """Train LightFM with the loss WARP; an item is the mean of its features and, if it has ratings, of itself."""
    from lightfm import LightFM
    from scipy.sparse import coo_matrix, csr_matrix, diags_array, hstack

    own = diags_array((given.parts.n_train > 0).astype(np.float32))
    both = csr_matrix(hstack([own, standardized(given)[:, ~given.features.is_numeric]])).astype(np.float32)
    totals = np.asarray(both.sum(axis=1)).ravel()
    items = csr_matrix(diags_array(1 / np.where(totals > 0, totals, 1).astype(np.float32)) @ both)
    # Its loops read indices of 32 bits alone.
    items.indices, items.indptr = items.indices.astype(np.int32), items.indptr.astype(np.int32)
    model = LightFM(no_components=_n_factors(), loss="warp", random_state=given.seed)
    train = given.train
    shape = train.n_users, train.n_items
    pairs = coo_matrix((np.ones(train.n_ratings, np.float32), (train.users, train.items)), shape)
    model.fit(pairs, item_features=items, epochs=_LIGHTFM_EPOCHS, num_threads=given.n_threads)
    biases, factors = model.get_item_representations(items)
    return of_factors(model.get_user_representations()[1], factors, biases)


def cmfrec(given: Given) -> Scores:
    """Train cmfrec's collective factorisation of implicit feedback; cold items are found from their features."""
    import cmfrec as library
    from scipy.sparse import coo_matrix

    known, features = np.flatnonzero(given.parts.n_train), _frequent_features(given)
    model = library.CMF_implicit(
        k=_n_factors(),
        lambda_=_CMFREC_LAMBDA,
        alpha=_CMFREC_ALPHA,
        w_item=_CMFREC_FEATURE_WEIGHT,
        use_cg=False,  # conjugate gradients end in NaN on these features
        NA_as_zero_item=True,
        center_I=False,
        random_state=given.seed + 1,
        nthreads=given.n_threads,
    )
    model.fit(coo_matrix(seen_by(given.train)[:, known]), I=coo_matrix(features[known]))
    items = np.zeros((given.train.n_items, model.B_.shape[1]), np.float32)
    items[known] = model.B_[: len(known)]
    for item in np.flatnonzero(given.parts.is_cold):
        entries = slice(features.indptr[item], features.indptr[item + 1])
        if entries.start < entries.stop:
            columns, values = features.indices[entries].astype(np.int32), features.data[entries]
            items[item] = model.item_factors_cold(I_col=columns, I_val=values)
    return of_factors(model.A_, items)


def _frequent_features(given: Given) -> "csr_array":
    """Return the features of items, or the 10,000 that most items have."""
    from scipy.sparse import csr_array

    features = standardized(given)
    counts = np.bincount(features.indices, minlength=features.shape[1])
    return csr_array(features[:, np.sort(np.argsort(-counts, kind="stable")[:_MOST_FEATURES])])


def _n_factors() -> int:
    """Return the number of factors of all models: that of `ImplicitALS` as it is."""
    return ImplicitALS().n_factors
