"""Directories of models with features: what is kept bit for bit, and what is damaged and found."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf import ALS, ImplicitALS
from fastmf.errors import ModelError
from fastmf.keeping import manifest as manifests
from fastmf.keeping.manifest import MANIFEST
from tests.hybrid import KINDS, N_ITEMS, N_USERS, fit, ratings

each_kind = pytest.mark.parametrize("kind", KINDS)
ARRAYS = ("indptr", "indices", "values", "weights", "centers", "scales")
FILES = [
    f"{side}_feature_{part}"
    for side in ("item", "user")
    for part in (*(f"{name}.npy" for name in ARRAYS), "names.arrow")
]
NEW_PEOPLE = pa.table({"user_id": [900, 901], "age": ["a1", "a2"]})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    fit(ALS, n_epochs=1).save(folder)
    return folder


@pytest.fixture
def saved(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "model")
    return tmp_path / "model"


def read(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_text())


def seal(folder: Path) -> None:
    """Let the manifest say what the files are now."""
    content = read(folder)
    for name in content["files"]:
        text = (folder / name).read_bytes()
        content["files"][name] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    content.pop("manifest_sha256")
    manifests.write(folder, content)


def answers(model: Any) -> list[Any]:
    """What a model says of those without ratings, and of new people with features."""
    cold_users, cold_items = [N_USERS, N_USERS + 3, 0], [N_ITEMS, N_ITEMS + 5, N_ITEMS + 2]
    alone, with_ratings = (model.fold_in(given, features=NEW_PEOPLE) for given in (None, ratings()))
    found = model.recommend_for(None, k=4, features=NEW_PEOPLE).to_arrow()
    return [
        model.predict(cold_users, cold_items),
        *(part for folded in (alone, with_ratings) for part in (folded.factors, folded.biases)),
        *(found[name].to_numpy() for name in ("user_id", "item_id", "score")),
        model.similar_items(cold_items, k=3).to_arrow()["score"].to_numpy(),
    ]


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_loaded_model_knows_the_same_features_bit_for_bit(dtype: Any, kind: Any, tmp_path: Path) -> None:
    model = fit(kind)
    model.save(tmp_path / "model", factor_dtype=dtype)
    loaded: Any = fastmf.load(tmp_path / "model", verify=True)

    for side, known in model.fitted.features.items():
        found = loaded.fitted.features[side]
        assert found.columns.names.equals(known.columns.names)
        assert found.pull == known.pull
        for name in ("centers", "scales"):
            assert getattr(found.columns, name).tobytes() == getattr(known.columns, name).tobytes()
        for part, expected in zip((*found.rows, found.weights), (*known.rows, known.weights), strict=True):
            assert part.tobytes() == expected.tobytes()
    if dtype == "float16":
        for table in (model.fitted.factors.user_factors, model.fitted.factors.item_factors):
            table[:] = table.astype(np.float16)
        twin = kind(n_factors=4, n_epochs=5)
        twin.restore(model.fitted.copy(), model.history)
        model = twin
    for found, expected in zip(answers(loaded), answers(model), strict=True):
        np.testing.assert_array_equal(found, expected)

    loaded.save(tmp_path / "again", factor_dtype=dtype)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_the_files_of_features_are_these(saved: Path) -> None:
    assert sorted(FILES) == sorted(path.name for path in saved.glob("*_feature_*"))
    assert {name for name in read(saved)["files"] if "_feature_" in name} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_verify_finds_a_flipped_bit(name: str, saved: Path) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-1 - len(content) // 7] ^= 1
    (saved / name).write_bytes(content)

    with pytest.raises(ModelError, match=f"{name} does not match its checksum: copy the model again"):
        fastmf.load(saved, verify=True)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_cut_short_is_named(name: str, saved: Path) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1])
    with pytest.raises(ModelError, match=f"{name} has {len(content) - 1} bytes, expected {len(content)}"):
        fastmf.load(saved)
    (saved / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name}: the model is incomplete"):
        fastmf.load(saved)


BAD_NUMBERS: dict[str, tuple[str, int, Any]] = {
    "a column beyond the last": ("item_feature_indices.npy", 0, 10**6),
    "a column before the first": ("user_feature_indices.npy", 3, -1),
    "rows that end before they begin": ("item_feature_indptr.npy", 5, -7),
    "rows beyond the entries": ("user_feature_indptr.npy", -1, 10**9),
    "a value that is no number": ("item_feature_values.npy", 2, np.nan),
    "a map that is infinite": ("item_feature_weights.npy", 4, np.inf),
    "a center that is no number": ("item_feature_centers.npy", 0, np.nan),
    "a scale that is infinite": ("user_feature_scales.npy", 0, -np.inf),
}


@pytest.mark.parametrize("case", BAD_NUMBERS)
def test_numbers_that_would_mislead_are_refused_by_the_name_of_their_file(case: str, saved: Path) -> None:
    name, place, value = BAD_NUMBERS[case]
    array = np.load(saved / name)
    array.reshape(-1)[place] = value
    np.save(saved / name, array)
    seal(saved)

    with pytest.raises(ModelError, match=f"{name} is damaged .*; restore it from a copy or train again"):
        fastmf.load(saved, verify=True)
    loaded: Any = fastmf.load(saved)
    for _ in range(2):
        with pytest.raises(ModelError, match=f"{name} is damaged"):
            loaded.fold_in(None, features=NEW_PEOPLE)


BAD_SHAPES: dict[str, tuple[str, Any]] = {
    "a map without the intercept": ("item_feature_weights.npy", lambda array: array[:-1]),
    "a map without the bias": ("user_feature_weights.npy", lambda array: np.ascontiguousarray(array[:, :-1])),
    "a row too few": ("item_feature_indptr.npy", lambda array: array[:-1]),
    "a value too few": ("user_feature_values.npy", lambda array: array[:-1]),
    "centers of another type": ("item_feature_centers.npy", lambda array: array.astype(np.float64)),
    "a scale too many": ("item_feature_scales.npy", lambda array: np.append(array, array[:1])),
}


@pytest.mark.parametrize("case", BAD_SHAPES)
def test_arrays_of_another_shape_or_type_are_refused_at_load(case: str, saved: Path) -> None:
    name, change = BAD_SHAPES[case]
    np.save(saved / name, change(np.load(saved / name)))
    seal(saved)

    with pytest.raises(ModelError, match=name):
        fastmf.load(saved)


@pytest.mark.parametrize("names", [["a"] * 3, ["a", None, "b"], ["a", "b"], [1, 2, 3]], ids=str)
def test_names_that_are_no_columns_are_refused(names: list[Any], saved: Path) -> None:
    path = saved / "user_feature_names.arrow"
    table = pa.table({"id": pa.array(names, pa.int64() if names[0] == 1 else pa.large_string())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    seal(saved)

    with pytest.raises(ModelError, match=r"user_feature_names.arrow"):
        fastmf.load(saved, verify=True)
    with pytest.raises(ModelError, match=r"user_feature_names.arrow"):
        fastmf.load(saved).fold_in(None, features=NEW_PEOPLE)  # type: ignore[attr-defined]


GOOD = {"n_features": 3, "pull": 0.5}
BAD_ENTRIES: dict[str, Any] = {
    "a list": [],
    "nothing": None,
    "a side that is none": {"movie": GOOD},
    "a path": {"../user": GOOD},
    "a side that is a number": {"user": 3},
    "no number of features": {"user": {"pull": 0.5}},
    "no features": {"user": {**GOOD, "n_features": 0}},
    "fewer than none": {"user": {**GOOD, "n_features": -1}},
    "a fraction of a feature": {"user": {**GOOD, "n_features": 3.0}},
    "yes as a number": {"user": {**GOOD, "n_features": True}},
    "too many features": {"user": {**GOOD, "n_features": 2**31}},
    "no pull": {"user": {"n_features": 3}},
    "a pull of nothing": {"user": {**GOOD, "pull": 0}},
    "a pull away": {"user": {**GOOD, "pull": -0.5}},
    "a pull above 1": {"user": {**GOOD, "pull": 1.5}},
    "a pull that is no number": {"user": {**GOOD, "pull": float("nan")}},
    "a pull in words": {"user": {**GOOD, "pull": "1"}},
    "a pull that is a yes": {"user": {**GOOD, "pull": True}},
    "a pull of 401 digits": {"user": {**GOOD, "pull": 10**400}},
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_what_a_manifest_must_not_say_of_features_is_refused(case: str, saved: Path) -> None:
    (saved / MANIFEST).write_text(json.dumps(read(saved) | {"features": BAD_ENTRIES[case]}))

    with pytest.raises(ModelError, match=r"features is .*; expected sizes and pulls of the features of a side"):
        fastmf.load(saved)


def test_another_number_of_features_is_refused(saved: Path) -> None:
    content = read(saved)
    content["features"]["user"]["n_features"] += 1
    (saved / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(
        ModelError, match=r"user_feature_names.arrow is damaged \(it has 3 names .*; expected 4 strings"
    ):
        fastmf.load(saved)


@pytest.mark.parametrize(("kind", "other"), [(ALS, "ImplicitALS"), (ImplicitALS, "ALS"), (ALS, "SGD")])
def test_features_of_another_class_of_model_are_refused(kind: Any, other: str, tmp_path: Path) -> None:
    fit(kind, n_epochs=1).save(tmp_path / "model")
    content = read(tmp_path / "model")
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(content | {"model": other, "parameters": {}}))

    with pytest.raises(ModelError, match="is damaged"):
        fastmf.load(tmp_path / "model")


@pytest.mark.parametrize("place", ["objective", "parameters"])
def test_maps_have_a_column_of_the_bias_if_rows_are_solved_with_biases(place: str, saved: Path) -> None:
    content = read(saved)
    if place == "objective":
        content["trained_with"]["objective"]["biases"] = False
    else:  # which are those of the objective if nothing says what that was
        content["parameters"]["biases"] = False
        del content["trained_with"]["objective"]
    (saved / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(
        ModelError, match="the maps of features are of a fit with biases: True, and its objective says False"
    ):
        fastmf.load(saved)


def test_biases_that_were_set_after_the_fit_change_nothing(tmp_path: Path) -> None:
    model = fit(ALS, n_epochs=1)
    expected = answers(model)
    model.set_params(biases=False).save(tmp_path / "model")

    for found, before in zip(answers(fastmf.load(tmp_path / "model")), expected, strict=True):
        np.testing.assert_array_equal(found, before)
