"""`fastmf.refit`: training again on everything, for the number of epochs that was best in validation."""

from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf.errors import NotFittedError

# Models are to be overfitted here: the best epoch is one of the first.
pytestmark = pytest.mark.filterwarnings("ignore::fastmf.errors.QualityWarning")


def test_refit_trains_on_everything_for_the_best_number_of_epochs() -> None:
    ratings = fastmf.testing.power_law(300, 200, 9000)
    train, validation = fastmf.split.random(ratings, seed=1)
    model = fastmf.ALS(n_factors=8, n_epochs=10, patience=2, regularization=0.02).fit(train, validation=validation)
    before = model.user_factors.copy()

    final = fastmf.refit(model, ratings)

    assert model.best_epoch is not None
    assert model.best_epoch < len(model.history)
    expected = fastmf.ALS(n_factors=8, n_epochs=model.best_epoch, regularization=0.02).fit(ratings)
    np.testing.assert_array_equal(final.user_factors, expected.user_factors)
    assert final.get_params() == expected.get_params()
    assert final.best_epoch is None
    assert final.history[: len(model.history)] == model.history
    again = final.history[len(model.history) :]
    assert [record["epoch"] for record in again] == list(range(1, model.best_epoch + 1))
    assert all(record["refit"] is True for record in again)
    np.testing.assert_array_equal(model.user_factors, before)


def test_refit_knows_the_best_epoch_without_patience() -> None:
    ratings = fastmf.testing.power_law(300, 200, 9000)
    train, validation = fastmf.split.random(ratings, seed=1)
    model = fastmf.ALS(n_factors=8, n_epochs=10, regularization=0.02).fit(train, validation=validation)
    metrics = [record["validation_rmse"] for record in model.history]

    assert fastmf.refit(model, ratings).get_params()["n_epochs"] == 1 + int(np.argmin(metrics)) < 10


def test_without_validation_the_number_of_epochs_stays() -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=3).fit(fastmf.testing.low_rank(20, 10))

    again = fastmf.refit(model, fastmf.testing.low_rank(30, 10))

    assert again.get_params()["n_epochs"] == 3
    assert len(again.user_ids) == 30


def test_refit_begins_where_the_fit_before_did() -> None:
    ratings = fastmf.testing.power_law(300, 200, 9000)
    train, validation = fastmf.split.random(ratings, seed=1)
    start = fastmf.ALS(n_factors=8, n_epochs=10, regularization=0.02).fit(train)
    model = fastmf.ALS(n_factors=8, n_epochs=5, regularization=0.02).fit(train, validation=validation, start=start)

    final = fastmf.refit(model, ratings, start=start)

    expected = fastmf.ALS(n_factors=8, n_epochs=final.n_epochs, regularization=0.02).fit(ratings, start=start)
    np.testing.assert_array_equal(final.user_factors, expected.user_factors)


def test_a_result_can_be_trained_again() -> None:
    ratings = fastmf.testing.power_law(300, 200, 9000)
    train, validation = fastmf.split.random(ratings, seed=1)
    model = fastmf.ALS(n_factors=8, n_epochs=5, regularization=0.02).fit(train, validation=validation)
    final = fastmf.refit(model, ratings)

    again = fastmf.refit(final, ratings)

    np.testing.assert_array_equal(again.user_factors, final.user_factors)
    assert again.get_params() == final.get_params()
    assert [record.get("refit", False) for record in again.history] == [False] * 5 + [True] * (2 * final.n_epochs)


def test_a_model_without_epochs_is_just_trained_again() -> None:
    ratings = fastmf.testing.power_law(30, 20, 200)
    train, validation = fastmf.split.random(ratings, seed=1)

    for model in (fastmf.Popularity().fit(train), fastmf.Popularity().fit(train, validation=validation)):
        again = fastmf.refit(model, ratings)

        np.testing.assert_array_equal(again.item_biases, fastmf.Popularity().fit(ratings).item_biases)
        assert [record.get("refit", False) for record in again.history] == [False, True]
    with pytest.raises(NotFittedError):
        fastmf.refit(fastmf.Popularity(), ratings)


def test_refit_is_saved_with_its_history(tmp_path: Any) -> None:
    ratings = fastmf.testing.low_rank(30, 20)
    train, validation = fastmf.split.random(ratings)
    final = fastmf.refit(fastmf.ALS(n_factors=2, n_epochs=3).fit(train, validation=validation), ratings)

    final.save(tmp_path / "model")

    assert fastmf.load(tmp_path / "model").history == final.history
