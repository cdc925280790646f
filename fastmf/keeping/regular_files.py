"""Files of a model directory, which may be anything: a pipe or a device must not be read, or waited for."""

import io
import os
import stat
from pathlib import Path

from fastmf.errors import ModelError


def damaged(path: str | os.PathLike[str], reason: object) -> ModelError:
    """Return the error of a model, or a file of it, that holds something other than it should."""
    return ModelError(f"{path} is damaged ({reason}); restore it from a copy or train again")


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes.

    Raises
    ------
    ModelError
        If it is a pipe, a device or anything else than a regular file.
    OSError
        If it cannot be opened.
    """
    # Without O_NONBLOCK, a pipe would be waited for.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damaged(path, "it is no regular file")
    return os.fdopen(descriptor, "rb")


def leads_outside(path: Path, folder: Path) -> bool:
    """Whether a file of a folder is a link, and what it leads to is elsewhere."""
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
