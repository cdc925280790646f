"""Arrays and ids of a model directory: mapped into memory, and checked before anything relies on them.

Kernels read and write where indices point, without a look at bounds. So everything that they trust is checked here:
shapes and types when a file is mapped, and the contents (which is as slow as reading them) before they are first used.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastmf.answering.fitted import Fitted
from fastmf.errors import ModelError
from fastmf.keeping.manifest import damaged
from fastmf_kernels.topk.arrays import Rows

_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|]?[a-zA-Z]\d{1,2})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>\d{0,18}(?:, ?\d{1,18})*),?\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"
_ID_TYPES = (pa.int64(), pa.string(), pa.large_string())
# Elements that a check looks at in one go: they stay in the second-level cache. Less than 16 of such: no threads.
_CHUNK = 1 << 18
_MOST_THREADS = 8

Check = Callable[[], None]


@dataclass(frozen=True, eq=False)
class StoredFitted(Fitted):
    """The state of a model that maps the files of a directory; their contents are checked before the first use.

    Attributes
    ----------
    check : callable
        Raises `ModelError` if the contents are not what they should be.
    """

    check: Check = field(default=lambda: None, repr=False)

    def __post_init__(self) -> None:
        check = self.check
        object.__setattr__(self, "check", _nothing)  # until it is used: what the base does here looks at shapes alone
        super().__post_init__()
        object.__setattr__(self, "check", check)

    def __getattribute__(self, name: str) -> Any:
        if name in _CONTENTS:
            object.__getattribute__(self, "check")()
        return object.__getattribute__(self, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as what has been checked, without the files."""
        return partial(Fitted, **{field.name: getattr(self, field.name) for field in fields(Fitted) if field.init}), ()


def _nothing() -> None:
    """Check nothing."""


_CONTENTS = frozenset({"factors", "seen", "user_ids", "item_ids", "state", "counts", "values"})


class CheckOnce:
    """Runs checks at the first call; after they have passed, calls cost nothing.

    Threads whose first calls come at the same time all run the checks: a lock could stay locked in a forked process.

    Parameters
    ----------
    make_checks : callable
        Returns the checks; each raises `ModelError` if it fails. They run on several threads.
    n_elements : int
        How many numbers they look at.
    """

    def __init__(self, make_checks: Callable[[], list[Check]], n_elements: int) -> None:
        self._make_checks, self._n_elements = make_checks, n_elements
        self._is_done = False

    def __call__(self) -> None:
        """Run the checks, unless they have passed before."""
        if not self._is_done:
            self._run()
            self._is_done = True

    def _run(self) -> None:
        checks = self._make_checks()
        n_threads = min(_MOST_THREADS, os.cpu_count() or 1, self._n_elements // (16 * _CHUNK) + 1)
        if n_threads == 1:
            for check in checks:
                check()
            return
        with ThreadPoolExecutor(n_threads) as pool:
            for future in [pool.submit(check) for check in checks]:
                future.result()


def map_array(path: Path, dtype: type[np.generic], shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Map an array into memory, copy-on-write.

    Copy-on-write, not read-only: kernels are compiled for writable arrays, and need not be again.

    Parameters
    ----------
    path : Path
    dtype : NumPy type
    shape : tuple
        None where any length will do.

    Raises
    ------
    ModelError
        If it is another array, or no array.
    """
    with path.open("rb") as file:
        start = file.read(len(_MAGIC) + 2)
        if len(start) < len(_MAGIC) + 2 or not start.startswith(_MAGIC):
            raise damaged(path, "it does not begin as a NumPy array of format 1.0 does")
        (length,) = struct.unpack("<H", start[-2:])
        header = _HEADER.fullmatch(file.read(length))
    if header is None:
        raise damaged(path, "its header does not describe an array of numbers")
    found = tuple(int(size) for size in header["shape"].replace(b" ", b"").split(b",") if size)
    kind = header["dtype"].decode("ascii")
    want = np.dtype(dtype)
    fits = len(found) == len(shape) and all(n in (None, m) for n, m in zip(shape, found, strict=True))
    if kind != want.str or not fits or header["fortran"] == b"True":
        raise ModelError(f"{path} is {_name_of(kind)} of shape {found}; expected {want.name} {shape}")
    offset, n_bytes = len(_MAGIC) + 2 + length, os.path.getsize(path)
    needed = offset + want.itemsize * _product(found)
    if n_bytes != needed:
        raise ModelError(f"{path} has {n_bytes} bytes, expected {needed}: copy the model again or train again")
    if needed == offset:
        return np.empty(found, want)
    return np.asarray(np.memmap(path, want, "c", offset, found))


def map_ids(path: Path) -> pa.Array:
    """Map ids into memory: int64 or strings, in one array.

    Raises
    ------
    ModelError
        If the file holds something else.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        schema = reader.schema
        if schema.names != ["id"] or schema.field(0).type not in _ID_TYPES:
            kinds = ", ".join(f"{field.name!r} of type {field.type}" for field in schema)
            raise damaged(path, f"it has the columns {kinds or 'none'}; expected 'id' of type int64 or string")
        column = reader.read_all().column("id")
        if column.num_chunks == 1:
            return column.chunk(0)
        column.validate(full=True)  # before it is copied: copying trusts its offsets
        return column.combine_chunks()
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def check_finite(path: Path, array: npt.NDArray[Any]) -> Iterator[Check]:
    """Return checks that all numbers of an array are finite."""
    flat = array.reshape(-1)

    def check(start: int, stop: int) -> None:
        for first in range(start, stop, _CHUNK):
            finite = np.isfinite(flat[first : min(first + _CHUNK, stop)])
            if not finite.all():
                place = first + int(np.argmin(finite))
                raise damaged(path, f"number {place} (from 0) is {flat[place]}; expected finite numbers")

    return _in_parts(check, len(flat))


def check_rows(paths: tuple[Path, Path], rows: Rows, n_items: int) -> Iterator[Check]:
    """Return checks that offsets rise, and that the indices of each row are of items and ascend.

    Offsets are checked at once: which indices belong to a row depends on them.
    """
    indptr, indices = rows
    if indptr[0] != 0 or indptr[-1] != len(indices) or np.any(indptr[1:] < indptr[:-1]):
        raise damaged(paths[0], f"expected offsets that rise from 0 to {len(indices)}")

    def check(start: int, stop: int) -> None:
        part = indices[start:stop]
        if part.min() < 0 or part.max() >= n_items:
            raise damaged(paths[1], f"it has indices from {part.min()} to {part.max()}; expected 0 to {n_items - 1}")
        before = indices[max(start - 1, 0) : stop - 1]
        ascends = part[len(part) - len(before) :] >= before
        bounds = indptr[np.searchsorted(indptr, start, "left") : np.searchsorted(indptr, stop, "left")]
        first = stop - len(before)
        ascends[bounds[bounds >= first] - first] = True  # where a row begins, there is none before it
        if not ascends.all():
            place = first + int(np.argmin(ascends))
            raise damaged(paths[1], f"index {place} (from 0) is less than the one before it in the same row")

    return _in_parts(check, len(indices))


def check_ids(path: Path, ids: pa.Array) -> Iterator[Check]:
    """Return a check that ids are valid text or integers, ascend, and come up once."""

    def check() -> None:
        try:
            ids.validate(full=True)
        except pa.ArrowException as error:
            raise damaged(path, str(error).splitlines()[0]) from error
        if ids.null_count:
            raise damaged(path, f"{ids.null_count} ids are null")
        if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            raise damaged(path, "its ids do not ascend, or one comes up twice")

    return iter([check])


def _in_parts(check: Callable[[int, int], None], n: int) -> Iterator[Check]:
    """Cut a check of a range into checks of parts."""
    step = max(_CHUNK, -(-n // 64))
    ranges = ((start, min(start + step, n)) for start in range(0, n, step))
    return starmap(lambda start, stop: lambda: check(start, stop), ranges)


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _name_of(kind: str) -> str:
    try:
        return np.dtype(kind).name
    except TypeError:
        return repr(kind)
