"""What the library tells `logging`, and that it tells nobody else."""

import inspect
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import fastmf
from fastmf.errors import DataError

SMALL = {"n_factors": 2, "n_epochs": 2, "n_threads": 1}


@pytest.fixture(scope="module")
def ratings() -> fastmf.Interactions:
    return fastmf.testing.low_rank(n_users=40, n_items=20, density=0.4, seed=0)


def whole_job(ratings: fastmf.Interactions, folder: Path) -> None:
    ratings.to_parquet(folder / "ratings.parquet")
    model = fastmf.ALS(**SMALL).fit(fastmf.read_parquet(folder / "ratings.parquet"))
    model.save(folder / "model")
    fastmf.load(folder / "model").recommend_to_parquet(folder / "recs.parquet", k=3)


def test_long_work_tells_its_begin_and_its_end(
    ratings: fastmf.Interactions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fastmf"):
        whole_job(ratings, tmp_path)

    assert {(record.name, record.levelname) for record in caplog.records} == {("fastmf", "INFO")}
    reading = f"reading {ratings.n_ratings} ratings from {tmp_path / 'ratings.parquet'}"
    training = f"training ALS (2 factors of 40 users and 20 items, and {ratings.n_ratings} ratings)"
    saving, recommending = f"saving ALS to {tmp_path / 'model'}", f"recommending to 40 users in {tmp_path}/recs.parquet"
    expected = [f"{work}: {step}" for work in (reading, training, saving) for step in ("begins", "done in ")]
    expected += [f"loaded ALS of 40 users and 20 items from {tmp_path / 'model'}"]
    expected += [f"{recommending}: {step}" for step in ("begins", "done in ")]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(expected)
    for message, start in zip(messages, expected, strict=True):
        assert message.startswith(start)


def test_epochs_are_told_at_the_level_debug(ratings: fastmf.Interactions, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "fastmf"):
        model = fastmf.SGD(**SMALL).fit(ratings)
        fastmf.Bias(n_epochs=2, n_threads=1).fit(ratings)

    epochs = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    assert epochs[0].startswith(f"SGD: 1/2 epochs train_rmse {model.history[0]['train_rmse']:.4g}, seconds ")
    assert epochs[1].startswith("SGD: 2/2 epochs train_rmse")
    assert epochs[2].startswith("Bias: 1/2 epochs")


def test_work_that_fails_tells_why(ratings: fastmf.Interactions, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise DataError("no more")

    with caplog.at_level(logging.INFO, "fastmf"), pytest.raises(DataError):
        fastmf.ALS(**SMALL).fit(ratings, callbacks=[fail])

    assert "by DataError: no more" in caplog.records[-1].getMessage()


def test_a_library_whose_user_asks_for_no_log_prints_nothing(tmp_path: Path) -> None:
    script = f"""
import logging
from pathlib import Path
import fastmf
assert "fastmf" not in logging.root.manager.loggerDict
SMALL = {SMALL!r}
{inspect.getsource(whole_job)}
whole_job(fastmf.testing.low_rank(n_users=40, n_items=20, density=0.4, seed=0), Path("."))
logging.getLogger("fastmf").error("not even an error, without a handler")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_partial_fits_and_swaps_are_told(
    ratings: fastmf.Interactions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = fastmf.SGD(**SMALL).fit(ratings)
    recommender = fastmf.Recommender(model)
    model.save(tmp_path / "model")
    caplog.clear()

    with caplog.at_level(logging.INFO, "fastmf"):
        for fitted in (model, fastmf.ALS(**SMALL).fit(ratings)):
            fitted.partial_fit(ratings)
        recommender.swap(tmp_path / "model")

    begun = [record.getMessage() for record in caplog.records if record.getMessage().endswith(": begins")]
    assert f"partial fit of SGD ({ratings.n_ratings} ratings): begins" in begun
    assert f"partial fit of ALS ({ratings.n_ratings} ratings): begins" in begun
    assert begun[-1] == "swapping the model: begins"
    assert caplog.records[-1].getMessage().startswith("swapping the model: done in ")
