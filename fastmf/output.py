"""Models to directories and back, and recommendations to Parquet.

A model directory holds ``manifest.json``, written last, ``.npy`` files that map into memory, and the ids as
uncompressed Arrow IPC. Nothing in it is pickled.
"""

import hashlib
import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastmf._version import __version__
from fastmf.answers import Batches, add_scans
from fastmf.errors import DataError, FastMFError, ModelError, OutputExistsError
from fastmf.files import is_being_replaced, new_directory, new_file, require_absent
from fastmf.models import MODELS
from fastmf.models.base import FactorModel
from fastmf.models.fitted import Fitted
from fastmf.parquet import PathLike
from fastmf.progress import Progress
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import Rows, Scan

FORMAT = "fastmf-model"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
Source = dict[str, Any]

# How to run is a matter of the machine, not of the model.
_RUN_PARAMETERS = ("backend", "n_threads", "verbose")
_LOAD_ATTEMPTS = 50
_SWAP_SECONDS = 0.002
# Batches of users in a file: what is lost when a call is interrupted.
_BATCHES_A_PART = 8
_ID_FILES = ("user_ids.arrow", "item_ids.arrow")


def save(model: FactorModel, path: PathLike, *, overwrite: bool = False, source: Source | None = None) -> None:
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


def load(path: PathLike, *, verify: bool = False) -> FactorModel:
    """Read a model directory.

    Factors are mapped into memory, not read: loading takes milliseconds whatever the size, and processes share one
    copy. Changing a mapped array changes this process's copy of the page, never the file. A model may be saved anew
    while it is loaded: the answer is the old one or the new one.

    Parameters
    ----------
    path : path-like
        What `save` wrote.
    verify : bool
        Also compare every file with its checksum, which reads them whole.

    Returns
    -------
    FactorModel
        Of the class that was saved.

    Raises
    ------
    ModelError
        If the directory is not a model, is incomplete or damaged, or of a newer format.

    Examples
    --------
    >>> import fastmf
    >>> model = fastmf.load("model/")  # doctest: +SKIP
    """
    folder = Path(path)
    for _ in range(_LOAD_ATTEMPTS):
        version = _version(folder)
        try:
            model = _load(folder, verify)
        except ModelError:
            if _version(folder) == version:
                raise
        else:
            if _version(folder) == version:
                return model
    raise ModelError(f"{folder} was replaced {_LOAD_ATTEMPTS} times while it was read; try again when that is over")


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


def _load(folder: Path, verify: bool) -> FactorModel:
    manifest = read_manifest(folder)
    try:
        _check_files(folder, manifest["files"], verify)
        model = MODELS[manifest["model"]](**_parameters(manifest["parameters"]))
        fitted = _read_fitted(folder, manifest)
        model.restore(fitted, manifest["history"])
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, FastMFError):
            raise
        raise ModelError(f"{folder} is damaged ({error}); restore it from a copy or train again") from error
    return model


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
    return Fitted(factors, link, user_ids, item_ids, seen, manifest["data"], state)


def write_recommendations(
    batches: Batches, path: PathLike, *, partitioned: bool = False, overwrite: bool = False, shown: bool = False
) -> int:
    """Write batches of recommendations to Parquet; the output appears whole or not at all.

    Parts are finished one by one in a hidden directory beside the output. A call that was interrupted leaves them
    there, and the same call goes on after them: the output has the same bytes as if nothing had happened.

    Parameters
    ----------
    batches : Batches
    path : path-like
    partitioned : bool
        Whether to make a directory of several files instead of one file.
    overwrite : bool
        Whether an existing output may be replaced.
    shown : bool
        Whether to show progress.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    DataError
        If there are no users.
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false, or is a directory of anything else than recommendations.
    """
    final = Path(path)
    _require_replaceable_recommendations(final, overwrite, partitioned)
    if batches.n_users == 0:
        raise DataError("there are no users to recommend to; expected at least one")
    parts = parts_directory(final, batches.fingerprint())
    parts.mkdir(parents=True, exist_ok=True)
    try:
        files = _write_parts(batches, parts, shown)
    finally:
        if not any(parts.iterdir()):
            parts.rmdir()
    n_rows = sum(int(pq.read_metadata(file).num_rows) for file in files)
    if partitioned:
        with new_directory(final, overwrite) as folder:
            for file in files:
                os.replace(file, folder / file.name)
    else:
        with new_file(final, overwrite) as temporary, pq.ParquetWriter(temporary, **_format(files[0])) as writer:
            for file in files:
                parquet = pq.ParquetFile(file)
                for number in range(parquet.num_row_groups):
                    writer.write_table(parquet.read_row_group(number))
    shutil.rmtree(parts, ignore_errors=True)
    return n_rows


def parts_directory(path: Path, fingerprint: str) -> Path:
    """Return where the finished parts of an output are while it is not whole."""
    return path.absolute().parent / f".{path.name}.parts-{fingerprint}"


def _write_parts(batches: Batches, folder: Path, shown: bool) -> list[Path]:
    """Write the parts that are not there yet; returns the files of all of them, in order."""
    starts = range(0, batches.n_batches, _BATCHES_A_PART)
    files = [folder / f"part-{number:05d}.parquet" for number in range(len(starts))]
    scan, n_done, started = Scan(0, 0, 0), 0, time.perf_counter()
    with Progress("recommend", batches.n_users, "user", shown) as progress:
        for file, start in zip(files, starts, strict=True):
            numbers = range(start, min(start + _BATCHES_A_PART, batches.n_batches))
            if file.exists():
                progress.advance(sum(batches.size(number) for number in numbers), "done before")
                continue
            with new_file(file, overwrite=True) as temporary:
                writer: pq.ParquetWriter | None = None
                try:
                    for number in numbers:
                        batch = batches.compute(number)
                        table = batch.to_arrow()
                        writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
                        writer.write_table(table)
                        scan, n_done = add_scans([scan, batch.scan]), n_done + len(batch.users)
                        progress.advance(len(batch.users), _in_words(scan, n_done / (time.perf_counter() - started)))
                finally:
                    if writer is not None:
                        writer.close()
    return files


def _in_words(scan: Scan, rate: float) -> str:
    n_tiles = scan.n_screened + scan.n_skipped
    skipped = f", {scan.n_skipped / n_tiles:.0%} of the tiles skipped" if n_tiles else ""
    return f"{rate:,.0f} users/s{skipped}"


def _format(file: Path) -> dict[str, Any]:
    return {"schema": pq.read_schema(file), "compression": "zstd"}


def _require_replaceable_recommendations(path: Path, overwrite: bool, partitioned: bool) -> None:
    """Raise an error unless an output may be put there: of directories only one that holds nothing but parts."""
    require_absent(path, overwrite)
    if path.is_dir() and not (partitioned and all(p.match("part-*.parquet") for p in path.iterdir())):
        raise OutputExistsError(
            f"{path} is a directory; expected the name of a file to write"
            if not partitioned
            else f"{path} holds more than parts of recommendations, which alone are overwritten; choose another output"
        )
