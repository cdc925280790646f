"""``card.md``: it says in words what a model is, and nothing depends on it."""

import json
from pathlib import Path
from typing import Any

import pytest

import fastmf
from fastmf.cli import main
from fastmf.keeping.manifest import CARD


@pytest.fixture
def ratings() -> fastmf.Interactions:
    made = fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)
    times = [874724710 + 1000 * n for n in range(made.n_ratings)]
    return fastmf.Interactions.from_arrays(made.users, made.items, made.ratings, times)


def test_a_card_tells_data_parameters_metrics_and_limits(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    model = fastmf.SGD(n_factors=3, n_epochs=2, rating_range=(0, 10)).fit(ratings, validation=ratings)
    model.save(tmp_path / "model", source={"files": ["night/ratings.parquet"]})

    card = (tmp_path / "model" / CARD).read_text()

    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert card.startswith("# SGD model\n\n25 users and 20 items, 3 factors each, stored as float32. Saved 2")
    for line in (
        "- Files: `night/ratings.parquet`",
        "- 160 ratings; 32.000% of all pairs of a user and an item are rated",
        "- Ratings from 1997-09-20 to 1997-09-21",
        f"- Fingerprint of the ratings: {manifest['data']['fingerprint']}",
        f"- `regularization`: auto (the fit chose {model.chosen['regularization']:.4g} from the data)",
        "- `rating_range`: (0, 10)",
        "- A score is a predicted rating between 0 and 10.",
        "- Users and items that were not in the training data are unknown to the model.",
    ):
        assert line in card.splitlines()
    assert f"validation rmse {model.history[-1]['validation_rmse']:.4g}" in card
    assert "cold" not in card
    assert "validation_" not in card


@pytest.mark.parametrize("kind", ["ALS", "BPR", "Bias", "ImplicitALS", "Popularity", "SGD", "SVDpp"])
def test_every_model_has_a_card(kind: str, ratings: fastmf.Interactions, tmp_path: Path) -> None:
    getattr(fastmf, kind)().fit(ratings).save(tmp_path / "model")

    card = (tmp_path / "model" / CARD).read_text()

    assert card.startswith(f"# {kind} model\n")
    assert "None)" not in card
    assert "\n\n\n" not in card
    assert "- A score is " in card


def test_a_card_tells_of_users_and_items_without_ratings(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    train, _ = fastmf.split.random(ratings, test_fraction=0.9, seed=0)
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(train)
    model.save(tmp_path / "model")
    n_cold_users = int(model.fitted.counts.is_cold_user.sum())
    n_cold_items = int((model.fitted.counts.of_items == 0).sum())
    assert n_cold_users * n_cold_items > 0

    card = (tmp_path / "model" / CARD).read_text()

    assert f"- {n_cold_users} users and {n_cold_items} items have no training rating: " in card
    assert "held out" in card


def test_a_card_tells_a_partial_fit_and_a_fit_on_everything_from_others(
    ratings: fastmf.Interactions, tmp_path: Path
) -> None:
    train, validation = fastmf.split.random(ratings, test_fraction=0.2, seed=0)
    model = fastmf.ALS(n_factors=2, n_epochs=3).fit(train, validation=validation)
    refitted = fastmf.refit(model, ratings)
    refitted.save(tmp_path / "refitted")
    model.partial_fit(validation).save(tmp_path / "partial")

    of_all, of_part = ((tmp_path / name / CARD).read_text() for name in ("refitted", "partial"))

    n_epochs = len(refitted.history) - 3
    assert f"- After the last of {n_epochs} epochs on all ratings, those of validation among them: train rmse" in of_all
    assert "- After a partial fit, which solved the rows with new ratings: n users refitted" in of_part


def test_a_card_may_be_edited_removed_and_is_replaced(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    model = fastmf.ALS(n_factors=2, n_epochs=1).fit(ratings)
    model.save(tmp_path / "model")
    (tmp_path / "model" / CARD).write_text("Ours since May.")

    fastmf.load(tmp_path / "model", verify=True)
    model.save(tmp_path / "model", overwrite=True)

    assert (tmp_path / "model" / CARD).read_text().startswith("# ALS model")
    (tmp_path / "model" / CARD).unlink()
    fastmf.load(tmp_path / "model", verify=True)
    assert main(["info", str(tmp_path / "model")]) == 0
    (tmp_path / "model" / CARD).mkdir()
    with pytest.raises(fastmf.errors.OutputExistsError, match=r"would delete them: card\.md/"):
        model.save(tmp_path / "model", overwrite=True)


def test_what_others_have_named_cannot_write_markup(ratings: fastmf.Interactions, tmp_path: Path) -> None:
    model: Any = fastmf.ALS(n_factors=2, n_epochs=1)
    model.fit(ratings, callbacks=[lambda _, record: record.update({"odd": "<b>\n# x"})])
    model.save(tmp_path / "model", source={"files": ["a`\n# Title <script>.parquet"]})

    card = (tmp_path / "model" / CARD).read_text()

    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# ALS model"]
    assert "<" not in card


def test_the_command_tells_the_baseline(
    ratings: fastmf.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ratings.to_parquet("r.parquet")
    train = ["train", "r.parquet", "--model", "als", "--output", "m", "--factors", "3", "--epochs", "1", "--quiet"]

    assert main([*train, "--validation-fraction", "0.2"]) == 0

    baseline = json.loads(Path("m/manifest.json").read_text())["data"]["baseline_validation_rmse"]
    assert (
        f"- The baseline, a model without factors: baseline validation rmse {baseline:.4g}"
        in Path("m/card.md").read_text()
    )
