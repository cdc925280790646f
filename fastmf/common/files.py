"""Outputs that appear whole or not at all.

Who writes an output also removes what interrupted and killed processes have left for it.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fastmf.common.leftovers import (
    aside_beside,
    put_back_old_version,
    remove_parts,
    remove_unfinished,
    size_of,
    temporary_beside,
)
from fastmf.common.renaming import exchange, rename_to_absent
from fastmf.errors import FastMFError, OutputError, OutputExistsError, named

_OF_TEXT = (".csv", ".tsv")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SWAP_ATTEMPTS = 10
# A scheme has two letters or more, unlike a drive of Windows; `Path` turns its two slashes into one.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def expanded_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of this machine with ``~`` expanded; ``file://`` URIs are such paths.

    Raises
    ------
    OutputError
        If it is empty, not UTF-8 or another URI, or names a user without a home directory.
    """
    name = os.fsdecode(path)
    if not name:
        raise OutputError("the path is empty; expected the name of a file or directory")
    if _URI.match(name):
        parts = urlsplit(name)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise OutputError(
                f"{name} is a URI; expected a path on this machine: use a local path, and copy from or to the URI"
            )
        name = unquote(parts.path)
    if "\0" in name:
        raise OutputError(f"{name!r} has a null character in it; expected a path")
    _require_utf8(name)
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise OutputError(f"{name} names a home directory that does not exist; write the path in full") from error


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return what `expanded_path` does, as an absolute path without links.

    Raises
    ------
    OutputError
        Also if it is a link that leads back to itself, or has a name that is too long.
    """
    resolved = Path(os.path.realpath(expanded_path(path)))
    _require_utf8(str(resolved))
    with naming(path):
        is_link = resolved.is_symlink()
    if is_link:
        raise OutputError(f"{path} is a link that leads back to itself; remove the link, or choose another path")
    return resolved


def _require_utf8(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OutputError(f"{name!r} is not UTF-8, as names of files have to be; choose another path") from None


def output_path(path: str | os.PathLike[str]) -> Path:
    """Return where an output goes; see `local_path`.

    Raises
    ------
    OutputError
        If it is not a path on this machine, or its name promises another format.
    """
    final = local_path(path)
    suffixes = [suffix.lower() for suffix in final.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if suffixes and suffixes[-1] in _OF_TEXT:
        raise OutputError(
            f"cannot write {path}: fastmf writes Parquet, not {suffixes[-1][1:].upper()}; choose a name that ends in "
            ".parquet"
        )
    return final


def _mode_of(path: Path) -> int | None:
    """Return the kind and permissions of what is at a path, in one look; None if nothing is there."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_absent(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise an error if ``path`` cannot become an output: cheap, so that long work can ask before it starts.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and may not be overwritten, or is neither a file nor a directory.
    OutputError
        If it is not a path of this machine, or is below something that is not a directory.
    """
    final = output_path(path)
    with naming(path):
        mode = _mode_of(final)
        if mode is not None and not overwrite:
            raise OutputExistsError(
                f"{path} exists already; choose another output, or allow overwriting ({named('overwrite=True')})"
            )
        if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OutputExistsError(f"{path} is neither a file nor a directory; choose another output")
        lowest = next((parent for parent in final.parents if parent.exists()), Path("/"))
        if not lowest.is_dir():
            raise OutputError(f"cannot write {path}: {lowest} is not a directory; choose another output")


@contextmanager
def naming(path: str | os.PathLike[str], temporary: Path | None = None, n_bytes: int | None = None) -> Iterator[None]:
    """Turn errors of the system into an `OutputError` that names the output; errors of fastmf pass as they are.

    Parameters
    ----------
    path : path-like
        The output, as the caller has named it.
    temporary : Path, optional
        Where it is being written.
    n_bytes : int, optional
        How large it becomes, if that is known.
    """
    try:
        yield
    except FastMFError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = "choose another output"
        if error.errno in _NO_ROOM or error.errno is None:  # NumPy raises errors of full disks without a number
            advice = f"make room, or {advice}"
            advice += f" ({_room(temporary, n_bytes)})" if temporary is not None else ""
        raise OutputError(f"cannot write {path}: {reason}; {advice}") from error


def _room(temporary: Path, n_bytes: int | None) -> str:
    written = size_of(temporary)
    try:
        free = shutil.disk_usage(temporary.parent).free + written
    except OSError:
        free = written
    # The writer may have removed what it had written.
    needed = f"{n_bytes:,}" if n_bytes else f"more than {written or free:,}"
    return f"{needed} bytes are needed, {free:,} are free"


def _sync(path: Path) -> None:
    """Force a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(
    path: str | os.PathLike[str],
    overwrite: bool = False,
    n_bytes: int | None = None,
    part_of: str | os.PathLike[str] | None = None,
) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` if the block ends well.

    Parameters
    ----------
    path : path-like
    overwrite : bool
        Whether an existing file may be replaced.
    n_bytes : int, optional
        How large it becomes, for the message of a full disk.
    part_of : path-like, optional
        The output that messages name, if ``path`` is a hidden part of it.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false, also if it has come to exist meanwhile.
    OutputError
        If there is no room or no permission; what was at ``path`` is untouched.
    """
    require_absent(path, overwrite)
    final = output_path(path)
    if final.is_dir():
        raise OutputExistsError(f"{path} is a directory; expected the name of a file to write")
    temporary = temporary_beside(final)
    with naming(part_of or path):
        final.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(final)
    try:
        with naming(part_of or path, temporary, n_bytes):
            yield temporary
            _sync(temporary)
            if overwrite:
                os.replace(temporary, final)
            else:
                _appear(temporary, final)
            _sync(final.parent)
    finally:
        _delete(temporary)
    if part_of is None:
        remove_parts(final)


@contextmanager
def new_directory(path: str | os.PathLike[str], overwrite: bool = False, n_bytes: int | None = None) -> Iterator[Path]:
    """Give a temporary directory to fill, and rename it to ``path`` if the block ends well.

    An old directory is exchanged for the new one in one step. Where the system cannot, it is renamed aside first, and
    renamed back if the second rename fails; after a kill between the two, the next call that writes or looks for
    ``path`` puts it back.

    Parameters
    ----------
    path : path-like
    overwrite : bool
        Whether an existing directory may be replaced.
    n_bytes : int, optional
        How large it becomes, for the message of a full disk.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false, also if it has come to exist meanwhile.
    OutputError
        If there is no room or no permission; what was at ``path`` is untouched.
    """
    final = output_path(path)
    with naming(path):
        put_back_old_version(final)
    require_absent(path, overwrite)
    temporary = temporary_beside(final)
    with naming(path):
        final.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(final)
    try:
        with naming(path, temporary, n_bytes):
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                _sync(file)
            _sync(temporary)
            if overwrite:
                _swap_in(temporary, final)
            else:
                _appear(temporary, final)
            _sync(final.parent)
    finally:
        _delete(temporary)
    remove_parts(final)


def is_being_replaced(path: Path) -> bool:
    """Whether an output is missing only for the moment between the two renames of `new_directory`.

    If the process that was to do the second one is dead, the old output is put back.
    """
    return put_back_old_version(path)


def _appear(temporary: Path, final: Path) -> None:
    try:
        rename_to_absent(temporary, final)
    except FileExistsError:
        raise OutputExistsError(
            f"{final} was written by another process meanwhile, and is left as it is; choose another output, or allow "
            f"overwriting ({named('overwrite=True')})"
        ) from None


def _swap_in(temporary: Path, final: Path) -> None:
    """Put the new output where the old one is; afterwards the old one, if any, has the temporary name."""
    for _ in range(_SWAP_ATTEMPTS):
        try:
            if final.exists():
                if not exchange(temporary, final):
                    _swap_in_two_steps(temporary, final)
            else:
                rename_to_absent(temporary, final)
            return
        except (FileExistsError, FileNotFoundError):  # another process has just put its output there, or taken it away
            if not temporary.exists():
                raise
    raise OutputError(
        f"cannot write {final}: other processes keep replacing it; wait for them, or choose another output"
    )


def _swap_in_two_steps(temporary: Path, final: Path) -> None:
    aside = aside_beside(final)
    try:
        os.rename(final, aside)
        rename_to_absent(temporary, final)
    except BaseException:  # Ctrl-C too must not leave the old one under a name that nobody looks for
        if aside.exists():
            try:
                rename_to_absent(aside, final)
            except FileExistsError:  # there is a newer one
                _delete(aside)
            except FileNotFoundError:  # another process has put it back
                pass
        raise
    _delete(aside)


def _delete(path: Path) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # what has failed before is told
            path.unlink(missing_ok=True)
