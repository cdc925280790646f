"""The row of a user by id, without a step that lets go of the interpreter."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


class UserRows:
    """Finds ids of one type, Python's int or str, among ascending ones.

    Parameters
    ----------
    ids : Arrow array
        Of int64 or strings, ascending.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = UserRows(pa.array(["ann", "bob"]))
    >>> rows.find("bob"), rows.find("eve"), rows.find(2)
    (1, -1, -1)
    """

    def __init__(self, ids: pa.Array) -> None:
        self._is_text = not pa.types.is_int64(ids.type)
        self._keys: Sequence[Any] = _Texts(ids) if self._is_text else np.asarray(ids.to_numpy(), np.int64).data

    def find(self, user: object) -> int:
        """Return the row of a user; -1 if there is none, or if the id is of another type."""
        if type(user) is not (str if self._is_text else int):
            return -1
        try:
            key = user.encode() if isinstance(user, str) else user
        except UnicodeEncodeError:
            return -1
        row = bisect_left(self._keys, key)
        return row if row < len(self._keys) and self._keys[row] == key else -1


class _Texts(Sequence[bytes]):
    """The texts of an Arrow array in UTF-8, in whose order they ascend."""

    def __init__(self, ids: pa.Array) -> None:
        _, offsets, data = ids.buffers()
        kind = np.int64 if pa.types.is_large_string(ids.type) else np.int32
        starts = np.frombuffer(offsets, kind)[ids.offset : ids.offset + len(ids) + 1] if len(ids) else np.zeros(1, kind)
        self._starts, self._data = memoryview(starts.data), memoryview(b"" if data is None else data)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, row: int) -> bytes:  # type: ignore[override]
        return bytes(self._data[self._starts[row] : self._starts[row + 1]])
