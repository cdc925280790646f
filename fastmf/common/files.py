"""Outputs that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastmf.errors import FastMFError, OutputError, OutputExistsError


def require_absent(path: Path, overwrite: bool) -> None:
    """Raise an error if ``path`` cannot become an output: cheap, so that long work can ask before it starts.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and may not be overwritten.
    OutputError
        If it would lie below something that is no directory.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path} exists already; choose another output, or allow overwriting (overwrite=True, --overwrite)"
        )
    lowest = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    if not lowest.is_dir():
        raise OutputError(f"cannot write {path}: {lowest} is not a directory; choose another output")


def _temporary_beside(path: Path) -> Path:
    """Make a name in the directory of ``path``, on the same file system, so that a rename is atomic."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which output it is that the system does not let us write; errors of our own say it already."""
    try:
        yield
    except FastMFError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; make room, or choose another output") from error


def _sync(path: Path) -> None:
    """Force a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` if the block ends well.

    Parameters
    ----------
    path : path-like
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false.
    OutputError
        If there is no room or no permission; what was at ``path`` is untouched.
    """
    final = Path(path)
    require_absent(final, overwrite)
    if final.is_dir():
        raise OutputExistsError(f"{final} is a directory; expected the name of a file to write")
    temporary = _temporary_beside(final)
    try:
        with _naming(final):
            yield temporary
            _sync(temporary)
            os.replace(temporary, final)
            _sync(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary directory to fill, and rename it to ``path`` if the block ends well.

    A directory cannot be replaced in one step: an old one is renamed aside first, and renamed back if that fails.

    Parameters
    ----------
    path : path-like
    overwrite : bool
        Whether an existing directory may be replaced.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false.
    OutputError
        If there is no room or no permission; what was at ``path`` is untouched.
    """
    final = Path(path)
    require_absent(final, overwrite)
    temporary = _temporary_beside(final)
    try:
        with _naming(final):
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                _sync(file)
            _sync(temporary)
            _swap_in(temporary, final)
            _sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_being_replaced(path: Path) -> bool:
    """Whether an output of that name is missing only for the moment between the two renames of `new_directory`."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return False
    return path.name not in names and any(name.startswith(f".{path.name}.tmp-") for name in names)


def _swap_in(temporary: Path, final: Path) -> None:
    if not final.exists():
        os.rename(temporary, final)
        return
    aside = _temporary_beside(final)
    try:
        os.rename(final, aside)
        os.rename(temporary, final)
    except BaseException:  # Ctrl-C too must not leave the old one under a name that nobody looks for
        if aside.exists() and not final.exists():
            os.rename(aside, final)
        raise
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()
