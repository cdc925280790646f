"""The manifest of a model directory: what it must say, and whether it does."""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fastmf._version import __version__
from fastmf.common.json_text import to_json
from fastmf.errors import ModelError, OutputError
from fastmf.keeping import stored_features
from fastmf.keeping.regular_files import damaged, open_regular

FORMAT = "fastmf-model"
FORMAT_VERSION = (1, 2)
"""Major and minor version. A reader takes every minor version of its major version, and passes over what it does not
know; version 1.0 was written as the integer 1."""
MANIFEST = "manifest.json"
CARD = "card.md"
FACTOR_DTYPES = ("float32", "float16")
ID_FILES = ("user_ids.arrow", "item_ids.arrow")
ARRAY_FILES = (
    "user_factors.npy",
    "item_factors.npy",
    "user_biases.npy",
    "item_biases.npy",
    "seen_indptr.npy",
    "seen_indices.npy",
)
VALUES_FILE = "seen_values.npy"
_OWN_CHECKSUM = "manifest_sha256"
# Where the training ratings are: in their file, nowhere because all are 1, or nowhere.
STORED, ONES, NOT_KEPT = "stored", "ones", "not kept"
# Indices are int32, and numbers of the manifest become float32.
_LARGEST_INDEX = 2**31 - 1
_LARGEST_FLOAT = 3.4e38
_LARGEST_COUNT = 2**63 - 1
_STATE = re.compile(r"(user|item)_[a-z_]{1,60}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")
# Files that later minor versions may add.
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}\.(npy|arrow)")
# A record of an epoch takes about 150 bytes.
_LARGEST_MANIFEST = 1 << 26


class FileRecord(NamedTuple):
    """What a manifest says of a file."""

    n_bytes: int
    sha256: str


class Manifest(NamedTuple):
    """A manifest that has been checked.

    Attributes
    ----------
    model : str
        The name of the class.
    parameters : dict
        Its hyper-parameters.
    global_mean, low, span : float
        See `fastmf_kernels.predict.arrays`.
    n_users, n_items, n_factors : int
    data : dict
        The training data in numbers.
    history : list of dict
        One an epoch.
    state : tuple of str
        Names of the arrays that continued training needs beside the factors.
    trained_with : dict
        The hyper-parameters that continued training cannot change, and ``patience``.
    values : {"stored", "ones", "not kept"}
        Whether the training ratings are in a file, are all 1, or are not known.
    factor_dtype : {"float32", "float16"}
        How the tables of factors are stored.
    features : dict
        By side, what `fastmf.keeping.stored_features` has to know of its features; empty for a model without.
    format_version : tuple of int
        Major and minor.
    files : dict of str to FileRecord
    created, fastmf_version : str
    """

    model: str
    parameters: dict[str, Any]
    global_mean: float
    low: float
    span: float
    n_users: int
    n_items: int
    n_factors: int
    data: dict[str, Any]
    history: list[dict[str, Any]]
    state: tuple[str, ...]
    trained_with: dict[str, Any]
    values: str
    factor_dtype: str
    features: dict[str, dict[str, Any]]
    format_version: tuple[int, int]
    files: dict[str, FileRecord]
    created: str
    fastmf_version: str

    @property
    def has_biases(self) -> bool:
        """Whether the fit had biases, so that maps of features have a column of them."""
        return self.trained_with.get("biases") is True


def file_names(state: tuple[str, ...], values: str, features: stored_features.Described) -> set[str]:
    """Return the names of all files of a model, except for the manifest."""
    of_values = [VALUES_FILE] if values == STORED else []
    names = {*ARRAY_FILES, *ID_FILES, *of_values, *(f"{name}.npy" for name in state)}
    return names | stored_features.file_names(features)


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write a manifest with its own checksum.

    Raises
    ------
    OutputError
        If it becomes larger than `read` takes.
    """
    text = to_json({**content, _OWN_CHECKSUM: _checksum(content)}, indent=2) + "\n"
    if len(text) > _LARGEST_MANIFEST:
        raise OutputError(
            f"the manifest takes {len(text):,} bytes, more than the {_LARGEST_MANIFEST:,} that `load` reads; train "
            "with fewer epochs, or let callbacks add less to the history"
        )
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read(folder: Path, verify: bool = False) -> Manifest:
    """Read and check the manifest of a model directory.

    Parameters
    ----------
    folder : Path
    verify : bool
        Whether to compare the manifest with its own checksum.

    Raises
    ------
    ModelError
    """
    content = _read_json(folder)
    version = _version_of(folder, content)
    for name, (is_valid, expected) in _ENTRIES.items():
        if name not in content:
            raise damaged(folder / MANIFEST, f"{name!r} is missing")
        if not is_valid(content[name]):
            raise damaged(folder / MANIFEST, f"{name} is {_short(content[name])}; expected {expected}")
    optional = {name: content.get(name, default) for name, (default, _, _) in _LATER_ENTRIES.items()}
    for name, (_, is_valid, expected) in _LATER_ENTRIES.items():
        if not is_valid(optional[name]):
            raise damaged(folder / MANIFEST, f"{name} is {_short(optional[name])}; expected {expected}")
    files = {name: FileRecord(entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
    names = file_names(tuple(optional["state"]), optional["values"], optional["features"])
    _require_all_files(folder, files, names, version)
    if verify:
        _require_own_checksum(folder, content, version)
    return Manifest(
        **{name: content[name] for name in Manifest._fields if name in _ENTRIES and name != "files"},
        **(optional | {"state": tuple(optional["state"])}),
        low=content["link"]["low"],
        span=content["link"]["span"],
        format_version=version,
        files=files,
    )


def in_words(version: tuple[int, int]) -> str:
    """Write a format version as manifests do."""
    return f"{version[0]}.{version[1]}"


def _read_json(folder: Path) -> dict[str, Any]:
    if not os.path.isdir(folder):  # unlike the method, it raises nothing
        raise ModelError(f"no model at {folder}: expected a directory that `fastmf train` or model.save wrote")
    path = folder / MANIFEST
    try:
        with open_regular(path) as file:
            text = file.read(_LARGEST_MANIFEST + 1)
        if len(text) > _LARGEST_MANIFEST:
            raise damaged(path, f"it has more than {_LARGEST_MANIFEST:,} bytes")
        content = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no {MANIFEST}: it is not a model, or an incomplete one; train or copy it again"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}); restore it from a copy or train again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path} is not the manifest of a fastmf model; expected format {FORMAT!r}")
    return content


def _version_of(folder: Path, content: dict[str, Any]) -> tuple[int, int]:
    """Return the format version of a manifest, unless it is too new."""
    found, readable = content.get("format_version"), in_words(FORMAT_VERSION)
    version = None
    if isinstance(found, str) and (parts := _VERSION.fullmatch(found)):
        version = int(parts[1]), int(parts[2])
    elif _is_size(found):
        version = int(str(found)), 0
    if version is None or version[0] < 1:
        raise damaged(folder / MANIFEST, f"format_version is {_short(found)}; expected text like {readable!r}")
    if version[0] > FORMAT_VERSION[0]:
        raise ModelError(
            f"{folder} has format version {_short(found)} and this fastmf ({__version__}) reads up to {readable}, as a "
            "higher major version means files that it would misread; upgrade fastmf (the model was written by "
            f"{str(content.get('fastmf_version'))[:80]})"
        )
    return version


def _require_own_checksum(folder: Path, content: dict[str, Any], version: tuple[int, int]) -> None:
    claimed = content.pop(_OWN_CHECKSUM, None)
    if claimed is None:
        if version >= (1, 1) or "factor_dtype" in content:  # 1.0 wrote none at first
            raise damaged(folder / MANIFEST, f"{_OWN_CHECKSUM!r}, its own checksum, is missing")
        return
    try:
        found = _checksum(content)
    except RecursionError:
        found = None
    if claimed != found:
        raise ModelError(f"{folder / MANIFEST} does not match its checksum: copy the model again or train again")


def _require_all_files(
    folder: Path, files: dict[str, FileRecord], expected: set[str], version: tuple[int, int]
) -> None:
    if missing := sorted(expected - files.keys()):
        raise damaged(folder / MANIFEST, f"'files' lacks {', '.join(missing)}")
    foreign = sorted(files.keys() - expected)
    if version > FORMAT_VERSION:
        foreign = [name for name in foreign if not _PLAIN_NAME.fullmatch(name)]
    if foreign:
        raise damaged(folder / MANIFEST, f"'files' names {_short(', '.join(foreign))}, which no model has")


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its own checksum, whatever the order and the spaces of its text."""
    plain = json.loads(to_json(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_integer(value: object, largest: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST_FLOAT


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_size(value: object) -> bool:
    return _is_integer(value, _LARGEST_INDEX)


def _is_link(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(value.get(name)) for name in ("low", "span"))


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_count(value: object) -> bool:
    return _is_size(value) and value != 0


def _is_data(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_integer(value.get("n_ratings"), _LARGEST_COUNT)
        and all(value.get(name) is None or _is_number(value[name]) for name in ("mean", "deviation"))
        and all(_is_text(value.get(name, "")) for name in ("fingerprint", "source"))
        and _are_texts(value.get("times", []))
    )


def _is_history(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(record, dict)
        and _is_integer(record.get("epoch"), _LARGEST_INDEX)
        and (record.get("seconds") is None or isinstance(record["seconds"], (int, float)))
        for record in value
    )


def _is_file_list(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and _is_integer(entry.get("bytes"))
        and isinstance(entry.get("sha256"), str)
        and _SHA256.fullmatch(entry["sha256"])
        for entry in value.values()
    )


def _is_state(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and _STATE.fullmatch(name) for name in value)


_SIZE = (_is_size, f"an integer from 0 to {_LARGEST_INDEX}")
_COUNT = (_is_count, f"an integer from 1 to {_LARGEST_INDEX}")
# What each entry must be, and how to say so.
_ENTRIES: dict[str, tuple[Callable[[object], bool], str]] = {
    "model": (_is_text, "the name of a class"),
    "parameters": (lambda value: isinstance(value, dict), "names and values"),
    "global_mean": (_is_number, "a finite number"),
    "link": (_is_link, "two finite numbers, low and span"),
    "n_users": _COUNT,
    "n_items": _COUNT,
    "n_factors": _SIZE,
    "data": (_is_data, "names and values, with n_ratings, and numbers as mean and deviation"),
    "history": (_is_history, "a list of epochs"),
    "files": (_is_file_list, "the bytes and the sha256 of each file"),
    "created": (_is_text, "a date"),
    "fastmf_version": (_is_text, "a version"),
}
# Entries that version 1.0 wrote not at all, or not at first: what they are without, what they must be, and in words.
_LATER_ENTRIES: dict[str, tuple[Any, Callable[[object], bool], str]] = {
    "state": ([], _is_state, "a list of names"),
    "trained_with": ({}, lambda value: isinstance(value, dict), "names and values"),
    "values": (NOT_KEPT, lambda value: value in (STORED, ONES, NOT_KEPT), f"{STORED!r}, {ONES!r} or {NOT_KEPT!r}"),
    "features": ({}, stored_features.is_description, "sizes and pulls of the features of a side"),
    "factor_dtype": ("float32", lambda value: value in FACTOR_DTYPES, " or ".join(map(repr, FACTOR_DTYPES))),
}
