"""Outputs of several processes, and of processes that were killed: one wins, nothing is lost, nothing stays behind."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fastmf.common import files, leftovers, renaming
from fastmf.errors import OutputError, OutputExistsError

Writer = Callable[..., AbstractContextManager[Path]]
both = pytest.mark.parametrize("new", [files.new_file, files.new_directory])


@pytest.fixture
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take away what not every system has."""
    if request.param == "renameat2" and sys.platform != "linux":
        pytest.skip("only Linux has it")
    if request.param != "renameat2":
        monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    if request.param == "no hard links either":

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


each_system = pytest.mark.parametrize("system", ["renameat2", "no renameat2", "no hard links either"], indirect=True)


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def put(path: Path, new: Writer, text: str) -> None:
    if new is files.new_directory:
        path.mkdir(exist_ok=True)
        path = path / "a"
    path.write_text(text)


def text_of(path: Path) -> str:
    return ((path / "a") if path.is_dir() else path).read_text()


@each_system
@both
def test_of_two_writers_of_a_new_output_one_wins_and_the_other_is_told(
    new: Writer, system: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def write_second(first: Path) -> None:
        with new(out) as second:
            put(second, new, "second")
            os.rename(first, out)  # the first is quicker

    with new(out) as first:
        put(first, new, "first")
        with pytest.raises(
            OutputExistsError, match="out was written by another process meanwhile, and is left as it is"
        ):
            write_second(first)
        os.rename(out, first)

    assert text_of(out) == "first"
    assert os.listdir(tmp_path) == ["out"]


@each_system
@both
def test_of_many_writers_at_once_exactly_one_wins(new: Writer, system: str, tmp_path: Path) -> None:
    out, outcomes, barrier = tmp_path / "out", [], threading.Barrier(8)

    def write(number: int) -> None:
        try:
            with new(out) as temporary:
                put(temporary, new, str(number))
                barrier.wait()
        except OutputExistsError:
            outcomes.append(None)
        else:
            outcomes.append(str(number))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert sorted(outcomes, key=str)[1:] == [None] * 7
    assert text_of(out) in outcomes
    assert os.listdir(tmp_path) == ["out"]


@each_system
@both
def test_of_many_writers_that_overwrite_the_last_one_wins_and_nobody_fails(
    new: Writer, system: str, tmp_path: Path
) -> None:
    out, failures = tmp_path / "out", []
    put(out, new, "old")

    def write(number: int) -> None:
        try:
            for _ in range(5):
                with new(out, overwrite=True) as temporary:
                    put(temporary, new, str(number))
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert failures == []
    assert text_of(out) in set("0123")
    assert os.listdir(tmp_path) == ["out"]


@each_system
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_rename_replaces_nothing(kind: str, system: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        put(path, files.new_file if kind == "file" else files.new_directory, path.name)

    with pytest.raises(FileExistsError):
        renaming.rename_to_absent(source, target)

    assert (text_of(source), text_of(target)) == ("source", "target")


@each_system
def test_a_rename_of_nothing_leaves_nothing(system: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        renaming.rename_to_absent(tmp_path / "source", tmp_path / "target")

    assert os.listdir(tmp_path) == []


# Overwrites ./out and is killed at the second rename, or right after names were exchanged.
KILLED = """
import os, signal, sys
from pathlib import Path
from fastmf.common import files
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "two renames":
    files.exchange = lambda *_: False
    files.rename_to_absent = die
else:
    exchange = files.exchange
    files.exchange = lambda *names: exchange(*names) and die()
with files.new_directory("out", overwrite=True) as folder:
    (folder / "a").write_text("new")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="kills, and names that are exchanged")
@pytest.mark.parametrize("how", ["two renames", "exchange"])
@pytest.mark.parametrize("by", ["a look", "a write"])
def test_a_killed_overwrite_leaves_one_version_and_is_cleaned_up(how: str, by: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, files.new_directory, "old")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run([sys.executable, "-c", KILLED, how], cwd=tmp_path, env=environment, check=False)

    assert done.returncode == -9
    assert len(os.listdir(tmp_path)) == 2
    if by == "a look":
        assert files.is_being_replaced(out) == (how == "two renames")
        assert text_of(out) == ("old" if how == "two renames" else "new")
    with files.new_directory(out, overwrite=True) as folder:
        (folder / "a").write_text("newer")
        assert text_of(out) == ("old" if how == "two renames" else "new")  # until the very end
    assert text_of(out) == "newer"
    assert os.listdir(tmp_path) == ["out"]


def test_an_old_version_is_put_back_over_a_name_that_was_only_claimed(dead: int, tmp_path: Path) -> None:
    put(tmp_path / f".out.old-{dead}-0123abcd", files.new_directory, "old")
    (tmp_path / "out").mkdir()

    assert files.is_being_replaced(tmp_path / "out")

    assert text_of(tmp_path / "out") == "old"


def test_an_old_version_that_another_process_takes_first_is_no_error(
    dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = tmp_path / f".out.old-{dead}-0123abcd"
    put(aside, files.new_directory, "old")
    rename = leftovers.rename_to_absent

    def come_too_late(source: Path, target: Path) -> None:
        os.rename(source, target)
        rename(source, target)

    monkeypatch.setattr(leftovers, "rename_to_absent", come_too_late)

    assert files.is_being_replaced(tmp_path / "out")

    assert text_of(tmp_path / "out") == "old"


def test_an_overwrite_that_goes_on_is_waited_for_not_repaired(tmp_path: Path) -> None:
    aside = leftovers.aside_beside(tmp_path / "out")
    put(aside, files.new_directory, "old")
    os.utime(aside, (1, 1))  # renaming leaves the time of the old version as it was

    assert files.is_being_replaced(tmp_path / "out")

    assert os.listdir(tmp_path) == [aside.name]


@both
def test_the_next_write_removes_what_dead_processes_left_and_nothing_else(
    new: Writer, dead: int, tmp_path: Path
) -> None:
    gone = [f".out.tmp-{dead}-0123abcd", f".out.tmp-{dead}-0123abcd-{leftovers._this_machine()}", ".out.parts-0a1b2c"]
    (tmp_path / gone[0]).write_text("half")
    put(tmp_path / gone[1], files.new_directory, "half")
    (tmp_path / gone[2]).mkdir()
    kept = [
        f".out.tmp-{os.getpid()}-0123abcd",  # of a process that is alive
        f".out.tmp-{dead}-0123abcd-00000000",  # of another machine
        f".other.tmp-{dead}-0123abcd",  # of another output
        ".out.tmp-mine",
        ".out.backup",
        "out.tmp-1-2",
    ]
    for name in kept:
        (tmp_path / name).write_text("mine")

    with new(tmp_path / "out") as temporary:
        put(temporary, new, "new")

    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "out"])


def test_a_number_that_a_younger_process_has_now_is_that_of_a_dead_one(tmp_path: Path) -> None:
    left = tmp_path / f".out.tmp-{os.getpid()}-0123abcd"
    left.write_text("half")
    os.utime(left, (1, 1))  # before this process was born

    with files.new_file(tmp_path / "out") as temporary:
        temporary.write_text("new")

    assert os.listdir(tmp_path) == ["out"]


def test_what_another_machine_has_not_touched_for_days_is_left_over(dead: int, tmp_path: Path) -> None:
    left = tmp_path / f".out.tmp-{dead}-0123abcd-00000000"
    left.write_text("half")
    os.utime(left, (1, 1))

    with files.new_file(tmp_path / "out") as temporary:
        temporary.write_text("new")

    assert os.listdir(tmp_path) == ["out"]


def test_parts_that_somebody_works_on_or_that_hold_other_files_stay(tmp_path: Path) -> None:
    for name, file in (("0a", "part-00000.parquet"), ("0b", "part-00001.json"), ("0c", "thesis.txt")):
        (tmp_path / f".out.parts-{name}").mkdir()
        (tmp_path / f".out.parts-{name}" / file).write_text("12345")

    with leftovers.locked(tmp_path / ".out.parts-0a") as has_lock:
        assert has_lock
        found = leftovers.remove_all(tmp_path / "out")

    assert [path.name for path in found.removed] == [".out.parts-0b"]
    assert found.n_bytes == 5
    assert sorted(os.listdir(tmp_path)) == [".out.parts-0a", ".out.parts-0c"]
    assert [path.name for path in leftovers.remove_all(tmp_path).removed] == [".out.parts-0a"]


@both
def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(new: Writer, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    put(tmp_path / "disk" / "data", new, "old")
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "data")

    with pytest.raises(OutputExistsError, match="out exists already"), new(tmp_path / "out"):
        pytest.fail("it exists")
    with new(tmp_path / "out", overwrite=True) as temporary:
        assert temporary.parent == tmp_path / "disk"
        put(temporary, new, "new")

    assert (tmp_path / "out").is_symlink()
    assert text_of(tmp_path / "disk" / "data") == "new"
    assert os.listdir(tmp_path / "disk") == ["data"]


@both
def test_a_link_to_nothing_is_filled(new: Writer, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "data")

    with new(tmp_path / "out") as temporary:
        put(temporary, new, "new")

    assert (tmp_path / "out").is_symlink()
    assert text_of(tmp_path / "data") == "new"


@both
def test_a_link_that_leads_back_to_itself_is_refused(new: Writer, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "out")

    with pytest.raises(OutputError, match="out is a link that leads back to itself"), new(tmp_path / "out", True):
        pytest.fail("there is no place to write to")

    assert os.listdir(tmp_path) == ["out"]


@both
def test_the_home_directory_is_expanded(new: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    with new("~/deep/out") as temporary:
        put(temporary, new, "new")

    assert text_of(tmp_path / "home" / "deep" / "out") == "new"
    assert os.listdir(tmp_path) == ["home"]
    with pytest.raises(OutputError, match="~nobody-of-that-name/out names a home directory that does not exist"):
        files.output_path("~nobody-of-that-name/out")


@both
@pytest.mark.parametrize("uri", ["s3://bucket/out", "gs://bucket/a/out", "hdfs://host:1/out", Path("s3://bucket/out")])
def test_a_uri_is_refused_not_taken_for_a_directory(
    new: Writer, uri: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(OutputError, match="out is a URI; expected a path on this machine"), new(uri, True):
        pytest.fail("there is no place to write to")

    assert os.listdir(tmp_path) == []


def test_a_uri_of_this_machine_is_a_path(tmp_path: Path) -> None:
    with files.new_file(f"{(tmp_path / 'my out').as_uri()}") as temporary:
        temporary.write_text("new")

    assert (tmp_path / "my out").read_text() == "new"


@both
@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.CSV", "out.csv.gz"])
def test_a_name_that_promises_text_is_refused(new: Writer, name: str, tmp_path: Path) -> None:
    message = rf"cannot write .*{name}: fastmf writes Parquet, not [CT]SV; choose a name that ends in .parquet"
    with pytest.raises(OutputError, match=message), new(tmp_path / name):
        pytest.fail("the name would be wrong")

    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="there are no devices")
def test_a_device_is_never_replaced() -> None:
    with (
        pytest.raises(OutputExistsError, match="/dev/null is neither a file nor a directory"),
        files.new_file("/dev/null", overwrite=True),
    ):
        pytest.fail("it is not a file")

    assert Path("/dev/null").is_char_device()


@both
@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "Read-only file system; choose another output"),
        (errno.EACCES, "Permission denied; choose another output"),
        (
            errno.ENOSPC,
            r"No space left on device; make room, or choose another output \(12,345 bytes are needed, [\d,]+ ",
        ),
        (errno.EDQUOT, r"exceeded; make room, or choose another output \(12,345 bytes are needed, [\d,]+ are free\)"),
    ],
)
@pytest.mark.parametrize("where", ["the directory", "the output"])
def test_what_the_system_refuses_is_named_with_what_to_do(
    where: str, number: int, advice: str, new: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    out = tmp_path / "deep" / "out"
    if where == "the directory":
        monkeypatch.setattr(Path, "mkdir", refuse)
        advice = advice.partition(r" \(")[0]
    with pytest.raises(OutputError, match=rf"^cannot write {out}: .*{advice}"), new(out, n_bytes=12_345):
        refuse()


def test_how_much_was_written_is_told_where_the_size_is_not_known(tmp_path: Path) -> None:
    def write_half() -> None:
        with files.new_file(tmp_path / "out") as temporary:
            temporary.write_bytes(b"x" * 1000)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"\(more than 1,000 bytes are needed, [\d,]+ are free\)"):
        write_half()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_directory_that_is_removed_before_it_is_locked_is_not_locked(
    is_made_again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    folder, flock = tmp_path / "parts", fcntl.flock
    folder.mkdir()

    def lock_late(descriptor: int, operation: int) -> None:
        folder.rename(tmp_path / "gone")
        if is_made_again:
            folder.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)

    with leftovers.locked(folder) as has_lock:
        assert not has_lock
    with leftovers.locked(tmp_path / "nothing") as has_lock:
        assert not has_lock
