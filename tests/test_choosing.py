"""Parameters that `fit` chooses from the data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf import SGD, ImplicitALS, testing
from fastmf.errors import ParameterError

SHAPE: dict[str, Any] = {"n_factors": 4, "n_epochs": 3}


def clicks() -> fastmf.Interactions:
    return testing.power_law(60, 40, 600, seed=0)


def test_what_is_chosen_is_told_and_the_parameters_stay_auto() -> None:
    model = ImplicitALS(**SHAPE)
    assert model.chosen == {}

    model.fit(clicks())

    assert set(model.chosen) == {"unobserved_weight", "regularization"}
    assert model.get_params()["regularization"] == "auto"
    assert model.auto_parameters() == ["regularization", "unobserved_weight"]


def test_the_numbers_give_the_model_that_auto_gives() -> None:
    chosen_for_it = ImplicitALS(**SHAPE).fit(clicks())

    by_hand = ImplicitALS(**SHAPE, **chosen_for_it.chosen).fit(clicks())

    np.testing.assert_array_equal(by_hand.item_factors, chosen_for_it.item_factors)
    assert by_hand.chosen == {}


def test_a_number_that_is_given_is_not_chosen() -> None:
    assert set(ImplicitALS(**SHAPE, unobserved_weight=0.3).fit(clicks()).chosen) == {"regularization"}


def test_users_and_items_without_ratings_do_not_count() -> None:
    whole = clicks()
    part = whole.take(np.flatnonzero((whole.users < 50) & (whole.items > 3)))
    alone = fastmf.Interactions.from_arrays(
        whole.user_ids.to_numpy()[part.users], whole.item_ids.to_numpy()[part.items], part.ratings
    )

    assert ImplicitALS().choose_parameters(part) == pytest.approx(ImplicitALS().choose_parameters(alone), rel=1e-12)


def test_a_saved_model_tells_what_was_chosen(tmp_path: Path) -> None:
    model = ImplicitALS(**SHAPE).fit(clicks())
    model.save(tmp_path / "model")

    loaded = fastmf.load(tmp_path / "model")

    assert loaded.chosen == model.chosen
    assert loaded.get_params()["regularization"] == "auto"


def test_what_is_neither_a_number_nor_auto_is_refused() -> None:
    with pytest.raises(ParameterError, match=r'regularization is "?\'?many.*or "auto" to choose it from the data'):
        SGD(regularization="many")


def test_bpr_chooses_a_step_size() -> None:
    assert fastmf.BPR(**SHAPE, learning_rate="auto").fit(clicks()).chosen["learning_rate"] == 0.1


@pytest.mark.parametrize("kind", [fastmf.SGD, fastmf.SVDpp])
def test_a_step_size_that_is_chosen_and_too_large_becomes_smaller(kind: Any) -> None:
    ratings = testing.low_rank(n_users=50, n_items=200, n_factors=1, density=1.0, noise=0.1)
    epochs: list[int] = []

    model = kind(n_factors=16).fit(ratings, callbacks=[lambda _, record: epochs.append(record["epoch"])])

    assert model.history[-1]["train_rmse"] < 0.5 * model.fitted.data["deviation"]
    assert model.get_params()["learning_rate"] == "auto"
    assert [record["epoch"] for record in model.history] == list(range(1, 16))
    assert epochs[-15:] == list(range(1, 16))
    assert (len(epochs) > 15) == (kind is fastmf.SVDpp)
    by_hand = kind(n_factors=16, **model.chosen).fit(ratings)
    np.testing.assert_array_equal(by_hand.item_factors, model.item_factors)
