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
from fastmf.keeping.regular_files import damaged, open_regular
from fastmf_kernels.predict.arrays import Factors
from fastmf_kernels.topk.arrays import Rows

_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|]?[a-zA-Z]\d{1,2})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>\d{0,18}(?:, ?\d{1,18})*),?\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"
_ARROW_MAGIC = b"ARROW1\x00\x00"
_ID_TYPES = (pa.int64(), pa.string(), pa.large_string())
# Elements that a check looks at in one go: they stay in the second-level cache. Less than 16 of such: no threads.
_CHUNK = 1 << 18
_MOST_THREADS = 8

Check = Callable[[], None]


@dataclass(frozen=True, eq=False)
class StoredFitted(Fitted):
    """The state of a model that maps the files of a directory; their contents are checked before the first use.

    Tables of factors that are stored as float16 become float32 at their first use, and are kept.

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
        value = object.__getattribute__(self, name)
        if name in _WITH_FACTORS and _is_stored_as_halves(value):
            # Two threads may do it at the same time, with equal results.
            value = _in_float32(value)
            object.__setattr__(self, name, value)
        return value

    @property
    def n_users(self) -> int:
        """Number of users; it is known before the contents are checked."""
        return len(object.__getattribute__(self, "user_ids"))

    @property
    def n_items(self) -> int:
        """Number of items; it is known before the contents are checked."""
        return len(object.__getattribute__(self, "item_ids"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as what has been checked, without the files."""
        return partial(Fitted, **{field.name: getattr(self, field.name) for field in fields(Fitted) if field.init}), ()


def _nothing() -> None:
    """Check nothing."""


_CONTENTS = frozenset({"factors", "seen", "user_ids", "item_ids", "state", "counts", "values", "features"})
_WITH_FACTORS = frozenset({"factors", "state"})


def _is_stored_as_halves(value: Factors | dict[str, npt.NDArray[Any]]) -> bool:
    arrays = value[:2] if isinstance(value, Factors) else value.values()
    return any(array.dtype == np.float16 for array in arrays)


def _in_float32(value: Factors | dict[str, npt.NDArray[Any]]) -> Factors | dict[str, npt.NDArray[Any]]:
    if isinstance(value, Factors):
        return value._replace(
            user_factors=value.user_factors.astype(np.float32), item_factors=value.item_factors.astype(np.float32)
        )
    return {name: array.astype(np.float32, copy=False) for name, array in value.items()}


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

    def find_all(self) -> list[ModelError]:
        """Run all checks, and return the errors of those that fail."""
        found = []
        for check in self._make_checks():
            try:
                check()
            except ModelError as error:
                found.append(error)
        self._is_done = not found
        return found

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
    with open_regular(path) as file:
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
        offset, n_bytes = len(_MAGIC) + 2 + length, os.fstat(file.fileno()).st_size
        needed = offset + want.itemsize * _product(found)
        if n_bytes != needed:
            raise ModelError(f"{path} has {n_bytes} bytes, expected {needed}: copy the model again or train again")
        if needed == offset:
            return np.empty(found, want)
        return np.asarray(np.memmap(file, want, "c", offset, found))


def map_ids(path: Path) -> pa.Array:
    """Map ids into memory: int64 or strings, in one array.

    The messages of the file are read in their order, as those of a stream: its footer could lead anywhere.

    Raises
    ------
    ModelError
        If the file holds something else.
    """
    try:
        with open_regular(path):  # a pipe would be waited for
            content = pa.memory_map(str(path)).read_buffer()
        if content[: len(_ARROW_MAGIC)].to_pybytes() != _ARROW_MAGIC:
            raise damaged(path, "it does not begin as an Arrow file does")
        messages = pa.ipc.MessageReader.open_stream(content[len(_ARROW_MAGIC) :])
        schema = pa.ipc.read_schema(messages.read_next_message())
        if schema.names != ["id"] or schema.field(0).type not in _ID_TYPES:
            kinds = ", ".join(f"{field.name!r} of type {field.type}" for field in schema)
            raise damaged(path, f"it has the columns {kinds or 'none'}; expected 'id' of type int64 or string")
        chunks = [_read_batch(path, message, schema).column(0) for message in messages]
        if len(chunks) == 1:
            return chunks[0]
        for chunk in chunks:
            chunk.validate(full=True)  # before it is copied: copying trusts its offsets
        return pa.chunked_array(chunks, schema.field(0).type).combine_chunks()
    except (pa.ArrowException, OSError, ValueError, MemoryError, StopIteration, struct.error) as error:
        raise damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _read_batch(path: Path, message: Any, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch of ids, whose columns stay where they are in the file.

    Compressed ones are refused: Arrow allocates what they claim to be before it looks at them. A message is a
    flatbuffer with its content as the third field; that of a batch has its compression as the fourth
    (https://arrow.apache.org/docs/format/Columnar.html, Message.fbs).
    """
    if message.type != "record batch":
        raise damaged(path, f"it has a message of the type {message.type!r}; expected ids alone")
    flatbuffer = message.metadata.to_pybytes()
    (root,) = struct.unpack_from("<I", flatbuffer)
    place = _place_of_field(flatbuffer, root, 2)
    batch = place + struct.unpack_from("<I", flatbuffer, place)[0]
    if _place_of_field(flatbuffer, batch, 3):
        raise damaged(path, "its ids are compressed; expected ids that are not")
    return pa.ipc.read_record_batch(message, schema)


def _place_of_field(flatbuffer: bytes, table: int, number: int) -> int:
    """Return where a field of a table is in a flatbuffer, 0 if the table does not have it."""
    fields = table - struct.unpack_from("<i", flatbuffer, table)[0]
    (size,) = struct.unpack_from("<H", flatbuffer, fields)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", flatbuffer, fields + 4 + 2 * number)
    return table + offset if offset else 0


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


def check_rows(paths: tuple[Path, Path], rows: Rows, n_items: int, unique: bool = False) -> Iterator[Check]:
    """Return checks that offsets rise, and that the indices of each row are of items, ascend, and if asked are unique.

    Offsets are checked at once: which indices belong to a row depends on them.
    """
    indptr, indices = rows
    if not _rises(indptr, len(indices)):
        return iter([partial(_refuse, paths[0], f"expected offsets that rise from 0 to {len(indices)}")])

    def check(start: int, stop: int) -> None:
        for first in range(start, stop, _CHUNK):
            check_chunk(first, min(first + _CHUNK, stop))

    def check_chunk(start: int, stop: int) -> None:
        part = indices[start:stop]
        if part.min() < 0 or part.max() >= n_items:
            raise damaged(paths[1], f"it has indices from {part.min()} to {part.max()}; expected 0 to {n_items - 1}")
        before = indices[max(start - 1, 0) : stop - 1]
        after = part[len(part) - len(before) :]
        ascends = after > before if unique else after >= before
        first = stop - len(before)
        rows_from, rows_to = np.searchsorted(indptr, (start, stop), "left")
        for row in range(rows_from, rows_to, _CHUNK):  # most of them may be empty
            bounds = indptr[row : min(row + _CHUNK, rows_to)]
            ascends[bounds[bounds >= first] - first] = True  # where a row begins, there is none before it
        if not ascends.all():
            place = first + int(np.argmin(ascends))
            how = "not greater" if unique else "less"
            raise damaged(paths[1], f"index {place} (from 0) is {how} than the one before it in the same row")

    return _in_parts(check, len(indices))


def _rises(indptr: npt.NDArray[Any], n: int) -> bool:
    """Whether offsets rise from 0 to n."""
    parts = ((start, min(start + _CHUNK, len(indptr) - 1)) for start in range(0, len(indptr) - 1, _CHUNK))
    return bool(
        indptr[0] == 0
        and indptr[-1] == n
        and all(bool((indptr[start + 1 : end + 1] >= indptr[start:end]).all()) for start, end in parts)
    )


def _refuse(path: Path, reason: str) -> None:
    raise damaged(path, reason)


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
