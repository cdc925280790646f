"""Explanations of models with features: how much each feature of the user, or of the item, carries."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastmf import ALS, SGD, Bias, Features, ImplicitALS, Interactions, testing
from fastmf.answering.explanation import Explanation
from fastmf.errors import ModelError, ParameterError, UnknownIdError

ALL = testing.power_law(60, 40, 900, n_factors=3, seed=0)
COLD_USERS, COLD_ITEMS = (3, 17, 40), (5, 22)
"""Rows without ratings: the last of each has no features either."""
TRAIN = ALL.take(np.flatnonzero(~np.isin(ALL.users, COLD_USERS) & ~np.isin(ALL.items, COLD_ITEMS)))
SIZE = {"n_factors": 6, "n_epochs": 4}
STRENGTHS = {"item_feature_regularization": 0.6, "user_feature_regularization": 1.2}
"""Both below 3: factors are pulled with a share of the strength that they have without features."""
MODELS = {
    "als": ALS(regularization=0.05, **SIZE, **STRENGTHS),
    "als of chosen strengths": ALS(**SIZE),
    "als without biases": ALS(biases=False, regularization=0.05, **SIZE, **STRENGTHS),
    "als by count": ALS(regularization_scaling="count", regularization=0.02, **SIZE, **STRENGTHS),
    "als nonnegative": ALS(nonnegative=True, regularization=0.05, **SIZE, **STRENGTHS),
    "implicit als": ImplicitALS(**SIZE, **STRENGTHS),
    "implicit als of hu": ImplicitALS(weighting="hu", alpha=3.0, **SIZE, **STRENGTHS),
    "implicit als nonnegative": ImplicitALS(nonnegative=True, **SIZE, **STRENGTHS),
    "als by cg": ALS(solver="cg", cg_steps=1, regularization=0.05, **SIZE, **STRENGTHS),
    "als by blocks": ALS(solver="subspace", block_size=16, regularization=0.05, n_factors=20, n_epochs=2, **STRENGTHS),
    "implicit als by cg": ImplicitALS(solver="cg", cg_steps=1, **SIZE, **STRENGTHS),
    "implicit als by blocks": ImplicitALS(solver="subspace", block_size=16, n_factors=20, n_epochs=2, **STRENGTHS),
}
EXACT = [name for name in MODELS if "by cg" not in name and "by blocks" not in name]


def features_of(ids: pa.Array, name: str, without: tuple[int, ...]) -> Features:
    rng = np.random.default_rng(len(ids))
    kept = np.setdiff1d(np.arange(len(ids)), without)
    genres = ["|".join(np.array(["a", "b", "c"])[rng.random(3) < 0.5].tolist()) or None for _ in kept]
    years = rng.normal(2000, 10, len(kept)).tolist()
    years[0] = None
    return Features.from_arrow(pa.table({name: ids.take(pa.array(kept)), "genre": genres, "year": years}), id=name)


ITEM_FEATURES = features_of(ALL.item_ids, "item_id", COLD_ITEMS[-1:])
USER_FEATURES = features_of(ALL.user_ids, "user_id", COLD_USERS[-1:])
SIDES = ("user", "item")
NAMES = {*ITEM_FEATURES.names, "(intercept)"}


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {}


@pytest.fixture
def model(name: str, fitted: dict[str, Any]) -> Any:
    if name not in fitted:
        fitted[name] = type(MODELS[name])(**MODELS[name].get_params())
        fitted[name].fit(TRAIN, item_features=ITEM_FEATURES, user_features=USER_FEATURES)
    return fitted[name]


def size(explanation: Explanation) -> float:
    return max(1.0, sum(abs(term.contribution) for term in explanation.terms))


def of_the_equation(explanation: Explanation) -> float:
    return sum(term.contribution for term in explanation.terms if term.kind in ("feature", "ratings of the item"))


def kinds(explanation: Explanation) -> set[str]:
    return {term.kind for term in explanation.terms}


@pytest.mark.parametrize("by", ["user", "item"])
@pytest.mark.parametrize("name", MODELS)
def test_terms_add_up_to_the_prediction(name: str, by: str, model: Any) -> None:
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 60, 40), rng.integers(0, 40, 40)
    users[: len(COLD_USERS)], items[2:4] = COLD_USERS, COLD_ITEMS
    user_ids, item_ids = ALL.user_ids.take(pa.array(users)), ALL.item_ids.take(pa.array(items))
    predictions = model.predict(user_ids, item_ids).tolist()

    for user, item, expected in zip(user_ids, item_ids, predictions, strict=True):
        found = model.explain(user, item, by=by)

        assert abs(sum(term.contribution for term in found.terms) - expected) < 1e-4
        assert abs(found.prediction - expected) < 1e-4
        assert {term.feature for term in found.features} <= NAMES
        if by == "item":
            assert found.ratings == ()


@pytest.mark.parametrize("name", EXACT)
def test_nothing_remains_of_users_whose_equations_are_solved(name: str, model: Any) -> None:
    for user in ALL.user_ids:
        found = model.explain(user, ALL.item_ids[8])

        assert abs(found.remainder) < 2e-5 * size(found)


@pytest.mark.parametrize("name", EXACT)
def test_folding_in_gives_the_factors_of_the_fit(name: str, model: Any) -> None:
    """Items without ratings, whose factors are not 0, take no part in the equations of users."""
    folded = model.fold_in(TRAIN)
    places = [model.user_ids.index(user).as_py() for user in folded.ids]

    assert model.item_factors[COLD_ITEMS[0]].any()
    np.testing.assert_array_equal(folded.factors, model.user_factors[places])


@pytest.mark.parametrize("name", MODELS)
def test_a_user_without_ratings_is_explained_by_features_wholly(name: str, model: Any) -> None:
    for item in ALL.item_ids:
        found = model.explain(ALL.user_ids[COLD_USERS[0]], item)

        assert kinds(found) - {"remainder"} <= {"mean", "user bias", "item bias", "feature"}
        assert abs(found.remainder) < 1e-5 * size(found)
    assert len(found.features) > 1
    unknown = model.explain(ALL.user_ids[COLD_USERS[-1]], ALL.item_ids[0])
    assert kinds(unknown) <= {"mean", "item bias"}


@pytest.mark.parametrize("name", MODELS)
def test_an_item_without_ratings_is_explained_by_features_wholly(name: str, model: Any) -> None:
    for user in ALL.user_ids:
        found = model.explain(user, ALL.item_ids[COLD_ITEMS[0]], by="item")

        assert kinds(found) - {"remainder"} <= {"mean", "user bias", "item bias", "feature"}
        assert abs(found.remainder) < 1e-5 * size(found)
    assert len(found.features) > 1
    assert model.explain(user, ALL.item_ids[COLD_ITEMS[-1]], by="item").features == ()


@pytest.mark.parametrize("name", EXACT)
def test_the_equation_of_an_item_explains_factors_that_solve_it(name: str, model: Any) -> None:
    """Factors of a fit solve it for the users as they were before the last half sweep."""
    other, factors = type(model)(**model.get_params()), model.fitted.factors
    folded = model.fold_in(TRAIN, side="item")
    places = [model.item_ids.index(item).as_py() for item in folded.ids]
    item_factors, item_biases = factors.item_factors.copy(), factors.item_biases.copy()
    item_factors[places], item_biases[places] = folded.factors, folded.biases
    solved = factors._replace(item_factors=item_factors, item_biases=item_biases)
    other.restore(dataclasses.replace(model.fitted, factors=solved), [])

    for item in ALL.item_ids:
        found = other.explain(ALL.user_ids[7], item, by="item")
        assert abs(found.remainder) < 2e-5 * size(found)
        before = model.explain(ALL.user_ids[7], item, by="item")
        if not model.nonnegative:  # other factors may be 0 then
            assert abs(of_the_equation(before) - of_the_equation(found)) < 2e-5 * size(found)
    found = other.explain(ALL.user_ids[7], ALL.item_ids[8], by="item")
    assert {"ratings of the item", "feature"} <= kinds(found)
    assert "all ratings of the item" in found.to_text()


@pytest.mark.parametrize("name", ["als", "als nonnegative", "implicit als"])
def test_newcomers_are_explained_by_what_is_known_of_them(name: str, model: Any) -> None:
    features = Features.from_arrow(pa.table({"user_id": [5001, 5002], "genre": ["a|c", "b"]}), id="user_id")
    history = Interactions.from_arrays([5001] * 3, ALL.item_ids[8:11], [5, 1, 4])

    for given in ({"features": features}, {"features": features, "interactions": history}):
        found = model.explain(5001, ALL.item_ids[2], **given)

        folded = model.fold_in(given.get("interactions"), features=features)
        product = float(folded.factors[0] @ model.item_factors[2])
        expected = model.global_mean + folded.biases[0] + model.item_biases[2] + product
        assert abs(found.prediction - expected) < 1e-4
        assert abs(found.remainder) < 2e-5 * size(found)
        assert {term.feature for term in found.features} == {"genre=a", "genre=c", "(intercept)"}
        assert len(found.ratings) == (3 if "interactions" in given else 0)
        by_item = model.explain(5001, ALL.item_ids[2], by="item", **given)
        assert abs(by_item.prediction - expected) < 1e-4
    with pytest.raises(UnknownIdError, match="user 4711 is unknown; expected one of the 2 of features"):
        model.explain(4711, ALL.item_ids[2], features=features)


def test_a_planted_feature_carries_the_score() -> None:
    """Users like the items of the genre that is their own, and a new item of it."""
    rng = np.random.default_rng(0)
    likes = rng.integers(3, size=150)[:, None] == np.arange(30) % 3
    users, items = np.nonzero((rng.random(likes.shape) < 0.5) & (np.arange(30) < 27))
    genres = pa.table({"item_id": np.arange(30), "genre": [("war", "love", "crime")[i % 3] for i in range(30)]})
    model = ALS(n_factors=4, regularization=0.05, item_feature_regularization=0.5)
    model.fit(Interactions.from_arrays(users, items, np.where(likes, 5.0, 1.0)[users, items]), item_features=genres)

    for user in np.flatnonzero(likes[:, 0])[:10].tolist():
        shares = {term.feature: term.contribution for term in model.explain(user, 27, by="item").features}
        assert shares["genre=war"] > 2 * abs(shares["(intercept)"])
        other = {term.feature: term.contribution for term in model.explain(user, 28, by="item").features}
        assert other["genre=love"] < 0


def test_a_model_without_features_has_ratings_of_the_item_alone() -> None:
    found = ALS(**SIZE).fit(TRAIN).explain(ALL.user_ids[0], ALL.item_ids[8], by="item")

    assert kinds(found) - {"remainder"} == {"mean", "user bias", "item bias", "ratings of the item"}


def test_the_ratings_of_the_item_are_needed() -> None:
    model = ALS(**SIZE, **STRENGTHS).fit(TRAIN, item_features=ITEM_FEATURES, user_features=USER_FEATURES)
    model.restore(dataclasses.replace(model.fitted, values=None), model.history)

    with pytest.raises(ModelError, match="by which the factors of item 8 are explained; train again"):
        model.explain(ALL.user_ids[0], ALL.item_ids[8], by="item")
    assert model.explain(ALL.user_ids[0], ALL.item_ids[COLD_ITEMS[0]], by="item").features
    assert model.explain(ALL.user_ids[COLD_USERS[0]], ALL.item_ids[8]).features


def test_only_equations_of_items_explain_by_item() -> None:
    for model in (SGD(**SIZE), Bias()):
        with pytest.raises(ParameterError, match=f"by is 'item', .* and this one is of {type(model).__name__}"):
            model.fit(TRAIN).explain(ALL.user_ids[0], ALL.item_ids[0], by="item")
    with pytest.raises(ParameterError, match="by is 'pair'"):
        ALS(**SIZE).fit(TRAIN).explain(ALL.user_ids[0], ALL.item_ids[0], by="pair")
    with pytest.raises(ParameterError, match="trained without user_features"):
        ALS(**SIZE).fit(TRAIN).explain(ALL.user_ids[0], ALL.item_ids[0], features=USER_FEATURES)
