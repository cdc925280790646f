"""Fitted models to directories and back.

A model directory holds ``manifest.json``, written last, ``.npy`` files that map into memory, the ids as uncompressed
Arrow IPC, and ``card.md``, which describes the model for people. Nothing in it is pickled.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from fastmf._version import __version__
from fastmf.answering.fitted import Fitted
from fastmf.common.files import (
    expanded_path,
    is_being_replaced,
    local_path,
    naming,
    new_directory,
    output_path,
    require_absent,
)
from fastmf.common.parameters import require_choice
from fastmf.common.work_log import logged
from fastmf.errors import ModelError, OutputError, OutputExistsError
from fastmf.keeping import manifest as manifests
from fastmf.keeping import stored_features
from fastmf.keeping.card import make_card
from fastmf.keeping.halves import to_halves
from fastmf.keeping.manifest import (
    CARD,
    FACTOR_DTYPES,
    FORMAT,
    FORMAT_VERSION,
    ID_FILES,
    MANIFEST,
    NOT_KEPT,
    ONES,
    STORED,
    VALUES_FILE,
    Manifest,
    file_names,
)
from fastmf.keeping.regular_files import damaged, leads_outside, open_regular
from fastmf.keeping.stored_arrays import (
    Check,
    CheckOnce,
    StoredFitted,
    check_finite,
    check_ids,
    check_rows,
    map_array,
    map_ids,
)
from fastmf.reading.parquet import PathLike
from fastmf_kernels.predict.arrays import Factors, Link
from fastmf_kernels.topk.arrays import Rows

Source = dict[str, Any]
_Result = TypeVar("_Result")

# How to run is a matter of the machine, not of the model.
_RUN_PARAMETERS = ("backend", "n_threads", "verbose")
_LOAD_ATTEMPTS = 50
_SWAP_SECONDS = 0.002
# So many names of files are shown in a message.
_SHOWN = 5


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


def save(
    model: Saveable,
    path: PathLike,
    *,
    overwrite: bool = False,
    source: Source | None = None,
    factor_dtype: str = "float32",
) -> None:
    """Write a fitted model to a directory; see `fastmf.models.Model.save`."""
    require_choice("factor_dtype", factor_dtype, FACTOR_DTYPES)
    fitted = model.fitted
    require_replaceable(path, overwrite)
    place_of_values = _place_of_values(fitted)
    arrays, vocabularies = _arrays(fitted, place_of_values), (fitted.user_ids, fitted.item_ids)
    if factor_dtype == "float16":
        arrays = {name: to_halves(name, array) if _is_of_factors(name) else array for name, array in arrays.items()}
    n_bytes = sum(array.nbytes for array in arrays.values()) + sum(ids.nbytes for ids in vocabularies)
    with logged(f"saving {type(model).__name__} to {path}"), new_directory(path, overwrite, n_bytes) as folder:
        for name, array in arrays.items():
            np.save(folder / name, array, allow_pickle=False)
        for name, vocabulary in zip(ID_FILES, vocabularies, strict=True):
            _write_ids(folder / name, vocabulary)
        for side, features in fitted.features.items():
            _write_ids(folder / stored_features.names_file(side), features.columns.names)
        files = {file.name: _file_record(file) for file in sorted(folder.iterdir())}
        content = {
            "format": FORMAT,
            "format_version": manifests.in_words(FORMAT_VERSION),
            "fastmf_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": type(model).__name__,
            "parameters": {name: value for name, value in model.get_params().items() if name not in _RUN_PARAMETERS},
            "global_mean": float(fitted.factors.global_mean),
            "link": {"low": float(fitted.link.low), "span": float(fitted.link.span)},
            "n_users": fitted.n_users,
            "n_items": fitted.n_items,
            "n_factors": fitted.factors.user_factors.shape[1],  # not always the parameter: see `set_params`
            "factor_dtype": factor_dtype,
            "data": {**fitted.data, **(source or {})},
            "history": model.history,
            "state": sorted(fitted.state),
            "trained_with": fitted.trained_with,
            "values": place_of_values,
            "features": stored_features.describe(fitted.features),
            "files": files,
        }
        (folder / CARD).write_text(make_card(content, fitted.counts), encoding="utf-8")
        manifests.write(folder, content)
        require_replaceable(path, overwrite)  # somebody may have put files there meanwhile


def require_replaceable(path: PathLike, overwrite: bool) -> None:
    """Raise an error if a model may not be put at ``path``.

    Overwriting removes a whole directory. So it must be empty, or a model and nothing else: a mistyped path must not
    cost anything else.

    Raises
    ------
    OutputExistsError
        If ``path`` exists and may not be overwritten, is not a model, or holds files that are not of the model.
    OutputError
        If ``path`` cannot be written.
    """
    require_absent(path, overwrite)
    folder = output_path(path)
    with naming(path):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
    try:
        manifest = manifests.read(folder)
    except ModelError as error:
        raise OutputExistsError(
            f"{path} exists and is not a model, which alone is overwritten; choose another output, or delete it first"
        ) from error
    if foreign := _foreign_files(folder, manifest):
        raise OutputExistsError(
            f"{path} holds files that are not of the model, and overwriting it would delete them: {_some_of(foreign)}; "
            "move them, or choose another output"
        )


def _some_of(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _foreign_files(folder: Path, manifest: Manifest) -> list[str]:
    """List what a model directory holds beside the model; directories end in a slash."""
    own = {MANIFEST, CARD, *file_names(manifest.state, manifest.values, manifest.features)}
    return sorted(
        entry.name + "/" * entry.is_dir() for entry in folder.iterdir() if entry.name not in own or entry.is_dir()
    )


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
    maps_have_biases : bool or None
        Whether the maps of features have a column of the bias; None without features.
    """

    model: str
    parameters: dict[str, Any]
    fitted: Fitted
    history: list[dict[str, Any]]
    maps_have_biases: bool | None


def read(path: PathLike, verify: bool = False) -> Stored:
    """Read a model directory, which may be replaced meanwhile; see `fastmf.load`.

    Raises
    ------
    ModelError
        If the directory is not a model, is incomplete or damaged, or of a newer format.
    """
    try:
        folder = expanded_path(path)
    except OutputError as error:
        raise ModelError(f"no model at {path}: {error}") from None
    return _at_rest(folder, partial(_read, folder, verify))


def inspect(path: PathLike) -> list[str]:
    """Compare everything in a model directory, which may be replaced meanwhile, with its manifest.

    Returns
    -------
    list of str
        A message for each damaged file; empty if the model is whole.
    """
    try:
        folder = expanded_path(path)
        return _at_rest(folder, partial(find_damage, folder))
    except (ModelError, OutputError) as error:
        return [str(error)]


def _at_rest(folder: Path, read_it: Callable[[], _Result]) -> _Result:
    """Read a model directory, again if it was replaced meanwhile."""
    for _ in range(_LOAD_ATTEMPTS):
        version = _version(folder)
        try:
            found = read_it()
        except ModelError:
            if _version(folder) == version:
                raise
        else:
            if _version(folder) == version:
                return found
    raise ModelError(f"{folder} was replaced {_LOAD_ATTEMPTS} times while it was read; try again when that is over")


def read_manifest(path: PathLike) -> Manifest:
    """Read and check the manifest of a model directory.

    Raises
    ------
    ModelError
    """
    return manifests.read(expanded_path(path))


def _version(folder: Path) -> tuple[int, int] | None:
    """Tell the model that is there now from those that replace it; None if there is none."""
    for _ in range(_LOAD_ATTEMPTS):
        try:
            status = os.stat(folder / MANIFEST)
        except OSError:
            with suppress(OSError, OutputError):  # what cannot be put back is not there
                if is_being_replaced(local_path(folder)):
                    time.sleep(_SWAP_SECONDS)
                    continue
            return None
        else:
            return status.st_ino, status.st_mtime_ns
    return None


def _read(folder: Path, verify: bool) -> Stored:
    if verify and (problems := find_damage(folder)):
        others = len(problems) - 1
        raise ModelError(problems[0] + (f" ({others} more: `fastmf verify` names them all)" if others else ""))
    manifest = manifests.read(folder)
    try:
        for problem in _problems_of_files(folder, manifest):
            raise problem
        fitted, _ = _read_fitted(folder, manifest)
    except (OSError, OverflowError, ValueError, MemoryError) as error:  # larger than what can be mapped
        raise damaged(folder, error) from error
    maps_have_biases = manifest.has_biases if manifest.features else None
    return Stored(manifest.model, _parameters(manifest.parameters), fitted, manifest.history, maps_have_biases)


def find_damage(folder: Path) -> list[str]:
    """Read every byte of a model directory, and return what is wrong with it: a message for each damaged file.

    Parameters
    ----------
    folder : Path
    """
    try:
        manifest = manifests.read(folder)
    except ModelError as error:
        return [str(error)]
    problems = []
    try:
        manifests.read(folder, verify=True)
    except ModelError as error:
        problems.append(str(error))
    problems += map(str, _problems_of_files(folder, manifest, verify=True))
    if foreign := [name for name in _foreign_files(folder, manifest) if name not in manifest.files]:
        problems.append(f"{folder} holds files that are not of the model: {_some_of(foreign)}; move them elsewhere")
    if problems:
        return problems
    try:
        _, check = _read_fitted(folder, manifest)
        found = check.find_all()
    except (ModelError, OSError, OverflowError, ValueError, MemoryError) as error:
        return [str(error if isinstance(error, ModelError) else damaged(folder, error))]
    # The first of each file is enough: the checks of a large file are many.
    return list({str(error).partition(" is damaged")[0]: str(error) for error in reversed(found)}.values())[::-1]


def _problems_of_files(folder: Path, manifest: Manifest, verify: bool = False) -> Iterator[ModelError]:
    """Compare files with what the manifest says of them: how long they are, and, if ``verify``, every byte."""
    yield from (_is_link(folder / name) for name in (MANIFEST, CARD) if verify and leads_outside(folder / name, folder))
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.exists():
            yield ModelError(f"{folder} lacks {name}: the model is incomplete; copy it again or train again")
            continue
        if not path.is_file():
            yield damaged(path, "it is a directory, a pipe or a device; expected a file")
            continue
        if verify and leads_outside(path, folder):
            yield _is_link(path)
            continue
        size = os.path.getsize(path)
        if size != expected.n_bytes:
            yield ModelError(
                f"{path} has {size} bytes, expected {expected.n_bytes}: copy the model again or train again"
            )
        elif verify and _sha256(path) != expected.sha256:
            yield ModelError(f"{path} does not match its checksum: copy the model again or train again")


def _is_link(path: Path) -> ModelError:
    return ModelError(f"{path} is a link that leads out of the model; put a copy of the file in its place")


def _is_of_factors(name: str) -> bool:
    """Whether a file of this name is a table of factors, which may be stored as float16."""
    return "factors" in name


def _arrays(fitted: Fitted, place_of_values: str) -> dict[str, Any]:
    return {
        "user_factors.npy": fitted.factors.user_factors,
        "item_factors.npy": fitted.factors.item_factors,
        "user_biases.npy": fitted.factors.user_biases,
        "item_biases.npy": fitted.factors.item_biases,
        "seen_indptr.npy": fitted.seen.indptr,
        "seen_indices.npy": fitted.seen.indices,
        **({VALUES_FILE: fitted.values} if place_of_values == STORED else {}),
        **{f"{name}.npy": array for name, array in fitted.state.items()},
        **stored_features.arrays_of(fitted.features),
    }


def _place_of_values(fitted: Fitted) -> str:
    """Return where a model directory has the training ratings; ones take no file."""
    if fitted.values is None:
        return NOT_KEPT
    return ONES if fitted.values.strides == (0,) or bool((fitted.values == 1).all()) else STORED


def _write_ids(path: Path, vocabulary: pa.Array) -> None:
    table = pa.table({"id": vocabulary})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _file_record(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parameters(stored: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
        if name not in _RUN_PARAMETERS
    }


def _read_fitted(folder: Path, manifest: Manifest) -> tuple[StoredFitted, CheckOnce]:
    """Map the files of a model; shapes and types are checked now, the contents before their first use, or by hand."""
    n_users, n_items, n_factors = manifest.n_users, manifest.n_items, manifest.n_factors
    factor_type = np.float16 if manifest.factor_dtype == "float16" else np.float32

    def mapped(name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> Any:
        return map_array(folder / name, dtype, shape)

    factors = Factors(
        mapped("user_factors.npy", factor_type, (n_users, n_factors)),
        mapped("item_factors.npy", factor_type, (n_items, n_factors)),
        mapped("user_biases.npy", np.float32, (n_users,)),
        mapped("item_biases.npy", np.float32, (n_items,)),
        np.float32(manifest.global_mean),
    )
    seen = Rows(mapped("seen_indptr.npy", np.int64, (n_users + 1,)), mapped("seen_indices.npy", np.int32, (None,)))
    user_ids, item_ids = (map_ids(folder / name) for name in ID_FILES)
    if len(user_ids) != n_users or len(item_ids) != n_items:
        raise ModelError(
            f"{folder} has {len(user_ids)} user and {len(item_ids)} item ids; expected {n_users} and {n_items}"
        )
    link = Link(np.float32(manifest.low), np.float32(manifest.span))
    state = {}
    for name in manifest.state:
        n_rows = n_users if name.startswith("user_") else n_items
        is_table = _is_of_factors(name)
        shape = (n_rows, n_factors) if is_table else (n_rows,)
        state[name] = mapped(f"{name}.npy", factor_type if is_table else np.float32, shape)
    values = None if manifest.values == NOT_KEPT else np.broadcast_to(np.float32(1), seen.indices.shape)
    if manifest.values == STORED:
        values = mapped(VALUES_FILE, np.float32, seen.indices.shape)
    parts = factors, link, user_ids, item_ids, seen, manifest.data, state, _parameters(manifest.trained_with)
    sizes = stored_features.Sizes(n_users, n_items, n_factors + int(manifest.has_biases))
    features = stored_features.read(folder, manifest.features, sizes)
    fitted = Fitted(*parts, values=values, features=features)
    arrays = _arrays(fitted, manifest.values)
    check = CheckOnce(partial(_checks_of_contents, folder, fitted, arrays), sum(map(np.size, arrays.values())))
    return StoredFitted(*parts, values=values, features=features, check=check), check


def _checks_of_contents(folder: Path, fitted: Fitted, arrays: dict[str, Any]) -> list[Check]:
    """Return checks of everything that kernels rely on and that the shapes of arrays do not show."""
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    checks = [check for name, array in numbers.items() for check in check_finite(folder / name, array)]
    checks += check_rows((folder / "seen_indptr.npy", folder / "seen_indices.npy"), fitted.seen, fitted.n_items)
    for name, vocabulary in zip(ID_FILES, (fitted.user_ids, fitted.item_ids), strict=True):
        checks += check_ids(folder / name, vocabulary)
    checks += stored_features.checks(folder, fitted.features)
    return checks
