"""The best users of items, against predictions of all pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Interactions, testing
from fastmf.errors import DataError, NotFittedError, OutputExistsError, ParameterError, UnknownIdError
from fastmf.models import FactorModel, Model

N_USERS, N_ITEMS = 40, 25
COLD_USER, COLD_ITEM = 6, 3


@pytest.fixture(scope="module")
def train() -> Interactions:
    ratings = testing.power_law(N_USERS, N_ITEMS, 300, n_factors=3, seed=1)
    return ratings.take(np.flatnonzero((ratings.users != COLD_USER) & (ratings.items != COLD_ITEM)))


MODELS: dict[str, Model] = {
    "ALS": fastmf.ALS(n_factors=4, n_epochs=4),
    "SGD with a range": fastmf.SGD(n_factors=4, n_epochs=8, rating_range=(0.5, 5)),
    "SVDpp": fastmf.SVDpp(n_factors=4, n_epochs=4),
    "ImplicitALS": fastmf.ImplicitALS(n_factors=4, n_epochs=4),
    "Bias": fastmf.Bias(),
    "reference": fastmf.ALS(n_factors=4, n_epochs=2, backend="reference"),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, train: Interactions) -> Model:
    return MODELS[request.param].fit(train)


@pytest.fixture(scope="module")
def als(train: Interactions) -> FactorModel:
    return fastmf.ALS(n_factors=4, n_epochs=4).fit(train)


def seen_by(train: Interactions, item: int) -> set[int]:
    return set(train.users[train.items == item].tolist())


def warm_users() -> list[int]:
    return [user for user in range(N_USERS) if user != COLD_USER]


def best(model: Model, item: int, candidates: list[int], k: int) -> tuple[list[int], list[float]]:
    """Rank users by what is predicted for each."""
    scores = dict(zip(candidates, model.predict(candidates, [item] * len(candidates)).tolist(), strict=True))
    ranked = sorted(scores, key=lambda user: (-scores[user], user))[:k]
    return ranked, [scores[user] for user in ranked]


def users_of(found: fastmf.UsersForItems, row: int) -> list[int]:
    return [user for user in found.users[row].tolist() if user >= 0]


def test_users_are_ranked_by_prediction_without_those_who_rated(model: Model, train: Interactions) -> None:
    asked = [9, 2, COLD_ITEM, 0]

    found = model.users_for_item(asked, k=12)

    assert (found.items.tolist(), found.item_ids.to_pylist(), found.n_cold_items) == (asked, asked, 1)
    for row, item in enumerate(asked):
        unseen = [user for user in warm_users() if user not in seen_by(train, item)]
        expected, scores = ([], []) if item == COLD_ITEM else best(model, item, unseen, 12)
        given = users_of(found, row)
        np.testing.assert_allclose(found.scores[row][: len(scores)], scores, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(model.predict(given, [item] * len(given)), scores, rtol=2e-6, atol=2e-6)
        assert not set(given) - set(unseen)
        assert len(set(given)) == len(expected)
        assert (found.scores[row][len(expected) :] == -np.inf).all()


def test_the_bias_of_a_user_counts(als: FactorModel) -> None:
    """Without it, other users would be the best."""
    scores = als.user_factors @ als.item_factors[9]
    assert als.user_biases.any()
    found = als.users_for_item(9, k=5, exclude=None)
    assert found.users[0].tolist() != np.argsort(-scores, kind="stable")[:5].tolist()
    assert found.users[0].tolist() == best(als, 9, warm_users(), 5)[0]


def test_all_items_are_answered_without_any_given(als: FactorModel) -> None:
    found, some = als.users_for_item(k=3), als.users_for_item([N_ITEMS - 1, 0], k=3)

    assert found.item_ids == als.item_ids
    np.testing.assert_array_equal(found.users[[N_ITEMS - 1, 0]], some.users)
    assert repr(some).startswith(f"UsersForItems(2 items, k=3; {N_ITEMS - 1}: {some.users[0][0]}, ")


def test_several_batches_are_one_answer(als: FactorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = als.users_for_item(k=4)
    monkeypatch.setattr("fastmf.answering.scoring._BATCH", 7)
    parts = als.users_for_item(k=4)
    assert parts.to_arrow() == whole.to_arrow()


def test_lists_of_users_for_all_items_or_for_each(als: FactorModel) -> None:
    assert users_of(als.users_for_item(9, k=9, exclude=None, allow=[1, 4, 99]), 0) == best(als, 9, [1, 4], 2)[0]
    left = [user for user in warm_users() if user not in (1, 4)]
    for asked in ([9], list(range(12))):
        found = als.users_for_item(asked, k=9, exclude=None, deny=[1, 4, 99])
        assert users_of(found, asked.index(9)) == best(als, 9, left, 9)[0]
    by_item = als.users_for_item([9, 2], k=9, exclude=None, allow={9: [1, 4], 99: [2]})
    assert (users_of(by_item, 0), users_of(by_item, 1)) == (best(als, 9, [1, 4], 2)[0], [])
    pairs = Interactions.from_arrays([1, 4, 1], [9, 9, 2])
    for name, expected in (("exclude", left), ("deny", left), ("allow", [1, 4])):
        found = als.users_for_item([9], k=30, **{"exclude": None, name: pairs})
        assert users_of(found, 0) == best(als, 9, expected, 30)[0]


def test_items_and_users_without_ratings_when_they_are_included(als: FactorModel) -> None:
    found = als.users_for_item([COLD_ITEM, 9], k=N_USERS, exclude=None, cold="include")
    assert sorted(found.users[0].tolist()) == sorted(found.users[1].tolist()) == list(range(N_USERS))
    assert found.n_cold_items == 1


def test_a_later_fit_has_other_answers(train: Interactions) -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(train)
    before = model.users_for_item(9, k=5).scores
    model.set_params(n_epochs=5).fit(train)
    np.testing.assert_allclose(
        model.users_for_item(9, k=5).scores[0][0], max(best(model, 9, warm_users(), 40)[1]), rtol=1
    )
    assert not np.array_equal(model.users_for_item(9, k=5).scores, before)


def test_the_table_and_its_file(als: FactorModel, tmp_path: Path) -> None:
    found = als.users_for_item([9, 2], k=3)
    table = found.to_arrow()

    assert table.column_names == ["item_id", "rank", "user_id", "score"]
    assert table["item_id"].to_pylist() == [9] * 3 + [2] * 3
    assert table["rank"].to_pylist() == [1, 2, 3] * 2
    assert table["user_id"].to_pylist() == found.users.ravel().tolist()
    found.to_parquet(tmp_path / "users.parquet")
    assert pq.read_table(tmp_path / "users.parquet") == table
    with pytest.raises(OutputExistsError):
        found.to_parquet(tmp_path / "users.parquet")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"items": 99}, UnknownIdError, "1 of 1 ids in 'items' are unknown to the model: 99"),
        ({"items": "a"}, DataError, "column 'items' has ids of type string, the model's are int64"),
        ({"k": 41}, ParameterError, "k is 41, but there are 40 users; expected at most as many"),
        ({"k": 0}, ParameterError, "k is 0; expected an integer of at least 1"),
        ({"exclude": "rated"}, ParameterError, "exclude is 'rated'; expected \"seen\", Interactions, or None"),
        ({"cold": "popular"}, ParameterError, "cold is 'popular'; expected one of 'skip', 'include'"),
        ({"allow": 5}, ParameterError, "allow is 5; expected a list of user ids, a dict or Interactions"),
        ({"deny": {9: 5}}, ParameterError, "deny[9] is 5; expected a list of user ids"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], error: type[Exception], message: str, als: FactorModel) -> None:
    with pytest.raises(error) as raised:
        als.users_for_item(**asked)
    assert message in str(raised.value)


def test_what_is_not_fitted_has_no_users() -> None:
    with pytest.raises(NotFittedError):
        fastmf.ALS().users_for_item(1)


def test_popularity_likes_all_users_alike(train: Interactions) -> None:
    found = fastmf.Popularity().fit(train).users_for_item(9, k=3, exclude=None)
    assert found.users[0].tolist() == [0, 1, 2]
    assert len(set(found.scores[0].tolist())) == 1


def test_items_and_users_that_only_features_know_are_not_cold(train: Interactions) -> None:
    genres = {"item_id": range(N_ITEMS + 2), "genre": [f"genre {n % 3}" for n in range(N_ITEMS + 2)]}
    jobs = {"user_id": range(N_USERS + 2), "job": [f"job {n % 2}" for n in range(N_USERS + 2)]}
    model = fastmf.ImplicitALS(n_factors=4, n_epochs=3)
    model.fit(train, item_features=pa.table(genres), user_features=pa.table(jobs))
    asked, everybody = [COLD_ITEM, N_ITEMS + 1], list(range(N_USERS + 2))
    found = model.users_for_item(asked, k=N_USERS + 2)
    assert found.n_cold_items == 0
    for row, item in enumerate(asked):
        assert users_of(found, row) == best(model, item, everybody, N_USERS + 2)[0]
