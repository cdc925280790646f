"""Analogies find the planted answer, and refuse what has no direction."""

from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf import Interactions, testing
from fastmf.errors import DataError, NotFittedError, ParameterError, UnknownIdError
from fastmf.models import FactorModel, Model

N_THEMES, N_FORMS = 6, 4


def planted(seed: int = 0) -> Interactions:
    """Make ratings of items that have a theme and a form each: item "2b" is theme 2 in form b. Item "cold" has none.

    A user likes a theme as much whatever the form, and a form whatever the theme: tastes add up, and so do factors.
    """
    rng = np.random.default_rng(seed)
    n_users = 300
    themes, forms = rng.standard_normal((n_users, N_THEMES, 1)), rng.standard_normal((n_users, 1, N_FORMS))
    names = [f"{theme}{form}" for theme in range(N_THEMES) for form in "abcd"]
    tastes = (themes + forms).reshape(n_users, -1)
    users, items = np.nonzero(rng.random(tastes.shape) < 0.7)
    ratings = 3 + tastes[users, items] + 0.1 * rng.standard_normal(len(users))
    made = Interactions.from_arrays([*users, 0], [*(names[item] for item in items), "cold"], [*ratings, 1])
    return made.take(np.flatnonzero(made.items != made.n_items - 1))


RATINGS = planted()
N_ITEMS = N_THEMES * N_FORMS
MODELS: dict[str, Model] = {
    "ALS": fastmf.ALS(n_factors=10, n_epochs=10, biases=False),
    "ALS with biases": fastmf.ALS(n_factors=10, n_epochs=10),
    "SGD with biases": fastmf.SGD(n_factors=10, n_epochs=40),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param].fit(RATINGS)


@pytest.fixture(scope="module")
def als() -> FactorModel:
    return fastmf.ALS(n_factors=10, n_epochs=10).fit(RATINGS)


def best(found: fastmf.Similar) -> list[Any]:
    return list(found.to_arrow().column(2).to_pylist())


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_the_planted_answer_is_found(measure: str, model: Model) -> None:
    """Asks for "1b": it is to "1a" as "0b" to "0a"; and so for every pair of themes and of forms."""
    right, asked = 0, 0
    for theme, other in np.ndindex(N_THEMES, N_THEMES):
        for form, another in [("a", "b"), ("c", "a"), ("d", "c")] if theme != other else []:
            added, taken = [f"{other}{form}", f"{theme}{another}"], f"{theme}{form}"
            answers = best(fastmf.analogy(model, added, [taken], k=1, measure=measure))
            right, asked = right + (answers == [f"{other}{another}"]), asked + 1
    assert right >= 0.95 * asked


def test_by_cosine_the_vectors_have_length_1_and_else_their_own(als: FactorModel) -> None:
    names = als.item_ids.to_pylist()
    rows = als.item_factors[[names.index(name) for name in ("0a", "1b", "2c")]].astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    signs = np.array([1, 1, -1])

    for measure, vectors in (("cosine", units), ("dot", rows), ("euclidean", rows)):
        found = fastmf.analogy(als, ["0a", "1b"], "2c", k=20, measure=measure)
        expected = als.similar_items(vector=signs @ vectors, k=20, measure=measure, deny=["0a", "1b", "2c"])
        assert best(found) == best(expected)
        assert len(best(found)) == 20
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert not {"0a", "1b", "2c", "cold"} & set(best(found))


def test_one_item_alone_has_its_neighbours(als: FactorModel) -> None:
    assert best(fastmf.analogy(als, "0a", k=5)) == best(als.similar_items("0a", k=5))
    twice = fastmf.analogy(als, ["0a", "0a", "1b"], k=3)
    assert best(twice) != best(fastmf.analogy(als, ["1b", "1b", "0a"], k=3))


def test_analogies_of_users_and_among_lists() -> None:
    ratings = testing.low_rank(n_users=20, n_items=15, density=0.6, seed=0)
    model = fastmf.ImplicitALS(n_factors=4, n_epochs=3).fit(ratings)

    found = fastmf.analogy(model, [1, 2], [3], k=4, side="user", allow=range(9), deny=[8])

    assert found.kind == "user"
    assert set(best(found)) <= {0, 4, 5, 6, 7}
    assert len(best(found)) == 4


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"positive": ["0a", "9z"]}, UnknownIdError, "1 of 2 ids in 'positive' are unknown to the model: '9z'"),
        ({"negative": "9z"}, UnknownIdError, "1 of 1 ids in 'negative' are unknown to the model: '9z'"),
        (
            {"positive": ["0a"], "negative": ["cold"]},
            UnknownIdError,
            "1 of 1 ids in negative have no training ratings, and so no direction: 'cold'",
        ),
        ({}, ParameterError, "positive and negative have no id; expected at least one"),
        ({"positive": ["0a", "1a"], "negative": ["1a"]}, ParameterError, "positive and negative both have '1a'"),
        ({"positive": [1]}, DataError, "column 'positive' has ids of type int64, the model's are string"),
        ({"positive": "0a", "side": "both"}, ParameterError, "side is 'both'; expected one of 'item', 'user'"),
        ({"positive": "0a", "measure": "l2"}, ParameterError, "measure is 'l2'"),
        ({"positive": "0a", "k": 26}, ParameterError, "k is 26, but there are 25 items; expected at most as many"),
    ],
)
def test_what_is_no_analogy(asked: dict[str, Any], error: type[Exception], message: str, als: FactorModel) -> None:
    with pytest.raises(error) as raised:
        fastmf.analogy(als, **asked)
    assert message in str(raised.value)


def test_vectors_that_cancel_out_are_refused() -> None:
    ratings = testing.low_rank(n_users=20, n_items=15, density=0.6, seed=0)
    model = fastmf.ALS(n_factors=4, n_epochs=1).fit(ratings)
    model.item_factors[1] = -model.item_factors[0]
    with pytest.raises(ParameterError, match="the vectors of positive and negative add up to zero"):
        fastmf.analogy(model, [0, 1])


def test_models_that_have_no_analogies() -> None:
    with pytest.raises(ParameterError, match="Popularity has no factors, by which alone items are compared"):
        fastmf.analogy(fastmf.Popularity().fit(RATINGS), ["0a"])
    with pytest.raises(NotFittedError):
        fastmf.analogy(fastmf.ALS(), ["0a"])
    with pytest.raises(ParameterError, match="model is a str; expected a fitted model of factors"):
        fastmf.analogy("model", ["0a"])  # type: ignore[arg-type]
