"""Checkpoints: a fit that was stopped goes on with the bits of one that was not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import fastmf
from fastmf.errors import DivergenceError, ParameterError
from fastmf.keeping import checkpoints
from fastmf.models import MODELS
from fastmf.models.checkpointing import PAUSE
from fastmf.models.descent_training import DescentTrainer
from tests.checkpointed import N_EPOCHS, SMALL, TRAIN, VALIDATION, WHOLE, Stopped, bits, stop_after

pytestmark = pytest.mark.filterwarnings("ignore::fastmf.errors.QualityWarning")


# Name, class, parameters, and whether there is a validation set.
CASES: list[tuple[str, str, dict[str, Any], bool]] = [
    ("SGD", "SGD", SMALL, False),
    ("SGD, patience", "SGD", SMALL | {"patience": 2, "learning_rate": 0.5}, True),
    ("SGD, rating range", "SGD", SMALL | {"rating_range": (0, 6)}, False),
    ("SGD, logistic", "SGD", SMALL | {"loss": "logistic"}, True),
    ("SGD, constant steps", "SGD", SMALL | {"adaptive": False, "biases": False, "learning_rate_decay": 0.8}, False),
    ("SVDpp", "SVDpp", SMALL, False),
    ("SVDpp, patience", "SVDpp", SMALL | {"patience": 2, "rating_range": (0, 6)}, True),
    ("BPR", "BPR", SMALL, False),
    ("BPR, patience", "BPR", SMALL | {"patience": 3}, True),
    ("ALS", "ALS", SMALL, False),
    ("ALS, patience", "ALS", SMALL | {"patience": 2, "regularization": 0.001}, True),
    ("ALS, no biases", "ALS", SMALL | {"biases": False}, True),
    ("ALS, cg", "ALS", SMALL | {"solver": "cg"}, False),
    ("ALS, subspace", "ALS", SMALL | {"solver": "subspace", "block_size": 16, "n_factors": 20}, False),
    ("ALS, nonnegative", "ALS", SMALL | {"nonnegative": True}, False),
    ("ImplicitALS", "ImplicitALS", SMALL, False),
    ("ImplicitALS, patience", "ImplicitALS", SMALL | {"patience": 2}, True),
    ("ImplicitALS, cg", "ImplicitALS", SMALL | {"solver": "cg", "weighting": "hu"}, False),
    ("ImplicitALS, subspace", "ImplicitALS", SMALL | {"solver": "subspace"}, False),
    ("ImplicitALS, nonnegative", "ImplicitALS", SMALL | {"nonnegative": True}, False),
    ("Bias", "Bias", {"n_epochs": N_EPOCHS}, True),
    ("Popularity", "Popularity", {}, True),
]


def test_every_model_is_among_the_cases() -> None:
    assert {kind for _, kind, _, _ in CASES} == set(MODELS)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("kind", "params", "validates"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_stopped_fit_goes_on_with_the_same_bits(
    kind: str, params: dict[str, Any], validates: bool, n_threads: int, tmp_path: Path
) -> None:
    how = {"validation": VALIDATION if validates else None}
    whole = MODELS[kind](**params, n_threads=n_threads).fit(TRAIN, **how)

    for epoch in range(len(whole.history)):
        with pytest.raises(Stopped):
            MODELS[kind](**params, n_threads=3 - n_threads).fit(
                TRAIN, **how, checkpoint=tmp_path, callbacks=[stop_after(epoch)]
            )
        reached = checkpoints.read_content(tmp_path)
        assert (0 if reached is None else len(reached["history"])) == epoch
    records: list[dict[str, Any]] = []
    model = MODELS[kind](**params, n_threads=n_threads)
    model.fit(TRAIN, **how, checkpoint=tmp_path, callbacks=[lambda _, record: records.append(record)])

    assert bits(model) == bits(whole)
    assert [record["epoch"] for record in records] == [len(whole.history)]
    again = MODELS[kind](**params).fit(TRAIN, **how, checkpoint=tmp_path, callbacks=[stop_after(0)])
    assert bits(again) == bits(whole)  # without training: nothing was called back
    assert again.history == model.history
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("kind", ["SGD", "ALS", "ImplicitALS"])
def test_the_reference_goes_on_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    params = {"n_factors": 3, "n_epochs": 3, "backend": "reference"}
    with pytest.raises(Stopped):
        MODELS[kind](**params).fit(TRAIN, checkpoint=tmp_path, callbacks=[stop_after(1)])

    assert bits(MODELS[kind](**params).fit(TRAIN, checkpoint=tmp_path)) == bits(MODELS[kind](**params).fit(TRAIN))


def test_a_fit_that_has_begun_again_with_smaller_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_epoch, largest = DescentTrainer._error, 0.03

    def diverge(self: DescentTrainer, squared_error: float) -> dict[str, Any]:
        if self._model.learning_rate > largest and self._epoch == 3:
            raise DivergenceError("too large")
        return run_epoch(self, squared_error)

    monkeypatch.setattr(DescentTrainer, "_error", diverge)
    whole = fastmf.SGD(**SMALL).fit(TRAIN)
    assert whole.chosen["learning_rate"] == pytest.approx(0.07 / 4)

    steps = []
    for epoch in (1, 1, 2, 4):  # the first attempt diverges in its third epoch, and the second one has as many again

        def stop(model: Any, record: dict[str, Any], epoch: int = epoch) -> None:
            if record["epoch"] == epoch + 1 and (epoch == 1 or model.chosen["learning_rate"] < largest):
                raise Stopped

        with pytest.raises(Stopped):
            fastmf.SGD(**SMALL).fit(TRAIN, checkpoint=tmp_path, callbacks=[stop])
        content = checkpoints.read_content(tmp_path)
        assert content is not None
        steps.append((content["n_restarts"], len(content["history"])))
    assert steps == [(0, 1), (0, 1), (1, 2), (1, 4)]
    assert bits(fastmf.SGD(**SMALL).fit(TRAIN, checkpoint=tmp_path)) == bits(whole)

    monkeypatch.setattr(DescentTrainer, "_error", lambda *_: (_ for _ in ()).throw(DivergenceError("always")))
    shutil.rmtree(tmp_path / "state")
    with pytest.raises(DivergenceError, match="always"):
        fastmf.SGD(**SMALL).fit(TRAIN, checkpoint=tmp_path)


def test_checkpoints_come_every_so_many_epochs_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = checkpoints.write

    def write_and_note(directory: Path, content: dict[str, Any], arrays: checkpoints.Arrays) -> None:
        written.append(len(content["history"]))
        write(directory, content, arrays)

    monkeypatch.setattr(checkpoints, "write", write_and_note)

    fastmf.ALS(n_factors=2, n_epochs=7).fit(TRAIN, checkpoint=tmp_path / "a", checkpoint_every=3)
    fastmf.ALS(n_factors=2, n_epochs=7).fit(TRAIN, checkpoint=tmp_path / "b", checkpoint_every=100)
    fastmf.Bias().fit(TRAIN, checkpoint=tmp_path / "c", checkpoint_every=100)
    fastmf.ALS(n_factors=2, n_epochs=7).fit(
        TRAIN, checkpoint=tmp_path / "d", checkpoint_every=4, callbacks=[lambda _, record: record["epoch"] == 2]
    )

    assert written == [3, 6, 7, 7, len(fastmf.Bias().fit(TRAIN).history), 2]
    with pytest.raises(ParameterError, match=r"checkpoint_every is 0; expected an integer of at least 1"):
        fastmf.ALS().fit(TRAIN, checkpoint=tmp_path, checkpoint_every=0)
    with pytest.raises(ParameterError, match=r"checkpoint is 5; expected the path of a directory, or None"):
        fastmf.ALS().fit(TRAIN, checkpoint=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["SGD", "ALS", "Bias"])
def test_a_finished_fit_goes_on_with_more_epochs(kind: str, tmp_path: Path) -> None:
    small = {"n_factors": 3} if kind != "Bias" else {}
    MODELS[kind](**small, n_epochs=2).fit(TRAIN, checkpoint=tmp_path)

    longer = MODELS[kind](**small, n_epochs=4).fit(TRAIN, checkpoint=tmp_path)

    assert bits(longer) == bits(MODELS[kind](**small, n_epochs=4).fit(TRAIN))
    with pytest.raises(ParameterError, match=r"n_epochs is 3, and the checkpoint in .* has done 4; expected as many"):
        MODELS[kind](**small, n_epochs=3).fit(TRAIN, checkpoint=tmp_path)


def test_a_fit_that_patience_has_ended_stays_so_with_more_epochs(tmp_path: Path) -> None:
    params = {"n_factors": 5, "patience": 1, "regularization": 0.001}
    first = fastmf.ALS(**params, n_epochs=6).fit(TRAIN, validation=VALIDATION, checkpoint=tmp_path)
    assert len(first.history) < 6

    assert bits(fastmf.ALS(**params, n_epochs=9).fit(TRAIN, validation=VALIDATION, checkpoint=tmp_path)) == bits(first)


def test_callbacks_end_a_fit_for_good_or_make_a_pause(tmp_path: Path) -> None:
    whole = fastmf.ALS(**SMALL).fit(TRAIN)

    def fit(answer: object, **changes: Any) -> Any:
        callbacks = [lambda _, record: record["epoch"] == 2 and answer]
        return fastmf.ALS(**SMALL | changes).fit(TRAIN, checkpoint=tmp_path, callbacks=callbacks)

    assert len(fit(PAUSE).history) == 2
    assert bits(fit(PAUSE)) == bits(whole)
    shutil.rmtree(tmp_path / "state")
    assert len(fit(True).history) == 2
    assert len(fit(True).history) == 2
    assert len(fit(True, n_epochs=N_EPOCHS + 1).history) == N_EPOCHS + 1


def test_a_refit_goes_on(tmp_path: Path) -> None:
    model = fastmf.ALS(**SMALL).fit(TRAIN, validation=VALIDATION)
    expected = fastmf.refit(model, WHOLE)
    with pytest.raises(Stopped):
        fastmf.refit(model, WHOLE, checkpoint=tmp_path, callbacks=[stop_after(1)])

    assert bits(fastmf.refit(model, WHOLE, checkpoint=tmp_path)) == bits(expected)
