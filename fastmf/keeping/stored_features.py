"""The files of a model directory that hold the features of users and items, and the maps to their prior means."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.answering.fitted import SIDES
from fastmf.answering.side_features import Columns, SideFeatures
from fastmf.keeping.regular_files import damaged
from fastmf.keeping.stored_arrays import Check, check_rows, map_array, map_ids
from fastmf_kernels.layout.arrays import CSR
from fastmf_kernels.topk.arrays import Rows

_ARRAYS = ("indptr", "indices", "values", "weights", "centers", "scales")
_NAMES = "names"

Described = Mapping[str, Mapping[str, Any]]
"""What a manifest says of the features of each side: their number, and how they pull."""


def file_names(sides: Described) -> set[str]:
    """Return the names of the files of features of some sides."""
    of_arrays = {_file_of(side, part) for side in sides for part in _ARRAYS}
    return of_arrays | {names_file(side) for side in sides}


def names_file(side: str) -> str:
    """Return the name of the file that has the names of the features of a side."""
    return f"{side}_feature_{_NAMES}.arrow"


def describe(features: Mapping[str, SideFeatures]) -> dict[str, dict[str, Any]]:
    """Return what a manifest says of features."""
    return {side: {"n_features": len(known.columns.names), "pull": known.pull} for side, known in features.items()}


def is_description(value: object) -> bool:
    """Whether an entry of a manifest can be one of features."""
    return isinstance(value, dict) and all(
        side in SIDES and isinstance(entry, dict) and _is_size(entry.get("n_features")) and _is_pull(entry.get("pull"))
        for side, entry in value.items()
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 - 1


def _is_pull(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def arrays_of(features: Mapping[str, SideFeatures]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of features by the names of their files."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for side, (columns, rows, weights, _) in features.items():
        parts: tuple[npt.NDArray[Any], ...] = (*rows, weights, columns.centers, columns.scales)
        arrays |= {_file_of(side, part): array for part, array in zip(_ARRAYS, parts, strict=True)}
    return arrays


class Sizes(NamedTuple):
    """How many users and items a model has, and how long the rows of the maps of features are."""

    n_users: int
    n_items: int
    n_terms: int


def read(folder: Path, described: Described, sizes: Sizes) -> dict[str, SideFeatures]:
    """Map the files of features; shapes and types are checked now, the contents by `checks`.

    Raises
    ------
    ModelError
        If a file holds something else.
    """
    return {side: _read_side(folder, side, described[side], sizes) for side in SIDES if side in described}


def _read_side(folder: Path, side: str, entry: Mapping[str, Any], sizes: Sizes) -> SideFeatures:
    n_features, n_rows = entry["n_features"], sizes.n_users if side == "user" else sizes.n_items

    def mapped(part: str, dtype: type[np.generic], *shape: int | None) -> Any:
        return map_array(folder / _file_of(side, part), dtype, shape)

    indices = mapped("indices", np.int32, None)
    rows = CSR(mapped("indptr", np.int64, n_rows + 1), indices, mapped("values", np.float32, len(indices)))
    path = folder / names_file(side)
    names = map_ids(path)
    if len(names) != n_features or pa.types.is_integer(names.type):
        raise damaged(path, f"it has {len(names)} names of type {names.type}; expected {n_features} strings")
    columns = Columns(names, mapped("centers", np.float32, n_features), mapped("scales", np.float32, n_features))
    weights = mapped("weights", np.float32, n_features + 1, sizes.n_terms)
    return SideFeatures(columns, rows, weights, float(entry["pull"]))


def checks(folder: Path, features: Mapping[str, SideFeatures]) -> Iterator[Check]:
    """Return checks of what is relied on, that the shapes of arrays do not show, and that is not finiteness."""
    for side, known in features.items():
        paths = folder / _file_of(side, "indptr"), folder / _file_of(side, "indices")
        yield from check_rows(paths, Rows(*known.rows[:2]), len(known.weights), unique=True)
        yield _check_of_names(folder / names_file(side), known.columns.names)


def _check_of_names(path: Path, names: pa.Array) -> Check:
    def check() -> None:
        try:
            names.validate(full=True)
        except pa.ArrowException as error:
            raise damaged(path, str(error).splitlines()[0]) from error
        if names.null_count or pc.count_distinct(names).as_py() < len(names):
            raise damaged(path, "a name is missing, or comes up twice")

    return check


def _file_of(side: str, part: str) -> str:
    return f"{side}_feature_{part}.npy"
