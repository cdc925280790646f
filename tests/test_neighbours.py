"""Neighbours of ids and of vectors, by each measure, against all pairs in float64."""

import itertools
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf import Interactions, testing
from fastmf.answering.closeness import MEASURES, Queries, as_queries, as_rows, nearest
from fastmf.backend import get_backend
from fastmf.errors import DataError, ParameterError, UnknownIdError
from fastmf.models import FactorModel
from fastmf_kernels.topk.arrays import no_rows

N_USERS, N_ITEMS, N_FACTORS = 30, 25, 4
COLD_ITEM = 7
KINDS = ("item", "user")


@pytest.fixture(scope="module")
def train() -> Interactions:
    ratings = testing.power_law(N_USERS, N_ITEMS, 250, n_factors=3, seed=1)
    return ratings.take(np.flatnonzero(ratings.items != COLD_ITEM))


@pytest.fixture(scope="module", params=["ALS", "ImplicitALS", "SGD"])
def model(request: pytest.FixtureRequest, train: Interactions) -> FactorModel:
    kind = getattr(fastmf, request.param)
    fitted: FactorModel = kind(n_factors=N_FACTORS, n_epochs=4).fit(train)
    return fitted


@pytest.fixture(scope="module")
def als(train: Interactions) -> FactorModel:
    return fastmf.ALS(n_factors=N_FACTORS, n_epochs=4).fit(train)


def closeness(vectors: Any, others: Any, measure: str) -> np.ndarray:
    """Return how close each vector is to each other one, in float64; distances are negative."""
    a, b = np.asarray(vectors, np.float64), np.asarray(others, np.float64)
    if measure == "euclidean":
        return -np.linalg.norm(a[:, None] - b[None], axis=2)
    if measure == "cosine":
        a, b = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-300) for each in (a, b))
    return np.asarray(a @ b.T)


def ranked(close: np.ndarray, candidates: list[int], k: int) -> list[int]:
    return sorted(candidates, key=lambda other: (-close[other], other))[:k]


def side(model: FactorModel, kind: str) -> tuple[Any, np.ndarray, list[int]]:
    """Return the method, the factors, and who has ratings."""
    if kind == "user":
        return model.similar_users, model.user_factors, list(range(N_USERS))
    return model.similar_items, model.item_factors, [item for item in range(N_ITEMS) if item != COLD_ITEM]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lists", ["all", "allow", "deny", "both"])
@pytest.mark.parametrize("n", [3, 12])
def test_the_nearest_by_each_measure(kind: str, measure: str, lists: str, n: int, model: FactorModel) -> None:
    find, factors, warm = side(model, kind)
    allow = [1, 2, 4, COLD_ITEM, 11, 13, 17, 19, 999] if lists in ("allow", "both") else None
    deny = [2, 3, COLD_ITEM, 17, 999, 3] if lists in ("deny", "both") else None
    candidates = [one for one in warm if (allow is None or one in allow) and (deny is None or one not in deny)]
    asked = [one for one in range(n + 1) if one != COLD_ITEM]
    vectors = np.random.default_rng(0).standard_normal((n, N_FACTORS))

    by_id = find(asked, k=6, measure=measure, allow=allow, deny=deny)
    by_vector = find(vector=vectors, k=6, measure=measure, allow=allow, deny=deny)

    sign = -1 if measure == "euclidean" else 1
    for found, close, themselves in (
        (by_id, closeness(factors[asked], factors, measure), asked),
        (by_vector, closeness(vectors.astype(np.float32), factors, measure), [-1] * n),
    ):
        assert (found.measure, found.kind, len(found.ids)) == (measure, kind, len(close))
        for row, (one, close_to) in enumerate(zip(themselves, close, strict=True)):
            expected = ranked(close_to, [other for other in candidates if other != one], 6)
            assert [other for other in found.neighbours[row].tolist() if other >= 0] == expected
            scores = found.scores[row][: len(expected)]
            np.testing.assert_allclose(scores, sign * close_to[expected], rtol=1e-6, atol=1e-6)
            assert (found.scores[row][len(expected) :] == -sign * np.inf).all()


def test_the_table_says_whether_vectors_were_asked_for(als: FactorModel) -> None:
    vector = als.item_factors[3].astype(np.float64)

    found = als.similar_items(vector=vector, k=2, measure="euclidean")

    assert found.by_vector
    assert repr(found).startswith("Similar(1 vector, k=2; 0: 3, ")
    assert found.to_arrow().column_names == ["vector", "rank", "similar_item_id", "score"]
    assert found.to_arrow()["vector"].to_pylist() == [0, 0]
    assert found.scores[0][0] == 0
    assert len(als.similar_items(vector=vector, k=N_ITEMS).to_arrow()) == N_ITEMS - 1


def test_an_item_without_ratings_has_no_neighbours_by_any_measure(als: FactorModel) -> None:
    for measure in MEASURES:
        found = als.similar_items([COLD_ITEM, 1], k=3, measure=measure)
        assert (found.n_cold, found.neighbours[0].tolist()) == (1, [-1, -1, -1])
        assert found.scores[0].tolist() == [np.inf if measure == "euclidean" else -np.inf] * 3
        assert set(found.to_arrow()["item_id"].to_pylist()) == {1}


def test_lists_that_leave_nobody(als: FactorModel) -> None:
    for measure, lists in itertools.product(MEASURES, ({"allow": []}, {"allow": [999]}, {"deny": range(N_ITEMS)})):
        assert len(als.similar_items(range(12), k=3, measure=measure, **lists).to_arrow()) == 0
        assert len(als.similar_items(vector=[1, 0, 0, 0], k=3, measure=measure, **lists).to_arrow()) == 0


def nearest_points(vectors: np.ndarray, points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    kernels = get_backend("cpu")
    index = kernels.index_items(as_rows(points, "euclidean"), True, None)
    queries = Queries(as_queries(vectors, "euclidean"), k, no_rows(len(vectors)))
    return nearest(queries, index, "euclidean", kernels, None)


@pytest.mark.parametrize(
    ("offset", "scale", "n_distinct"),
    [(0, 1, 400), (1000, 1e-2, 400), (0, 1e19, 400), (0, 1e-19, 400), (5, 1, 3)],
    ids=["plain", "far from zero", "squares beyond float32", "squares below float32", "many the same"],
)
def test_distances_are_exact_and_so_is_their_order(offset: float, scale: float, n_distinct: int) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((n_distinct, 3))[np.arange(400) % n_distinct]
    points = (offset + scale * drawn).astype(np.float32)
    vectors = (offset + scale * rng.standard_normal((20, 3))).astype(np.float32)
    vectors[0] = 0

    scores, indices = nearest_points(vectors, points, 10)

    distances = np.linalg.norm(vectors[:, None].astype(np.float64) - points[None].astype(np.float64), axis=2)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(distances, expected, axis=1).astype(np.float32))


def test_cosines_of_vectors_do_not_depend_on_their_length(als: FactorModel) -> None:
    vector = np.float32([1, -2, 0.5, 3])
    expected = als.similar_items(vector=vector, k=5)
    for factor in (1e-30, 1e30):
        found = als.similar_items(vector=vector.astype(np.float64) * factor, k=5)
        np.testing.assert_array_equal(found.neighbours, expected.neighbours)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_a_recommender_finds_the_same(als: FactorModel) -> None:
    recommender = fastmf.Recommender(als)
    wanted: dict[str, Any] = {"measure": "euclidean", "allow": range(20), "deny": [4]}

    for asked in ({"item_ids": [2, 3]}, {"vector": [1, 2, 3, 4]}):
        found, expected = (each.similar_items(**asked, k=3, **wanted) for each in (recommender, als))
        assert found.to_arrow() == expected.to_arrow()


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ({}, ParameterError, "got neither of item_ids and vector; expected one of them"),
        ({"item_ids": 1, "vector": [0] * 4}, ParameterError, "got both of item_ids and vector; expected one of them"),
        (
            {"vector": [1, 2]},
            ParameterError,
            "vector has shape (2,); expected (4,) or (n, 4), as the model has 4 factors",
        ),
        ({"vector": np.ones((1, 1, 4))}, ParameterError, "vector has shape (1, 1, 4); expected (4,) or (n, 4)"),
        ({"vector": 3.0}, ParameterError, "vector has shape (); expected (4,) or (n, 4)"),
        ({"vector": [1, np.nan, np.inf, 2]}, ParameterError, "vector has 2 numbers that are NaN or infinite"),
        ({"vector": [1, 2, 3, 1e39]}, ParameterError, "vector has 1 numbers beyond float32"),
        ({"vector": ["a"] * 4}, ParameterError, "vector has type <U1; expected numbers"),
        (
            {"vector": [[1, 2, 3, 4], [0] * 4]},
            ParameterError,
            "vector has only zeros in row 1 (from 0), which has no dir",
        ),
        ({"vector": [1] * 4, "k": 26}, ParameterError, "k is 26, but there are 25 items; expected at most as many"),
        ({"item_ids": 1, "measure": "l1"}, ParameterError, "measure is 'l1'; expected one of 'cosine', 'dot', 'euclid"),
        ({"item_ids": 1, "allow": 5}, ParameterError, "allow is 5; expected a list of item ids"),
        ({"item_ids": 1, "deny": "ab"}, ParameterError, "deny is 'ab'; expected a list of item ids"),
        ({"item_ids": 1, "allow": ["a"]}, DataError, "column 'allow' has ids of type string, the model's are int64"),
        ({"item_ids": 99}, UnknownIdError, "1 of 1 ids in 'item_ids' are unknown to the model: 99"),
    ],
)
def test_what_cannot_be_searched_for(
    wanted: dict[str, Any], error: type[Exception], message: str, als: FactorModel
) -> None:
    with pytest.raises(error) as raised:
        als.similar_items(**wanted)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "vector", [object(), "1,2", [[1, 2], [3]], {"a": 1}, [None] * 4, 1j, [[]], [b"x"] * 4], ids=str
)
def test_what_is_no_vector_is_a_parameter_error(vector: Any, als: FactorModel) -> None:
    for find in (als.similar_items, als.similar_users):
        with pytest.raises(ParameterError, match="vector"):
            find(vector=vector)


def test_no_vectors_have_no_neighbours(als: FactorModel) -> None:
    for measure in MEASURES:
        found = als.similar_items(vector=np.empty((0, N_FACTORS)), k=3, measure=measure)
        assert (len(found.ids), len(found.to_arrow())) == (0, 0)


def test_neighbours_do_not_depend_on_threads(train: Interactions) -> None:
    model = fastmf.ALS(n_factors=N_FACTORS, n_epochs=1, n_threads=1).fit(train)
    for measure in MEASURES:
        one, two = (model.set_params(n_threads=n).similar_users(range(20), 5, measure=measure) for n in (1, 2))
        np.testing.assert_array_equal(one.neighbours, two.neighbours)
        np.testing.assert_array_equal(one.scores, two.scores)
