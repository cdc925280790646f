"""Checkpoints of training: what a fit needs to go on, in a directory that is replaced as a whole.

``DIR/state`` holds ``checkpoint.json`` and the arrays as ``.npy`` files, each with its checksum. Nothing in it is
pickled. Whatever else is in ``DIR`` is left alone. A checkpoint is untrusted input: types, shapes and checksums are
checked here, and what the numbers mean in `fastmf.models.checkpointing`.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fastmf._version import __version__
from fastmf.common.files import is_being_replaced, local_path, naming, new_directory
from fastmf.common.json_text import to_json
from fastmf.errors import FastMFError, ModelError, OutputError, OutputExistsError, named
from fastmf.keeping.manifest import MANIFEST
from fastmf.keeping.stored_arrays import map_array
from fastmf.reading.parquet import PathLike

FORMAT, FORMAT_VERSION = "fastmf-checkpoint", 1
STATE, CONTENT = "state", "checkpoint.json"
_OWN_CHECKSUM = "checksum"
_DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float64": np.float64}
_NAME = re.compile(r"[a-z_]{1,60}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_SIZE = 2**31 - 1
_READ_ATTEMPTS = 50
_SWAP_SECONDS = 0.002

Arrays = dict[str, npt.NDArray[Any]]
T = TypeVar("T")


class Checkpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes
    ----------
    folder : Path
        The directory that holds it.
    content : dict
        Entries of ``checkpoint.json``, each of the right type.
    arrays : dict of str to array
        float32 or float64, mapped into memory. They stay as they are when the checkpoint is replaced.
    """

    folder: Path
    content: dict[str, Any]
    arrays: Arrays

    @property
    def epoch(self) -> int:
        """How many epochs were done."""
        return len(self.content["history"])


def state_folder(directory: PathLike) -> Path:
    """Return where the checkpoint in a directory is."""
    return local_path(directory) / STATE


def exists(directory: PathLike) -> bool:
    """Whether there is a checkpoint in a directory, or something in its place."""
    folder = state_folder(directory)
    with naming(directory):
        return _version(folder) is not None or _is_something(folder)


def require_usable(directory: PathLike) -> None:
    """Check that a directory is one for checkpoints, or may become one.

    Raises
    ------
    OutputExistsError
        If it is a model: with a checkpoint in it, that could not be replaced any more.
    OutputError
        If it is a file, or no path of this machine.
    """
    path = local_path(directory)
    with naming(directory):
        is_file, is_model = path.is_file(), (path / MANIFEST).exists()
    if is_file:
        raise OutputError(f"{directory} is a file; expected a directory for {named('checkpoint')}")
    if is_model and not exists(directory):
        raise OutputExistsError(
            f"{directory} is a model, which could not be replaced with a checkpoint in it; use another directory for "
            f"{named('checkpoint')}"
        )


def write(directory: PathLike, content: dict[str, Any], arrays: Arrays) -> None:
    """Write a checkpoint in the place of the one that is there, whole or not at all.

    Parameters
    ----------
    directory : path-like
    content : dict
        What becomes JSON; `_ENTRIES` says what must be in it.
    arrays : dict of str to float32 or float64 array

    Raises
    ------
    OutputError
        If there is no room or no permission; the checkpoint before is untouched.
    """
    n_bytes = sum(array.nbytes for array in arrays.values())
    with new_directory(state_folder(directory), overwrite=True, n_bytes=n_bytes) as folder:
        files = {}
        for name, array in arrays.items():
            path = folder / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            files[name] = {
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
        whole = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "fastmf_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **content,
            "files": files,
        }
        whole[_OWN_CHECKSUM] = _checksum(whole)
        (folder / CONTENT).write_text(to_json(whole, indent=1) + "\n", encoding="utf-8")


def read(directory: PathLike) -> Checkpoint | None:
    """Read the checkpoint in a directory, which may be replaced meanwhile; None if there is none.

    Raises
    ------
    ModelError
        If it is damaged, incomplete, or of a newer format.
    OutputExistsError
        If something else is in its place.
    OutputError
        If ``directory`` is no path of this machine.
    """
    return _read_unchanged(state_folder(directory), _read)


def read_content(directory: PathLike) -> dict[str, Any] | None:
    """Read ``checkpoint.json`` alone; None if there is no checkpoint.

    Raises
    ------
    ModelError, OutputExistsError, OutputError
        As `read`.
    """
    return _read_unchanged(state_folder(directory), _read_content)


def _read_unchanged(folder: Path, read_from: Callable[[Path], T]) -> T | None:
    """Read a checkpoint, or a part of it, that was not replaced meanwhile."""
    for _ in range(_READ_ATTEMPTS):
        version = _version(folder)
        if version is None:
            if _is_something(folder):
                if _version(folder) is not None:
                    continue
                raise OutputExistsError(
                    f"{folder} exists and has no {CONTENT}: it is not a checkpoint, or an incomplete one; remove it, "
                    "or choose another directory"
                )
            return None
        try:
            found = read_from(folder)
        except (ModelError, OSError, RecursionError) as error:
            if _version(folder) != version:
                continue
            if isinstance(error, FastMFError):
                raise
            raise damaged(folder, error) from error
        if _version(folder) == version:
            return found
    raise ModelError(f"{folder} was replaced {_READ_ATTEMPTS} times while it was read; try again when that is over")


def damaged(path: Path, reason: object) -> ModelError:
    """Return the error of a checkpoint, or a file of it, that holds something other than it should."""
    return ModelError(f"{path} is damaged ({reason}); restore it from a copy, or remove the checkpoint to start afresh")


def _version(folder: Path) -> tuple[int, int] | None:
    """Tell the checkpoint that is there now from those that replace it; None if there is none."""
    n_missed = 0
    for _ in range(_READ_ATTEMPTS):
        try:
            status = os.stat(folder / CONTENT)
        except (FileNotFoundError, NotADirectoryError):
            if is_being_replaced(folder):
                time.sleep(_SWAP_SECONDS)
            elif n_missed:
                return None
            else:
                n_missed += 1  # the new one may have come meanwhile
        else:
            return status.st_ino, status.st_mtime_ns
    return None


def _is_something(folder: Path) -> bool:
    """Whether something else than an empty directory has this name."""
    with suppress(OSError):
        return any(folder.iterdir())
    return os.path.lexists(folder)


def _read(folder: Path) -> Checkpoint:
    content = _read_content(folder)
    _require_no_others(folder, set(content["files"]))
    arrays = {name: _read_array(folder / f"{name}.npy", entry) for name, entry in content["files"].items()}
    return Checkpoint(folder, content, arrays)


def _read_content(folder: Path) -> dict[str, Any]:
    path = folder / CONTENT
    content = _read_json(path)
    if content.get("format") != FORMAT:
        raise damaged(path, f"its format is {_short(content.get('format'))}; expected {FORMAT!r}")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        by = _short(content.get("fastmf_version"))
        raise ModelError(
            f"{path} has format version {_short(version)}, written by fastmf {by}; this is fastmf {__version__}, which "
            f"reads version {FORMAT_VERSION}: use that version, or remove the checkpoint to start afresh"
        )
    if content.pop(_OWN_CHECKSUM, None) != _checksum(content):
        raise damaged(path, "it does not match its checksum")
    for name, (is_right, expected) in _ENTRIES.items():
        if name not in content or not is_right(content[name]):
            raise damaged(path, f"{name} is {_short(content.get(name))}; expected {expected}")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise damaged(path, "expected names and values")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _require_no_others(folder: Path, names: set[str]) -> None:
    """Check that nothing is there that the next checkpoint would remove."""
    own = {CONTENT, *(f"{name}.npy" for name in names)}
    if foreign := sorted(entry.name for entry in folder.iterdir() if entry.name not in own):
        raise OutputExistsError(
            f"{folder} holds what is not of the checkpoint, and the next one would delete it: "
            f"{', '.join(foreign[:5])}; move it, or choose another directory"
        )


def _read_array(path: Path, entry: dict[str, Any]) -> npt.NDArray[Any]:
    try:
        size = os.path.getsize(path)
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    if size != entry["bytes"]:
        raise damaged(path, f"it has {size} bytes, expected {entry['bytes']}")
    if _sha256(path) != entry["sha256"]:
        raise damaged(path, "it does not match its checksum")
    return map_array(path, _DTYPES[entry["dtype"]], tuple(entry["shape"]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of entries, whatever their order and the spaces between them."""
    plain = json.loads(to_json(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_SIZE


def _is_history(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(record, dict) and record.get("epoch") == n for n, record in enumerate(value, start=1))
        and all(isinstance(record.get("seconds"), (int, float)) for record in value)
    )


def _is_file_list(value: object) -> bool:
    return isinstance(value, dict) and all(
        _NAME.fullmatch(name)
        and isinstance(entry, dict)
        and entry.get("dtype") in tuple(_DTYPES)
        and isinstance(entry.get("shape"), list)
        and 1 <= len(entry["shape"]) <= 2
        and all(map(_is_count, entry["shape"]))
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("sha256"), str)
        and _SHA256.fullmatch(entry["sha256"])
        for name, entry in value.items()
    )


ENDINGS = ("", "callback", "patience", "converged")
"""Why training ended: not at all, a callback asked for it, or it was of no more use."""
# What each entry must be, and how to say so.
_ENTRIES: dict[str, tuple[Callable[[object], bool], str]] = {
    "model": (lambda value: isinstance(value, str), "the name of a class"),
    "parameters": (_is_dict, "names and values"),
    "ratings": (_is_dict, "names and values"),
    "validation": (lambda value: value is None or _is_dict(value), "names and values, or null"),
    "start": (lambda value: value is None or _is_dict(value), "names and values, or null"),
    "chosen": (_is_dict, "names and values"),
    "n_epochs": (_is_count, "an integer"),
    "n_restarts": (_is_count, "an integer"),
    "ended": (lambda value: value in ENDINGS, f"one of {', '.join(map(repr, ENDINGS))}"),
    "history": (_is_history, "a list of epochs, numbered from 1"),
    "numbers": (_is_dict, "names and values"),
    "files": (_is_file_list, "type, shape, bytes and sha256 of each array"),
}
