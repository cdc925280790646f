"""`load(verify=True)` and `fastmf verify`: whatever in a model directory is not as it was written is found."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
import fastmf_kernels
from fastmf.cli import main
from fastmf.errors import ModelError
from fastmf.keeping import manifest as manifests
from fastmf.keeping.manifest import MANIFEST
from fastmf.models import FactorModel
from fastmf.models.loading import find_damage


@pytest.fixture
def model() -> FactorModel:
    return fastmf.SGD(n_factors=3, n_epochs=2).fit(fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0))


@pytest.fixture
def saved(model: FactorModel, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, seal: bool = False, **entries: Any) -> None:
    """Set entries of the manifest, or take those out that are `...`; with ``seal``, its checksum fits."""
    content = json.loads((folder / MANIFEST).read_text()) | entries
    content = {name: value for name, value in content.items() if value is not ...}
    if seal:
        content.pop("manifest_sha256", None)
        manifests.write(folder, content)
    else:
        (folder / MANIFEST).write_text(json.dumps(content))


def test_a_manifest_whose_checksum_is_gone_is_not_believed(saved: Path) -> None:
    change(saved, manifest_sha256=...)

    fastmf.load(saved)
    with pytest.raises(ModelError, match=r"is damaged \('manifest_sha256', its own checksum, is missing\)"):
        fastmf.load(saved, verify=True)
    change(saved, format_version=1)  # a newer one does not become an older one
    with pytest.raises(ModelError, match="its own checksum, is missing"):
        fastmf.load(saved, verify=True)


def test_models_of_the_first_version_are_read_and_verified(saved: Path, model: FactorModel) -> None:
    gone = dict.fromkeys(("manifest_sha256", "factor_dtype", "values", "state", "trained_with"), ...)
    content = json.loads((saved / MANIFEST).read_text())
    files = {name: content["files"][name] for name in (*manifests.ARRAY_FILES, *manifests.ID_FILES)}
    for name in content["files"].keys() - files.keys():
        (saved / name).unlink()
    change(saved, format_version=1, files=files, **gone)

    loaded = fastmf.load(saved, verify=True)

    assert loaded.recommend(k=3).to_arrow() == model.recommend(k=3).to_arrow()
    assert loaded.fitted.values is None


def test_a_later_minor_version_is_read_and_what_it_adds_is_passed_over(saved: Path, model: FactorModel) -> None:
    np.save(saved / "item_popularity.npy", np.ones(20))
    record = {"bytes": (saved / "item_popularity.npy").stat().st_size, "sha256": "0" * 64}
    files = json.loads((saved / MANIFEST).read_text())["files"]
    change(saved, seal=True, format_version="1.27", files=files | {"item_popularity.npy": record}, novelty={"a": 1})

    assert fastmf.load(saved).recommend(k=3).to_arrow() == model.recommend(k=3).to_arrow()
    with pytest.raises(ModelError, match=r"item_popularity\.npy does not match its checksum"):
        fastmf.load(saved, verify=True)
    with pytest.raises(fastmf.errors.OutputExistsError, match=r"would delete them: item_popularity\.npy"):
        model.save(saved, overwrite=True)
    change(saved, seal=True, files=files | {"../notes.npy": record})
    with pytest.raises(ModelError, match=r"'files' names '\.\./notes\.npy', which no model has"):
        fastmf.load(saved)


def test_every_damaged_file_is_named(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("user_factors.npy", "item_ids.arrow"):
        content = bytearray((saved / name).read_bytes())
        content[-1] ^= 1
        (saved / name).write_bytes(content)
    (saved / "item_biases.npy").unlink()
    os.truncate(saved / "seen_values.npy", 7)
    text = (saved / MANIFEST).read_text()
    (saved / MANIFEST).write_text(text.replace('"seed": 0', '"seed": 1'))
    (saved / "notes.txt").touch()

    problems = find_damage(saved)

    assert len(problems) == 6
    for expected in (
        f"{saved / MANIFEST} does not match its checksum",
        f"{saved / 'user_factors.npy'} does not match its checksum",
        f"{saved / 'item_ids.arrow'} does not match its checksum",
        f"{saved} lacks item_biases.npy",
        f"{saved / 'seen_values.npy'} has 7 bytes, expected ",
        f"{saved} holds files that are not of the model: notes.txt; move them elsewhere",
    ):
        assert sum(problem.startswith(expected) for problem in problems) == 1
    with pytest.raises(ModelError, match=r"\(5 more: `fastmf verify` names them all\)"):
        fastmf.load(saved, verify=True)
    assert main(["verify", str(saved)]) == 1
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 6)


def test_every_file_with_bad_contents_is_named_once(saved: Path) -> None:
    files = json.loads((saved / MANIFEST).read_text())["files"]
    for name, places, value in (
        ("user_factors.npy", (0, 70), np.nan),
        ("item_biases.npy", (3,), np.inf),
        ("seen_indptr.npy", (4,), -5),
        ("user_squares.npy", (1,), np.nan),
        ("seen_values.npy", (1,), np.nan),
    ):
        array = np.load(saved / name)
        array.reshape(-1)[list(places)] = value
        np.save(saved / name, array)
        files[name] = record_of(saved / name)
    change(saved, seal=True, files=files)

    problems = find_damage(saved)

    names = ["item_biases", "seen_indptr", "seen_values", "user_factors", "user_squares"]
    assert sorted(Path(problem.split()[0]).stem for problem in problems) == names


def record_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_several_models_are_verified_at_once(
    saved: Path, model: FactorModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "other")
    (tmp_path / "other" / "item_factors.npy").unlink()
    paths = [str(saved), str(tmp_path / "other"), str(tmp_path / "none")]

    assert main(["verify", *paths, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(result["model"], result["damaged"]) for result in told] == list(zip(paths, (0, 1, 1), strict=True))
    assert told[1]["problems"] == [
        f"{tmp_path / 'other'} lacks item_factors.npy: the model is incomplete; copy it again or train again"
    ]
    assert main(["verify", *paths]) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2
    assert printed.out.split()[:2] == ["model", str(saved)]
    assert main(["verify", str(saved), str(saved)]) == 0


def test_what_the_parameters_say_is_verified(saved: Path) -> None:
    parameters = json.loads((saved / MANIFEST).read_text())["parameters"]
    change(saved, seal=True, parameters=parameters | {"n_epochs": 0})

    assert find_damage(saved) == [
        f"{saved} is damaged (n_epochs is 0; expected an integer of at least 1); restore it from a copy or train again"
    ]


@pytest.mark.parametrize(
    ("trained_with", "message"),
    [
        ({"chosen": {"bytes": 3}}, "trained_with has 'bytes', which is no parameter of SGD"),
        ({"chosen": {"learning_rate": "x"}}, "learning_rate is 'x'"),
        ({"chosen": [1]}, "trained_with has 1, which is no parameter of SGD"),
        ({"chosen": 3}, "'int' object is not iterable"),
        ({"objective": {"regularization": -1}}, "regularization is -1"),
        ({"loss": []}, "loss is ()"),
        ({"rating_range": [2, 1]}, "rating_range"),
    ],
)
def test_what_a_fit_has_kept_of_its_parameters_is_checked(
    trained_with: dict[str, Any], message: str, saved: Path
) -> None:
    before = json.loads((saved / MANIFEST).read_text())["trained_with"]
    change(saved, trained_with=before | {"novelty": 1, "chosen": {"regularization": None}})
    fastmf.load(saved)
    change(saved, trained_with=before | trained_with)

    with pytest.raises(ModelError) as error:
        fastmf.load(saved)

    assert message in str(error.value)


def test_links_are_followed_but_not_verified_where_they_lead_out(saved: Path, tmp_path: Path) -> None:
    (saved / "item_factors.npy").rename(tmp_path / "elsewhere.npy")
    (saved / "item_factors.npy").symlink_to("../elsewhere.npy")

    fastmf.load(saved).recommend(k=3)
    with pytest.raises(ModelError, match=r"item_factors\.npy is a link that leads out of the model; put a copy"):
        fastmf.load(saved, verify=True)
    (tmp_path / "latest").symlink_to("model")
    (saved / "item_factors.npy").unlink()
    (tmp_path / "elsewhere.npy").rename(saved / "item_factors.npy")
    fastmf.load(tmp_path / "latest", verify=True)


@pytest.mark.parametrize("name", [MANIFEST, "card.md"])
def test_a_manifest_or_card_elsewhere_is_not_verified(name: str, saved: Path, tmp_path: Path) -> None:
    (saved / name).rename(tmp_path / "elsewhere")
    (saved / name).symlink_to("../elsewhere")

    with pytest.raises(ModelError, match=rf"{re.escape(name)} is a link that leads out of the model"):
        fastmf.load(saved, verify=True)


@pytest.mark.parametrize("name", [MANIFEST, "item_factors.npy", "user_ids.arrow", "seen_indices.npy", "card.md"])
@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "link to a pipe", "link to itself"])
def test_what_is_no_file_is_refused_and_not_waited_for(name: str, kind: str, saved: Path, tmp_path: Path) -> None:
    (saved / name).unlink()
    if kind == "pipe":
        os.mkfifo(saved / name)
    elif kind == "device":
        (saved / name).symlink_to("/dev/zero")
    elif kind == "directory":
        (saved / name).mkdir()
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        (saved / name).symlink_to(tmp_path / "pipe")
    else:
        (saved / name).symlink_to(name)

    if name == "card.md":  # nothing reads it
        fastmf.load(saved)
        return
    with pytest.raises(ModelError, match=name):
        fastmf.load(saved)
    assert find_damage(saved) != []


def test_a_pipe_that_comes_after_the_look_is_not_waited_for(saved: Path) -> None:
    from fastmf.keeping.stored_arrays import map_array, map_ids

    os.mkfifo(saved / "pipe")

    with pytest.raises(ModelError, match=r"pipe is damaged \(it is no regular file"):
        map_array(saved / "pipe", np.float32, (3,))
    with pytest.raises(ModelError, match=r"pipe is damaged \(it is no regular file"):
        map_ids(saved / "pipe")


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_compressed_ids_are_refused_before_they_are_unpacked(kind: str, saved: Path) -> None:
    table = pa.table({"id": pa.array([0] * 25)})
    options = pa.ipc.IpcWriteOptions(compression=kind)
    with (
        pa.OSFile(str(saved / "user_ids.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=options) as f,
    ):
        f.write_table(table)
    files = json.loads((saved / MANIFEST).read_text())["files"]
    change(saved, seal=True, files=files | {"user_ids.arrow": record_of(saved / "user_ids.arrow")})

    with pytest.raises(ModelError, match=r"user_ids.arrow is damaged \(its ids are compressed"):
        fastmf.load(saved)


def test_ids_in_several_batches_are_read(saved: Path, model: FactorModel) -> None:
    ids = model.user_ids
    table = pa.table({"id": pa.chunked_array([ids[:7], ids[7:]])})
    with pa.OSFile(str(saved / "user_ids.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as f:
        f.write_table(table)
    files = json.loads((saved / MANIFEST).read_text())["files"]
    change(saved, seal=True, files=files | {"user_ids.arrow": record_of(saved / "user_ids.arrow")})

    assert fastmf.load(saved, verify=True).recommend(k=3).to_arrow() == model.recommend(k=3).to_arrow()


LOAD_SPARSELY = """
import resource, sys, fastmf
from fastmf.errors import ModelError
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        model = fastmf.load(path)
        print("loaded")
    except ModelError as error:
        print("refused:", error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def sparse(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Write an array of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        n_bytes = file.tell() + int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    os.truncate(path, n_bytes)


@pytest.mark.slow
def test_no_memory_is_taken_because_a_file_claims_to_be_large(saved: Path, model: FactorModel, tmp_path: Path) -> None:
    for number, (name, dtype, shape, entries) in enumerate(
        (
            ("seen_indices.npy", "<i4", (10**12,), {}),
            ("seen_indices.npy", "<i4", (2 * 10**12,), {}),
            ("user_factors.npy", "<f4", (2**31 - 1, 3), {"n_users": 2**31 - 1}),
            ("item_factors.npy", "<f4", (20, 2**31 - 1), {"n_factors": 2**31 - 1}),
        )
    ):
        folder = tmp_path / str(number)
        model.save(folder)
        sparse(folder / name, dtype, shape)
        content = json.loads((folder / MANIFEST).read_text())
        content["files"][name]["bytes"] = (folder / name).stat().st_size
        if name == "seen_indices.npy":
            content["values"] = "ones"
            del content["files"]["seen_values.npy"]
        change(folder, **content | entries)
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / MANIFEST).touch()
    os.truncate(tmp_path / "4" / MANIFEST, 10**12)

    done = run_python(LOAD_SPARSELY, *(str(tmp_path / str(n)) for n in range(5)))

    *told, megabytes = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(told) == 5
    assert all(line == "loaded" or line.startswith("refused: ") for line in told)
    assert "refused" in told[2]
    assert "has more than 67,108,864 bytes" in told[4]
    assert int(megabytes) < 400


def run_python(code: str, *arguments: str) -> "CompletedProcess[str]":
    packages = [Path(package.__file__ or "").parents[1] for package in (fastmf, fastmf_kernels)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_offsets_far_apart_do_not_hide_behind_an_overflow(saved: Path) -> None:
    from fastmf.keeping.stored_arrays import _rises

    assert not _rises(np.array([0, 2**63 - 1, -(2**63), 5]), 5)
    assert _rises(np.array([0, 0, 3, 5]), 5)
    assert not _rises(np.array([0, 3, 2, 5]), 5)


def test_a_manifest_beyond_what_is_read_is_not_written(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "_LARGEST_MANIFEST", 1000)

    with pytest.raises(fastmf.errors.OutputError, match="bytes, more than the 1,000 that `load` reads"):
        model.save(tmp_path / "model")

    assert os.listdir(tmp_path) == []
