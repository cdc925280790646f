"""Names of unfinished outputs, and what killed processes left under such names.

Beside an output ``x`` there may be, for a while: ``.x.tmp-PROCESS-...``, a new version that is being written;
``.x.old-PROCESS-...``, the old version while the new one takes its place; and ``.x.parts-...``, the finished parts of a
long output.
"""

import errno
import functools
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fastmf.common.renaming import rename_to_absent

_NAME = re.compile(r"\.(?P<output>.+)\.(?P<kind>tmp|old)-(?P<process>\d+)-[0-9a-f]+(?:-(?P<machine>[0-9a-f]{8}))?")
_PARTS_NAME = re.compile(r"\.(?P<output>.+)\.parts-[0-9A-Za-z]+")
_PART = re.compile(r"part-\d+\.(parquet|json)")
# Processes of another machine or container cannot be looked up: their files are left-overs when they are older.
_SECONDS_ELSEWHERE = 24 * 3600.0
# Times of files and of processes come from different clocks.
_SLACK_SECONDS = 2.0


class Leftovers(NamedTuple):
    """What was found beside outputs.

    Attributes
    ----------
    removed : list of Path
        Of dead processes; they are gone.
    n_bytes : int
        How much they took.
    in_use : list of Path
        Of processes that are alive, or may be.
    """

    removed: list[Path]
    n_bytes: int
    in_use: list[Path]


def temporary_beside(path: Path) -> Path:
    """Make a new name for an unfinished version of an output, on the same file system."""
    return _name_beside(path, "tmp")


def aside_beside(path: Path) -> Path:
    """Make a new name for the old version of an output while a new one takes its place."""
    return _name_beside(path, "old")


def parts_beside(path: Path, fingerprint: str) -> Path:
    """Return the directory of the finished parts of an output; ``fingerprint`` tells requests apart."""
    return path.parent / f".{path.name}.parts-{fingerprint}"


def remove_unfinished(path: Path) -> Leftovers:
    """Remove unfinished versions of an output that dead processes left behind."""
    return _remove(entry for entry in _entries(path.parent) if _is_of(_NAME, entry, path.name))


def remove_parts(path: Path) -> Leftovers:
    """Remove parts of an output that no process is working on."""
    return _remove(entry for entry in _entries(path.parent) if _is_of(_PARTS_NAME, entry, path.name))


def remove_all(path: Path) -> Leftovers:
    """Remove what interrupted runs left of an output, and, in a directory, of every output in it."""
    entries = [e for e in _entries(path.parent) for name in (_NAME, _PARTS_NAME) if _is_of(name, e, path.name)]
    if path.is_dir():
        entries += [e for e in _entries(path) if _NAME.fullmatch(e.name) or _PARTS_NAME.fullmatch(e.name)]
    return _remove(entries)


def put_back_old_version(path: Path) -> bool:
    """Repair an overwrite that was killed after the old version was moved aside.

    Returns
    -------
    bool
        Whether the output is on its way: it has been put back, or a live process is about to put the new one there.
    """
    is_empty = _is_empty_directory(path)  # a name that was claimed for the new version
    if os.path.lexists(path) and not is_empty:
        return False
    asides = [entry for entry in _entries(path.parent) if _is_of(_NAME, entry, path.name) and _kind(entry) == "old"]
    for aside in asides:
        if not _is_in_use(aside):
            with suppress(FileExistsError, FileNotFoundError):  # another process is quicker
                if is_empty:
                    _remove_empty(path)
                rename_to_absent(aside, path)
            return True
    return bool(asides)


@contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Lock a directory for as long as the block, or the process, lives.

    Yields
    ------
    bool
        False if another process, or another thread, has the lock, or has just removed the directory. True where there
        are no locks.
    """
    descriptor = _lock(directory)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None and descriptor >= 0:
            os.close(descriptor)


def _lock(directory: Path) -> int | None:
    """Return a descriptor that has the lock, -1 where there are no locks, or None if it is taken or gone."""
    try:
        import fcntl
    except ImportError:  # Windows
        return -1
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks on directories
        os.close(descriptor)
        return -1
    if not _has_name(descriptor, directory):  # who had the lock removed the directory; another may be there now
        os.close(descriptor)
        return None
    return descriptor


def _has_name(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_empty_directory(path: Path) -> bool:
    try:
        return not any(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove_empty(directory: Path) -> None:
    """Remove an empty directory; `FileExistsError` if something else is there by now."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(error.errno, error.strerror, str(directory)) from None
        raise


def _name_beside(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{kind}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{_this_machine()}"


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_of(pattern: re.Pattern[str], entry: Path, output: str) -> bool:
    match = pattern.fullmatch(entry.name)
    return match is not None and match["output"] == output


def _kind(entry: Path) -> str:
    match = _NAME.fullmatch(entry.name)
    return match["kind"] if match else "parts"


def _remove(entries: Iterable[Path]) -> Leftovers:
    removed: list[Path] = []
    in_use: list[Path] = []
    n_bytes = 0
    for entry in entries:
        if _kind(entry) == "old" and not os.path.lexists(entry.parent / _output_name(entry)):
            with suppress(OSError):
                put_back_old_version(entry.parent / _output_name(entry))  # it is the only version there is
        elif _is_in_use(entry):
            in_use.append(entry)
        else:
            n_bytes += size_of(entry)
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
            (in_use if os.path.lexists(entry) else removed).append(entry)
    return Leftovers(removed, n_bytes, in_use)


def _output_name(entry: Path) -> str:
    match = _NAME.fullmatch(entry.name) or _PARTS_NAME.fullmatch(entry.name)
    assert match is not None
    return match["output"]


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory; 0 if there is none."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.lstat().st_size
    return total


def _is_in_use(entry: Path) -> bool:
    """Whether a process may still be working on what has this name."""
    match = _NAME.fullmatch(entry.name)
    try:
        status = entry.lstat()
        if match is None:
            return not entry.is_dir() or _has_foreign_files(entry) or _is_locked(entry)
    except OSError:
        return False
    # A rename leaves the modification time of what is moved aside as it was.
    changed = status.st_ctime if match["kind"] == "old" else status.st_mtime
    if match["machine"] not in (None, _this_machine()) or os.name == "nt":
        return time.time() - changed < _SECONDS_ELSEWHERE
    return _is_alive(int(match["process"]), changed)


def _has_foreign_files(parts: Path) -> bool:
    return any(not (_PART.fullmatch(file.name) or _NAME.fullmatch(file.name)) for file in parts.iterdir())


def _is_locked(directory: Path) -> bool:
    descriptor = _lock(directory)
    if descriptor is None or descriptor < 0:  # without locks, nobody can tell
        return True
    os.close(descriptor)
    return False


def _is_alive(process: int, since: float) -> bool:
    """Whether the process with this number runs, and ran already at a time (in seconds since 1970)."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return not Path("/proc/self/stat").exists() and _answers(process)
    fields = text.rpartition(")")[2].split()  # from the third field on: the second one, the name, may hold anything
    state, ticks = fields[0], int(fields[19])
    started = _boot_time() + ticks / os.sysconf("SC_CLK_TCK")
    return state not in "ZX" and since > started - _SLACK_SECONDS


def _answers(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


@functools.cache
def _boot_time() -> float:
    for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


@functools.cache
def _this_machine() -> str:
    """Return a short name of what numbers processes here: this boot of this machine, or a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        identity = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        import platform

        identity = platform.node()
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
