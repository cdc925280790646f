"""Models to directories and back: nothing lost, nothing half written, nothing damaged taken for whole."""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import Interactions
from fastmf.errors import FastMFError, ModelError, OutputError, OutputExistsError
from fastmf.keeping import model_directory as output
from fastmf.models import FactorModel

FILES = {
    "manifest.json",
    "user_factors.npy",
    "item_factors.npy",
    "user_biases.npy",
    "item_biases.npy",
    "seen_indptr.npy",
    "seen_indices.npy",
    "seen_values.npy",
    "user_baseline.npy",
    "item_baseline.npy",
    "user_ids.arrow",
    "item_ids.arrow",
}

MAKERS: dict[str, Callable[[], FactorModel]] = {
    "SGD": lambda: fastmf.SGD(n_factors=3, n_epochs=2, rating_range=(0.5, 5), seed=7),
    "BPR": lambda: fastmf.BPR(n_factors=3, n_epochs=2),
    "SVDpp": lambda: fastmf.SVDpp(n_factors=3, n_epochs=2, rating_range=(0.5, 5), implicit_regularization=0.1),
    "ALS": lambda: fastmf.ALS(n_factors=3, n_epochs=2, biases=False),
    "ImplicitALS": lambda: fastmf.ImplicitALS(n_factors=3, n_epochs=2, alpha=2.0, weighting="hu"),
}


def numbered(seed: int = 0) -> Interactions:
    return fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=seed)


def named() -> Interactions:
    ratings = numbered()
    users = pa.array([f"Zoë {n:02}" for n in range(25)])
    return Interactions(ratings.users, ratings.items, ratings.ratings, None, users, ratings.item_ids)


@pytest.fixture
def als() -> FactorModel:
    return MAKERS["ALS"]().fit(numbered())


@pytest.fixture
def saved(als: FactorModel, tmp_path: Path) -> Path:
    als.save(tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("ratings", [numbered, named], ids=["integer ids", "string ids"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_loaded_model_answers_with_the_same_bits(
    name: str, ratings: Callable[[], Interactions], tmp_path: Path
) -> None:
    data = ratings()
    model = MAKERS[name]().fit(data)

    model.save(tmp_path / "model")
    loaded = fastmf.load(tmp_path / "model")

    assert type(loaded) is type(model)
    assert loaded.get_params() == model.get_params()
    assert loaded.history == model.history
    assert loaded.user_ids == model.user_ids
    assert loaded.item_ids == model.item_ids
    assert loaded.user_ids.type == model.user_ids.type
    users, items = (
        ids.take(pa.array(indices)) for ids, indices in ((data.user_ids, data.users), (data.item_ids, data.items))
    )
    assert loaded.predict(users, items).tobytes() == model.predict(users, items).tobytes()
    unknown = (["?"] if pa.types.is_string(data.user_ids.type) else [999], [999])
    assert loaded.predict(*unknown).tobytes() == model.predict(*unknown).tobytes()
    before, after = model.recommend(k=5), loaded.recommend(k=5)
    assert after.to_arrow() == before.to_arrow()
    assert after.scores.tobytes() == before.scores.tobytes()
    assert loaded.similar_items([3], k=4).to_arrow() == model.similar_items([3], k=4).to_arrow()
    assert fastmf.evaluate(loaded, data, k=5, exclude=None) == fastmf.evaluate(model, data, k=5, exclude=None)


def test_a_directory_holds_the_files_it_promises_and_nothing_pickled(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == FILES | {"card.md"}
    for name, content in contents(saved).items():
        if name.endswith(".npy"):
            np.load(saved / name, allow_pickle=False)
        assert not content.startswith(b"\x80"), name  # how a pickle starts


def test_the_manifest_describes_the_model(saved: Path, als: FactorModel) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())

    assert manifest["model"] == "ALS"
    params = als.get_params()
    assert manifest["parameters"].items() <= params.items()
    assert {"n_factors", "n_epochs", "regularization", "seed", "biases"} <= manifest["parameters"].keys()
    assert (manifest["n_users"], manifest["n_items"]) == (25, 20)
    assert manifest["data"]["n_ratings"] == numbered().n_ratings
    assert manifest["data"]["fingerprint"].startswith("crc32:")
    assert manifest["history"] == als.history
    assert manifest["files"].keys() == FILES - {"manifest.json"}
    for name, record in manifest["files"].items():
        assert record["bytes"] == (saved / name).stat().st_size


def test_the_fingerprint_tells_data_from_other_data(tmp_path: Path) -> None:
    prints = set()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        MAKERS["ALS"]().fit(numbered(seed)).save(tmp_path / name)
        prints.add(json.loads((tmp_path / name / "manifest.json").read_text())["data"]["fingerprint"])

    assert len(prints) == 2


def test_the_source_of_the_data_is_noted(als: FactorModel, tmp_path: Path) -> None:
    als.save(tmp_path / "model", source={"path": "ratings.parquet"})

    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["data"]["path"] == "ratings.parquet"


def mapped(array: Any) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def test_loaded_arrays_are_mapped_and_writing_to_them_does_not_reach_the_file(saved: Path) -> None:
    before = contents(saved)

    model = fastmf.load(saved)

    for array in (model.user_factors, model.item_factors, model.user_biases, model.item_biases):
        assert mapped(array)
    assert all(mapped(array) for array in model.fitted.seen)
    model.user_factors[:] = 0
    assert contents(saved) == before
    assert fastmf.load(saved).user_factors.any()


def test_a_loaded_model_can_be_trained_and_saved_again(saved: Path, tmp_path: Path) -> None:
    loaded = fastmf.load(saved)
    loaded.save(tmp_path / "copy")
    unlike = {"manifest.json", "card.md"}  # they have the time in them
    assert {n: c for n, c in contents(saved).items() if n not in unlike} == {
        n: c for n, c in contents(tmp_path / "copy").items() if n not in unlike
    }

    assert (
        loaded.fit(numbered(seed=1)).user_factors.tobytes() == MAKERS["ALS"]().fit(numbered(1)).user_factors.tobytes()
    )


def test_a_model_can_be_saved_over_the_files_it_is_mapped_from(saved: Path, als: FactorModel) -> None:
    loaded = fastmf.load(saved)

    loaded.save(saved, overwrite=True)

    assert fastmf.load(saved, verify=True).user_factors.tobytes() == als.user_factors.tobytes()
    assert loaded.user_factors.tobytes() == als.user_factors.tobytes()


def test_parameters_changed_after_the_fit_do_not_spoil_the_model(als: FactorModel, tmp_path: Path) -> None:
    als.set_params(n_factors=50, n_epochs=1)

    als.save(tmp_path / "model")

    loaded = fastmf.load(tmp_path / "model")
    assert loaded.get_params()["n_factors"] == 50
    assert loaded.user_factors.tobytes() == als.user_factors.tobytes()


def test_numbers_of_numpy_can_be_saved(tmp_path: Path) -> None:
    model = fastmf.SGD(n_factors=np.int64(2), n_epochs=1, rating_range=(np.float32(0.5), np.int8(5)))
    model.fit(numbered(), callbacks=[lambda _, record: record.update(mine=np.float32(0.5))])

    model.save(tmp_path / "model")

    loaded = fastmf.load(tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    assert loaded.history[0]["mine"] == 0.5


def test_a_path_may_be_a_string_with_parents_that_are_not_there(als: FactorModel, tmp_path: Path) -> None:
    als.save(f"{tmp_path}/deep/down/model/")

    assert fastmf.load(f"{tmp_path}/deep/down/model/").n_factors == 3


def test_an_existing_model_is_not_overwritten_unless_asked_for(saved: Path) -> None:
    before = contents(saved)
    other = MAKERS["SGD"]().fit(numbered())

    with pytest.raises(OutputExistsError, match=r"model exists already; choose another output, or allow overwriting"):
        other.save(saved)
    assert contents(saved) == before

    other.save(saved, overwrite=True)
    assert isinstance(fastmf.load(saved, verify=True), fastmf.SGD)
    assert os.listdir(saved.parent) == ["model"]


@pytest.mark.parametrize("what", ["a directory with other things", "a file"])
def test_nothing_but_a_model_is_ever_overwritten(what: str, als: FactorModel, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    if what == "a file":
        target.write_text("thesis")
    else:
        target.mkdir()
        (target / "thesis.txt").write_text("thesis")

    with pytest.raises(OutputExistsError, match="precious exists and is not a model, which alone is overwritten"):
        als.save(target, overwrite=True)

    assert (target if what == "a file" else target / "thesis.txt").read_text() == "thesis"
    assert os.listdir(tmp_path) == ["precious"]


FAILURES = [
    pytest.param(OSError(errno.ENOSPC, "No space left on device"), OutputError, id="disk full"),
    pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="Ctrl-C"),
]


def fail_in(monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException) -> None:
    """Let a save fail at its third array, at its second file of ids, or at the manifest."""
    save_array, write_ids, calls = np.save, output._write_ids, []

    def counted(function: Callable[..., None], at: int) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            calls.append(args)
            if len(calls) == at:
                raise failure
            function(*args, **kwargs)

        return call

    if step == "array":
        monkeypatch.setattr(np, "save", counted(save_array, 3))
    elif step == "ids":
        monkeypatch.setattr(output, "_write_ids", counted(write_ids, 2))
    else:
        monkeypatch.setattr(Path, "write_text", counted(Path.write_text, 1))


@pytest.mark.parametrize("step", ["array", "ids", "manifest"])
@pytest.mark.parametrize(("failure", "error"), FAILURES)
def test_a_save_that_fails_half_way_leaves_nothing(
    failure: BaseException,
    error: type[BaseException],
    step: str,
    als: FactorModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_in(monkeypatch, step, failure)

    with pytest.raises(error) as raised:
        als.save(tmp_path / "model")

    assert os.listdir(tmp_path) == []
    if error is OutputError:
        assert f"cannot write {tmp_path / 'model'}: No space left on device; make room" in str(raised.value)


@pytest.mark.parametrize("step", ["array", "ids", "manifest"])
@pytest.mark.parametrize(("failure", "error"), FAILURES)
def test_a_save_that_fails_half_way_keeps_the_old_model(
    failure: BaseException,
    error: type[BaseException],
    step: str,
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contents(saved)
    fail_in(monkeypatch, step, failure)

    with pytest.raises(error):
        MAKERS["SGD"]().fit(numbered()).save(saved, overwrite=True)

    assert contents(saved) == before
    assert os.listdir(saved.parent) == ["model"]


def test_loading_while_new_versions_are_saved_gives_one_version_or_another_never_a_mixture(saved: Path) -> None:
    versions = [MAKERS["ALS"]().fit(numbered(seed)) for seed in (0, 1)]
    terms = [(v.user_factors.tobytes(), v.item_factors.tobytes(), v.fitted.seen.indices.tobytes()) for v in versions]
    stop, failures = threading.Event(), []

    def keep_saving() -> None:
        turn = 0
        while not stop.is_set():
            try:
                versions[turn % 2].save(saved, overwrite=True)
            except BaseException as error:
                failures.append(error)
                raise
            turn += 1

    saver = threading.Thread(target=keep_saving)
    saver.start()
    try:
        loaded = [fastmf.load(saved) for _ in range(200)]
    finally:
        stop.set()
        saver.join()

    assert not failures
    seen = {(m.user_factors.tobytes(), m.item_factors.tobytes(), m.fitted.seen.indices.tobytes()) for m in loaded}
    assert seen <= set(terms)
    assert os.listdir(saved.parent) == ["model"]


@pytest.mark.parametrize("missing", sorted(FILES))
def test_an_incomplete_directory_names_what_it_lacks(missing: str, saved: Path) -> None:
    (saved / missing).unlink()

    with pytest.raises(ModelError) as error:
        fastmf.load(saved)

    expected = (
        "has no manifest.json: it is not a model, or an incomplete one"
        if missing == "manifest.json"
        else (f"lacks {missing}: the model is incomplete")
    )
    assert f"{saved} {expected}" in str(error.value)
    assert "copy it again" in str(error.value)


@pytest.mark.parametrize("truncated", sorted(FILES - {"manifest.json"}))
def test_a_truncated_file_is_named_with_both_sizes(truncated: str, saved: Path) -> None:
    size = (saved / truncated).stat().st_size
    os.truncate(saved / truncated, size - 1)

    with pytest.raises(ModelError) as error:
        fastmf.load(saved)

    assert f"{saved / truncated} has {size - 1} bytes, expected {size}: copy the model again" in str(error.value)


def test_a_truncated_manifest_is_named(saved: Path) -> None:
    path = saved / "manifest.json"
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(ModelError, match=rf"{path} cannot be read .*; restore it from a copy or train again"):
        fastmf.load(saved)


@pytest.mark.parametrize("flipped", sorted(FILES - {"manifest.json"}))
def test_a_flipped_bit_is_found_by_verify(flipped: str, saved: Path) -> None:
    path = saved / flipped
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(ModelError, match=f"{path} does not match its checksum: copy the model again or train again"):
        fastmf.load(saved, verify=True)


def test_verify_finds_nothing_wrong_with_a_whole_model(saved: Path, als: FactorModel) -> None:
    assert fastmf.load(saved, verify=True).user_factors.tobytes() == als.user_factors.tobytes()


def change(saved: Path, **entries: Any) -> None:
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not ...}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format_version": 99}, "has format version 99 and this fastmf"),
        ({"format_version": 99}, "upgrade fastmf (the model was written by"),
        ({"format_version": None}, "is damaged (format_version is None; expected text like '1.2')"),
        ({"format_version": True}, "is damaged (format_version is True; expected text like"),
        ({"format_version": 1.5}, "is damaged (format_version is 1.5; expected text like"),
        ({"format_version": "0.9"}, "is damaged (format_version is '0.9'; expected text like"),
        ({"format_version": "1"}, "is damaged (format_version is '1'; expected text like"),
        ({"format_version": "2.0"}, "has format version '2.0' and this fastmf"),
        ({"format_version": "2.0"}, "a higher major version means files that it would misread; upgrade fastmf"),
        ({"format": "other"}, "is not the manifest of a fastmf model; expected format 'fastmf-model'"),
        ({"model": "SVD"}, "is damaged ('SVD')"),
        ({"files": ...}, "is damaged ('files' is missing)"),
        ({"n_users": 24}, "user_factors.npy is float32 of shape (25, 3); expected float32 (24, 3)"),
        ({"n_items": "many"}, "is damaged ("),
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit_is_refused(entries: dict[str, Any], message: str, saved: Path) -> None:
    change(saved, **entries)

    with pytest.raises(ModelError) as error:
        fastmf.load(saved)

    assert message in str(error.value)
    assert str(saved) in str(error.value)


def test_parameters_that_this_version_does_not_know_are_no_traceback(saved: Path, als: FactorModel) -> None:
    change(saved, parameters=als.get_params() | {"novelty": 1})

    with pytest.raises(ModelError, match=r"is damaged .*novelty"):
        fastmf.load(saved)


def test_parameters_that_make_no_sense_are_damage_with_their_own_message(saved: Path, als: FactorModel) -> None:
    change(saved, parameters=als.get_params() | {"n_epochs": 0})

    with pytest.raises(ModelError, match=r"model is damaged \(n_epochs is 0; expected an integer of at least 1\)"):
        fastmf.load(saved)


def test_an_array_of_the_same_size_and_another_type_is_refused(saved: Path) -> None:
    factors = np.load(saved / "user_biases.npy").view(np.int32)
    np.save(saved / "user_biases.npy", factors)

    with pytest.raises(ModelError, match=r"user_biases.npy is int32 of shape \(25,\); expected float32 \(25,\)"):
        fastmf.load(saved)


def test_an_array_of_objects_is_refused_and_not_unpickled(saved: Path) -> None:
    path = saved / "user_biases.npy"
    np.save(path, np.array([print] * 25, object), allow_pickle=True)
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"][path.name]["bytes"] = path.stat().st_size
    (saved / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ModelError, match="is damaged"):
        fastmf.load(saved)


def test_ids_that_are_too_few_are_refused(saved: Path, tmp_path: Path) -> None:
    output._write_ids(saved / "user_ids.arrow", pa.array([1, 2]))
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"]["user_ids.arrow"]["bytes"] = (saved / "user_ids.arrow").stat().st_size
    (saved / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ModelError, match="has 2 user and 20 item ids; expected 25 and 20"):
        fastmf.load(saved)


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty directory", "some directory"])
def test_what_is_not_a_model_is_refused_with_what_was_expected(what: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if what == "a file":
        path.touch()
    elif what != "nothing":
        path.mkdir()
    if what == "some directory":
        (path / "notes.txt").touch()

    with pytest.raises(FastMFError) as error:
        fastmf.load(path)

    directory = "directory" in what
    assert isinstance(error.value, ModelError)
    assert (f"{path} has no manifest.json" if directory else f"no model at {path}: expected a directory") in str(
        error.value
    )


def test_a_name_that_is_too_long_is_no_model() -> None:
    with pytest.raises(ModelError, match=r"no model at n+: expected a directory"):
        fastmf.load("n" * 300)
