"""Machine code of CUDA kernels on disk, so that a kernel is compiled once for a GPU and not once a process.

Numba's own cache does not serve kernels that close over device functions: it names an entry by the pickled values of
the closure, and pickles each device function under a number that is new in every process. It also looks at the file of
the kernel only, and so misses a change in a helper. Here an entry is named by what the kernel was made of, and lies in
the folder of the sources of its module (`_cache.folder_of`).
"""

import hashlib
import pickle
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastmf_kernels._cache import SUFFIX, folder_of, read, write
from fastmf_kernels._sources import source_hash

_PACKAGE = "fastmf_kernels."
_CONSTANTS = (int, float, str, bytes, type(None), np.generic, np.dtype)


class UnnamedError(TypeError):
    """A kernel closes over something that has no name which is the same in every process."""


def identity(value: Any) -> str:
    """Name a function, or a value that a function closes over, in the same way in every process.

    The name of a function has the hash of what its module is compiled from.

    Raises
    ------
    UnnamedError
        For a value that is neither a constant, a type, nor a function of this package.
    """
    value = getattr(value, "py_func", value)  # a device function
    value = getattr(value, "_defn", value)  # an intrinsic
    if isinstance(value, tuple):
        return f"{type(value).__name__}({', '.join(map(identity, value))})"
    if isinstance(value, _CONSTANTS):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, type) or callable(value):
        module = value.__module__
        if isinstance(value, type) or module.startswith(_PACKAGE):
            sources = source_hash(module) if module.startswith(_PACKAGE) else ""
            return f"{module}.{value.__qualname__} {sources}({_closure(value)})"
    raise UnnamedError(f"no name for {value!r}")


def _closure(function: Any) -> str:
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    return ", ".join(f"{name}={identity(cell.cell_contents)}" for name, cell in zip(names, cells, strict=True))


class KernelCache:
    """Stands in for the cache of a Numba dispatcher: it is asked before a kernel is compiled, and told afterwards.

    Parameters
    ----------
    function : callable
        The kernel, as Python.
    rebuild : callable
        Makes a compiled kernel of what its ``_reduce_states`` has returned.
    target : callable
        Names the device that kernels are compiled for, and the compiler.
    """

    def __init__(
        self, function: Callable[..., None], rebuild: Callable[[dict[str, Any]], Any], target: Callable[[], str]
    ) -> None:
        self._function, self._rebuild, self._target = function, rebuild, target
        self.cache_path: str | None = None

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the kernel for arguments of some types, or None if it has to be compiled."""
        path = self._path(signature)
        content = None if path is None else read(path)
        try:
            return None if content is None else self._rebuild(pickle.loads(zlib.decompress(content)))
        except Exception:  # written by another version: it is compiled anew
            return None

    def save_overload(self, signature: Any, kernel: Any) -> None:
        """Keep a compiled kernel; where that fails, it is compiled again in the next process."""
        path = self._path(signature)
        if path is None:
            return
        try:
            content = zlib.compress(pickle.dumps(kernel._reduce_states()), 1)
        except (pickle.PicklingError, RuntimeError):
            return
        write(path, content)

    def flush(self) -> None:
        """Do nothing: entries are named by the hash of their sources, so none is ever out of date."""

    def _path(self, signature: Any) -> Path | None:
        folder = folder_of(self._function.__module__, "cuda")
        if folder is None:
            return None
        try:
            name = identity(self._function)
        except UnnamedError:
            return None
        parts = (name, str(signature), self._target(), str(sys.version_info[:2]))
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        return folder / f"{self._function.__name__}-{digest}{SUFFIX}"
