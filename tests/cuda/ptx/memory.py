"""Memory of the interpreted device: what is read or written outside of it, badly aligned, or in a race is an error.

An access is ordered after another one of the same thread, or where both threads have met at a barrier, of the block or
of the warp, in between. Each thread counts its meetings and knows up to which count it has met each other one (vector
clocks: Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", 1978; Mattern, 1988).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Threads = npt.NDArray[np.int64]

# Arrays lie so far apart that what is outside of one is in no other.
_APART = 1 << 36


class KernelError(Exception):
    """A kernel did what it must not."""


class DeviceArray:
    """An array in global memory, as far as host code of kernels knows one."""

    def __init__(self, host: npt.NDArray[Any], number: int, start: int = 0) -> None:
        self.host, self.number, self.start = host, number, start
        self.dtype, self.shape, self.size, self.ndim = host.dtype, host.shape, host.size, host.ndim
        self.__cuda_array_interface__ = {"shape": host.shape, "typestr": host.dtype.str, "version": 3}

    @property
    def address(self) -> int:
        """Where it begins."""
        return self.number * _APART + self.start

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, rows: slice) -> "DeviceArray":
        start, _, step = rows.indices(len(self.host))
        assert step == 1
        part = self.host[rows]
        return DeviceArray(part, self.number, self.start + start * self.host.strides[0])

    def copy_to_host(self) -> npt.NDArray[Any]:
        """Return a copy of it."""
        return self.host.copy()


class GlobalMemory:
    """All arrays that were ever made."""

    def __init__(self) -> None:
        self._bytes: list[npt.NDArray[np.uint8]] = [np.empty(0, np.uint8)]

    def hold(self, host: npt.NDArray[Any]) -> DeviceArray:
        """Return a copy of an array of the host."""
        copy = np.array(host, order="C")
        self._bytes.append(copy.reshape(-1).view(np.uint8))
        return DeviceArray(copy, len(self._bytes) - 1)

    def numbers(self, addresses: Places, dtype: Any, n: int) -> tuple[npt.NDArray[Any], Places]:
        """Return the array of a type that addresses of ``n`` numbers side by side are in, and where, shape (…, n)."""
        which, places = addresses // _APART, addresses % _APART
        if len(which) and (which != which[0]).any():
            raise KernelError("an access to global memory is outside of an array, or threads are in different ones")
        of_array = self._bytes[int(which[0])] if len(which) else self._bytes[0]
        size = np.dtype(dtype).itemsize
        return of_array[: len(of_array) // size * size].view(dtype), _checked(places, size, n, len(of_array), "global")


class SharedMemory:
    """Shared memory of a block of threads, full of what is not a number."""

    def __init__(self, n_bytes: int, n_threads: int) -> None:
        self._bytes = np.full(-(-n_bytes // 16) * 16, 0xFF, np.uint8)
        n_words = len(self._bytes) // 4
        self._n_bytes = n_bytes
        self._clock = np.ones(n_threads, np.int32)
        # Up to which count a thread has met another one.
        self._met = np.zeros((n_threads, n_threads), np.int32)
        # Of each word, who has written it last, and when; and when each thread has last read it, or added to it.
        self._writer, self._written = np.zeros(n_words, np.int64), np.zeros(n_words, np.int32)
        self._read, self._added = (np.zeros((n_words, n_threads), np.int32) for _ in range(2))
        self._is_added_to = False

    def meet(self, threads: Threads) -> None:
        """Let threads meet at a barrier."""
        self._met[threads] = self._met[threads].max(axis=0)
        self._met[np.ix_(threads, threads)] = self._clock[threads]
        self._clock[threads] += 1

    def read(self, threads: Threads, places: Places, dtype: Any, n: int) -> npt.NDArray[Any]:
        """Read ``n`` numbers side by side, shape (n_threads, n)."""
        numbers, at = self._numbers(places, dtype, n)
        words = self._words(places, dtype, n)
        self._require_after_write(threads, words)
        if self._is_added_to:
            self._require_after_all(self._added, threads, words)
        self._read[words, threads[:, None]] = self._clock[threads][:, None]
        return numbers[at]

    def write(self, threads: Threads, places: Places, values: npt.NDArray[Any]) -> None:
        """Write numbers side by side, shape (n_threads, n)."""
        numbers, at = self._numbers(places, values.dtype, values.shape[1])
        words = self._words(places, values.dtype, values.shape[1])
        if len(np.unique(words)) < words.size:
            raise KernelError("race in shared memory: threads write the same number at once")
        self._require_after_write(threads, words)
        for times in (self._read, self._added):
            self._require_after_all(times, threads, words)
        self._writer[words], self._written[words] = threads[:, None], self._clock[threads][:, None]
        numbers[at] = values

    def add(self, threads: Threads, places: Places, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Add atomically, one thread after the other; returns what each has found."""
        numbers, at = self._numbers(places, values.dtype, 1)
        words, found = self._words(places, values.dtype, 1), np.empty_like(values)
        self._require_after_write(threads, words)
        self._require_after_all(self._read, threads, words)
        self._added[words, threads[:, None]] = self._clock[threads][:, None]
        self._is_added_to = True
        for i, place in enumerate(at[:, 0]):
            found[i] = numbers[place]
            numbers[place] += values[i]
        return found

    def _numbers(self, places: Places, dtype: Any, n: int) -> tuple[npt.NDArray[Any], Places]:
        return self._bytes.view(dtype), _checked(places, np.dtype(dtype).itemsize, n, self._n_bytes, "shared")

    def _words(self, places: Places, dtype: Any, n: int) -> Places:
        return places[:, None] // 4 + np.arange(max(1, np.dtype(dtype).itemsize * n // 4))

    def _require_after_write(self, threads: Threads, words: Places) -> None:
        """Make sure that threads know of the last writing of words, which was after all writing before."""
        writer = self._writer[words]
        known = self._met[threads[:, None], writer] >= self._written[words]
        if not (known | (writer == threads[:, None])).all():
            raise KernelError("race in shared memory: a number that another thread has just written")

    def _require_after_all(self, times: npt.NDArray[np.int32], threads: Threads, words: Places) -> None:
        """Make sure that threads know of all that other ones did at some times."""
        known = self._met[threads]
        known[np.arange(len(threads)), threads] = np.iinfo(np.int32).max
        if (times[words] > known[:, None, :]).any():
            raise KernelError("race in shared memory: a number that another thread has just read, or added to")


def _checked(places: Places, item_size: int, n: int, n_bytes: int, space: str) -> Places:
    """Return the numbers of items from some bytes on."""
    size = item_size * n
    if (places % size).any():
        raise KernelError(f"an access to {space} memory is not aligned to its {size} bytes")
    if ((places < 0) | (places + size > n_bytes)).any():
        raise KernelError(f"an access to {space} memory is outside of an array, or of all of it")
    return places[:, None] // item_size + np.arange(n)
