"""``fastmf train`` and ``recommend`` with files of features: the models and answers of the library."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf import Features
from fastmf.cli import main
from fastmf.errors import ParameterError
from tests.hybrid import PARTS, item_table, items, ratings, user_table, users

Done = CompletedProcess[str]
SMALL = ("--factors", 4, "--epochs", 2, "--json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ratings().to_parquet(tmp_path / "ratings.parquet")
    pq.write_table(item_table(), tmp_path / "items.parquet")
    pq.write_table(user_table(), tmp_path / "users.parquet")
    return tmp_path


def train(call_fastmf: Callable[..., Done], *options: object, model: str = "als", status: int = 0) -> Done:
    arguments = ("train", "ratings.parquet", "--model", model, "--output", "model", *SMALL)
    return call_fastmf(*arguments, *options, status=status)


def require_equal(model: Any, expected: Any) -> None:
    for part in PARTS:
        np.testing.assert_array_equal(getattr(model, part), getattr(expected, part))


BOTH = ("--item-features", "items.parquet", "--user-features", "users.parquet")


@pytest.mark.parametrize("name", ["als", "implicit-als"])
def test_train_gives_the_model_of_the_library(name: str, folder: Path, call_fastmf: Callable[..., Done]) -> None:
    done = train(call_fastmf, *BOTH, model=name)

    kind = {"als": fastmf.ALS, "implicit-als": fastmf.ImplicitALS}[name]
    expected = kind(n_factors=4, n_epochs=2).fit(ratings(), item_features=items(), user_features=users())
    model = fastmf.load(folder / "model")
    require_equal(model, expected)
    assert len(model.item_ids) == 46
    assert set(json.loads(done.stdout)["chosen"]) >= {"item_feature_regularization", "user_feature_regularization"}


def test_a_strength_and_columns_reach_the_model(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    options = ("--item-feature-id", "film", "--item-feature-columns", "genre", "year")
    options += ("--item-feature-categories", "year")
    whole = item_table().column("year").cast(pa.int64(), safe=False)
    table = item_table().set_column(2, "year", whole)
    pq.write_table(table.rename_columns(["film", *table.column_names[1:]]), folder / "films.parquet")

    train(call_fastmf, "--item-features", "films.parquet", *options, "--item-feature-regularization", 2)

    features = Features.from_arrow(table, columns=["genre", "year"], categories=["year"])
    model = fastmf.ALS(n_factors=4, n_epochs=2, item_feature_regularization=2).fit(ratings(), item_features=features)
    require_equal(fastmf.load(folder / "model"), model)


def test_a_row_for_each_pair(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    pairs = pa.table({"item_id": [0, 0, 1, 44, 44], "tag": ["a", "b", "a", "b", "b"], "much": [1.0, 2, 3, 4, 5]})
    pq.write_table(pairs, folder / "pairs.parquet")
    options = ("--item-features", "pairs.parquet", "--item-feature-name", "tag", "--item-feature-value", "much")

    done = train(call_fastmf, *options, status=1)
    assert "duplicates" in done.stderr
    assert not (folder / "model").exists()
    train(call_fastmf, *options, "--duplicates", "last")

    features = Features.from_arrow(pairs, feature="tag", value="much", duplicates="last")
    model = fastmf.ALS(n_factors=4, n_epochs=2).fit(ratings(), item_features=features)
    require_equal(fastmf.load(folder / "model"), model)


def test_auto_refit_and_resume(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    options = ("--validation-fraction", 0.1, "--refit", "--checkpoint", "checkpoint")
    train(call_fastmf, *BOTH, *options, model="auto")
    saved = fastmf.load(folder / "model")
    train(call_fastmf, *BOTH, *options, "--resume", "--overwrite", model="auto")

    require_equal(fastmf.load(folder / "model"), saved)
    require_equal(
        saved, fastmf.ALS(n_factors=4, n_epochs=2).fit(ratings(), item_features=items(), user_features=users())
    )
    without = train(call_fastmf, *BOTH[:2], *options, "--resume", "--overwrite", model="auto", status=1)
    assert "was made with features of users, and there is no --user-features now" in without.stderr


def test_a_configuration(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    (folder / "run.toml").write_text('item-features = "items.parquet"\n[train]\nitem-feature-columns = ["genre"]\n')
    train(call_fastmf, "--config", "run.toml")
    names = fastmf.load(folder / "model").fitted.features["item"].columns.names.to_pylist()
    assert names == ["genre=g0", "genre=g1", "genre=g2"]
    # What the file has for all commands is not in the way of a model without features.
    (folder / "run.toml").write_text('item-features = "items.parquet"\n')
    train(call_fastmf, "--config", "run.toml", "--overwrite", model="sgd")


@pytest.mark.parametrize(
    ("options", "model", "expected"),
    [
        (BOTH, "sgd", "--item-features is not for --model sgd"),
        (BOTH, "bias", "--item-features is not for --model bias"),
        (BOTH[2:], "bpr", "--user-features is not for --model bpr"),
        (("--item-feature-id", "x"), "als", "--item-feature-id is for the file that --item-features names"),
        ((*BOTH, "--item-feature-value", "x"), "als", "--item-feature-value belongs to --item-feature-name"),
        (
            (*BOTH, "--user-feature-name", "x", "--user-feature-columns", "y"),
            "als",
            "--user-feature-columns is for a file with a row for each user",
        ),
        ((*BOTH, "--item-feature-regularization", 0), "als", "--item-feature-regularization is 0.0; expected"),
        ((*BOTH, "--item-feature-regularization", 1), "sgd", "--item-feature-regularization is not a hyper-parameter"),
    ],
)
def test_options_that_make_no_sense(
    options: tuple[object, ...], model: str, expected: str, folder: Path, call_fastmf: Callable[..., Done]
) -> None:
    done = call_fastmf("train", "ratings.parquet", "--model", model, "--output", "model", *options, status=2)
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--item-features", "no.parquet"), "no.parquet"),
        (("--item-features", "users.parquet"), "--item-features: no column 'item_id'"),
        ((*BOTH, "--item-feature-columns", "no"), "--item-features: no column 'no'"),
        ((*BOTH, "--user-feature-categories", "no"), "--user-features: no column 'no'"),
    ],
)
def test_files_that_cannot_be_used(
    options: tuple[object, ...], expected: str, folder: Path, call_fastmf: Callable[..., Done]
) -> None:
    done = train(call_fastmf, *options, status=1)
    assert expected in done.stderr
    assert not (folder / "model").exists()


@pytest.fixture
def model(folder: Path) -> Any:
    fitted = fastmf.ALS(n_factors=4, n_epochs=2).fit(ratings(), item_features=items(), user_features=users())
    fitted.save(folder / "model")
    newcomers = pa.table({"user_id": [500, 501, 502], "age": ["a0", "a1", "never seen"]})
    pq.write_table(newcomers, folder / "newcomers.parquet")
    return fitted


def recommend(call_fastmf: Callable[..., Done], *options: object, status: int = 0) -> Done:
    arguments = ("recommend", "model", "--output", "recs.parquet", "-k", 3, "--json")
    return call_fastmf(*arguments, *options, status=status)


def test_newcomers_who_have_rated(model: Any, folder: Path, call_fastmf: Callable[..., Done]) -> None:
    history = fastmf.Interactions.from_arrays([500, 600], [1, 2], [5, 4])
    history.to_parquet(folder / "history.parquet")

    done = recommend(call_fastmf, "--for", "history.parquet", "--user-features", "newcomers.parquet")

    given = Features.from_parquet(folder / "newcomers.parquet", "user_id")
    expected = model.recommend_for(history, k=3, features=given)
    assert pq.read_table(folder / "recs.parquet").equals(expected.to_arrow())
    result = json.loads(done.stdout)
    assert (result["n_users"], result["n_unknown_features"]) == (4, 1)
    assert "leaving out 1 of 3 features of people" in done.stderr


def test_newcomers_known_by_features_alone(model: Any, folder: Path, call_fastmf: Callable[..., Done]) -> None:
    recommend(call_fastmf, "--user-features", "newcomers.parquet")

    given = Features.from_parquet(folder / "newcomers.parquet", "user_id")
    expected = model.recommend_for(None, k=3, features=given).to_arrow()
    assert pq.read_table(folder / "recs.parquet").equals(expected)
    found = set(expected.column("user_id").to_pylist())
    assert found == {500, 501}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--user-features", "newcomers.parquet", "--strict"), "leave --strict out"),
        (("--user-features", "newcomers.parquet", "--users", "users.parquet"), "leave --users out"),
        (("--user-feature-id", "x"), "--user-feature-id is for the file that --user-features names"),
    ],
)
def test_options_that_make_no_sense_for_newcomers(
    options: tuple[object, ...], expected: str, model: Any, call_fastmf: Callable[..., Done]
) -> None:
    done = recommend(call_fastmf, *options, status=2)
    assert expected in done.stderr


def test_features_for_a_model_without(folder: Path, model: Any, call_fastmf: Callable[..., Done]) -> None:
    fastmf.ALS(n_factors=4, n_epochs=1).fit(ratings()).save(folder / "model", overwrite=True)
    done = recommend(call_fastmf, "--user-features", "newcomers.parquet", status=2)
    assert "--user-features are given, but the model was trained without user_features" in done.stderr


def test_library_refit_wants_the_features() -> None:
    model = fastmf.ALS(n_factors=4, n_epochs=2).fit(ratings(), item_features=items())
    with pytest.raises(ParameterError, match="was trained with item_features, and there are none now"):
        fastmf.refit(model, ratings())
    require_equal(fastmf.refit(model, ratings(), item_features=items()), model)
    with pytest.raises(ParameterError, match="user_features are given, but the model was trained without"):
        fastmf.refit(model, ratings(), item_features=items(), user_features=users())


def test_log_result_info_and_card_tell_of_features(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    done = train(call_fastmf, *BOTH, "--log", "run.jsonl")

    films, n_rated = items(), fastmf.read_parquet(folder / "ratings.parquet").n_items
    of_items = {"file": "items.parquet", "n_ids": len(films), "n_features": films.n_features}
    assert json.loads(done.stdout)["item_features"] == of_items
    lines = map(json.loads, (folder / "run.jsonl").read_text().splitlines())
    assert next(line for line in lines if line["event"] == "data")["item_features"] == of_items
    fitted = fastmf.load(folder / "model").fitted
    n_described = int(fitted.features["item"].are_described.sum())
    n_unrated = int((fitted.features["item"].are_described & (fitted.counts.of_items == 0)).sum())
    assert 0 < n_unrated <= len(fitted.item_ids) - n_rated
    expected = {"n_features": films.n_features, "n_items": n_described, "n_items_without_ratings": n_unrated}
    assert json.loads(call_fastmf("info", "model", "--json").stdout)["item_features"] == expected
    line = (
        f"- {films.n_features} features of items, from `items.parquet`; {n_described} items have some, {n_unrated} of "
    )
    assert f"{line}them without a training rating" in (folder / "model" / "card.md").read_text().splitlines()


def test_train_from_features_goes_to_recommendations(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    train(call_fastmf, *BOTH, model="implicit-als")

    call_fastmf("recommend", "model", "--output", "recs.parquet", "-k", 46)

    model = fastmf.load(folder / "model")
    known = model.fitted.features["item"].are_described & (model.fitted.counts.of_items == 0)
    unrated = [item for item, is_new in zip(model.item_ids.to_pylist(), known, strict=True) if is_new]
    assert unrated
    assert set(unrated) <= set(pq.read_table(folder / "recs.parquet").column("item_id").to_pylist())


def test_a_start_with_features(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    train(call_fastmf, *BOTH)
    first = fastmf.load(folder / "model")

    train(call_fastmf, *BOTH, "--start", "model", "--overwrite")

    again = fastmf.ALS(n_factors=4, n_epochs=2)
    again.fit(ratings(), start=first, item_features=items(), user_features=users())
    require_equal(fastmf.load(folder / "model"), again)


def test_a_call_as_a_configuration(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    printed = train(call_fastmf, *BOTH, "--item-feature-columns", "genre", "year", "--print-config").stdout
    assert 'item-feature-columns = ["genre", "year"]' in printed.splitlines()
    (folder / "run.toml").write_text(printed)

    call_fastmf("train", "--config", "run.toml")

    features = Features.from_arrow(item_table(), columns=["genre", "year"])
    expected = fastmf.ALS(n_factors=4, n_epochs=2).fit(ratings(), item_features=features, user_features=users())
    require_equal(fastmf.load(folder / "model"), expected)


def test_warnings_and_errors_name_options(folder: Path, call_fastmf: Callable[..., Done]) -> None:
    n = range(60)
    pq.write_table(pa.table({"item_id": n, "title": [f"film {k}" for k in n], "year": n}), folder / "titles.parquet")
    told = train(call_fastmf, "--item-features", "titles.parquet").stderr
    assert "note: --item-features: " in told
    assert "by naming the others in --item-feature-columns" in told
    pq.write_table(pa.table({"item_id": ["a", "b"], "year": [1, 2]}), folder / "texts.parquet")
    told = train(call_fastmf, "--item-features", "texts.parquet", "--overwrite", status=1).stderr
    assert "item_ids of --item-features are string, those of the ratings int64" in told


def test_help_says_what_features_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for command in ("train", "recommend"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told[command] = " ".join(capsys.readouterr().out.split())
    assert "L2 strength r of the map of features, above 0; chosen from the data where it is not set" in told["train"]
    assert "categories of the items for --at-most and --similarity" in told["recommend"]
