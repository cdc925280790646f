"""Describe a model directory or a ratings file.

example:
  fastmf info model
"""

import argparse
import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmf.cli.options import add_output_options, note, print_result

if TYPE_CHECKING:
    from fastmf.answering.fitted import Fitted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="model directory, Parquet file or directory of them")
    parser.add_argument("--verify", action="store_true", help="compare the files of a model with their checksums")
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Describe whatever is at the path."""
    from fastmf.reading.sources import SUFFIXES

    path = Path(parsed.path).expanduser()
    is_model = path.is_dir() and not any(file.name.lower().endswith(SUFFIXES) for file in path.rglob("*"))
    if path.is_dir():
        _tell_of_a_search(path, parsed)
    print_result(_model(path, parsed.verify) if is_model else _ratings(parsed.path), parsed.json)
    return 0


def _tell_of_a_search(path: Path, parsed: argparse.Namespace) -> None:
    """Say where the model is in a directory that `tune` has written."""
    from fastmf.tuning.trials import FILE
    from fastmf.tuning.tuner import MODEL_FOLDER

    if (path / FILE).is_file() and (path / MODEL_FOLDER).is_dir():
        note(f"{parsed.path} has the trials of a search; the model is in {path / MODEL_FOLDER}", parsed)


def _model(path: Path, verify: bool) -> dict[str, Any]:
    import fastmf
    from fastmf.keeping.manifest import in_words
    from fastmf.keeping.model_directory import read_manifest

    fitted = fastmf.load(path, verify=verify).fitted
    manifest = read_manifest(path)
    chosen = manifest.trained_with.get("chosen")
    return {
        "model": manifest.model,
        "created": manifest.created,
        "written by": f"fastmf {manifest.fastmf_version}, format {in_words(manifest.format_version)}",
        "n_users": manifest.n_users,
        "n_items": manifest.n_items,
        "n_ratings": manifest.data["n_ratings"],
        **_features(fitted),
        "factor_dtype": manifest.factor_dtype,
        "bytes": sum(file.n_bytes for file in manifest.files.values()),
        "parameters": manifest.parameters,
        **({"chosen in the fit": chosen} if chosen else {}),
        "last epoch": _with_undefined(manifest.history[-1]) if manifest.history else {},
    }


def _features(fitted: "Fitted") -> dict[str, Any]:
    """Return the number of features of each side, and of users or items that have some, also without a rating."""
    import numpy as np

    is_rated = {"user": fitted.counts.is_rated_user, "item": fitted.counts.of_items > 0}
    told = {}
    for side, known in fitted.features.items():
        has_some = known.are_described
        told[f"{side}_features"] = {
            "n_features": len(known.columns.names),
            f"n_{side}s": int(np.count_nonzero(has_some)),
            f"n_{side}s_without_ratings": int(np.count_nonzero(has_some & ~is_rated[side])),
        }
    return told


def _with_undefined(record: dict[str, Any]) -> dict[str, Any]:
    """Tell metrics that are undefined from parameters that are None."""
    return {name: math.nan if value is None else value for name, value in record.items()}


def _word(value: Any) -> str:
    """Word an Arrow scalar: Python has no words for far years, nanoseconds, unknown time zones and bad UTF-8."""
    import pyarrow as pa

    for kind in (value.type, pa.string(), pa.int64(), pa.binary()):
        with contextlib.suppress(ValueError, OverflowError, pa.ArrowException):
            return str(value if kind == value.type else value.cast(kind))
    return "?"


def _ratings(path: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from fastmf.errors import DataError, named
    from fastmf.reading.parquet import open_dataset, read_column

    try:
        dataset = open_dataset(path)
    except DataError as error:
        if not str(error).startswith("no such file"):
            raise
        text = error.in_words_of(named)
        raise DataError(text.replace("expected a ", "expected a model directory, a ", 1)) from error
    result: dict[str, Any] = {"files": len(dataset.files), "n_rows": dataset.count_rows()}
    for field in dataset.schema:
        column = read_column(dataset, field.name)
        words = [str(field.type), f"{column.null_count:,} null"]
        with contextlib.suppress(pa.ArrowNotImplementedError):  # lists and the like cannot be counted or compared
            words.insert(1, f"{pc.count_distinct(column).as_py():,} distinct")
            if len(column) > column.null_count:
                extremes = pc.min_max(column)
                words.append(f"from {_word(extremes['min'])} to {_word(extremes['max'])}")
        result[field.name] = ", ".join(words)
    return result
