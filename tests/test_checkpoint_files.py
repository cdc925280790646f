"""Directories of checkpoints: those of other fits are refused, and so is damage; what is not theirs stays."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf.common import files
from fastmf.errors import DataError, ModelError, OutputError, OutputExistsError, ParameterError
from fastmf.keeping import checkpoints
from fastmf.models.fingerprints import difference
from tests.checkpointed import SMALL, TRAIN, VALIDATION, WHOLE, Stopped, bits, stop_after

pytestmark = pytest.mark.filterwarnings("ignore::fastmf.errors.QualityWarning")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A checkpoint after two epochs."""
    with pytest.raises(Stopped):
        fastmf.SGD(**SMALL, patience=4).fit(
            TRAIN, validation=VALIDATION, checkpoint=tmp_path / "kept", callbacks=[stop_after(2)]
        )
    return tmp_path / "kept" / "state"


def go_on(state: Path, ratings: Any = TRAIN, validation: Any = VALIDATION, start: Any = None, **changes: Any) -> Any:
    params = SMALL | {"patience": 4} | changes
    return fastmf.SGD(**params).fit(ratings, validation=validation, checkpoint=state.parent, start=start)


def renamed(ratings: fastmf.Interactions) -> fastmf.Interactions:
    """The same ratings, of items with other ids."""
    ids = pa.array([f"{name}!" for name in ratings.item_ids.to_pylist()])
    return fastmf.Interactions(ratings.users, ratings.items, ratings.ratings, None, ratings.user_ids, ids)


def raised(ratings: fastmf.Interactions) -> fastmf.Interactions:
    """The same pairs, one with another rating."""
    values = ratings.ratings.copy()
    values[3] += 1
    return fastmf.Interactions(ratings.users, ratings.items, values, None, ratings.user_ids, ratings.item_ids)


# What is changed, and which words of the error tell it.
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a number": (
        {"n_factors": 4},
        ParameterError,
        r"n_factors is 4, and the checkpoint in \S+ was made with 5; set it",
    ),
    "a word": ({"loss": "logistic"}, ParameterError, r"loss is 'logistic', and .* was made with 'squared'"),
    "seed": ({"seed": 1}, ParameterError, r"seed is 1, and .* was made with 0"),
    "backend": ({"backend": "reference"}, ParameterError, r"backend is 'reference', and .* was made with 'cpu'"),
    "a switch": (
        {"biases": False},
        ParameterError,
        r"the checkpoint in \S+ was made with biases=True, and now it is False; set biases back",
    ),
    "patience": ({"patience": 3}, ParameterError, r"patience is 3, and .* was made with 4"),
    "fewer ratings": (
        {"ratings": VALIDATION},
        DataError,
        r"was made with other ratings: now ratings has \d+ ratings, not \d+; give the same, or use another directory",
    ),
    "other ids": ({"ratings": renamed(TRAIN)}, DataError, r"now ratings has other item ids; "),
    "a rating": ({"ratings": raised(TRAIN)}, DataError, r"now ratings has other values, or the same in another order"),
    "other validation": (
        {"validation": raised(VALIDATION)},
        DataError,
        r"was made with other ratings to validate on: now validation has other values",
    ),
    "no validation": (
        {"validation": None, "patience": None},
        ParameterError,
        r"patience is not set, and .* was made with 4",
    ),
    "a start": (
        {"start": fastmf.SGD(n_factors=5, n_epochs=1).fit(TRAIN)},
        ParameterError,
        r"was made without factors to begin at, and start is given now; leave it out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_checkpoint_of_another_fit_is_refused(name: str, state: Path) -> None:
    changes, kind, words = REFUSED[name]
    before = contents(state)

    with pytest.raises(kind, match=words):
        go_on(state, **changes)

    assert contents(state) == before
    assert go_on(state, n_threads=1).history  # it was not harmed


def test_a_checkpoint_of_another_class_or_start_is_refused(tmp_path: Path) -> None:
    first, second = (fastmf.ALS(n_factors=3, n_epochs=n).fit(TRAIN) for n in (1, 2))
    model = fastmf.ALS(n_factors=3, n_epochs=3)
    with pytest.raises(Stopped):
        model.fit(TRAIN, checkpoint=tmp_path, start=first, callbacks=[stop_after(1)])

    with pytest.raises(ParameterError, match="was made with other factors to begin at: now start has other factors; "):
        model.fit(TRAIN, checkpoint=tmp_path, start=second)
    with pytest.raises(ParameterError, match="was made with factors to begin at, and there is no start now; give it"):
        model.fit(TRAIN, checkpoint=tmp_path)
    with pytest.raises(ParameterError, match="is of a model of class ALS, and this one is of class ImplicitALS"):
        fastmf.ImplicitALS(n_factors=3).fit(TRAIN, checkpoint=tmp_path)
    expected = fastmf.ALS(n_factors=3, n_epochs=3).fit(TRAIN, start=first)
    assert bits(model.fit(TRAIN, checkpoint=tmp_path, start=first)) == bits(expected)


def test_ratings_held_out_since_a_checkpoint_are_named_first(tmp_path: Path) -> None:
    fastmf.ALS(n_factors=3, n_epochs=1).fit(WHOLE, checkpoint=tmp_path)

    with pytest.raises(DataError, match="was made without ratings to validate on, and validation is given now; leave"):
        fastmf.ALS(n_factors=3, n_epochs=2).fit(TRAIN, validation=VALIDATION, checkpoint=tmp_path)


def test_large_counts_that_differ_are_written_alike() -> None:
    assert difference({"n_ratings": 3767}, {"n_ratings": 3390}) == "3,390 ratings, not 3,767"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit(state: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change entries of a checkpoint, and let its checksum fit, as somebody does who means harm."""
    path = state / checkpoints.CONTENT
    content = json.loads(path.read_text())
    change(content)
    for name, entry in content["files"].items() if isinstance(content.get("files"), dict) else ():
        file = state / f"{name}.npy"
        if file.exists() and isinstance(entry, dict):
            entry |= {"bytes": file.stat().st_size, "sha256": checkpoints._sha256(file)}
    content.pop("checksum", None)
    content["checksum"] = checkpoints._checksum(content)
    path.write_text(json.dumps(content))


def set_entry(name: str, value: object) -> Callable[[Path], None]:
    return lambda state: edit(state, lambda content: content.update({name: value}))


def set_number(name: str, value: object) -> Callable[[Path], None]:
    return lambda state: edit(state, lambda content: content["numbers"].update({name: value}))


def overwrite(name: str, array: Any, *, sealed: bool = True) -> Callable[[Path], None]:
    def do(state: Path) -> None:
        np.save(state / f"{name}.npy", array)
        if sealed:
            shape = {"dtype": array.dtype.name, "shape": list(array.shape)}
            edit(state, lambda content: content["files"][name].update(shape))

    return do


def flip_last_byte(state: Path) -> None:
    content = bytearray((state / "user_factors.npy").read_bytes())
    content[-1] ^= 1
    (state / "user_factors.npy").write_bytes(content)


def cut(name: str) -> Callable[[Path], None]:
    return lambda state: (state / name).write_bytes((state / name).read_bytes()[:-5]) and None


N_USERS = TRAIN.by_user.indptr[1:].tolist() and int((np.diff(TRAIN.by_user.indptr) > 0).sum())
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte": (flip_last_byte, r"user_factors.npy is damaged \(it does not match its checksum\)"),
    "a missing file": (
        lambda state: (state / "item_biases.npy").unlink(),
        r"item_biases.npy is damaged \(it is miss",
    ),
    "a short file": (cut("item_factors.npy"), r"item_factors.npy is damaged \(it has \d+ bytes, expected \d+\)"),
    "short text": (cut("checkpoint.json"), r"checkpoint.json is damaged"),
    "no text": (lambda state: (state / "checkpoint.json").write_text("") and None, r"checkpoint.json is damaged"),
    "text that is no dict": (lambda state: (state / "checkpoint.json").write_text("[]") and None, "expected names"),
    "deep text": (lambda state: (state / "checkpoint.json").write_text("[" * 99999) and None, "json is damaged"),
    "not a number": (set_number("lowest_error", float("nan")), r"checkpoint.json is damaged \(NaN is not a number"),
    "another format": (set_entry("format", "fastmf-model"), r"its format is 'fastmf-model'; expected"),
    "a newer version": (set_entry("format_version", 2), r"has format version 2, written by fastmf '[\d.]+'; this is "),
    "an entry": (
        set_entry("history", [{"epoch": 2, "seconds": 1}]),
        r"history is .*; expected a list of epochs",
    ),
    "no history": (set_entry("history", []), r"history is \[\]; expected a list of epochs"),
    "a history without metrics": (
        set_entry("history", [{"epoch": 1, "seconds": 1}]),
        "history lacks validation",
    ),
    "files": (set_entry("files", {"../x": {}}), r"files is .*; expected type, shape, bytes and sha256"),
    "no files": (set_entry("files", None), r"files is None; expected type"),
    "an ending": (set_entry("ended", ["x"]), r"ended is \['x'\]; expected one of '', 'callback'"),
    "a chosen name": (set_entry("chosen", {"x": 1}), r"chosen: there is no parameter 'x'"),
    "a chosen value": (set_entry("chosen", {"regularization": -1}), r"chosen: regularization is -1; expected"),
    "epochs": (set_number("epoch", "two"), r"its numbers are not those of a training"),
    "an error": (
        set_number("lowest_error", [1]),
        r"its numbers are not those of a training: \[1\] is not a finite",
    ),
    "a generator": (set_number("generator", {"bit_generator": "MT19937"}), r"its numbers are not those of a training"),
    "a number that is missing": (set_entry("numbers", {}), r"its numbers are not those of a training"),
    "another shape": (
        overwrite("user_factors", np.zeros((3, 5), np.float32)),
        r"it is float32 of shape \(3, 5\)",
    ),
    "another type": (
        overwrite("user_biases", np.zeros(N_USERS)),
        r"it is float64 of shape .*; expected float32",
    ),
    "a shape that the text denies": (
        overwrite("user_factors", np.zeros((3, 5), np.float32), sealed=False),
        "user_factors.npy is damaged",
    ),
    "infinity": (overwrite("user_biases", np.full(N_USERS, np.inf, np.float32)), "not all of its numbers are finite"),
    "objects": (
        lambda state: np.save(state / "user_biases.npy", np.array([{}])) or edit(state, lambda _: None),
        "user",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_the_name_of_its_file(name: str, state: Path) -> None:
    damage, words = DAMAGE[name]
    damage(state)
    before = contents(state)

    with pytest.raises(ModelError, match=words):
        go_on(state)

    assert contents(state) == before


def test_what_is_no_checkpoint_is_left_alone(state: Path) -> None:
    (state / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds what is not of the checkpoint, .* delete it: notes.txt"):
        go_on(state)
    (state / checkpoints.CONTENT).unlink()
    with pytest.raises(OutputExistsError, match=r"exists and has no checkpoint.json: it is not a checkpoint"):
        go_on(state)
    shutil.rmtree(state)
    state.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"exists and has no checkpoint.json"):
        go_on(state)
    assert state.read_text() == "mine"
    with pytest.raises(OutputError, match=r"state is a file; expected a directory"):
        fastmf.ALS(n_factors=2).fit(TRAIN, checkpoint=state)


def test_a_file_or_a_model_is_no_directory_for_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    model = fastmf.ALS(n_factors=3, n_epochs=1).fit(TRAIN)
    model.save(tmp_path / "model")

    with pytest.raises(OutputError, match=r"file is a file; expected a directory for checkpoint"):
        model.fit(TRAIN, checkpoint=tmp_path / "file")
    with pytest.raises(OutputExistsError, match=r"model is a model, which .*; use another directory for checkpoint"):
        model.fit(TRAIN, checkpoint=tmp_path / "model")

    model.save(tmp_path / "model", overwrite=True)


def test_other_files_beside_a_checkpoint_stay(state: Path) -> None:
    (state.parent / "notes.txt").write_text("mine")

    go_on(state)

    assert sorted(path.name for path in state.parent.iterdir()) == ["notes.txt", "state"]


def test_a_full_disk_leaves_the_checkpoint_before(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, save = contents(state), np.save

    def save_or_not(path: Path, array: Any, **how: Any) -> None:
        if path.name.startswith("item"):
            raise OSError(28, os.strerror(28))
        save(path, array, **how)

    monkeypatch.setattr(np, "save", save_or_not)
    with pytest.raises(OutputError, match=r"cannot write .*state: No space left on device; make room, or choose"):
        go_on(state)

    assert contents(state) == before
    assert [path.name for path in state.parent.iterdir()] == ["state"]
    monkeypatch.undo()
    assert len(go_on(state).history) > 2


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(OutputError, match=r"cannot write .*: Permission denied; choose another directory"):
        fastmf.ALS(n_factors=2).fit(TRAIN, checkpoint=tmp_path)


def test_one_training_at_a_time_writes_to_a_directory(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="locks of directories are those of Unix")

    def fit_another(*_: object) -> None:
        fastmf.ALS(n_factors=2, n_epochs=1).fit(TRAIN, checkpoint=tmp_path)

    with pytest.raises(OutputError, match=r"another training writes its checkpoints to .*; wait for it, or use"):
        fastmf.ALS(n_factors=2, n_epochs=2).fit(TRAIN, checkpoint=tmp_path, callbacks=[fit_another])


@pytest.mark.slow
@pytest.mark.parametrize("exchanges", [True, False])
def test_who_reads_while_checkpoints_are_replaced_gets_a_whole_one(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    fastmf.SGD(n_factors=2, n_epochs=1).fit(TRAIN, checkpoint=tmp_path)
    first = checkpoints.read(tmp_path)
    assert first is not None
    names = (
        "model",
        "parameters",
        "ratings",
        "validation",
        "start",
        "chosen",
        "n_epochs",
        "n_restarts",
        "ended",
        "history",
    )
    content = {name: first.content[name] for name in names}
    is_over = threading.Event()

    def write() -> None:
        for n in range(30):
            array = np.full(1000 + n, n, np.float32)
            checkpoints.write(tmp_path, content | {"numbers": {"n": n}}, {"numbers": array, "others": array})
        is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not is_over.is_set():
        found = checkpoints.read(tmp_path)
        assert found is not None
        n = found.content["numbers"].get("n", -1)
        if n >= 0:
            assert [len(array) for array in found.arrays.values()] == [1000 + n] * 2
            assert all((array == n).all() for array in found.arrays.values())
        seen.add(n)
    writer.join()
    assert len(seen) > 1
