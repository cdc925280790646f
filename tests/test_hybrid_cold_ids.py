"""Users and items that only features know: their scores, their ids, and what is refused of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastmf import ALS, Features, ImplicitALS, Interactions
from fastmf.errors import DataError, FastMFError
from tests.hybrid import KINDS, N_COLD, N_ITEMS, N_USERS, fit, items, means, place, ratings, users

each_kind = pytest.mark.parametrize("kind", KINDS)


def scores_of_means(model: Any, user: int, item: int) -> float:
    """The score of a user and an item as their features alone say it: the mean, both biases, and the product."""
    of_user, of_item = means(model, "user")[place(model, user, "user")], means(model, "item")[place(model, item)]
    score = float(of_user[:4] @ of_item[:4])
    if isinstance(model, ImplicitALS):
        return score
    biases = float(model.user_biases[place(model, user, "user")] + model.item_biases[place(model, item)])
    return score + biases + float(model.fitted.factors.global_mean)


@each_kind
def test_predictions_are_those_of_the_means(kind: Any) -> None:
    model = fit(kind, n_epochs=8)
    pairs = [(N_USERS, N_ITEMS + 2), (N_USERS + 2, N_ITEMS + 1), (N_USERS + 3, N_ITEMS + 5)]
    found = model.predict(*(list(ids) for ids in zip(*pairs, strict=True)))
    np.testing.assert_allclose(found, [scores_of_means(model, *pair) for pair in pairs], rtol=1e-4, atol=1e-4)
    alike, other = model.predict([N_USERS, N_USERS], [N_ITEMS + 2, N_ITEMS])  # 60 likes genre 0, which 42 is of
    assert alike > other + 0.04


def test_biases_of_those_without_ratings_are_what_features_say() -> None:
    model = fit(ALS)
    for side, first in (("item", N_ITEMS), ("user", N_USERS)):
        at = place(model, first, side)
        unit = getattr(model, f"{side}_biases")[at] / means(model, side)[at, 4]
        others = [place(model, first + n, side) for n in (1, 2)]
        found = getattr(model, f"{side}_biases")[others]
        assert found.any()
        np.testing.assert_allclose(found, unit * means(model, side)[others, 4], rtol=1e-4, atol=1e-6)


@each_kind
def test_ids_may_be_strings(kind: Any) -> None:
    """The same ids as strings of one length, in the same order, give the same model, bit for bit."""
    given = ratings()

    def named(ids: pa.Array, letter: str) -> pa.Array:
        return pa.array([f"{letter}{id_:03}" for id_ in ids.to_pylist()], pa.large_string())

    as_text = Interactions(
        given.users, given.items, given.ratings, None, named(given.user_ids, "u"), named(given.item_ids, "i")
    )
    tables = {}
    for side, features in (("item", items()), ("user", users())):
        ids = named(features.ids, side[0])
        tables[f"{side}_features"] = Features(ids, features.rows, features.names, features.is_numeric)
    model = kind(n_factors=4, n_epochs=2).fit(as_text, **tables)
    numbered = fit(kind, n_epochs=2)
    np.testing.assert_array_equal(model.item_factors, numbered.item_factors)
    np.testing.assert_array_equal(model.user_factors, numbered.user_factors)
    assert model.item_ids.to_pylist()[-1] == "i045"


@each_kind
def test_lists_contain_them_as_allowed_and_denied(kind: Any) -> None:
    model = fit(kind)
    cold = list(range(N_ITEMS, N_ITEMS + N_COLD))
    only = model.recommend([0, N_USERS], k=N_COLD, allow=cold).to_arrow()
    assert sorted(only["item_id"].to_pylist()) == sorted(cold * 2)
    scores = model.predict(only["user_id"], only["item_id"])
    np.testing.assert_allclose(scores, only["score"].to_numpy(), rtol=1e-5, atol=1e-5)
    none = model.recommend([0, N_USERS], k=N_ITEMS + N_COLD, deny=cold, exclude=None).to_arrow()["item_id"].to_pylist()
    assert set(none) == set(range(N_ITEMS))
    of_item = model.similar_items([0], k=N_COLD, allow=cold).to_arrow()
    assert sorted(of_item.column(2).to_pylist()) == cold
    of_user = model.similar_users([N_USERS], k=3).to_arrow()
    assert of_user.num_rows == 3
    best = model.users_for_item([N_ITEMS], k=N_USERS + 4).to_arrow()
    assert {N_USERS, N_USERS + 3} <= set(best["user_id"].to_pylist())


@each_kind
def test_those_that_nothing_is_known_of_stay_cold(kind: Any) -> None:
    """An id of features with an empty row, and no rating, is not recommended, as without features."""
    table = pa.table({"item_id": [*range(N_ITEMS + 1)], "genre": [*(f"g{n % 3}" for n in range(N_ITEMS)), None]})
    model = kind(n_factors=4, n_epochs=2).fit(ratings(), item_features=table)
    assert len(model.item_ids) == N_ITEMS + 1
    assert not model.item_factors[place(model, N_ITEMS)].any()
    found = model.recommend([0], k=N_ITEMS + 1, exclude=None).to_arrow()["item_id"].to_pylist()
    assert sorted(found) == list(range(N_ITEMS))


@each_kind
def test_ids_of_another_type_are_refused_by_name(kind: Any) -> None:
    words = pa.table({"item_id": ["a"], "genre": ["g1"]})
    with pytest.raises(DataError, match=r"item_features.*string"):
        kind(n_epochs=1).fit(ratings(), item_features=words)
    model = fit(kind, n_epochs=1)
    people = pa.table({"user_id": ["ann"], "age": ["a1"]})
    uses = [
        lambda: model.fold_in(None, features=people),
        lambda: model.recommend_for(None, k=1, features=people),
        lambda: model.fold_in(ratings(), features=people),
    ]
    for use in uses:
        with pytest.raises(DataError, match="string"):
            use()


@each_kind
def test_a_fit_that_is_refused_leaves_the_model_as_it_was(kind: Any) -> None:
    model = fit(kind, n_epochs=1)
    before, fitted = model.item_factors.copy(), model.fitted
    with pytest.raises(FastMFError):
        model.fit(ratings(), item_features=pa.table({"item_id": [1000], "genre": ["b"]}))
    assert model.fitted is fitted
    np.testing.assert_array_equal(model.item_factors, before)


@each_kind
def test_a_strength_of_0_pulls_nothing_and_still_gives_cold_items_factors(kind: Any) -> None:
    model = fit(kind, regularization=0)
    assert np.isfinite(model.item_factors).all()
    assert model.item_factors[place(model, N_ITEMS)].any()
    assert np.isfinite([record["objective"] for record in model.history]).all()
