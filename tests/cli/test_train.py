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

Done = CompletedProcess[str]
CLASSES = models_by_command_name()
SMALL = ("--factors", 4, "--epochs", 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_train_gives_the_model_of_the_library(
    name: str, data: Any, tmp_path: Path, run_fastmf: Callable[..., Done]
) -> None:
    done = run_fastmf("train", data.ratings, "--model", name, "--output", "model", *SMALL, "--json")

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
