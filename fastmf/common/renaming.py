"""Renaming without replacing, and exchanging two names, in one step where the system can."""

import errno
import functools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Flags of Linux's renameat2(2), and the errors with which a kernel or a file system says that it lacks them.
_NO_REPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def rename_to_absent(source: Path, target: Path) -> None:
    """Rename a file or directory; of several processes with the same target, one succeeds.

    Raises
    ------
    FileExistsError
        If ``target`` exists. It is then as it was, and so is ``source``.
    OSError
        If the system does not allow the rename.
    """
    if os.name == "nt":  # os.rename replaces nothing there
        os.rename(source, target)
    elif not _rename_with_flag(source, target, _NO_REPLACE):
        _rename_in_two_steps(source, target)


def exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two files or directories in one step; False, and no change, if the system cannot.

    Raises
    ------
    OSError
        If the system can, but does not allow it: one of them is missing, for example.
    """
    return _rename_with_flag(first, second, _EXCHANGE)


def _rename_with_flag(source: Path, target: Path, flag: int) -> bool:
    """Call renameat2; False if it is not supported here."""
    call = _renameat2()
    if call is None:
        return False
    code = call(source, target, flag)
    if code in _UNSUPPORTED:
        return False
    if code:
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    return True


@functools.cache
def _renameat2() -> Callable[[Path, Path, int], int] | None:
    """Return renameat2 as a function that returns 0 or an error number; None where the C library lacks it."""
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old C library
        return None
    at_current_directory = -100

    def call(source: Path, target: Path, flag: int) -> int:
        names = os.fsencode(source), os.fsencode(target)
        failed = function(at_current_directory, names[0], at_current_directory, names[1], ctypes.c_uint(flag))
        return ctypes.get_errno() if failed else 0

    return call


def _rename_in_two_steps(source: Path, target: Path) -> None:
    """Claim the name with a call that fails if it exists, then move ``source`` there."""
    if source.is_dir():
        os.mkdir(target)
        try:
            os.rename(source, target)  # POSIX lets a directory take the place of an empty one
        except BaseException as error:
            with suppress(OSError):
                os.rmdir(target)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
            raise
        return
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(source, target)
        except BaseException:
            os.unlink(target)
            raise
    else:
        os.unlink(source)
