"""The formats that vectors are exported to: each writes files into a directory."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fastmf.errors import BackendError, DataError, named
from fastmf.keeping.vectors import Vectors

# Rows in a row group of Parquet.
_ROWS = 1 << 16
# NumPy pads text to the longest; ids that take more than this as such are refused.
_LARGEST_TEXT = 1 << 30
# Links a node, and candidates while it is linked: those of hnswlib's examples. Candidates of a query.
_HNSW = {"M": 16, "ef_construction": 200, "random_seed": 100}
_HNSW_QUERY = {"ef": 200}


class Format(NamedTuple):
    """A format of exported vectors.

    Attributes
    ----------
    load : callable
        Returns the library of the format.
    files : tuple of str
        Names of the files.
    write : callable
        Takes a directory, users and items; writes the files, and returns what a reader has to know.
    """

    load: Callable[[], Any]
    files: tuple[str, ...]
    write: Callable[[Path, Vectors, Vectors], dict[str, Any]]


def require_installed(name: str) -> None:
    """Check that what a format needs is installed.

    Raises
    ------
    BackendError
    """
    try:
        FORMATS[name].load()
    except ImportError as error:
        raise BackendError(
            f"{named('format')} {name} needs the library {name}, which is not installed ({error}); run "
            '`pip install "fastmf[export]"`, or export to parquet or npz'
        ) from error


def _load_nothing() -> None:
    """NumPy and Arrow are there."""


def _load_safetensors() -> Any:
    import safetensors.numpy

    return safetensors.numpy


def _load_faiss() -> Any:
    import faiss

    return faiss


def _load_hnswlib() -> Any:
    import hnswlib

    return hnswlib


def _write_parquet(folder: Path, users: Vectors, items: Vectors) -> dict[str, Any]:
    for name, vectors in (("users.parquet", users), ("items.parquet", items)):
        write_vectors(folder / name, vectors)
    return {}


def write_vectors(path: Path, vectors: Vectors) -> None:
    """Write vectors to Parquet: ``id``, ``vector`` (a list of float32), ``bias``."""
    schema = pa.schema([("id", vectors.ids.type), ("vector", pa.list_(pa.float32())), ("bias", pa.float32())])
    n_dimensions = vectors.vectors.shape[1]
    # Factors do not get smaller by compression.
    with pq.ParquetWriter(
        path, schema, compression={"id": "zstd", "vector.list.element": "none", "bias": "none"}
    ) as out:
        for start in range(0, len(vectors.ids), _ROWS):
            part = vectors.vectors[start : start + _ROWS]
            offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * np.int32(n_dimensions))
            lists = pa.ListArray.from_arrays(offsets, pa.array(part.reshape(-1)))
            biases = pa.array(vectors.biases[start : start + _ROWS])
            out.write_table(pa.table([vectors.ids[start : start + _ROWS], lists, biases], schema=schema))


def _write_npz(folder: Path, users: Vectors, items: Vectors) -> dict[str, Any]:
    for name, vectors in (("users.npz", users), ("items.npz", items)):
        np.savez(folder / name, ids=_numpy_ids(vectors.ids), vectors=vectors.vectors, biases=vectors.biases)
    return {}


def _numpy_ids(ids: pa.Array) -> npt.NDArray[Any]:
    """Return ids as int64, or as text of NumPy, which reads back without pickle."""
    if pa.types.is_int64(ids.type):
        return np.asarray(ids.to_numpy(zero_copy_only=False))
    words: list[str] = ids.to_pylist()
    longest = max(map(len, words), default=0)
    if any(word.endswith("\0") for word in words) or 4 * longest * len(words) > _LARGEST_TEXT:
        raise DataError(
            f"NumPy pads text, and cannot store these {len(words):,} ids of up to {longest:,} letters, or with null "
            f"characters at the end; choose parquet as the {named('format')}"
        )
    return np.array(words, f"<U{max(1, longest)}")


def _write_safetensors(folder: Path, users: Vectors, items: Vectors) -> dict[str, Any]:
    tensors = {"user_vectors": users.vectors, "item_vectors": items.vectors}
    tensors |= {"user_biases": users.biases, "item_biases": items.biases}
    with _as_system_error():
        _load_safetensors().save_file(tensors, folder / "vectors.safetensors")
    _write_ids(folder / "user_ids.parquet", users.ids)
    _write_ids(folder / "item_ids.parquet", items.ids)
    return {}


def _write_faiss(folder: Path, users: Vectors, items: Vectors) -> dict[str, Any]:
    faiss = _load_faiss()
    index = faiss.IndexFlatIP(items.vectors.shape[1])
    index.add(items.vectors)
    # faiss itself does not say that the end of a file could not be written.
    with _as_system_error(), open(folder / "items.faiss", "wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    _write_ids(folder / "item_ids.parquet", items.ids)
    write_vectors(folder / "users.parquet", users)
    return {"index": "IndexFlatIP", "measure": "inner product"}


def _write_hnswlib(folder: Path, users: Vectors, items: Vectors) -> dict[str, Any]:
    n_items, n_dimensions = items.vectors.shape
    index = _load_hnswlib().Index(space="ip", dim=n_dimensions)
    index.init_index(max_elements=n_items, **_HNSW)
    # On several threads, the links would depend on which is faster.
    index.add_items(items.vectors, np.arange(n_items), num_threads=1)
    with _as_system_error():
        index.save_index(str(folder / "items.hnsw"))
    if (folder / "items.hnsw").stat().st_size != index.index_file_size():  # hnswlib does not say that a write failed
        raise OSError("hnswlib has written less than the index takes")
    _write_ids(folder / "item_ids.parquet", items.ids)
    write_vectors(folder / "users.parquet", users)
    return {"space": "ip", "dim": n_dimensions, "max_elements": n_items, **_HNSW, **_HNSW_QUERY}


@contextmanager
def _as_system_error() -> Iterator[None]:
    """Raise what a library says of a file that it cannot write, on a full disk for example, as an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each library has its own class, safetensors one that is derived from Exception alone
        raise OSError(str(error)) from error


def _write_ids(path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"id": ids}), path, compression="zstd")


def read_description(folder: Path) -> dict[str, Any] | None:
    """Return what describes exported vectors; None if a directory holds something else."""
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("format") in FORMATS else None


DESCRIPTION = "export.json"
"""The file that says what the others are."""
FORMATS: dict[str, Format] = {
    "parquet": Format(_load_nothing, ("users.parquet", "items.parquet"), _write_parquet),
    "npz": Format(_load_nothing, ("users.npz", "items.npz"), _write_npz),
    "safetensors": Format(
        _load_safetensors, ("vectors.safetensors", "user_ids.parquet", "item_ids.parquet"), _write_safetensors
    ),
    "faiss": Format(_load_faiss, ("items.faiss", "item_ids.parquet", "users.parquet"), _write_faiss),
    "hnswlib": Format(_load_hnswlib, ("items.hnsw", "item_ids.parquet", "users.parquet"), _write_hnswlib),
}
"""What `fastmf.export` writes, by name."""
