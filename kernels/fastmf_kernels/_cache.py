"""Machine code on disk: where it lies, written whole, readable by every user, and checked before it is loaded.

The code of a module's kernels has a folder of its own, whose name has a hash of the source files that the module is
compiled from. Numba's own cache looks at the file of a kernel only and goes on running old machine code after a change
in a helper (numba issue 1833); it also loads damaged files, which ends the process.
"""

import contextlib
import hashlib
import os
import re
import shutil
import threading
from pathlib import Path

import platformdirs

from fastmf_kernels._notes import KernelCacheWarning, say_once
from fastmf_kernels._sources import has_file, source_hash

SUFFIX = ".kernel"
_FOLDERS_KEPT = 3
_BEGIN = b"fastmf kernel 1\n"
_LENGTH_BYTES = 8
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644


def cache_root() -> Path | None:
    """Return the folder of all caches; None where caching is off.

    It is off where ``FASTMF_CACHE_DIR`` is set but empty, or has to be set because the user has no home directory.
    """
    configured = os.environ.get("FASTMF_CACHE_DIR")
    if configured is not None:
        return Path(os.path.expanduser(configured)) if configured else None
    try:
        root = Path(platformdirs.user_cache_dir("fastmf", appauthor=False))
    except RuntimeError:
        root = Path("~")
    if root.parts[:1] == ("~",):  # the user of a container may have neither HOME nor an entry in /etc/passwd
        say_once(
            "kernel cache",
            "kernels are compiled in this process and forgotten with it, which takes seconds each time: there is no "
            "home directory for the kernel cache; set FASTMF_CACHE_DIR to a folder that can be written",
            KernelCacheWarning,
        )
        return None
    return root / "kernels"


def folder_of(module: str, compiler: str) -> Path | None:
    """Return the folder of a module's machine code, which may not exist yet; None where caching is off.

    Parameters
    ----------
    module : str
        A module of this package by its full name.
    compiler : str
        What compiles it, with its version.
    """
    root = cache_root()
    if root is None:
        return None
    digest = hashlib.sha256(f"{source_hash(module)} {compiler}".encode()).hexdigest()[:16]
    return root / f"{module.partition('.')[2]}-{digest}"


def why_not_writable() -> str | None:
    """Say why nothing can be stored, or return None; nothing is changed to find out."""
    root = cache_root()
    if root is None:
        is_set = "FASTMF_CACHE_DIR" in os.environ
        return "FASTMF_CACHE_DIR is empty" if is_set else "there is no home directory"
    there = next(path for path in (root.absolute(), *root.absolute().parents) if os.path.exists(path))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return f"{root} is not writable"
    return None


def count_stored(compiler: str) -> int:
    """Count the machine codes that are there for these sources and a compiler, and can be read."""
    root, package = cache_root(), __name__.partition(".")[0]
    if root is None or not (os.path.isdir(root) and os.access(root, os.R_OK | os.X_OK)):
        return 0
    modules = {f"{package}.{folder.name[:-17]}" for folder in root.iterdir()}
    folders = (folder_of(module, compiler) for module in modules if has_file(module))
    return sum(os.access(path, os.R_OK) for folder in folders if folder for path in folder.glob(f"*{SUFFIX}"))


def read(path: Path) -> bytes | None:
    """Return what `write` has stored there; None if there is nothing, or if it is damaged or cannot be read."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    begin = len(_BEGIN) + _LENGTH_BYTES + hashlib.sha256().digest_size
    content = stored[begin:]
    return content if stored[:begin] == _header(path, content) else None


def write(path: Path, content: bytes) -> bool:
    """Store bytes under a path inside a folder that `folder_of` names, and return whether that worked.

    The file appears whole or not at all. Where it cannot be written, the user is told once in a process.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        _make_folder(path.parent)
        temporary.write_bytes(_header(path, content) + content)
        temporary.chmod(_FILE_MODE)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        say_once(
            "kernel cache",
            "kernels are compiled in this process and forgotten with it, which takes seconds each time: the kernel "
            f"cache {cache_root()} cannot be written ({error.strerror or error}); set FASTMF_CACHE_DIR to a folder "
            "that can be written, or run `fastmf warmup` once as a user who may write to this one",
            KernelCacheWarning,
        )
        return False
    return True


def _header(path: Path, content: bytes) -> bytes:
    """Return what stands before the content; its hash is also of the file's name, so that no other's is taken."""
    name = f"{path.parent.name}/{path.name}\0".encode()
    return _BEGIN + len(content).to_bytes(_LENGTH_BYTES) + hashlib.sha256(name + content).digest()


def _make_folder(folder: Path) -> None:
    """Make a module's folder, and those above it that are missing, readable by everybody whatever the umask says."""
    if folder.is_dir():
        return
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(_FOLDER_MODE)
    _delete_old(folder)


def _delete_old(folder: Path) -> None:
    """Delete all but the newest few folders of a module, which other versions of its sources have left."""
    # Only names as `folder_of` makes them: the user may have chosen a root that holds other things too.
    ours = re.compile(re.escape(folder.name[:-16]) + "[0-9a-f]{16}")
    folders = [path for path in folder.parent.iterdir() if ours.fullmatch(path.name) and path.is_dir()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in folders[_FOLDERS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
