"""Machine code of CUDA kernels on disk: named alike in every process, and never a reason to fail."""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CUDA kernels are not compiled")

from fastmf_kernels import _notes
from fastmf_kernels._cuda import cache
from fastmf_kernels._cuda.cache import KernelCache, UnnamedError, identity
from fastmf_kernels._notes import KernelCacheWarning

NAMES = """
from fastmf_kernels._cuda.cache import identity
from fastmf_kernels.als.cuda.cholesky import make_solve
from fastmf_kernels.sgd.cuda.walk import make_steps
from fastmf_kernels.topk import cuda
print(identity(make_solve(64, True).py_func))
print(identity(make_steps(32, False, True).py_func))
print(identity(cuda.make_screen(64, cuda.SHAPE).py_func))
"""


class Compiled:
    """What Numba hands to a cache."""

    def __init__(self, states: Any) -> None:
        self._states = states

    def _reduce_states(self) -> Any:
        return self._states


def closing_over(value: Any) -> Callable[..., None]:
    def kernel() -> None:
        print(value)

    kernel.__module__ = "fastmf_kernels.made_up"
    return kernel


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., KernelCache]:
    monkeypatch.setattr(cache, "folder_of", lambda module, compiler: tmp_path / "kernels")
    return lambda value=1, target="sm_90": KernelCache(closing_over(value), lambda states: states, lambda: target)


@pytest.mark.slow
def test_names_are_the_same_in_every_process() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", NAMES]
    names = {subprocess.run(command, env=environment, check=True, capture_output=True).stdout for _ in range(2)}

    assert len(names) == 1
    assert b" at 0x" not in names.pop()


@pytest.mark.parametrize(
    ("one", "other"), [(64, 128), (np.float32(1), np.float32(-1)), (1, 1.0), ((1, 2), (2, 1)), (True, 1), (None, 0)]
)
def test_what_a_kernel_closes_over_is_in_its_name(one: Any, other: Any) -> None:
    assert identity(closing_over(one)) != identity(closing_over(other))
    assert identity(closing_over(one)) == identity(closing_over(one))


def test_functions_that_a_kernel_calls_are_in_its_name() -> None:
    assert identity(closing_over(closing_over(1))) != identity(closing_over(closing_over(2)))


def test_what_has_no_name_is_not_kept(make: Callable[..., KernelCache]) -> None:
    with pytest.raises(UnnamedError, match="no name for <object object"):
        identity(closing_over(object()))
    nameless = make(object())
    nameless.save_overload("types", Compiled("code"))

    assert nameless.load_overload("types", None) is None


def test_a_kernel_is_found_again(make: Callable[..., KernelCache]) -> None:
    assert make().load_overload("types", None) is None
    make().save_overload("types", Compiled({"code": b"machine code"}))

    assert make().load_overload("types", None) == {"code": b"machine code"}
    assert make().load_overload("other types", None) is None
    assert make(2).load_overload("types", None) is None
    assert make(target="sm_80").load_overload("types", None) is None


@pytest.mark.parametrize("damage", [b"", b"nonsense", zlib.compress(b"nonsense")])
def test_a_damaged_file_is_compiled_anew(damage: bytes, make: Callable[..., KernelCache], tmp_path: Path) -> None:
    make().save_overload("types", Compiled("code"))
    (path,) = tmp_path.rglob("*.kernel")
    path.write_bytes(damage)

    assert make().load_overload("types", None) is None


def test_a_cache_that_cannot_be_written_to_is_no_failure(make: Callable[..., KernelCache], tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("in the way")
    _notes.forget()
    with pytest.warns(KernelCacheWarning, match="cannot be written"):
        make().save_overload("types", Compiled("code"))

    assert make().load_overload("types", None) is None


def test_no_cache_at_all(make: Callable[..., KernelCache], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "folder_of", lambda module, compiler: None)
    make().save_overload("types", Compiled("code"))

    assert make().load_overload("types", None) is None
