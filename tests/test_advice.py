"""Warnings that teach: given where a person would want them, and nowhere else. And the model to begin with."""

import re
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastmf
from fastmf.errors import ParameterError, QualityWarning
from fastmf.models import advice
from fastmf.models.feedback import feedback_of

SMALL: dict[str, Any] = {"n_factors": 4, "n_epochs": 2}


def on_cells(values: "np.typing.NDArray[Any]", n_users: int = 100) -> fastmf.Interactions:
    """Put values into different cells, each user's beside one another."""
    n_items = -(-len(values) // n_users)
    cells = np.arange(len(values))
    return fastmf.Interactions.from_arrays(cells // n_items, cells % n_items, values.astype(np.float32))


def drawn(values: list[float], shares: list[float], n: int = 4000) -> "np.typing.NDArray[Any]":
    return np.random.default_rng(0).choice(values, n, p=np.divide(shares, sum(shares)))


RNG = np.random.default_rng(1)

EVENTS: dict[str, tuple["np.typing.NDArray[Any]", str]] = {
    "clicks": (np.ones(4000), "all 4,000 ratings are 1"),
    "all the same": (np.full(4000, 5.0), "all 4,000 ratings are 5"),
    "plays": (np.floor(np.exp(RNG.normal(5, 1.5, 4000))) + 1, "as of counts or amounts"),
    "hours": (np.exp(RNG.normal(1, 2, 4000)), "as of counts or amounts"),
    "purchases": (RNG.geometric(0.7, 4000), "of them 1 and larger ones ever rarer"),
    "liked, of five stars": (drawn([4, 4.5, 5], [3, 2, 4]), "no rating is below 4 of 5"),
    "liked, of ten": (drawn([7, 8, 9, 10], [3, 4, 2, 1]), "no rating is below 7 of 10"),
}

RATINGS: dict[str, tuple["np.typing.NDArray[Any]", str]] = {
    "stars": (drawn([1, 2, 3, 4, 5], [1, 2, 5, 7, 5]), "the ratings have 5 values from 1 to 5"),
    "half stars": (drawn([0.5, 1, 2, 3.5, 5], [1, 1, 1, 3, 2]), "the ratings have 5 values from 0.5 to 5"),
    "stars, mostly five": (drawn([1, 2, 3, 4, 5], [9, 4, 6, 14, 67]), "the ratings have 5 values"),
    "stars, mostly one": (drawn([1, 2, 3, 4, 5], [60, 8, 6, 6, 20]), "the ratings have 5 values"),
    "thumbs": (drawn([0, 1], [1, 9]), "the ratings have 2 values from 0 to 1"),
    "thumbs with a sign": (drawn([-1, 1], [1, 9]), "the ratings have 2 values from -1 to 1"),
    "jokes": (RNG.uniform(-10, 10, 4000), "the ratings lie between"),
    "percent": (RNG.uniform(0, 100, 4000), "the ratings lie between"),
    "stars, shifted far": (1000 + drawn([1, 2, 3, 4, 5], [1, 2, 5, 7, 5]), "the ratings have 5 values from 1001"),
    "stars with a wrong one": (np.append(drawn([1, 2, 3, 4, 5], [1, 2, 5, 7, 5]), 999), "the ratings have 6 values"),
    "centred": (RNG.normal(0, 1, 4000), "the ratings lie between"),
    "disliked": (-np.ones(4000), "no rating is above 0"),
}


@pytest.mark.parametrize("kind", EVENTS)
def test_events_are_told_by_their_values(kind: str) -> None:
    values, reason = EVENTS[kind]
    ratings = on_cells(values)

    assert feedback_of(ratings).is_implicit
    assert reason in feedback_of(ratings).reason
    assert isinstance(fastmf.suggest_model(ratings), fastmf.ImplicitALS)
    with pytest.warns(QualityWarning, match="they look like events, and ALS learns to predict ratings"):
        fastmf.ALS(**SMALL).fit(ratings)
    fastmf.ImplicitALS(**SMALL).fit(ratings)


@pytest.mark.parametrize("kind", RATINGS)
def test_ratings_are_told_by_their_values(kind: str) -> None:
    values, reason = RATINGS[kind]
    ratings = on_cells(values)

    assert not feedback_of(ratings).is_implicit
    assert feedback_of(ratings).reason.startswith(reason)
    assert isinstance(fastmf.suggest_model(ratings), fastmf.ALS)
    fastmf.ALS(**SMALL).fit(ratings)


def test_a_suggestion_has_the_defaults_and_takes_what_fit_takes() -> None:
    matrix = on_cells(np.ones(200)).to_scipy()

    assert fastmf.suggest_model(matrix).get_params() == fastmf.ImplicitALS().get_params()
    with pytest.raises(ParameterError, match="ratings is a list"):
        fastmf.suggest_model([1, 2])


def test_a_model_of_what_was_chosen_may_be_given_ratings_and_events() -> None:
    for values, _ in (EVENTS["clicks"], RATINGS["stars"]):
        fastmf.BPR(**SMALL).fit(on_cells(values))
        fastmf.SGD(loss="logistic", **SMALL).fit(on_cells(values))


def test_the_loss_of_the_fit_counts_and_not_that_of_the_fit_before() -> None:
    clicks = on_cells(np.ones(4000))
    model = fastmf.SGD(loss="logistic", **SMALL).fit(clicks)

    with pytest.warns(QualityWarning, match="SGD learns to predict ratings"):
        model.set_params(loss="squared").fit(clicks)


SILENT: dict[str, Callable[[], fastmf.Interactions]] = {
    "low_rank": lambda: fastmf.testing.low_rank(n_users=100, n_items=80),
    "film_club": lambda: fastmf.testing.film_club(n_users=200, n_items=100),
    "power_law": lambda: fastmf.testing.power_law(200, 100, 5000),
}


@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("model", [fastmf.ALS, fastmf.SGD, fastmf.SVDpp, fastmf.ImplicitALS, fastmf.BPR])
def test_there_is_no_advice_on_data_made_for_tests(model: type[fastmf.ALS], name: str) -> None:
    model(n_factors=16).fit(SILENT[name]())  # warnings are errors here


@pytest.mark.parametrize("model", [fastmf.ALS, fastmf.SGD, fastmf.ImplicitALS, fastmf.BPR])
def test_there_is_no_advice_on_a_good_model(model: type[fastmf.ALS]) -> None:
    train, validation = fastmf.split.per_user(fastmf.testing.film_club(n_users=1000, n_items=200))

    enough = {"n_epochs": 30} if model is fastmf.SGD else {}
    model(n_factors=16, **enough).fit(train, validation=validation)


def test_there_is_no_advice_on_little_data() -> None:
    fastmf.ALS(n_factors=500, n_epochs=1).fit(on_cells(np.ones(900), n_users=30))


def test_the_default_number_of_factors_is_not_a_mistake() -> None:
    values, _ = RATINGS["stars"]

    fastmf.ALS(n_epochs=1).fit(on_cells(values, n_users=20))
    one_user = on_cells(values, n_users=1)
    fastmf.ALS(n_epochs=1).fit(one_user)
    with pytest.warns(QualityWarning, match="n_factors is 8, and there is 1 user: .* for example to 1$"):
        fastmf.ALS(n_factors=8, n_epochs=1).fit(one_user)


@pytest.mark.parametrize(("n_users", "what"), [(20, "20 users"), (200, "20 items")])
def test_more_factors_than_items_or_users(n_users: int, what: str) -> None:
    values, _ = RATINGS["stars"]
    ratings = on_cells(values, n_users)

    fastmf.ALS(n_factors=20, n_epochs=1).fit(ratings)
    with pytest.warns(QualityWarning, match=f"n_factors is 21, and there are {what}: .* for example to 5"):
        fastmf.ALS(n_factors=21, n_epochs=1).fit(ratings)


def ratings_to_validate() -> fastmf.split.Split:
    return fastmf.split.random(fastmf.testing.power_law(300, 200, 9000), seed=1)


@pytest.mark.filterwarnings("ignore:in validation, the model is no better")
def test_validation_that_still_improves_at_the_end() -> None:
    train, validation = ratings_to_validate()
    slow = fastmf.SGD(n_factors=4, n_epochs=6, learning_rate=0.01)

    with pytest.warns(QualityWarning, match=r"validation_rmse went from .* in epoch 6, the last one: .*n_epochs"):
        slow.fit(train, validation=validation)
    slow.fit(train)
    slow.set_params(n_epochs=3).fit(train, validation=validation)  # too few to tell
    with pytest.warns(QualityWarning):
        slow.set_params(n_epochs=20).fit(train, validation=validation, callbacks=[])
    stopped_by_hand = slow.fit(train, validation=validation, callbacks=[lambda _, record: record["epoch"] == 6])
    assert len(stopped_by_hand.history) == 6


@pytest.mark.parametrize(
    ("values", "improves"),
    [
        ((1.0, 0.99, 0.98, 0.97), True),
        ((2.0, 1.0, 0.9995, 0.999, 0.9985), False),
        ((2.0, *(1.0 - 0.001 * epoch for epoch in range(30))), False),
        ((1.0, 0.98, 0.985, 0.97), False),
        ((0.99, 0.98, 0.97), False),
        ((1.0, None, 0.98, 0.97), False),
        ((1.0, 0.96, 0.94, 0.935), False),  # 0.003 are to come
        ((0.9, 1.0, 0.99, 0.98, 0.97), False),  # the best was long before
    ],
)
def test_gains_count_if_they_are_many_and_large(values: tuple[float | None, ...], improves: bool) -> None:
    history = [{"epoch": epoch, "validation_rmse": value} for epoch, value in enumerate(values, 1)]

    assert bool(advice._last_gains(history, "rmse")) is improves


def test_gains_of_rankings_go_up() -> None:
    def gains(*values: float) -> str:
        return advice._last_gains([{"validation_ndcg@10": value} for value in values], "ndcg")

    assert gains(0.1, 0.11, 0.12, 0.13) == "validation_ndcg@10 went from 0.12 to 0.13"
    assert gains(0.13, 0.12, 0.11, 0.10) == ""
    assert gains(0.1, 0.1003, 0.1006, 0.1009) == ""


@pytest.mark.filterwarnings("ignore:in validation, the model is no better")
def test_validation_ratings_that_are_training_ratings() -> None:
    train, validation = ratings_to_validate()
    both = fastmf.Interactions.from_arrow(train.to_arrow())

    with pytest.warns(QualityWarning, match=r"8,100 of 8,100 validation ratings are training ratings, too"):
        fastmf.ImplicitALS(**SMALL).fit(both, validation=train)
    with pytest.warns(QualityWarning, match=r"8,100 of 8,100 validation ratings"):
        fastmf.ImplicitALS(**SMALL).fit(train, validation=train)
    fastmf.ImplicitALS(**SMALL).fit(both, validation=validation)


def test_factors_that_have_collapsed() -> None:
    clicks = on_cells(np.ones(4000))
    model = fastmf.ImplicitALS(n_factors=4, n_epochs=5)

    assert not advice.collapsed(model.fit(clicks).fitted)
    with pytest.warns(QualityWarning, match="all scores of this ImplicitALS are about 0: .*Lower regularization"):
        model.set_params(regularization=100.0).fit(clicks)
    assert advice.collapsed(model.fitted)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_collapse_is_one_on_every_scale(scale: float) -> None:
    values, _ = RATINGS["stars"]
    ratings = on_cells(values * scale)

    fastmf.ALS(biases=False, **SMALL).fit(ratings)
    with pytest.warns(QualityWarning, match="all scores of this ALS are about 0"):
        fastmf.ALS(biases=False, regularization=1e6, n_factors=4, n_epochs=4).fit(ratings)


def test_a_model_with_biases_does_without_factors() -> None:
    values, _ = RATINGS["stars"]

    model = fastmf.ALS(regularization=1e6, **SMALL).fit(on_cells(values))

    assert not advice.collapsed(model.fitted)


def test_advice_can_be_left_out() -> None:
    clicks = on_cells(np.ones(4000))

    with advice.silent():
        fastmf.ALS(**SMALL).fit(clicks)
    with pytest.warns(QualityWarning):
        fastmf.ALS(**SMALL).fit(clicks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QualityWarning)
        fastmf.ALS(**SMALL).fit(clicks)


def test_a_warning_points_at_the_code_of_the_user() -> None:
    with pytest.warns(QualityWarning) as caught:
        fastmf.ALS(**SMALL).fit(on_cells(np.ones(4000)))

    assert [warning.filename for warning in caught] == [__file__]


def test_a_model_that_is_no_better_than_its_baseline() -> None:
    values, _ = RATINGS["stars"]
    train, validation = fastmf.split.random(on_cells(values))  # stars at random: there is nothing to learn
    overfitted = fastmf.ALS(n_factors=16, n_epochs=3, regularization=0.001, regularization_scaling="count")

    message = r"in validation, the model is no better than its baseline by rmse \(\S+, bias-"
    with pytest.warns(QualityWarning, match="it overfits"), pytest.warns(QualityWarning, match=message):
        overfitted.fit(train, validation=validation)
    overfitted.fit(train)
    overfitted.fit(train, validation=validation.take(np.arange(99)))  # too few to tell


def test_a_model_of_what_was_chosen_is_compared_with_popularity() -> None:
    train, validation = fastmf.split.random(fastmf.testing.film_club(n_users=200, n_items=100))

    fastmf.ImplicitALS(n_factors=8, n_epochs=3).fit(train, validation=validation)
    with pytest.warns(QualityWarning, match=r"no better than its baseline by ndcg@10 \(\S+, popularity .* Try other"):
        fastmf.ImplicitALS(n_factors=8, n_epochs=3, regularization=0.05).fit(train, validation=validation)


def test_a_fit_that_overfits_is_told_of_patience() -> None:
    train, validation = fastmf.split.random(on_cells(RATINGS["stars"][0]), seed=1)
    model = fastmf.ALS(n_factors=16, n_epochs=4, regularization=0.001, regularization_scaling="count")
    message = (
        r"validation_rmse was best after epoch (\d) of 4 \((\S+)\) and is (\S+) after the last: it overfits\. Set pat"
    )

    with pytest.warns(QualityWarning) as caught:
        model.fit(train, validation=validation)

    found = [re.match(message, str(warning.message)) for warning in caught]
    epoch, best, last = next(match for match in found if match).groups()
    values = [record["validation_rmse"] for record in model.history]
    assert (int(epoch), best, last) == (1 + int(np.argmin(values)), f"{min(values):.4f}", f"{values[-1]:.4f}")


def history_of(values: list[float], name: str) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "seconds": 0.1, name: value} for epoch, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "name", "is_told"),
    [
        ([0.95, 0.9, 0.92, 0.94, 0.96], "validation_rmse", True),
        ([0.95, 0.9, 0.902, 0.904, 0.906], "validation_rmse", False),  # by less than 1 %
        ([0.95, 0.9, 0.96, 0.95, 0.94], "validation_rmse", False),  # it is on its way back
        ([0.95, 0.92, 0.9], "validation_rmse", False),
        ([0.95, 1e-6, 2e-6, 3e-6], "validation_rmse", False),  # nothing against what was learned
        ([0.11, 0.1, 0.09, 0.08], "validation_ndcg@10", True),
        ([0.11, 0.107, 0.104, 0.101], "validation_ndcg@10", False),  # by less than 10 %
        ([0.08, 0.11, 0.07, 0.08, 0.09], "validation_ndcg@10", False),
        ([0.19, 0.22, 0.21, 0.2, 0.218, 0.21, 0.2], "validation_ndcg@10", False),  # up and down
    ],
)
@pytest.mark.parametrize("n_ratings", [99, 400])
@pytest.mark.parametrize("best_epoch", [None, 2])
def test_only_a_clear_and_steady_loss_is_overfitting(
    values: list[float], name: str, is_told: bool, n_ratings: int, best_epoch: int | None
) -> None:
    metric = name.removeprefix("validation_").partition("@")[0]
    model = SimpleNamespace(validation_metrics=(metric,), history=history_of(values, name), best_epoch=best_epoch)

    said = advice._on_overfitting(model, on_cells(np.ones(n_ratings), 10))  # type: ignore[arg-type]

    assert bool(said) is (is_told and n_ratings == 400 and best_epoch is None)
