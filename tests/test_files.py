"""Outputs that appear whole or not at all."""

import errno
import os
import re
import sys
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


def test_a_full_disk_whose_file_is_gone_does_not_say_that_nothing_is_needed(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with files.new_file(tmp_path / "out") as temporary:
            temporary.write_text("half")
            temporary.unlink()  # as Arrow does when it fails
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError) as error:
        write_and_fail()

    assert re.search(r"\(more than ([1-9][\d,]*) bytes are needed, \1 are free\)", str(error.value))


@both
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the path is empty; expected the name of a file or directory"),
        (b"caf\xe9.parquet", r"'caf\\udce9.parquet' is not UTF-8"),
        (b"caf\xe9/out", r"'caf\\udce9/out' is not UTF-8"),
        ("n" * 300, "cannot write n+: File name too long; choose another output"),
        ("n" * 250, "cannot write n+: File name too long; choose another output"),
    ],
)
def test_names_that_no_output_can_have(
    name: str | bytes, message: str, new: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(OutputError, match=message), new(name) as temporary:
        write(temporary, "content", new)

    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_an_output_in_a_directory_whose_name_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    monkeypatch.chdir(os.fsdecode(folder))

    with pytest.raises(OutputError, match=r"caf\\udce9/out' is not UTF-8"):
        files.output_path("out")


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
