"""``fastmf tune``: the options reach the search, and what it prints trains the same model again."""

import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.cli.tune import _parse
from fastmf.errors import ParameterError
from fastmf.tuning import Integers, LogUniform, Multiple, Uniform

Done = CompletedProcess[str]
SMALL = ("--model", "als", "--output", "tuned", "--epochs", 2, "--factors", 3)
SPACE = ("--space", "regularization=0.01..1:log")


def test_tune_gives_what_the_library_does(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    options = ("--trials", 4, "--validation-fraction", 0.2, "--metric", "mae", "--seed", 3, "--max-epochs", 4)

    done = call_fastmf("tune", data.ratings, *SMALL, *SPACE, *options, "--json")

    expected = fastmf.tune(
        fastmf.ALS(n_factors=3, n_epochs=2, seed=3),
        fastmf.read_parquet(data.ratings),
        space={"regularization": LogUniform(0.01, 1)},
        n_trials=4,
        validation=0.2,
        metric="mae",
        seed=3,
        max_epochs=4,
    )
    result = json.loads(done.stdout)
    assert (result["metric"], result["score"], result["default_score"]) == (
        "mae",
        expected.score,
        expected.default_score,
    )
    assert result["parameters"] == expected.params
    assert result["python"] == expected.python_on(f"fastmf.read_parquet({str(data.ratings)!r})")
    assert (result["model"], result["model_class"]) == ("tuned/model", "ALS")
    kept = pq.read_table(tmp_path / "tuned/trials.parquet")
    assert kept["scores"].equals(expected.trials["scores"])
    np.testing.assert_array_equal(fastmf.load(tmp_path / "tuned/model").item_factors, expected.model.item_factors)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--seed", 2, "--no-rating-column"),
        ("--validation", "test.parquet"),
        *(("--validation", "other.parquet", "--duplicates", rule) for rule in ("error", "first", "mean")),
    ],
)
def test_the_command_trains_the_model_again(
    options: tuple[object, ...], data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    (tmp_path / "test.parquet").write_bytes(data.test.read_bytes())
    # Of each pair of the ratings, also in this file, with another rating.
    ratings = pq.read_table(data.ratings).slice(0, 100)
    pq.write_table(
        ratings.set_column(2, "rating", pc.subtract(6.0, ratings["rating"]).cast("float32")), "other.parquet"
    )
    done = call_fastmf("tune", data.ratings, *SMALL, *SPACE, "--trials", 3, *options, "--json")
    result = json.loads(done.stdout)
    name, *words = shlex.split(result["command"])

    call_fastmf(*[word.replace("MODEL", "again") for word in words])

    assert name == "fastmf"
    tuned, again = fastmf.load(tmp_path / "tuned/model"), fastmf.load(tmp_path / "again")
    np.testing.assert_array_equal(tuned.user_factors, again.user_factors)
    np.testing.assert_array_equal(tuned.item_factors, again.item_factors)
    in_python = eval(result["python"], {"fastmf": fastmf})
    np.testing.assert_array_equal(tuned.item_factors, in_python.item_factors)


def test_ids_to_validate_on_are_of_the_same_type(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    ratings = pq.read_table(data.ratings).rename_columns({"user_id": "u"})
    pq.write_table(ratings, tmp_path / "text.parquet")
    pq.write_table(ratings.set_column(0, "u", pa.array(range(len(ratings)))), tmp_path / "numbers.parquet")

    for command in ("tune", "train"):
        files = ("text.parquet", "--validation", "numbers.parquet", "--user-column", "u")
        done = call_fastmf(command, *files, *SMALL, status=1)

        assert "the ids in the column 'u' are text in RATINGS and integers in --validation numbers.p" in done.stderr


def test_ratings_that_cannot_be_divided_are_told_in_words_of_the_command(
    tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    pq.write_table(pa.table({"user_id": [1, 2, 3], "item_id": [1, 2, 3], "rating": [1.0, 2.0, 3.0]}), "r.parquet")

    for command in ("tune", "train"):
        done = call_fastmf(command, "r.parquet", *SMALL, "--validation-by", "user", status=1)
        assert '(--validation-by is "user"): of no user are there enough ratings' in done.stderr
        assert "raise --validation-fraction" in done.stderr
        done = call_fastmf(command, "r.parquet", *SMALL, "--rating-column", "stars", status=1)
        assert "or give --no-rating-column: every rating is 1 then" in done.stderr


def test_validation_ratings_of_others_are_told(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    others = pq.read_table(data.ratings)
    users = pa.array([f"other {user}" for user in others["user_id"].to_pylist()])
    pq.write_table(others.set_column(0, "user_id", users), "o.parquet")

    for command in ("tune", "train"):
        done = call_fastmf(command, data.ratings, *SMALL, "--validation", "o.parquet", status=1)
        assert "validation ratings is of a user and an item in training" in done.stderr


def test_people_read_what_they_need(data: Any, call_fastmf: Callable[..., Done]) -> None:
    weak = ("--regularization", 1e-4, "--space", "regularization=1e-4..1e-3:log")  # it learns the noise

    done = call_fastmf("tune", data.ratings, *SMALL, *weak, "--trials", 3)

    lines = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()]
    assert lines[:8] == ["model", "n_trials", "best", "default", "baseline", "seconds", "command", "python"]
    assert "the model is no better than its baseline by rmse (" in done.stdout
    again = call_fastmf("tune", data.ratings, *SMALL, *weak, "--trials", 3, "--json")
    assert json.loads(again.stdout)["warnings"] == [done.stdout.splitlines()[-1]]
    first, *progress = done.stderr.splitlines()
    assert first.startswith("read ")
    assert progress[0].startswith("tune: 0/3 trials best rmse ")
    assert "; trial 1, " in progress[1]
    assert any(line.startswith("tune: 3/3 trials best rmse ") for line in progress)


@pytest.mark.slow
def test_an_interrupted_search_goes_on(data: Any, tmp_path: Path, start_fastmf: Callable[..., Any]) -> None:
    # The third training is interrupted.
    prelude = """
import fastmf, os, signal
fit, done = fastmf.ALS.fit, []
def interrupted(self, *args, **others):
    done.append(1)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return fit(self, *args, **others)
fastmf.ALS.fit = interrupted
"""
    call = ("tune", data.ratings, *SMALL, *SPACE, "--trials", 4, "--quiet")
    process = start_fastmf(*call, prelude=prelude)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "terminated; nothing was left half-written; tuned keeps 2 trials: the same call goes on" in errors
    assert not (tmp_path / "tuned/model").exists()

    again = start_fastmf(*call)
    _, errors = again.communicate(timeout=120)

    assert (again.returncode, errors) == (0, "")
    assert pq.read_table(tmp_path / "tuned/trials.parquet").num_rows == 4
    assert fastmf.load(tmp_path / "tuned/model").n_factors == 3


def test_a_model_for_the_kind_of_data_is_tuned(data: Any, call_fastmf: Callable[..., Done]) -> None:
    call = ("--model", "auto", "--output", "tuned", "--factors", 2, "--epochs", 1, "--trials", 2, "--no-rating-column")

    done = call_fastmf("tune", data.ratings, *call)

    assert "--model auto is implicit-als: " in done.stderr
    assert "--model implicit-als --output MODEL --no-rating-column --factors" in done.stdout


def test_models_without_epochs_have_nothing_to_tune(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("tune", data.ratings, "--model", "popularity", "--output", "tuned", status=2)

    assert "--model popularity has nothing to tune" in done.stderr


def test_another_search_is_refused_in_words_of_the_command(data: Any, call_fastmf: Callable[..., Done]) -> None:
    call_fastmf("tune", data.ratings, *SMALL, *SPACE, "--trials", 1)

    done = call_fastmf("tune", data.ratings, *SMALL, *SPACE, "--trials", 1, "--init-scale", 0.3, status=1)

    assert "--init-scale was 0.1, and is 0.3" in done.stderr
    assert "allow overwriting (--overwrite)" in done.stderr
    call_fastmf("tune", data.ratings, *SMALL, *SPACE, "--trials", 1, "--init-scale", 0.3, "--overwrite")


@pytest.mark.parametrize(
    ("text", "parameter", "expected"),
    [
        ("factors=32,64", "n_factors", [32, 64]),
        ("n_factors=32..64", "n_factors", Integers(32, 64)),
        ("--regularization=0.01..1:log", "regularization", LogUniform(0.01, 1)),
        ("regularization=1e-3..1e-1", "regularization", Uniform(0.001, 0.1)),
        ("learning-rate=x0.5..2", "learning_rate", Multiple(0.5, 2)),
        ("bias-learning-rate=None,0.1", "bias_learning_rate", [None, 0.1]),
        ("no-biases=true,false", "biases", [False, True]),
        ("biases=true", "biases", [True]),
        ("constant-steps=true", "adaptive", [False]),
        ("regularization-scaling=count,none", "regularization_scaling", ["count", "none"]),
    ],
)
def test_spaces_are_read(text: str, parameter: str, expected: object) -> None:
    assert _parse(text, fastmf.SGD()) == (parameter, expected)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("factors", "--space is 'factors'; expected NAME=VALUES"),
        ("factors=", "expected NAME=VALUES"),
        ("factors=a..b", "expected numbers on both sides of the two dots"),
        ("no-biases=1", "expected true, false or both"),
        ("nonsense=1", "'nonsense' is nothing that is searched: expected one of factors, regularization"),
        ("epochs=1,2", "a search finds the number of epochs by itself: leave it out, and bound them by --max-epochs"),
        ("seed=1", "'seed' is nothing that is searched"),
        ("factors=1..", "expected numbers on both sides of the two dots"),
    ],
)
def test_spaces_that_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(ParameterError, match=complaint):
        _parse(text, fastmf.SGD())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--space", "colour=1,2"), "--space is 'colour=1,2'; 'colour' is nothing that is searched"),
        (("--space", "factors=1", "--space", "n_factors=2"), "--space is given twice for n_factors"),
        (("--patience", "1"), "--patience is not an option of a search"),
        (("--metric", "recall@0"), "--metric is 'recall@0'; expected a cut-off of at least 1"),
        (("--space", "factors=0"), "--space has 0 for n_factors: --factors is 0; expected an integer of at least 1"),
        (("--metric", "r2"), "--metric is 'r2'"),
        (("--minutes", "0"), "'0' is not a number above 0"),
        (("--trials", "0"), "'0' is not an integer of at least 1"),
        (("--validation", "a", "--validation-fraction", "0.2"), "--validation-fraction holds some out; give one"),
        (("--validation-by", "time"), "goes by the times of ratings; name their column with --timestamp-column"),
    ],
)
def test_wrong_calls(options: tuple[object, ...], complaint: str, data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("tune", data.ratings, *SMALL, *options, "--quiet", status=2)

    assert complaint in done.stderr
