"""Four small examples that teach what matrix factorisation does; every number can be checked by hand."""

import numpy as np
import pytest

import fastmf
from fastmf.errors import ParameterError

BACKENDS = ("cpu", "reference")


@pytest.mark.parametrize("backend", BACKENDS)
def test_lesson_1_a_score_is_a_dot_product(backend: str) -> None:
    # Three films described by two features (action, romance), and how much each genre weighs either feature.
    features = np.array([[5, 2], [1, 5], [4, 4]], np.float32)
    genre_weights = np.array([[1.1, 0.4, 0.1], [0.2, 0.5, 1.2]], np.float32)

    scores, genres = fastmf.top_k(features, genre_weights.T, k=3, backend=backend)
    table = np.take_along_axis(scores, np.argsort(genres, axis=1), axis=1)

    # The first film: 5·1.1 + 2·0.2 = 5.9, 5·0.4 + 2·0.5 = 3.0, 5·0.1 + 2·1.2 = 2.9: the first genre is the best.
    np.testing.assert_allclose(table, [[5.9, 3.0, 2.9], [2.1, 2.9, 6.1], [5.2, 3.6, 5.2]], rtol=1e-6)
    assert genres[0].tolist() == [0, 1, 2]
    assert genres[1, 0] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_lesson_2_the_best_film_points_the_way_the_user_does(backend: str) -> None:
    users = np.array([[0.9, 0.2, 0.1, 0.8], [0.1, 0.8, 0.7, 0.2], [0.8, 0.7, 0.1, 0.1]], np.float32)
    films = np.array([[0.8, 0.1, 0.1, 0.9], [0.2, 0.9, 0.8, 0.1]], np.float32)

    scores, best = fastmf.top_k(users, films, k=2, backend=backend)

    np.testing.assert_allclose(scores, [[1.47, 0.52], [1.32, 0.41], [0.88, 0.81]], rtol=1e-6)
    assert best.tolist() == [[0, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_lesson_3_users_and_items_live_in_the_same_space(backend: str) -> None:
    users, films = np.ones((3, 4), np.float32), np.ones((2, 5), np.float32)

    with pytest.raises(ParameterError) as error:
        fastmf.top_k(users, films, k=1, backend=backend)

    # The message names both shapes, so that the reader sees which of the two is wrong.
    assert "(3, 4)" in str(error.value)
    assert "(2, 5)" in str(error.value)
    assert "same n_factors" in str(error.value)


PRESENT = {
    ("U1", "A"): 5,
    ("U1", "B"): 4,
    ("U2", "A"): 3,
    ("U2", "C"): 4,
    ("U2", "D"): 2,
    ("U3", "B"): 5,
    ("U3", "C"): 5,
}
MISSING = [("U1", "C"), ("U1", "D"), ("U2", "B"), ("U3", "A"), ("U3", "D")]

EXPLICIT_MODELS = [
    pytest.param(fastmf.SGD(n_factors=2, n_epochs=100, rating_range=(1, 5)), id="SGD"),
    pytest.param(fastmf.ALS(n_factors=2, n_epochs=15, regularization=0.05), id="ALS"),
]


def table_of(ratings: dict[tuple[str, str], int]) -> fastmf.Interactions:
    users, items = zip(*ratings, strict=True)
    return fastmf.Interactions.from_arrays(users, items, list(ratings.values()))


def predict(model: fastmf.SGD | fastmf.ALS, pairs: list[tuple[str, str]]) -> np.ndarray:
    users, items = zip(*pairs, strict=True)
    return model.predict(users, items)


@pytest.mark.parametrize("model", EXPLICIT_MODELS)
def test_lesson_4_a_missing_cell_is_predicted_inside_the_rating_range(model: fastmf.SGD | fastmf.ALS) -> None:
    model.fit(table_of(PRESENT))

    predictions = predict(model, MISSING)

    assert np.all((predictions >= 1) & (predictions <= 5)), predictions


@pytest.mark.parametrize("model", EXPLICIT_MODELS)
def test_lesson_4_a_missing_cell_is_unknown_and_not_0(model: fastmf.SGD | fastmf.ALS) -> None:
    # Had the missing cells been read as 0, this is the table that would have been learned, and its zeros with it.
    zeros = table_of(PRESENT | dict.fromkeys(MISSING, 0))
    as_zeros = type(model)(**model.get_params() | ({"rating_range": (0, 5)} if isinstance(model, fastmf.SGD) else {}))

    unknown = predict(model.fit(table_of(PRESENT)), MISSING)
    zero = predict(as_zeros.fit(zeros), MISSING)

    assert unknown.min() > 2.5
    assert zero.mean() < unknown.mean() - 1


def test_lesson_4_only_what_is_present_is_trained_on() -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=3, regularization=0.05).fit(table_of(PRESENT))

    errors = np.array(list(PRESENT.values())) - predict(model, list(PRESENT))

    # The mean is that of the 7 cells of the table, and so is the error that training reports: no other cell counts.
    assert model.global_mean == pytest.approx(28 / 7)
    assert model.history[-1]["train_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
