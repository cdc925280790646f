"""`fastmf.tune` and `fastmf.cross_validate`."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.errors import (
    DataError,
    DivergenceError,
    OutputError,
    OutputExistsError,
    ParameterError,
    QualityWarning,
)
from fastmf.tuning import Choices, Integers, LogUniform, Multiple, Uniform, default_space
from fastmf.tuning.held_out import hold_out, require_telling
from fastmf.tuning.samplers import LocalSampler, RandomSampler
from fastmf.tuning.search import Plan, Search, rungs
from fastmf.tuning.spaces import as_space, changes_at
from fastmf.tuning.training import Objective, Stop
from fastmf.tuning.trials import DIVERGED, FINISHED, OPEN, ROUND, STOPPED, Trial, to_table

SPACE = {"n_factors": [1, 2, 4], "regularization": LogUniform(0.01, 1)}
# In its built-in space, where ALS has them.
BIASES: Any = {"bias_regularization": 1} if "bias_regularization" in fastmf.ALS().get_params() else {}
SMALL = fastmf.ALS(n_factors=2, n_epochs=3, n_threads=1)


@pytest.fixture(scope="module")
def ratings() -> fastmf.Interactions:
    return fastmf.testing.low_rank(n_users=60, n_items=40, density=0.4, seed=0)


@pytest.fixture(scope="module")
def clicks() -> fastmf.Interactions:
    return fastmf.testing.film_club(n_users=80, n_items=40, mean_ratings=12)


def without_time(table: pa.Table) -> pa.Table:
    return table.drop_columns(["seconds"])


# The vocabulary of spaces.


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999999, 1.0])
@pytest.mark.parametrize("low_and_high", [(0.001, 1.0), (0.123456, 0.1234567), (3.0, 4000.0)])
def test_numbers_are_in_their_range(share: float, low_and_high: tuple[float, float]) -> None:
    low, high = low_and_high

    for of_values in (Uniform(low, high), LogUniform(low, high)):
        assert low <= of_values.at(share) <= high


def test_ranges_by_hand() -> None:
    assert Uniform(-1, 3).at(0.5) == 1
    assert LogUniform(0.01, 1).at(0.5) == 0.1
    assert math.isclose(Multiple(0.25, 4).at(0.5), 1)
    assert [Integers(2, 4).at(share) for share in (0, 0.34, 0.67, 1)] == [2, 3, 4, 4]
    assert [Choices(("a", None)).at(share) for share in (0, 0.49, 0.5, 1)] == ["a", "a", None, None]
    assert LogUniform(0.01, 1).at(0.123456) == 0.0177  # three digits


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Uniform(2, 1), "from 2 to 1; expected the lower bound first"),
        (lambda: LogUniform(0, 1), "low is 0; expected a finite number above 0"),
        (lambda: Multiple(-1, 1), "low is -1"),
        (lambda: Uniform(0, math.inf), "high is inf"),
        (lambda: Integers(3, 2), "high is 2; expected an integer of at least 3"),
        (lambda: Choices(()), "a list of choices is empty"),
    ],
)
def test_ranges_that_make_no_sense(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ParameterError, match=complaint):
        make()


def test_a_multiple_is_of_what_the_model_has_or_would_choose(clicks: fastmf.Interactions) -> None:
    space = {"regularization": Multiple(0.5, 8), "unobserved_weight": Choices((0.1, 0.3)), "n_factors": Multiple(1, 4)}
    shares = {"regularization": 0.5, "unobserved_weight": 0.9, "n_factors": 1.0}

    changes = changes_at(fastmf.ImplicitALS(n_factors=8), space, shares, clicks)

    beside = fastmf.ImplicitALS(n_factors=32, unobserved_weight=0.3).choose_parameters(clicks)
    assert (changes["unobserved_weight"], changes["n_factors"]) == (0.3, 32)
    assert math.isclose(changes["regularization"], 2 * beside["regularization"], rel_tol=5e-3)


def test_there_is_nothing_to_multiply(ratings: fastmf.Interactions) -> None:
    with pytest.raises(ParameterError, match="Multiple for item_regularization, which is None in the model"):
        fastmf.tune(fastmf.SGD, ratings, space={"item_regularization": Multiple(0.5, 2)}, n_trials=2)


@pytest.mark.parametrize("name", fastmf.models.MODELS)
def test_built_in_spaces_are_of_parameters_that_are_not_set(name: str, clicks: fastmf.Interactions) -> None:
    kind = fastmf.models.MODELS[name]
    if not issubclass(kind, fastmf.models.FactorModel):
        return
    space = default_space(kind())

    assert {"n_factors", "regularization"} <= set(space) < set(kind().get_params())
    assert "n_factors" not in default_space(kind(n_factors=7))
    for share in (0.0, 1.0):
        tuned = as_space(kind(), None, clicks)
        changes_at(kind(), tuned, dict.fromkeys(tuned, share), clicks)  # the model takes them


def test_built_in_spaces_leave_out_what_does_nothing() -> None:
    assert "n_negatives" not in default_space(fastmf.SGD())
    assert "n_negatives" in default_space(fastmf.SGD(loss="logistic"))
    assert "unobserved_weight" not in default_space(fastmf.ImplicitALS(weighting="hu"))
    assert "bias_regularization" not in default_space(fastmf.SGD(biases=False))


# Samplers.


def test_random_points_fill_each_range_and_depend_on_the_seed_alone() -> None:
    space = {"a": Uniform(0, 1), "b": Choices((1, 2, 3))}

    points = RandomSampler(space, seed=3).propose(ROUND)

    for name in space:
        assert sorted(int(point[name] * ROUND) for point in points) == list(range(ROUND))
    assert points == RandomSampler(space, seed=3).propose(ROUND)
    assert points != RandomSampler(space, seed=4).propose(ROUND)
    assert points != RandomSampler(space, seed=3).propose(0)


def test_local_points_come_closer_to_the_best() -> None:
    space = {"a": Uniform(0, 1), "b": Uniform(0, 1)}
    sampler = LocalSampler(space, 0, higher_is_better=False, given={"a": 0.25, "b": None})
    assert sampler.propose(0)[0]["a"] == 0.25

    def distance(point: dict[str, float]) -> float:
        return math.hypot(point["a"] - 0.7, point["b"] - 0.2)

    closest = []
    for first in range(0, 20 * ROUND, ROUND):
        points = sampler.propose(first)
        assert all(0 <= share <= 1 for point in points for share in point.values())
        closest.append(sorted(map(distance, points)))
        sampler.learn([Trial(first + n, {}, {}, (distance(point),)) for n, point in enumerate(points)])

    # Six of nine are near the best.
    assert max(each[2] for each in closest[-5:]) < 0.1
    assert min(each[0] for each in closest) < 0.02


def test_shares_of_the_model_as_given() -> None:
    for of_values, value in (
        (Uniform(1, 3), 1.5),
        (LogUniform(0.01, 1), 0.2),
        (Integers(2, 5), 4),
        (Choices(("a", None)), None),
    ):
        share = of_values.share_of(value)
        assert share is not None
        assert of_values.at(share) == value
        assert of_values.share_of(9) is None
    assert Multiple(0.25, 4).share_of("auto") == 0.5
    assert Multiple(2, 4).share_of(3) is None


def test_tpe_without_optuna_says_how_to_get_it(ratings: fastmf.Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)

    with pytest.raises(ParameterError, match=r'needs Optuna; install it with pip install "fastmf\[tune\]"'):
        fastmf.tune(SMALL, ratings, sampler="tpe")


def test_tpe_goes_on_as_it_would_have_gone(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    arguments: dict[str, Any] = {"space": SPACE, "sampler": "tpe", "refit": False}

    whole = fastmf.tune(SMALL, ratings, n_trials=14, **arguments)
    fastmf.tune(SMALL, ratings, n_trials=9, output=tmp_path / "tuned", **arguments)
    continued = fastmf.tune(SMALL, ratings, n_trials=14, output=tmp_path / "tuned", **arguments)

    assert without_time(continued.trials).equals(without_time(whole.trials))
    assert whole.score <= whole.default_score


# Halving, on scores that are made up.


class Known(Search):
    """A search whose trials score 10 - number, and a tenth less with every epoch."""

    log: list[tuple[int, int]]

    def _make_trial(self, number: int, shares: dict[str, float]) -> Trial:
        return Trial(number, {"number": number}, {"number": number})

    def _advance(self, trial: Trial, n_epochs: int) -> Trial:
        self.log.append((trial.number, n_epochs))
        scores = tuple(self.score(trial.number) - 0.1 * epoch for epoch in range(1, n_epochs + 1))
        return trial._replace(scores=scores, state=FINISHED if n_epochs == 9 else OPEN)

    def score(self, number: int) -> float:
        return 10.0 - number


class FakeTrainer:
    def __init__(self, higher_is_better: bool = False) -> None:
        self.model, self.max_epochs, self.stop = fastmf.ALS(n_epochs=1), 9, Stop(None)
        self.objective = Objective("rmse", 10, higher_is_better)


class NoSampler:
    def propose(self, first: int) -> list[dict[str, float]]:
        return [{} for _ in range(ROUND)]

    def learn(self, trials: list[Trial]) -> None:
        assert len(trials) <= ROUND


def make_search(n_trials: int | None, kind: type[Known] = Known, known: Any = None, higher: bool = False) -> Known:
    trainer: Any = FakeTrainer(higher)
    search = kind(trainer, NoSampler(), Plan({}, n_trials, 1, False), known or {}, lambda trials: None)
    search.log = []
    return search


def test_rungs() -> None:
    assert rungs(45) == [5, 15, 45]
    assert rungs(9) == [1, 3, 9]
    assert rungs(10) == [2, 4, 10]
    assert rungs(1) == [1]


def test_the_best_third_goes_on_and_the_first_trial_always() -> None:
    search = make_search(9)

    trials = search.run()

    epochs = [len(trial.scores) for trial in trials]
    assert epochs == [9, 1, 1, 1, 1, 1, 3, 3, 9]
    assert [trial.state for trial in trials] == [FINISHED, *[STOPPED] * 7, FINISHED]


def test_later_rounds_are_compared_with_all_before() -> None:
    class Worse(Known):
        def score(self, number: int) -> float:
            return 1.0 + number

    worse = make_search(18, Worse).run()
    better = make_search(18).run()

    assert [len(trial.scores) for trial in worse[ROUND:]] == [1] * 9
    # Six of 18 go on, then three of 4 + 6.
    assert [len(trial.scores) for trial in better[ROUND:]] == [1, 1, 1, 3, 3, 3, 9, 9, 9]


def test_higher_may_be_better() -> None:
    trials = make_search(9, higher=True).run()

    assert [len(trial.scores) for trial in trials] == [9, 3, 3, 1, 1, 1, 1, 1, 1]


def test_what_has_no_score_does_not_go_on() -> None:
    class Undefined(Known):
        def score(self, number: int) -> float:
            return math.nan

    trials = make_search(9, Undefined).run()

    assert [len(trial.scores) for trial in trials] == [9, *[1] * 8]


def test_a_known_search_trains_nothing_again() -> None:
    whole = make_search(20)
    trials = whole.run()

    again = make_search(20, known={trial.number: trial for trial in trials})

    assert again.run() == trials
    assert again.log == []


@pytest.mark.parametrize("n_done", [0, 1, 5, 12, 20])
def test_a_search_goes_on_wherever_it_was_interrupted(n_done: int) -> None:
    class Interrupted(Known):
        def _take(self, trial: Trial, report: Any) -> None:
            super()._take(trial, report)
            if len(self.log) == n_done:
                raise KeyboardInterrupt

    expected = make_search(20)
    trials, kept = expected.run(), []
    trainer: Any = FakeTrainer()
    first = Interrupted(trainer, NoSampler(), Plan({}, 20, 1, False), {}, lambda trials: kept.append(list(trials)))
    first.log = []
    if n_done:
        with pytest.raises(KeyboardInterrupt):
            first.run()

    second = make_search(20, known={trial.number: trial for trial in kept[-1]} if kept else {})

    assert second.run() == trials
    assert first.log + second.log == expected.log


def test_what_is_known_is_kept_before_the_search_comes_to_it() -> None:
    known = {trial.number: trial for trial in make_search(20).run()}
    kept: list[int] = []
    trainer: Any = FakeTrainer()

    Known(trainer, NoSampler(), Plan({}, 20, 1, False), known, lambda trials: kept.append(len(trials))).run()

    assert kept == [20] * len(kept)


def test_numbers_too_large_for_a_column_are_text() -> None:
    trials = [Trial(0, {}, {"alpha": 1}), Trial(1, {}, {"alpha": 10**30})]

    assert to_table(trials, higher_is_better=True)["alpha"].to_pylist() == ["1", str(10**30)]


def test_trials_of_other_parameters_are_not_taken_over() -> None:
    others = {number: Trial(number, {}, {"number": -1}, (0.0,) * 9, 0.0, FINISHED) for number in range(9)}

    assert make_search(9, known=others).run() == make_search(9).run()


# Tuning.


def test_the_result_is_the_best_trial_trained_on_everything(ratings: fastmf.Interactions) -> None:
    tuned = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=10)

    rows = tuned.trials.to_pylist()
    assert [row["trial"] for row in rows] == list(range(10))
    best = min(rows, key=lambda row: row["score"])
    assert tuned.score == best["score"] == min(best["scores"]) == best["scores"][best["best_epoch"] - 1]
    assert (tuned.model.n_factors, tuned.model.regularization) == (best["n_factors"], best["regularization"])
    assert tuned.model.n_epochs == tuned.params["n_epochs"] == best["best_epoch"]
    expected = type(SMALL)(**tuned.model.get_params()).fit(ratings)
    np.testing.assert_array_equal(tuned.model.user_factors, expected.user_factors)
    assert tuned.metric == "rmse"
    assert (
        eval(tuned.python, {"fastmf": fastmf, "ratings": ratings}).get_params()
        == tuned.model.set_params(n_threads=None).get_params()
    )


def test_scores_are_those_of_fits_with_validation(ratings: fastmf.Interactions) -> None:
    train, validation = fastmf.split.random(ratings, 0.2, seed=5)

    tuned = fastmf.tune(SMALL, ratings, validation=0.2, seed=5, space=SPACE, n_trials=3, max_epochs=4)

    for row in tuned.trials.to_pylist():
        params = {name: row[name] for name in SPACE} if row["trial"] else {"n_factors": 2}
        model = fastmf.ALS(**params, n_epochs=row["n_epochs"]).fit(train, validation=validation)
        assert row["scores"] == [record["validation_rmse"] for record in model.history]


def test_the_default_is_the_model_as_given(ratings: fastmf.Interactions) -> None:
    train, validation = fastmf.split.random(ratings, 0.1, seed=0)
    expected = fastmf.ALS(n_factors=2, n_epochs=3).fit(train, validation=validation).history[-1]["validation_rmse"]

    tuned = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=2)

    assert tuned.default_score == expected
    assert tuned.trials["n_factors"][0].as_py() == 2


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_results_depend_on_the_seed_and_on_nothing_else(
    n_parallel: int, ratings: fastmf.Interactions, tmp_path: Path
) -> None:
    expected = fastmf.tune(fastmf.SGD(n_epochs=3), ratings, space=SPACE, n_trials=10, refit=False)

    model = fastmf.SGD(n_epochs=3, n_threads=n_parallel)
    tuned = fastmf.tune(model, ratings, space=SPACE, n_trials=10, refit=False, n_parallel=n_parallel)

    assert without_time(tuned.trials).equals(without_time(expected.trials))
    other = fastmf.tune(model, ratings, space=SPACE, n_trials=10, refit=False, seed=1)
    assert not without_time(other.trials).equals(without_time(expected.trials))


def test_a_class_is_tuned_with_its_defaults(clicks: fastmf.Interactions) -> None:
    tuned = fastmf.tune(fastmf.ImplicitALS, clicks, n_trials=1, max_epochs=2, metric="recall@5", refit=False)

    assert tuned.metric == "recall@5"
    assert tuned.model.get_params() == fastmf.ImplicitALS(n_epochs=tuned.model.n_epochs).get_params()
    # What the data choose is shown as a number.
    assert tuned.trials.schema.field("unobserved_weight").type == pa.float64()


def test_parameters_that_are_set_stay(clicks: fastmf.Interactions) -> None:
    model = fastmf.ImplicitALS(n_factors=3, unobserved_weight=0.2, n_epochs=2)

    tuned = fastmf.tune(model, clicks, n_trials=3, refit=False)

    assert not {"n_factors", "unobserved_weight"} & set(tuned.trials.column_names)
    assert (tuned.model.n_factors, tuned.model.unobserved_weight) == (3, 0.2)


def test_a_diverged_trial_is_a_trial(ratings: fastmf.Interactions) -> None:
    model = fastmf.SGD(n_factors=2, n_epochs=3, adaptive=False, learning_rate=0.01)

    tuned = fastmf.tune(model, ratings, space={"learning_rate": [1000.0]}, n_trials=3)

    assert tuned.trials["state"].to_pylist()[1:] == [DIVERGED, DIVERGED]
    assert tuned.model.learning_rate == 0.01


def test_all_diverged(ratings: fastmf.Interactions) -> None:
    model = fastmf.SGD(n_factors=2, n_epochs=2, adaptive=False, learning_rate=1000)

    with pytest.raises(DivergenceError, match="none of 1 trials has a score"):
        fastmf.tune(model, ratings, space={"n_factors": [2]}, n_trials=1)


def test_time_ends_a_search_but_not_before_there_is_a_score(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    expected = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=9, refit=False)

    tuned = fastmf.tune(SMALL, ratings, space=SPACE, minutes=1e-9, output=tmp_path / "tuned", refit=False)

    assert tuned.trials["state"].to_pylist() == [OPEN]
    assert len(tuned.trials["scores"][0]) == 1
    more = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=9, output=tmp_path / "tuned", refit=False)
    assert without_time(more.trials).equals(without_time(expected.trials))


@pytest.mark.parametrize("metric", ["mae", "ndcg", "ndcg@3", "auc", "coverage@5"])
def test_metrics(metric: str, ratings: fastmf.Interactions) -> None:
    tuned = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=4, metric=metric, refit=False)

    scores = [row["score"] for row in tuned.trials.to_pylist()]
    assert tuned.score == (min(scores) if metric == "mae" else max(scores))
    assert tuned.metric == ("ndcg@10" if metric == "ndcg" else metric)


# What trials are compared on.


def with_times(ratings: fastmf.Interactions) -> fastmf.Interactions:
    times = np.random.default_rng(0).permutation(ratings.n_ratings).astype(np.int64)
    return fastmf.Interactions.from_arrow(
        ratings.to_arrow().append_column("timestamp", pa.array(times)), timestamp="timestamp"
    )


@pytest.mark.parametrize(
    ("by", "split"),
    [
        ("random", lambda ratings: fastmf.split.random(ratings, 0.2, seed=7)),
        ("user", lambda ratings: fastmf.split.per_user(ratings, 0.2, seed=7)),
        ("time", lambda ratings: fastmf.split.temporal(ratings, 0.2)),
        ("last", fastmf.split.leave_last_out),
    ],
)
def test_parts_are_those_of_the_splits(by: str, split: Callable[..., Any], ratings: fastmf.Interactions) -> None:
    timed = with_times(ratings)

    parts = hold_out(timed, 0.2, by, seed=7)

    train, validation = split(timed)
    assert parts.everything is timed
    assert parts.validation.to_arrow().equals(validation.to_arrow())
    assert parts.train.to_arrow().equals(train.to_arrow())


def test_given_ratings_are_compared_on_and_trained_on_in_the_end(ratings: fastmf.Interactions) -> None:
    train, validation = fastmf.split.random(ratings, 0.2)
    changed = validation.to_arrow().set_column(2, "rating", pa.array(validation.ratings + 1))

    parts = hold_out(train, changed, "random", seed=0)

    assert parts.train.n_ratings == train.n_ratings
    assert parts.everything.n_ratings == ratings.n_ratings
    again = hold_out(ratings, changed, "random", seed=0).everything
    assert again.n_ratings == ratings.n_ratings
    assert math.isclose(again.ratings.sum(), ratings.ratings.sum() + len(changed), rel_tol=1e-5)


def test_users_and_items_without_ratings_are_left_out_once() -> None:
    ratings = fastmf.Interactions.from_arrays([1, 1, 2, 2, 3], [1, 2, 1, 2, 9])

    parts = hold_out(ratings.take(np.array([0, 1, 2])), ratings.take(np.array([3])), "random", 0)

    assert (parts.train.n_users, parts.train.n_items) == (2, 2)


# Results that are kept.


def test_an_interrupted_search_goes_on(
    ratings: fastmf.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=12)
    fit, counter = fastmf.ALS.fit, itertools.count(1)

    def interrupted(self: fastmf.ALS, *args: Any, **others: Any) -> fastmf.ALS:
        if next(counter) == 5:
            raise KeyboardInterrupt
        return fit(self, *args, **others)

    monkeypatch.setattr(fastmf.ALS, "fit", interrupted)
    output = tmp_path / "tuned"
    with pytest.raises(KeyboardInterrupt) as caught:
        fastmf.tune(SMALL, ratings, space=SPACE, n_trials=12, output=output)
    assert caught.value.__notes__ == [f"{output} keeps 4 trials: the same call goes on with them"]
    assert pq.read_table(output / "trials.parquet").num_rows == 4

    tuned = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=12, output=output)

    n_fits = next(counter) - 1
    assert without_time(tuned.trials).equals(without_time(expected.trials))
    kept = pq.read_table(output / "trials.parquet").replace_schema_metadata()
    assert without_time(kept).equals(without_time(expected.trials))
    np.testing.assert_array_equal(fastmf.load(output / "model").item_factors, expected.model.item_factors)
    fastmf.tune(SMALL, ratings, space=SPACE, n_trials=12, output=output)
    assert next(counter) == n_fits + 3  # there was the last training alone


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"metric": "mae"}, 'metric was "rmse", and is "mae"'),
        ({"seed": 1}, "seed was 0, and is 1"),
        ({"max_epochs": 2}, "max_epochs was 9, and is 2"),
        (
            {"validation": fastmf.Interactions.from_arrays([0], [0])},
            'validation was 0.1, and is "ratings of their own"',
        ),
        ({"validation_by": "user"}, 'validation_by was "random", and is "user"'),
        ({"ratings": fastmf.testing.low_rank(60, 30, seed=1)}, "the ratings have changed: their n_items was"),
        ({"space": {"n_factors": [1]}}, "space: n_factors was .*Choices"),
        ({"validation": 0.3}, "validation was 0.1, and is 0.3"),
        ({"model": fastmf.ALS(n_factors=2, n_epochs=3, solver="cg")}, 'parameters: solver was "cholesky", and is "cg"'),
    ],
)
def test_trials_of_another_search_are_refused(
    changes: dict[str, Any], complaint: str, ratings: fastmf.Interactions, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"model": SMALL, "ratings": ratings, "space": SPACE, "n_trials": 1, "refit": False}
    fastmf.tune(**arguments, output=tmp_path / "tuned")

    with pytest.raises(OutputExistsError, match=complaint) as caught:
        fastmf.tune(**(arguments | changes), output=tmp_path / "tuned")

    assert "make the same call to go on, choose another output, or allow overwriting" in str(caught.value)
    fastmf.tune(**(arguments | changes), output=tmp_path / "tuned", overwrite=True)


def test_more_trials_of_the_same_search_are_welcome(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    few = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=9, output=tmp_path / "tuned", refit=False)

    more = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=11, output=tmp_path / "tuned", refit=False)

    assert without_time(more.trials.slice(0, 9)).equals(without_time(few.trials))


@pytest.mark.parametrize("less", [{"n_trials": 2}, {"minutes": 1e-9}])
def test_trials_that_are_kept_all_count(less: dict[str, Any], ratings: fastmf.Interactions, tmp_path: Path) -> None:
    output = tmp_path / "tuned"
    more = fastmf.tune(SMALL, ratings, space=SPACE, n_trials=12, output=output)
    best = fastmf.load(output / "model")

    again = fastmf.tune(SMALL, ratings, space=SPACE, **less, output=output)

    assert again.trials["scores"].equals(more.trials["scores"])
    assert again.score == more.score
    np.testing.assert_array_equal(fastmf.load(output / "model").item_factors, best.item_factors)


def test_a_search_that_starts_anew_removes_the_model_at_once(
    ratings: fastmf.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: fastmf.ALS, *args: Any, **others: Any) -> fastmf.ALS:
        raise KeyboardInterrupt

    fastmf.tune(SMALL, ratings, space=SPACE, n_trials=2, output=tmp_path / "tuned")
    monkeypatch.setattr(fastmf.ALS, "fit", interrupted)

    with pytest.raises(KeyboardInterrupt):
        fastmf.tune(SMALL, ratings, space=SPACE, n_trials=2, seed=1, output=tmp_path / "tuned", overwrite=True)

    assert list((tmp_path / "tuned").iterdir()) == []


def test_the_best_parameters_are_told_where_the_model_cannot_be_saved(
    ratings: fastmf.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: fastmf.ALS, path: Path, **others: Any) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(fastmf.ALS, "save", fails)

    with pytest.raises(OutputError) as caught:
        fastmf.tune(SMALL, ratings, space=SPACE, n_trials=1, output=tmp_path / "tuned")

    (note,) = caught.value.__notes__
    assert note.startswith("the best model was not saved; this trains it: fastmf.ALS(n_factors=2, n_epochs=")


def test_numbers_of_numpy_are_plain_in_the_line_of_python(ratings: fastmf.Interactions) -> None:
    model: Any = fastmf.ALS(n_factors=np.int64(2), n_epochs=np.int32(2), seed=np.int64(3))  # type: ignore[arg-type]

    tuned = fastmf.tune(model, ratings, space={"n_factors": [2]}, n_trials=1, max_epochs=1, refit=False)

    assert tuned.python == "fastmf.ALS(n_factors=2, n_epochs=1, seed=3).fit(ratings)"
    assert tuned.default_score is None  # it has two epochs


def test_outputs_that_are_something_else_are_left_alone(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")

    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="is not empty, and has no trials to go on with"):
            fastmf.tune(SMALL, ratings, n_trials=1, output=tmp_path / "folder", overwrite=overwrite)
        with pytest.raises(OutputError, match="cannot write"):
            fastmf.tune(SMALL, ratings, n_trials=1, output=tmp_path / "file", overwrite=overwrite)


@pytest.mark.parametrize("content", [b"no parquet", None])
def test_damaged_trials_are_told(content: bytes | None, ratings: fastmf.Interactions, tmp_path: Path) -> None:
    if content is None:
        pq.write_table(pa.table({"a": [1]}), tmp_path / "trials.parquet")
    else:
        (tmp_path / "trials.parquet").write_bytes(content)

    with pytest.raises(
        DataError, match=r"is not a file of trials, or is damaged; choose another output, or allow overwriting"
    ):
        fastmf.tune(SMALL, ratings, n_trials=1, output=tmp_path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("trial", [0, 0]),
        ("trial", [0, -1]),
        ("trial", [0, 400]),
        ("state", ["open", "lost"]),
        ("scores", [[0.1] * 99, [0.1]]),
        ("scores", [[None], [0.1]]),
        ("seconds", [-1.0, 0.0]),
        (None, b"[1]"),
        (None, b""),
    ],
)
def test_trials_that_cannot_be_are_told(
    column: str | None, values: Any, ratings: fastmf.Interactions, tmp_path: Path
) -> None:
    fastmf.tune(SMALL, ratings, space=SPACE, n_trials=2, output=tmp_path, refit=False)
    table = pq.read_table(tmp_path / "trials.parquet")
    if column is None:
        table = table.replace_schema_metadata({"fastmf.tuning": values} if values else None)
    else:
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(values, table.schema.field(column).type))
    pq.write_table(table, tmp_path / "trials.parquet")

    with pytest.raises(DataError, match="is not a file of trials, or is damaged"):
        fastmf.tune(SMALL, ratings, space=SPACE, n_trials=2, output=tmp_path, refit=False)

    fastmf.tune(SMALL, ratings, space=SPACE, n_trials=2, output=tmp_path, refit=False, overwrite=True)


def test_validation_ratings_of_others_tell_nothing(ratings: fastmf.Interactions) -> None:
    others = fastmf.Interactions.from_arrays([10**6, 10**6 + 1], [0, 1], [1.0, 2.0])

    with pytest.raises(DataError, match="none of the 2 validation ratings is of a user and an item in training"):
        fastmf.tune(SMALL, ratings, validation=others, n_trials=1)


def test_validation_ratings_of_many_others_tell_little() -> None:
    users, items = np.divmod(np.arange(1200), 40)
    train = fastmf.Interactions.from_arrays(users, items)

    def of_others(n: int) -> fastmf.Interactions:
        return fastmf.Interactions.from_arrays(users[:50] + 1000 * (np.arange(50) < n), items[:50])

    require_telling(train, of_others(25))
    with pytest.warns(QualityWarning, match="26 of 50 validation ratings are of users or items that are not in train"):
        require_telling(train, of_others(26))
    with pytest.warns(QualityWarning, match="there are 1,200 ratings to validate on, and only 1,100 to train on"):
        require_telling(train.take(np.arange(1100)), train)


def test_validation_ratings_that_are_in_training_are_told() -> None:
    ratings = fastmf.testing.low_rank(n_users=60, n_items=40, density=0.5, seed=0)

    with pytest.warns(QualityWarning, match="validation ratings are training ratings, too"):
        fastmf.tune(SMALL, ratings, validation=ratings, space=SPACE, n_trials=1, refit=False)


def test_ids_to_validate_on_are_of_the_same_type(ratings: fastmf.Interactions) -> None:
    others = fastmf.Interactions.from_arrays(["a"], [1])

    with pytest.raises(DataError, match="the ids in the column 'user_id' are integers in ratings and text in valida"):
        fastmf.tune(SMALL, ratings, validation=others, n_trials=1)


@pytest.mark.parametrize(
    ("by", "why"), [("time", "are of the same time"), ("user", "raise validation"), ("last", "no user has two ratings")]
)
def test_ratings_that_cannot_be_divided(by: str, why: str) -> None:
    ratings = fastmf.Interactions.from_arrays([1, 2, 3], [1, 2, 3], timestamps=[5, 5, 5])

    with pytest.raises(DataError, match=f'validation_by is "{by}".*{why}'):
        hold_out(ratings, 0.1, by, seed=0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n_trials": 0}, "n_trials is 0; expected an integer of at least 1"),
        ({"minutes": 0}, "minutes is 0; expected a finite number above 0"),
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"n_parallel": 0}, "n_parallel is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"sampler": "grid"}, "sampler is 'grid'; expected one of 'local', 'random', 'tpe'"),
        ({"metric": "r2"}, "metric is 'r2'; expected one of rmse"),
        ({"metric": "rmse@5"}, "rmse looks at all items: leave @5 out"),
        ({"validation": None}, "validation is None"),
        ({"validation": 1.5}, "validation is 1.5; expected a share"),
        ({"validation": True}, "validation is True; expected a share"),
        ({"validation": 0}, "validation is 0; expected a share"),
        ({"metric": "recall@0"}, "metric is 'recall@0'; expected a cut-off of at least 1"),
        ({"space": [1]}, "space is a list; expected a dict"),
        ({"space": {"n_factors": []}}, "space has an empty list for n_factors"),
        ({"validation_by": "item"}, "validation_by is 'item'; expected one of"),
        ({"space": {}}, "space is empty: it has no range"),
        (
            {"model": fastmf.ALS(n_factors=2, regularization=1, **BIASES)},
            "space is empty: all parameters of the built-in one are set",
        ),
        ({"space": {"n_epochs": [3]}}, "space has 'n_epochs', and a search finds the number of epochs by itself"),
        ({"space": {"seed": [3]}}, "space has 'seed', which is no parameter of ALS that is searched"),
        ({"space": {"n_factors": (2, 4)}}, r"space has \(2, 4\) for n_factors; expected a list of values"),
        ({"space": {"n_factors": [0]}}, "space has 0 for n_factors: n_factors is 0; expected an integer of at least 1"),
        ({"model": fastmf}, "model is a module; expected a model that is trained in epochs"),
        ({"model": int}, "model is int"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: dict[str, Any], complaint: str, ratings: fastmf.Interactions, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=complaint):
        fastmf.tune(**({"model": SMALL, "ratings": ratings} | arguments), output=tmp_path / "tuned")

    assert not (tmp_path / "tuned/trials.parquet").exists()


# Cross-validation.


def test_cross_validation_measures_each_fold(ratings: fastmf.Interactions) -> None:
    found = fastmf.cross_validate(SMALL, ratings, n_folds=3, metrics=["rmse", "ndcg"], k=[3, 5], seed=2)

    expected = [
        fastmf.evaluate(fastmf.ALS(n_factors=2, n_epochs=3).fit(train), test, k=[3, 5], metrics=["rmse", "ndcg"])
        for train, test in fastmf.split.k_fold(ratings, 3, seed=2)
    ]
    for name in ("rmse", "ndcg@3", "ndcg@5"):
        values = [each[name] for each in expected]
        assert found.folds[name].to_pylist() == values
        assert math.isclose(found.mean[name], np.mean(values))
        assert math.isclose(found.deviation[name], np.std(values, ddof=1))
    assert found.folds["fold"].to_pylist() == [0, 1, 2]
    assert found.mean["fit_seconds"] > 0
    with pytest.raises(fastmf.errors.NotFittedError):
        SMALL.fitted  # noqa: B018


def test_cross_validation_of_given_splits(clicks: fastmf.Interactions) -> None:
    splits = [fastmf.split.leave_last_out(with_times(clicks))]

    found = fastmf.cross_validate(fastmf.ImplicitALS(n_factors=2, n_epochs=1), None, splits=splits)

    assert found.folds.column_names == ["fold", "recall@10", "ndcg@10", "fit_seconds", "evaluate_seconds"]
    assert math.isnan(found.deviation["ndcg@10"])


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"n_folds": 1}, ParameterError, "n_folds is 1"),
        ({"n_folds": 10**6}, DataError, "cannot be cut into 1000000 folds"),
        ({"model": "als"}, ParameterError, "model is a str; expected a model of fastmf"),
        ({"metrics": ["r2"]}, ParameterError, "metrics are"),
        ({"splits": []}, ParameterError, "splits is empty"),
        ({"splits": [(1,)]}, ParameterError, "splits has something of type tuple and length 1"),
        ({"splits": [1]}, ParameterError, "splits has something of type int; expected pairs"),
        ({"model": fastmf.ALS(patience=2)}, ParameterError, "patience is 2, and a fold has no ratings to stop by"),
    ],
)
def test_cross_validation_of_what_makes_no_sense(
    arguments: dict[str, Any], error: type[Exception], complaint: str, ratings: fastmf.Interactions
) -> None:
    with pytest.raises(error, match=complaint):
        fastmf.cross_validate(**({"model": SMALL, "ratings": ratings} | arguments))


# Searches of scikit-learn.


def test_a_score_is_the_better_the_larger(ratings: fastmf.Interactions, clicks: fastmf.Interactions) -> None:
    of_ratings, of_clicks = (
        fastmf.ALS(n_factors=2, n_epochs=1).fit(ratings),
        fastmf.BPR(n_factors=2, n_epochs=1).fit(clicks),
    )

    assert of_ratings.score(ratings.to_arrow()) == -fastmf.evaluate(of_ratings, ratings, metrics=["rmse"])["rmse"]
    held_out = fastmf.evaluate(of_clicks, clicks, metrics=["ndcg"])
    assert of_clicks.score(clicks) == held_out["ndcg@10"]


def test_grid_search_of_scikit_learn(ratings: fastmf.Interactions) -> None:
    selection = pytest.importorskip("sklearn.model_selection")

    search = selection.GridSearchCV(fastmf.ALS(n_epochs=2), {"n_factors": [1, 3]}, cv=2, error_score="raise")
    search.fit(ratings.to_arrow())

    assert search.best_params_["n_factors"] in (1, 3)
    assert search.best_estimator_.fitted.n_users == ratings.n_users
