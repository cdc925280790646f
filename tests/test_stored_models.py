"""Models from strangers: all that kernels rely on is checked before they run, and only models are overwritten."""

import copy
import hashlib
import itertools
import json
import math
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf.errors import ModelError, OutputError, OutputExistsError
from fastmf.keeping import manifest, stored_arrays
from fastmf.keeping.manifest import MANIFEST
from fastmf.keeping.model_directory import _write_ids
from fastmf.models import FactorModel
from fastmf_kernels.topk.arrays import Rows


@pytest.fixture
def model() -> FactorModel:
    return fastmf.ALS(n_factors=3, n_epochs=2).fit(fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0))


@pytest.fixture
def saved(model: FactorModel, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def seal(folder: Path, **entries: Any) -> None:
    """Let the manifest fit the files, as somebody does who means harm; ``entries`` are set in it."""
    content = json.loads((folder / MANIFEST).read_text()) | entries
    for name, entry in content["files"].items():
        data = (folder / name).read_bytes()
        entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del content["manifest_sha256"]
    manifest.write(folder, content)


def set_number(folder: Path, name: str, place: int, value: float) -> None:
    array = np.load(folder / name)
    array.reshape(-1)[place] = value
    np.save(folder / name, array)


# Each use of a model, so that none of them comes before the checks.
USES: dict[str, Callable[[FactorModel], Any]] = {
    "recommend": lambda model: model.recommend(k=3),
    "predict": lambda model: model.predict([0], [0]),
    "similar_items": lambda model: model.similar_items([0], k=2),
    "user_factors": lambda model: model.user_factors,
    "item_ids": lambda model: model.item_ids,
    "evaluate": lambda model: fastmf.evaluate(model, fastmf.testing.power_law(25, 20, 60, n_factors=2), k=2),
    "save": lambda model: model.save("other"),
}


BAD_NUMBERS = {
    "an index beyond the items": ("seen_indices.npy", 5, 20, "indices from 0 to 20; expected 0 to 19"),
    "a huge index": ("seen_indices.npy", 159, 2**31 - 1, "indices from 0 to 2147483647; expected 0 to 19"),
    "a negative index": ("seen_indices.npy", 0, -1, "indices from -1 to 19; expected 0 to 19"),
    "an offset beyond the indices": ("seen_indptr.npy", 3, 10**12, "expected offsets that rise from 0 to 160"),
    "an offset that falls": ("seen_indptr.npy", 3, 0, "expected offsets that rise from 0 to 160"),
    "a first offset": ("seen_indptr.npy", 0, 1, "expected offsets that rise from 0 to 160"),
    "a last offset": ("seen_indptr.npy", 25, 159, "expected offsets that rise from 0 to 160"),
    "a negative offset": ("seen_indptr.npy", 1, -8, "expected offsets that rise from 0 to 160"),
    "a factor that is NaN": ("user_factors.npy", 74, math.nan, "number 74 (from 0) is nan; expected finite numbers"),
    "an infinite factor": ("item_factors.npy", 0, -math.inf, "number 0 (from 0) is -inf; expected finite numbers"),
    "an infinite bias": ("item_biases.npy", 7, math.inf, "number 7 (from 0) is inf; expected finite numbers"),
}


@pytest.mark.parametrize("use", USES)
def test_no_use_of_a_model_comes_before_the_checks(
    use: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    set_number(saved, "seen_indices.npy", 5, 10**6)
    seal(saved)
    loaded = fastmf.load(saved)

    for _ in range(2):  # the second time as the first
        with pytest.raises(ModelError, match=r"seen_indices.npy is damaged \(it has indices from 0 to 1000000"):
            USES[use](loaded)
    assert sorted(os.listdir(tmp_path)) == ["model"]


@pytest.mark.parametrize("case", BAD_NUMBERS)
def test_numbers_that_would_mislead_kernels_are_refused(case: str, saved: Path) -> None:
    name, place, value, message = BAD_NUMBERS[case]
    set_number(saved, name, place, value)
    seal(saved)

    with pytest.raises(ModelError) as error:
        fastmf.load(saved).recommend(k=3)
    with pytest.raises(ModelError) as at_once:
        fastmf.load(saved, verify=True)

    assert f"{name} is damaged ({message}" in str(error.value).replace("it has ", "")
    assert str(at_once.value) == str(error.value)
    assert str(error.value).endswith("; restore it from a copy or train again")


def test_a_row_whose_indices_fall_is_refused(saved: Path) -> None:
    indptr, indices = np.load(saved / "seen_indptr.npy"), np.load(saved / "seen_indices.npy")
    first = indptr[np.argmax(np.diff(indptr) >= 2)]
    indices[[first, first + 1]] = indices[[first + 1, first]]
    np.save(saved / "seen_indices.npy", indices)
    seal(saved)

    with pytest.raises(
        ModelError, match=rf"index {first + 1} \(from 0\) is less than the one before it in the same row"
    ):
        fastmf.load(saved).recommend(k=3)


def test_rows_are_checked_as_a_loop_over_them_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random rows, most of them with one fault or none, in checks of all lengths."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(400):
        monkeypatch.setattr(stored_arrays, "_CHUNK", int(rng.integers(1, 12)))
        counts = rng.integers(0, 4, rng.integers(1, 12))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        indices = np.concatenate([np.sort(rng.integers(0, 9, count)) for count in counts]).astype(np.int32)
        if len(indices) and rng.random() < 0.6:
            indices[rng.integers(len(indices))] = rng.integers(-1, 11)
        rows = [indices[start:stop] for start, stop in itertools.pairwise(indptr)]
        right = all(((row >= 0) & (row < 9)).all() and (np.diff(row) >= 0).all() for row in rows)

        try:
            for check in stored_arrays.check_rows((Path("a"), Path("b")), Rows(indptr, indices), 9):
                check()
        except ModelError:
            verdicts.append(not right)
        else:
            verdicts.append(right)

    assert all(verdicts)


@pytest.mark.parametrize("n", [0, 1, 7, 100])
def test_every_place_of_an_array_is_looked_at(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_arrays, "_CHUNK", 3)

    def run_checks(array: Any) -> None:
        for check in stored_arrays.check_finite(Path("a"), array):
            check()

    run_checks(np.zeros(n, np.float32))
    for place in range(n):
        array = np.zeros(n, np.float32)
        array[place] = np.nan
        with pytest.raises(ModelError, match=rf"number {place} \(from 0\) is nan"):
            run_checks(array)


BAD_IDS = {
    "one twice": (pa.array([0, 0, *range(2, 25)]), "its ids do not ascend, or one comes up twice"),
    "in no order": (pa.array([1, 0, *range(2, 25)]), "its ids do not ascend, or one comes up twice"),
    "a null": (pa.array([None, *range(1, 25)]), "1 ids are null"),
    "of another type": (
        pa.array([n / 2 for n in range(25)]),
        "'id' of type double; expected 'id' of type int64 or string",
    ),
    "names in no order": (pa.array(["b", "a", *(f"c{n:02}" for n in range(23))]), "its ids do not ascend"),
    "no text": (
        pa.array([b"\xff", *(b"\xff%02d" % n for n in range(24))], pa.binary()).view(pa.string()),
        "Invalid UTF8 sequence",
    ),
}


@pytest.mark.parametrize("case", BAD_IDS)
def test_ids_that_cannot_be_looked_up_are_refused(case: str, saved: Path) -> None:
    ids, message = BAD_IDS[case]
    _write_ids(saved / "user_ids.arrow", ids)
    seal(saved)

    with pytest.raises(ModelError) as error:
        fastmf.load(saved).recommend(k=3)

    assert "user_ids.arrow is damaged (" in str(error.value)
    assert message in str(error.value)


def test_the_checks_run_once_and_only_when_the_model_is_used(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = stored_arrays.CheckOnce._run
    monkeypatch.setattr(stored_arrays.CheckOnce, "_run", lambda self: (runs.append(1), run(self)))

    loaded = fastmf.load(saved)
    assert runs == []
    users = [threading.Thread(target=loaded.recommend, kwargs={"k": 3}) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert 1 <= len(runs) <= 4
    runs.clear()
    loaded.predict([0], [0])

    assert runs == []


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_loaded_model_can_be_copied_and_pickled(duplicate: Callable[[Any], Any], saved: Path) -> None:
    loaded = fastmf.load(saved)

    twin = duplicate(loaded)

    assert twin.recommend(k=3).to_arrow() == loaded.recommend(k=3).to_arrow()
    set_number(saved, "item_factors.npy", 3, math.nan)
    seal(saved)
    with pytest.raises(ModelError):
        duplicate(fastmf.load(saved)).recommend(k=3)


def test_checks_on_several_threads_find_what_checks_on_one_do(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_arrays, "_CHUNK", 1)  # as if the model were large
    monkeypatch.setattr(os, "cpu_count", lambda: 4)

    fastmf.load(saved, verify=True)
    set_number(saved, "item_factors.npy", 59, math.nan)
    seal(saved)

    with pytest.raises(ModelError, match=r"item_factors.npy is damaged \(number 59"):
        fastmf.load(saved).recommend(k=3)


BAD_ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "too many users": ({"n_users": 2**31}, "n_users is 2147483648; expected an integer from 1 to 2147483647"),
    "fewer than none": ({"n_items": -1}, "n_items is -1; expected an integer"),
    "yes": ({"n_factors": True}, "n_factors is True; expected an integer"),
    "a fraction": ({"n_factors": 3.0}, "n_factors is 3.0; expected an integer"),
    "an infinite mean": ({"global_mean": math.inf}, "global_mean is inf; expected a finite number"),
    "a mean beyond float32": ({"global_mean": 1e39}, "global_mean is 1e+39; expected a finite number"),
    "a mean of 401 digits": ({"global_mean": 10**400}, "global_mean is 1000"),
    "no link": ({"link": {}}, "link is {}; expected two finite numbers, low and span"),
    "parameters in a row": ({"parameters": [1]}, "parameters is [1]; expected names and values"),
    "a parameter of 401 digits": ({"parameters": {"regularization": 10**400}}, ""),
    "history of text": ({"history": ["x"]}, "history is ['x']; expected a list of epochs"),
    "no users": ({"n_users": 0}, "n_users is 0; expected an integer from 1"),
    "no items": ({"n_items": 0}, "n_items is 0; expected an integer from 1"),
    "a mean in words": (
        {"data": {"n_ratings": 1, "mean": "x"}},
        "expected names and values, with n_ratings, and numbers",
    ),
    "more ratings than int64 has": ({"data": {"n_ratings": 2**63}}, "expected names and values, with n_ratings"),
    "times that are numbers": ({"data": {"n_ratings": 1, "times": [1, 2]}}, "expected names and values"),
    "no data": ({"data": {}}, "data is {}; expected names and values, with n_ratings"),
    "another file": (
        {"files": {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}},
        "'files' lacks item_baseline.npy, item_biases.npy, item_factors.npy",
    ),
    "state of a strange name": ({"state": ["../user_x"]}, "state is ['../user_x']; expected a list of names"),
    "state that is not there": ({"state": ["user_squares"]}, "'files' lacks user_squares.npy"),
    "a class of no model": ({"model": "Path"}, "'Path'"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_what_a_manifest_must_not_say_is_refused_by_name(case: str, saved: Path) -> None:
    entries, message = BAD_ENTRIES[case]
    content = json.loads((saved / MANIFEST).read_text()) | entries
    (saved / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(fastmf.errors.FastMFError) as error:
        fastmf.load(saved)

    assert message in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "nul", "\ufeff{}", "[1, 2]"])
def test_what_is_no_manifest_is_refused(text: str, saved: Path) -> None:
    (saved / MANIFEST).write_text(text, encoding="utf-8")

    with pytest.raises(ModelError, match=r"manifest\.json (cannot be read|is not the manifest)"):
        fastmf.load(saved)


@pytest.mark.parametrize("data", [{"n_ratings": 160}, {"n_ratings": 160, "mean": None, "deviation": None}])
@pytest.mark.parametrize("state", [["item_baseline"], []])
def test_training_goes_on_and_is_measured_without_figures_of_the_data(
    data: dict[str, Any], state: list[str], tmp_path: Path
) -> None:
    ratings = fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)
    fastmf.SGD(n_factors=3, n_epochs=2).fit(ratings).save(tmp_path / "model")
    content = json.loads((tmp_path / "model" / MANIFEST).read_text())
    for name in content["state"]:
        if name not in state:
            del content["files"][f"{name}.npy"]
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(content | {"data": data, "state": state}))

    loaded: Any = fastmf.load(tmp_path / "model")

    assert fastmf.evaluate(loaded, ratings, k=3)["rmse"] > 0
    loaded.partial_fit(ratings).save(tmp_path / "more")
    assert fastmf.load(tmp_path / "more", verify=True).fitted.data["mean"] is None


def test_a_file_that_the_list_leaves_out_is_missed(saved: Path) -> None:
    content = json.loads((saved / MANIFEST).read_text())
    del content["files"]["seen_indices.npy"]
    (saved / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(ModelError, match=r"manifest.json is damaged \('files' lacks seen_indices.npy\)"):
        fastmf.load(saved, verify=True)


@pytest.mark.parametrize(
    ("old", "new"), [('"global_mean": ', '"global_mean": 1'), ('"epoch": 2', '"epoch": 1'), ('"seed": 0', '"seed": 7')]
)
def test_verify_finds_a_changed_manifest(old: str, new: str, saved: Path) -> None:
    text = (saved / MANIFEST).read_text()
    assert old in text
    (saved / MANIFEST).write_text(text.replace(old, new))

    fastmf.load(saved)
    with pytest.raises(ModelError, match=r"manifest.json does not match its checksum: copy the model again"):
        fastmf.load(saved, verify=True)


def test_a_manifest_may_be_written_in_another_order_and_without_spaces(saved: Path) -> None:
    content = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).write_text(json.dumps(dict(reversed(content.items()))))

    fastmf.load(saved, verify=True)


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_undefined_is_null_in_the_manifest_and_none_in_python(model: FactorModel, tmp_path: Path) -> None:
    ratings = fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)
    undefined = {"a": math.nan, "b": np.float32("inf"), "c": np.float64("nan"), "d": 1.5}

    model.fit(ratings, callbacks=[lambda _, record: record.update(undefined)])
    model.save(tmp_path / "model", source={"mean": math.nan})

    content = strict((tmp_path / "model" / MANIFEST).read_text())
    assert [content["history"][0][name] for name in "abcd"] == [None, None, None, 1.5]
    assert content["data"]["mean"] is None
    loaded = fastmf.load(tmp_path / "model", verify=True)
    assert [loaded.history[0][name] for name in "abcd"] == [None, None, None, 1.5]


@pytest.mark.parametrize("value", ["x", ..., [1], {}])
def test_a_history_that_does_not_tell_the_best_epoch_is_damage(value: object, tmp_path: Path) -> None:
    ratings = fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)
    fastmf.ALS(n_factors=2, n_epochs=3, patience=2).fit(ratings, validation=ratings).save(tmp_path / "model")
    content = json.loads((tmp_path / "model" / MANIFEST).read_text())
    name = next(name for name in content["history"][0] if name.startswith("validation_"))
    content["history"][0][name] = 1.0
    content["history"][1][name] = value
    if value is ...:
        del content["history"][1][name]
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(ModelError, match="history lacks what patience=2 needs"):
        fastmf.load(tmp_path / "model")


def test_an_undefined_validation_metric_is_never_the_best(tmp_path: Path) -> None:
    ratings = fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)
    model = fastmf.ALS(n_factors=2, n_epochs=3, patience=3).fit(ratings, validation=ratings)
    name = next(name for name in model.history[0] if name.startswith("validation_"))
    model.history[0][name] = math.nan
    model.save(tmp_path / "model")

    assert fastmf.load(tmp_path / "model").best_epoch in (2, 3)


@pytest.mark.parametrize(
    "foreign", [["recs.parquet"], ["notes/"], [".hidden"], ["user_factors.npy.bak"], list("abcdefg")]
)
def test_files_that_are_not_of_the_model_are_never_deleted(
    foreign: list[str], saved: Path, model: FactorModel, tmp_path: Path
) -> None:
    for name in foreign:
        (saved / name).mkdir() if name.endswith("/") else (saved / name).write_text("mine")
    before = {path.name: path.read_bytes() for path in saved.iterdir() if path.is_file()}

    with pytest.raises(OutputExistsError) as error:
        model.save(saved, overwrite=True)

    named = "a, b, c, d, e and 2 more" if len(foreign) == 7 else foreign[0]
    assert f"model holds files that are not of the model, and overwriting it would delete them: {named}; move" in str(
        error.value
    )
    assert {path.name: path.read_bytes() for path in saved.iterdir() if path.is_file()} == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_manifest_cannot_claim_files_of_others(saved: Path, model: FactorModel) -> None:
    (saved / "recs.parquet").write_text("mine")
    content = json.loads((saved / MANIFEST).read_text())
    content["files"]["recs.parquet"] = {"bytes": 4, "sha256": "0" * 64}
    (saved / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(OutputExistsError, match="model exists and is not a model"):
        model.save(saved, overwrite=True)

    assert (saved / "recs.parquet").read_text() == "mine"


def test_files_that_appear_while_a_model_is_saved_are_not_deleted(
    saved: Path, model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = np.save

    def save_and_meddle(*args: Any, **kwargs: Any) -> None:
        (saved / "notes.txt").write_text("mine")
        save(*args, **kwargs)

    monkeypatch.setattr(np, "save", save_and_meddle)

    with pytest.raises(OutputExistsError, match=r"would delete them: notes\.txt"):
        model.save(saved, overwrite=True)

    assert (saved / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["model"]


def test_a_model_is_saved_and_loaded_through_links_and_the_home_directory(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "disk").mkdir()
    model.save("~/disk/model")
    (tmp_path / "latest").symlink_to("disk/model")

    model.set_params(n_epochs=1).fit(fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0))
    model.save(tmp_path / "latest", overwrite=True)

    assert (tmp_path / "latest").is_symlink()
    assert fastmf.load("~/disk/model").n_epochs == fastmf.load(tmp_path / "latest").n_epochs == 1
    assert fastmf.load((tmp_path / "disk" / "model").as_uri()).n_epochs == 1
    assert os.listdir(tmp_path / "disk") == ["model"]


def test_a_model_at_a_uri_is_refused(model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(OutputError, match="s3://bucket/model is a URI; expected a path on this machine"):
        model.save("s3://bucket/model")
    with pytest.raises(ModelError, match="no model at s3://bucket/model: s3://bucket/model is a URI"):
        fastmf.load("s3://bucket/model")

    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_how_much_a_model_needs(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("225 requested and 0 written")  # what NumPy says

    monkeypatch.setattr(np, "save", full)
    n_bytes = 4 * (25 * 3 + 20 * 3 + 2 * (25 + 20) + 2 * 160) + 8 * 26 + 8 * 45

    with pytest.raises(OutputError, match=rf"make room, or choose another output \({n_bytes:,} bytes are needed, "):
        model.save(tmp_path / "model")

    assert os.listdir(tmp_path) == []
