"""``fastmf train``: the options reach the model, and the model is the one that the library trains."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.cli.model_options import models_by_command_name
from fastmf.models import FactorModel

Done = CompletedProcess[str]
CLASSES = models_by_command_name()
SMALL = ("--factors", 4, "--epochs", 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_train_gives_the_model_of_the_library(
    name: str, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    small = SMALL if issubclass(CLASSES[name], FactorModel) else ()
    done = run_fastmf("train", data.ratings, "--model", name, "--output", "model", *small, "--json")

    result = json.loads(done.stdout)
    model, expected = fastmf.load(tmp_path / "model"), fastmf.load(data.models[name])
    assert type(model) is CLASSES[name]
    # Bit for bit, although one process has compiled its kernels and the other found them in the cache.
    np.testing.assert_array_equal(model.user_factors, expected.user_factors)
    np.testing.assert_array_equal(model.item_factors, expected.item_factors)
    assert model.user_ids.equals(expected.user_ids)
    assert result["history"] == model.history
    assert result["model"] == "model"
    assert result["n_ratings"] == fastmf.read_parquet(data.ratings).n_ratings
    last = {key: value for key, value in model.history[-1].items() if key != "seconds"}
    assert {key: result[key] for key in last} == last
    assert math.isclose(result["seconds"], sum(record["seconds"] for record in model.history))


def test_train_prints_the_last_epoch_for_people(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("train", data.ratings, "--model", "als", "--output", "model", *SMALL)

    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    expected = fastmf.load(data.models["als"]).history[-1]
    assert list(lines) == ["model", "n_ratings", "epoch", "seconds", "train_rmse", "objective"]
    assert (lines["epoch"], lines["train_rmse"]) == ("2", f"{expected['train_rmse']:.4f}")


OPTIONS: list[tuple[str, tuple[object, ...], str, object]] = [
    ("als", ("--factors", 3), "n_factors", 3),
    ("als", ("--epochs", 1), "n_epochs", 1),
    ("als", ("--regularization", 0.5), "regularization", 0.5),
    ("als", ("--regularization-scaling", "none"), "regularization_scaling", "none"),
    ("als", ("--no-biases",), "biases", False),
    ("als", ("--init-scale", 0.2), "init_scale", 0.2),
    ("als", ("--seed", 7), "seed", 7),
    ("sgd", ("--no-biases",), "biases", False),
    ("sgd", ("--learning-rate", 0.02), "learning_rate", 0.02),
    ("sgd", ("--learning-rate-decay", 0.5), "learning_rate_decay", 0.5),
    ("sgd", ("--bias-regularization", 0.3), "bias_regularization", 0.3),
    ("svdpp", ("--implicit-learning-rate", 0.02), "implicit_learning_rate", 0.02),
    ("svdpp", ("--implicit-regularization", 0.3), "implicit_regularization", 0.3),
    ("sgd", ("--rating-range", 0, 6), "rating_range", (0.0, 6.0)),
    ("implicit-als", ("--unobserved-weight", 0.4), "unobserved_weight", 0.4),
    ("implicit-als", ("--alpha", 2), "alpha", 2.0),
    ("implicit-als", ("--weighting", "hu"), "weighting", "hu"),
    ("implicit-als", ("--regularization-exponent", 0.5), "regularization_exponent", 0.5),
]


@pytest.mark.parametrize(("name", "option", "parameter", "value"), OPTIONS)
def test_a_hyper_parameter_reaches_the_model_and_the_others_stay(
    name: str,
    option: tuple[object, ...],
    parameter: str,
    value: object,
    data: Any,
    tmp_path: Path,
    call_fastmf: Callable[..., Done],
) -> None:
    small = () if parameter in ("n_factors", "n_epochs") else SMALL

    call_fastmf("train", data.ratings, "--model", name, "--output", "model", *small, *option, "--quiet")

    defaults = CLASSES[name]().get_params() | ({"n_factors": 4, "n_epochs": 2} if small else {})
    assert defaults[parameter] != value
    assert fastmf.load(tmp_path / "model").get_params() == defaults | {parameter: value}


def test_validation_fraction_holds_out_what_the_random_split_does(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    options = (*SMALL, "--validation-fraction", 0.25, "--seed", 3)

    done = call_fastmf("train", data.ratings, "--model", "implicit-als", "--output", "model", *options, "--json")

    train, validation = fastmf.split.random(fastmf.read_parquet(data.ratings), 0.25, seed=3)
    expected = fastmf.ImplicitALS(n_factors=4, n_epochs=2, seed=3).fit(train, validation=validation)
    result = json.loads(done.stdout)
    assert result["n_ratings"] == train.n_ratings
    assert result["validation_ndcg@10"] == expected.history[-1]["validation_ndcg@10"]
    assert np.array_equal(fastmf.load(tmp_path / "model").item_factors, expected.item_factors)


def test_columns_are_those_that_are_named(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    table = pa.table({"who": [1, 1, 2, 2], "what": ["a", "b", "a", "c"], "stars": [5, 3, 4, 1], "at": [4, 3, 2, 1]})
    pq.write_table(table, tmp_path / "r.parquet")
    named = ("--user-column", "who", "--item-column", "what", "--rating-column", "stars", "--timestamp-column", "at")

    call_fastmf("train", "r.parquet", "--model", "als", "--output", "model", *named, *SMALL)

    model = fastmf.load(tmp_path / "model")
    assert model.item_ids.to_pylist() == ["a", "b", "c"]
    assert model.global_mean == 13 / 4


def test_without_a_rating_column_every_row_counts_1(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    pq.write_table(pa.table({"user_id": [1, 1, 2], "item_id": [1, 2, 1]}), tmp_path / "r.parquet")

    call_fastmf("train", "r.parquet", "--model", "als", "--output", "model", "--no-rating-column", *SMALL)

    assert fastmf.load(tmp_path / "model").global_mean == 1


@pytest.mark.parametrize(("rule", "mean"), [("first", 1.5), ("last", 3.0), ("mean", 2.25), ("sum", 3.5)])
def test_duplicates_are_merged_as_asked(
    rule: str, mean: float, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    table = pa.table({"user_id": [1, 1, 2], "item_id": [1, 1, 2], "rating": [1.0, 4.0, 2.0]})
    pq.write_table(table, tmp_path / "r.parquet")

    call_fastmf("train", "r.parquet", "--model", "als", "--output", "model", "--duplicates", rule, *SMALL)

    assert fastmf.load(tmp_path / "model").global_mean == mean


def test_several_files_are_one_data_set(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("train", data.ratings, data.test, "--model", "als", "--output", "model", *SMALL, "--json")

    both = fastmf.read_parquet([data.ratings, data.test])
    assert json.loads(done.stdout)["n_ratings"] == both.n_ratings
    assert json.loads((tmp_path / "model/manifest.json").read_text())["data"]["files"] == [
        str(data.ratings),
        str(data.test),
    ]


def test_threads_do_not_change_the_model(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    call_fastmf("train", data.ratings, "--model", "sgd", "--output", "model", *SMALL, "--threads", 1)

    expected = fastmf.load(data.models["sgd"])
    assert np.array_equal(fastmf.load(tmp_path / "model").user_factors, expected.user_factors)


VALIDATION = ("train", "timed.parquet", "--output", "model", "--timestamp-column", "timestamp", *SMALL)


@pytest.fixture
def timed(data: Any, tmp_path: Path) -> fastmf.Interactions:
    """Ratings with times, in a file of the test's directory."""
    ratings = fastmf.read_parquet(data.ratings)
    times = np.random.default_rng(0).permutation(ratings.n_ratings)
    table = ratings.to_arrow().append_column("timestamp", pa.array(times))
    pq.write_table(table, tmp_path / "timed.parquet")
    return fastmf.read_parquet(tmp_path / "timed.parquet", timestamp="timestamp")


VALIDATION_RULES = [(by, share) for by in ("random", "user", "time") for share in (None, 0.3)] + [("last", None)]


@pytest.mark.parametrize(("by", "fraction"), VALIDATION_RULES)
def test_validation_by_holds_out_what_the_split_of_that_name_does(
    by: str, fraction: float | None, timed: fastmf.Interactions, call_fastmf: Callable[..., Done]
) -> None:
    share = () if fraction is None else ("--validation-fraction", fraction)

    done = call_fastmf(*VALIDATION, "--model", "als", "--validation-by", by, *share, "--json")

    train, validation = fastmf.split.hold_out(timed, by, fraction)
    expected = fastmf.ALS(n_factors=4, n_epochs=2).fit(train, validation=validation)
    result = json.loads(done.stdout)
    assert result["validation"] == {"by": by, "n_ratings": len(validation)}
    assert result["n_ratings"] == len(train)
    assert result["validation_rmse"] == expected.history[-1]["validation_rmse"]
    assert f"held out {len(validation)} ratings for validation" in done.stderr


def test_validation_ratings_may_be_a_file(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf(
        "train", data.ratings, "--model", "als", "--output", "m", *SMALL, "--validation", data.test, "--json"
    )

    train, validation = fastmf.read_parquet(data.ratings), fastmf.read_parquet(data.test)
    expected = fastmf.ALS(n_factors=4, n_epochs=2).fit(train, validation=validation)
    result = json.loads(done.stdout)
    assert result["validation"] == {"file": str(data.test), "n_ratings": len(validation)}
    assert result["validation_rmse"] == expected.history[-1]["validation_rmse"]
    assert result["n_ratings"] == len(train)


@pytest.mark.parametrize("patience", [(), ("--patience", 1)])
@pytest.mark.parametrize("validation", ["file", "share"])
def test_refit_saves_a_model_of_everything_and_shows_the_metrics_of_the_validation(
    validation: str, patience: tuple[object, ...], data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    train, held_out = fastmf.read_parquet(data.ratings), fastmf.read_parquet(data.test)
    options: tuple[object, ...] = ("--validation", data.test)
    whole = fastmf.read_parquet([data.ratings, data.test])
    if validation == "share":
        options, whole = ("--validation-fraction", 0.2), train
        train, held_out = fastmf.split.random(train, 0.2)
    small = ("--factors", 4, "--epochs", 9, "--regularization", 0.01)

    done = call_fastmf(
        "train", data.ratings, "--model", "als", "--output", "model", *small, *options, *patience, "--refit", "--json"
    )

    model = fastmf.ALS(n_factors=4, n_epochs=9, regularization=0.01, patience=1 if patience else None)
    model.fit(train, validation=held_out)
    best = min(model.history, key=lambda record: record["validation_rmse"])
    final = fastmf.ALS(n_factors=4, n_epochs=best["epoch"], regularization=0.01).fit(whole)
    result, saved = json.loads(done.stdout), fastmf.load(tmp_path / "model")
    assert best["epoch"] < 9
    assert (result["epoch"], result["validation_rmse"]) == (best["epoch"], best["validation_rmse"])
    assert result["n_ratings"] == len(train)
    assert [record["validation_rmse"] for record in result["history"]] == [
        record["validation_rmse"] for record in model.history
    ]
    assert (result["refit"]["n_epochs"], result["refit"]["n_ratings"]) == (best["epoch"], len(whole))
    np.testing.assert_array_equal(saved.user_factors, final.user_factors)
    assert saved.history == result["history"] + result["refit"]["history"]
    assert f"trained again for {best['epoch']} epoch" in done.stderr
    assert f" on all {len(whole)} ratings" in done.stderr
    stopped = f"stopped after epoch {best['epoch'] + 1}: no better for 1 epoch; epoch {best['epoch']} was the best"
    assert (stopped in done.stderr.splitlines()) is bool(patience)


def test_what_was_saved_after_a_refit_is_said_also_where_nothing_else_is(
    data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    small = ("--model", "als", "--factors", 4, "--epochs", 2, "--regularization", 50)

    done = call_fastmf(
        *("train", data.ratings, *small, "--output", "m", "--validation", data.test, "--refit", "--quiet"),
    )

    saved = fastmf.load(tmp_path / "m")
    epochs = "1 epoch" if saved.n_epochs == 1 else f"{saved.n_epochs} epochs"
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["saved"] == f"trained again, {epochs}, {saved.fitted.data['n_ratings']:,} ratings"
    assert int(rows["n_ratings"]) < saved.fitted.data["n_ratings"]
    assert done.stderr == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_training_that_stops_early_says_so(quiet: bool, data: Any, call_fastmf: Callable[..., Done]) -> None:
    small = ("--model", "als", "--factors", 4, "--epochs", 40, "--regularization", 0.01, "--patience", 2)
    words = ("train", data.ratings, *small, "--output", "m", "--validation", data.test)

    done = call_fastmf(*words, "--json", *(["--quiet"] if quiet else []))

    result = json.loads(done.stdout)
    best, last = result["epoch"], len(result["history"])
    assert best + 2 == last < 40
    stopped = f"stopped after epoch {last}: no better for 2 epochs; epoch {best} is kept"
    assert (stopped in done.stderr.splitlines()) is not quiet


def test_refit_begins_at_the_model_to_start_from(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    train = fastmf.read_parquet(data.ratings)
    start = fastmf.ALS(n_factors=4, n_epochs=9).fit(train)
    start.save(tmp_path / "start")

    done = call_fastmf(
        *("train", data.ratings, "--model", "als", "--output", "model", "--factors", 4, "--epochs", 2),
        *("--start", "start", "--validation-fraction", 0.2, "--refit", "--json"),
    )

    best_epoch = json.loads(done.stdout)["epoch"]
    expected = fastmf.ALS(n_factors=4, n_epochs=best_epoch).fit(train, start=start)
    np.testing.assert_array_equal(fastmf.load(tmp_path / "model").user_factors, expected.user_factors)


def test_refit_reads_everything_before_it_trains(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf(
        *("train", data.ratings, "--model", "als", "--output", "model", *SMALL),
        *("--validation", data.ratings, "--refit"),
        status=1,
    )

    n = len(fastmf.read_parquet(data.ratings))
    assert f"{n} of {n} ratings of --validation {data.ratings} repeat a (user, item) pair of RATINGS" in done.stderr
    assert "ALS: " not in done.stderr


@pytest.mark.parametrize(("stars", "model"), [(True, "als"), (False, "implicit-als")])
def test_auto_is_the_model_for_the_kind_of_data(
    stars: bool, model: str, data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]
) -> None:
    column = () if stars else ("--no-rating-column",)
    options = ("--output", "model", *SMALL, "--init-scale", 0.2, *column)

    done = call_fastmf("train", data.ratings, "--model", "auto", *options, "--json")

    saved = fastmf.load(tmp_path / "model")
    assert type(saved) is CLASSES[model]
    assert json.loads(done.stdout)["model_class"] == type(saved).__name__
    assert saved.get_params() == CLASSES[model](n_factors=4, n_epochs=2, init_scale=0.2).get_params()
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("--model auto"))
    reason = "the ratings have 5 values from 1 to 5" if stars else f"all {len(saved.fitted.seen.indices)} ratings are 1"
    assert line == f"--model auto is {model}: {reason}"


def test_parameters_chosen_from_the_data_are_told(data: Any, tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    train = ("train", data.ratings, "--model", "implicit-als", "--output", "model", *SMALL, "--overwrite")

    done = call_fastmf(*train, "--json")

    chosen = json.loads(done.stdout)["chosen"]
    assert chosen == fastmf.load(tmp_path / "model").chosen
    assert set(chosen) >= {"regularization", "unobserved_weight"}
    told = ", ".join(f"{name}={value:.3g}" for name, value in chosen.items())
    assert f"chose {told} from the data" in done.stderr.splitlines()
    assert json.loads(call_fastmf("info", "model", "--json").stdout)["chosen in the fit"] == chosen
    assert "regularization=" in call_fastmf("info", "model").stdout.partition("\nchosen in the fit ")[2].splitlines()[0]
    explicit = ("--regularization", 0.1, "--unobserved-weight", 0.1)
    done = call_fastmf(*train, *explicit, "--json")
    assert json.loads(done.stdout)["chosen"] == {}
    assert "chose" not in done.stderr
    assert not any(name.startswith("chosen") for name in json.loads(call_fastmf("info", "model", "--json").stdout))


def test_how_strengths_are_scaled_is_told(data: Any, call_fastmf: Callable[..., Done]) -> None:
    done = call_fastmf("train", data.ratings, "--model", "als", "--output", "model", *SMALL)

    (line,) = (line for line in done.stderr.splitlines() if line.startswith("chose "))
    assert "regularization_scaling=none" in line
    shown = call_fastmf("info", "model").stdout.partition("\nchosen in the fit ")[2].splitlines()[0]
    assert "regularization_scaling=none" in shown


def test_advice_is_a_line_in_the_words_of_the_command(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    cells = np.arange(4000)
    pq.write_table(pa.table({"user_id": cells // 40, "item_id": cells % 40}), tmp_path / "clicks.parquet")
    train = (
        "train",
        "clicks.parquet",
        "--model",
        "als",
        "--no-rating-column",
        "--epochs",
        1,
        "--overwrite",
        "--factors",
        50,
    )

    done = call_fastmf(*train, "--output", "model", "--json")

    advice = json.loads(done.stdout)["warnings"]
    assert [line.removeprefix("fastmf: note: ") for line in done.stderr.splitlines() if "note" in line] == advice
    assert advice[0].startswith("all 4,000 ratings are 1: they look like events")
    assert advice[1].startswith("--factors is 50, and there are 40 items")
    quiet = call_fastmf(*train, "--output", "model", "--json", "--quiet")
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)["warnings"] == advice


def test_advice_is_given_once(tmp_path: Path, call_fastmf: Callable[..., Done]) -> None:
    cells = np.arange(4000)
    pq.write_table(pa.table({"user_id": cells // 40, "item_id": cells % 40}), tmp_path / "clicks.parquet")
    options = ("--no-rating-column", "--validation-fraction", 0.1, "--refit", *SMALL)

    done = call_fastmf("train", "clicks.parquet", "--model", "als", "--output", "model", *options)

    assert done.stderr.count("look like events") == 1


def test_the_baseline_stands_beside_validation_metrics(data: Any, call_fastmf: Callable[..., Done]) -> None:
    train = ("train", data.ratings, "--model", "als", "--output", "model", "--overwrite", *SMALL)

    done = call_fastmf(*train, "--validation", data.test)

    ratings, test = fastmf.read_parquet(data.ratings), fastmf.read_parquet(data.test)
    bias = fastmf.evaluate(fastmf.Bias().fit(ratings), test, metrics=["rmse"])["rmse"]
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert "baseline_validation_rmse" not in lines
    assert lines["validation_rmse"].endswith(f", bias-only {bias:.4f}")
    result = json.loads(call_fastmf(*train, "--validation", data.test, "--json").stdout)
    assert math.isclose(result["baseline_validation_rmse"], bias, rel_tol=1e-5)
    assert "baseline_validation_rmse" not in json.loads(call_fastmf(*train, "--json").stdout)
