"""Outputs that appear whole or not at all."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fastmf.common import files
from fastmf.errors import OutputError, OutputExistsError

Writer = Callable[..., AbstractContextManager[Path]]


def write(temporary: Path, text: str, kind: Writer) -> None:
    if kind is files.new_directory:
        (temporary / "a").write_text(text)
    else:
        temporary.write_text(text)


def read(path: Path) -> str:
    return ((path / "a") if path.is_dir() else path).read_text()


def existing(path: Path, kind: Writer) -> None:
    if kind is files.new_directory:
        path.mkdir()
    write(path, "old", kind)


both = pytest.mark.parametrize("new", [files.new_file, files.new_directory])


@both
def test_output_appears_when_the_block_ends_well(new: Writer, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "down" / "out"

    with new(out) as temporary:
        write(temporary, "new", new)
        assert not out.exists()

    assert read(out) == "new"
    assert os.listdir(out.parent) == ["out"]


@both
@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt(), ValueError("bug")])
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "over an old one"])
def test_failure_leaves_neither_output_nor_litter(
    new: Writer, failure: BaseException, overwrite: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if overwrite:
        existing(out, new)

    def write_half() -> None:
        with new(out, overwrite) as temporary:
            write(temporary, "half", new)
            raise failure

    with pytest.raises(type(failure)):
        write_half()

    assert os.listdir(tmp_path) == (["out"] if overwrite else [])
    assert not overwrite or read(out) == "old"


@both
def test_a_full_disk_names_the_output_and_what_to_do(new: Writer, tmp_path: Path) -> None:
    out = tmp_path / "out"

    with pytest.raises(OutputError) as error, new(out):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert f"cannot write {out}: No space left on device; make room, or choose another output" in str(error.value)


@both
def test_errors_of_our_own_pass_as_they_are(new: Writer, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"^mine$"), new(tmp_path / "out"):
        raise OutputExistsError("mine")


@both
def test_existing_output_is_refused_with_advice(new: Writer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    existing(out, new)

    with pytest.raises(OutputExistsError) as error, new(out):
        pytest.fail("nothing may be computed for an output that cannot be written")

    assert f"{out} exists already; choose another output, or allow overwriting (overwrite=True" in str(error.value)
    assert read(out) == "old"


@both
def test_overwrite_replaces_the_old_output(new: Writer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    existing(out, new)

    with new(out, overwrite=True) as temporary:
        write(temporary, "new", new)
        assert read(out) == "old"

    assert read(out) == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_directory_replaces_a_whole_directory_not_single_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "stale").touch()

    with files.new_directory(out, overwrite=True) as temporary:
        (temporary / "a").touch()

    assert os.listdir(out) == ["a"]


def test_a_file_never_replaces_a_directory(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputExistsError, match="is a directory; expected the name of a file"),
        files.new_file(tmp_path, overwrite=True),
    ):
        pytest.fail("a directory may not be replaced by a file")


@both
def test_a_parent_that_is_a_file_is_named(new: Writer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(OutputError, match=r"cannot write .*out: .*file is not a directory"),
        new(tmp_path / "file" / "out"),
    ):
        pytest.fail("there is no place to write to")


@pytest.mark.parametrize("failure", [OSError("disk gone"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_failure_between_the_two_renames_puts_the_old_directory_back(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    existing(out, files.new_directory)
    monkeypatch.setattr(files, "exchange", lambda *_: False)  # a system that cannot

    rename = files.rename_to_absent

    def fail(source: Path, target: Path) -> None:
        assert not out.exists()  # the old directory has been moved aside, the new one is about to take its place
        monkeypatch.setattr(files, "rename_to_absent", rename)
        raise failure

    monkeypatch.setattr(files, "rename_to_absent", fail)
    with pytest.raises(type(failure)), files.new_directory(out, overwrite=True) as temporary:
        write(temporary, "new", files.new_directory)

    assert read(out) == "old"
    assert os.listdir(tmp_path) == ["out"]
