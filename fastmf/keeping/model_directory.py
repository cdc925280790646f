"""Fitted models to directories and back.

A model directory holds ``manifest.json``, written last, ``.npy`` files that map into memory, and the ids as
uncompressed Arrow IPC. Nothing in it is pickled.
"""

import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from fastmf._version import __version__
from fastmf.answering.fitted import Fitted
from fastmf.common.files import is_being_replaced, new_directory, require_absent
from fastmf.errors import FastMFError, ModelError, OutputExistsError
from fastmf.reading.parquet import PathLike
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import Rows

FORMAT = "fastmf-model"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
Source = dict[str, Any]

# How to run is a matter of the machine, not of the model.
_RUN_PARAMETERS = ("backend", "n_threads", "verbose")
_LOAD_ATTEMPTS = 50
_SWAP_SECONDS = 0.002
_ID_FILES = ("user_ids.arrow", "item_ids.arrow")


class Saveable(Protocol):
    """What `save` asks of a model."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """A record for each epoch."""

    @property
    def fitted(self) -> Fitted:
        """What `fit` left behind."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyper-parameters by name."""


def save(model: Saveable, path: PathLike, *, overwrite: bool = False, source: Source | None = None) -> None:
    """Write a fitted model to a directory; see `fastmf.models.FactorModel.save`."""
    fitted = model.fitted
    require_replaceable(Path(path), overwrite)
    with new_directory(path, overwrite) as folder:
        for name, array in _arrays(fitted).items():
            np.save(folder / name, array, allow_pickle=False)
        for name, vocabulary in zip(_ID_FILES, (fitted.user_ids, fitted.item_ids), strict=True):
            _write_ids(folder / name, vocabulary)
        files = {file.name: _file_record(file) for file in sorted(folder.iterdir())}
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "fastmf_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": type(model).__name__,
            "parameters": {name: value for name, value in model.get_params().items() if name not in _RUN_PARAMETERS},
            "global_mean": float(fitted.factors.global_mean),
            "link": {"low": float(fitted.link.low), "span": float(fitted.link.span)},
            "n_users": fitted.n_users,
            "n_items": fitted.n_items,
            "n_factors": fitted.factors.user_factors.shape[1],  # not always the parameter: see `set_params`
            "data": {**fitted.data, **(source or {})},
            "history": model.history,
            "state": sorted(fitted.state),
            "trained_with": fitted.trained_with,
            "files": files,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, default=_plain) + "\n", encoding="utf-8")


def require_replaceable(path: Path, overwrite: bool) -> None:
    """Raise `OutputExistsError` if a model may not be put at ``path``.

    Overwriting removes a whole directory, so it is for models alone (and empty directories): a mistyped path must not
    cost anything else.
    """
    require_absent(path, overwrite)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        read_manifest(path)
    except ModelError as error:
        raise OutputExistsError(
            f"{path} exists and is not a model, which alone is overwritten; choose another output, or delete it first"
        ) from error


class Stored(NamedTuple):
    """What a model directory holds.

    Attributes
    ----------
    model : str
        The name of the class.
    parameters : dict
        Its hyper-parameters.
    fitted : Fitted
    history : list of dict
        One an epoch.
    """

    model: str
    parameters: dict[str, Any]
    fitted: Fitted
    history: list[dict[str, Any]]


def read(path: PathLike, verify: bool = False) -> Stored:
    """Read a model directory, which may be replaced meanwhile; see `fastmf.load`.

    Raises
    ------
    ModelError
        If the directory is not a model, is incomplete or damaged, or of a newer format.
    """
    folder = Path(path)
    for _ in range(_LOAD_ATTEMPTS):
        version = _version(folder)
        try:
            stored = _read(folder, verify)
        except ModelError:
            if _version(folder) == version:
                raise
        else:
            if _version(folder) == version:
                return stored
    raise ModelError(f"{folder} was replaced {_LOAD_ATTEMPTS} times while it was read; try again when that is over")


def damaged(folder: PathLike, error: Exception) -> ModelError:
    """Return the error of a model directory that holds something else than it should."""
    return ModelError(f"{folder} is damaged ({error}); restore it from a copy or train again")


def _version(folder: Path) -> tuple[int, int] | None:
    """Tell the model that is there now from those that replace it; None if there is none."""
    for _ in range(_LOAD_ATTEMPTS):
        try:
            status = os.stat(folder / MANIFEST)
        except OSError:
            if not is_being_replaced(folder):
                return None
            time.sleep(_SWAP_SECONDS)
        else:
            return status.st_ino, status.st_mtime_ns
    return None


def _read(folder: Path, verify: bool) -> Stored:
    manifest = read_manifest(folder)
    try:
        _check_files(folder, manifest["files"], verify)
        parameters, fitted = _parameters(manifest["parameters"]), _read_fitted(folder, manifest)
        return Stored(manifest["model"], parameters, fitted, manifest["history"])
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, FastMFError):
            raise
        raise damaged(folder, error) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of a model directory.

    Raises
    ------
    ModelError
    """
    if not folder.is_dir():
        raise ModelError(f"no model at {folder}: expected a directory that `fastmf train` or model.save wrote")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no {MANIFEST}: it is not a model, or an incomplete one; train or copy it again"
        ) from None
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{folder / MANIFEST} cannot be read ({error}); restore it from a copy or train again"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{folder / MANIFEST} is not the manifest of a fastmf model; expected format {FORMAT!r}")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelError(
            f"{folder} has format version {version} and this fastmf ({__version__}) reads up to {FORMAT_VERSION}; "
            f"upgrade fastmf (the model was written by {manifest.get('fastmf_version')})"
        )
    return manifest


def _plain(value: Any) -> Any:
    """Turn a NumPy number, which may be a parameter or stand in a callback's record, into one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}; expected what JSON can hold")


def _arrays(fitted: Fitted) -> dict[str, Any]:
    return {
        "user_factors.npy": fitted.factors.user_factors,
        "item_factors.npy": fitted.factors.item_factors,
        "user_biases.npy": fitted.factors.user_biases,
        "item_biases.npy": fitted.factors.item_biases,
        "seen_indptr.npy": fitted.seen.indptr,
        "seen_indices.npy": fitted.seen.indices,
        **{f"{name}.npy": array for name, array in fitted.state.items()},
    }


def _write_ids(path: Path, vocabulary: pa.Array) -> None:
    table = pa.table({"id": vocabulary})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_ids(path: Path) -> pa.Array:
    column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("id")
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _file_record(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _check_files(folder: Path, files: dict[str, dict[str, Any]], verify: bool) -> None:
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{folder} lacks {name}: the model is incomplete; copy it again or train again")
        size = os.path.getsize(path)
        if size != expected["bytes"]:
            raise ModelError(
                f"{path} has {size} bytes, expected {expected['bytes']}: copy the model again or train again"
            )
        if verify and _file_record(path)["sha256"] != expected["sha256"]:
            raise ModelError(f"{path} does not match its checksum: copy the model again or train again")


def _parameters(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def _read_fitted(folder: Path, manifest: dict[str, Any]) -> Fitted:
    def mapped(name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> Any:
        # Copy-on-write, not read-only: kernels are compiled for writable arrays, and need not be again.
        array = np.load(folder / name, mmap_mode="c", allow_pickle=False)
        fits = array.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            raise ModelError(
                f"{folder / name} is {array.dtype} of shape {array.shape}; expected {dtype.__name__} {shape}"
            )
        return np.asarray(array)

    n_users, n_items = int(manifest["n_users"]), int(manifest["n_items"])
    n_factors = int(manifest["n_factors"])
    factors = Factors(
        mapped("user_factors.npy", np.float32, (n_users, n_factors)),
        mapped("item_factors.npy", np.float32, (n_items, n_factors)),
        mapped("user_biases.npy", np.float32, (n_users,)),
        mapped("item_biases.npy", np.float32, (n_items,)),
        np.float32(manifest["global_mean"]),
    )
    seen = Rows(mapped("seen_indptr.npy", np.int64, (n_users + 1,)), mapped("seen_indices.npy", np.int32, (None,)))
    user_ids, item_ids = (_read_ids(folder / name) for name in _ID_FILES)
    if len(user_ids) != n_users or len(item_ids) != n_items:
        raise ModelError(
            f"{folder} has {len(user_ids)} user and {len(item_ids)} item ids; expected {n_users} and {n_items}"
        )
    link = Link(np.float32(manifest["link"]["low"]), np.float32(manifest["link"]["span"]))
    state = {}
    for name in manifest.get("state", []):  # models of before have none
        n_rows = n_users if name.startswith("user_") else n_items
        state[name] = mapped(f"{name}.npy", np.float32, (n_rows, n_factors) if "factors" in name else (n_rows,))
    trained_with = _parameters(manifest.get("trained_with", {}))
    return Fitted(factors, link, user_ids, item_ids, seen, manifest["data"], state, trained_with)
