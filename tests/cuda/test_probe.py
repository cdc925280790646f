"""What is said where CUDA kernels cannot run: every obstacle, and what removes it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastmf.backend import get_backend
from fastmf.errors import BackendError
from fastmf_kernels._cuda import probe

DRIVER = probe.Driver("580.65.06", (13, 0))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, ...], probe.Driver | None], None]:
    """Pretend that some packages and a driver are there."""

    def pretend(packages: tuple[str, ...], driver: probe.Driver | None, numpy: str = "2.4.6") -> None:
        found: dict[str, Any] = dict.fromkeys(packages, object())
        versions = {"numpy": numpy, "numba-cuda": "0.30.4"}
        monkeypatch.setattr(importlib.util, "find_spec", found.get)
        monkeypatch.setattr(probe, "version", versions.__getitem__)
        monkeypatch.setattr(probe, "_lacks_row_stack", lambda: not numpy.startswith("2.4"))
        monkeypatch.setattr(probe, "find_driver", lambda: driver)

    return pretend


def test_everything_that_is_missing_is_named(machine: Callable[..., None]) -> None:
    machine((), None)

    obstacle = probe.obstacle()

    assert obstacle is not None
    assert obstacle.startswith('not installed: numba-cuda and CuPy; run pip install "fastmf[cuda]"')
    assert "; and there is no NVIDIA driver on this machine; install one" in obstacle


def test_the_simulator_is_not_in_the_wheel(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    machine(("numba_cuda", "cupy", "fastmf_kernels._cuda.simulated"), None)
    assert probe.obstacle() is None

    machine(("numba_cuda", "cupy"), DRIVER)
    assert "NUMBA_ENABLE_CUDASIM is set, and the simulator is in the sources of fastmf alone" in str(probe.obstacle())


def test_one_package_is_missing(machine: Callable[..., None]) -> None:
    machine(("numba_cuda",), DRIVER)

    assert str(probe.obstacle()).startswith('not installed: CuPy; run pip install "fastmf[cuda]"')


@pytest.mark.parametrize("numpy", ["2.5.0", "2.5.2", "3.0"])
def test_numpy_is_too_new(numpy: str, machine: Callable[..., None]) -> None:
    machine(("numba_cuda", "cupy"), None, numpy)

    advice = f'numba-cuda 0.30.4 does not work with NumPy {numpy}; run pip install "numpy<2.5"'
    assert str(probe.obstacle()).startswith(f"{advice}; and there is no NVIDIA driver")


def test_the_backend_says_what_the_probe_says(machine: Callable[..., None]) -> None:
    machine(("numba_cuda", "cupy"), None)

    with pytest.raises(BackendError) as raised:
        get_backend("cuda")
    assert str(raised.value).startswith('backend "cuda" (--device cuda) cannot run here: there is no NVIDIA driver')
    assert str(raised.value).endswith('or use backend "cpu", which is the default')


def test_the_simulator_stands_in_for_a_device(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(("fastmf_kernels._cuda.simulated",), None)
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")

    assert probe.obstacle() is None
    assert "simulator" in probe.describe_device()


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\n", "570.86.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n", "580.95.05"),
        ("nothing of the kind", ""),
    ],
)
def test_release_of_the_driver(text: str, release: str, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)

    assert probe._release(tmp_path / "version") == release
    assert probe._release(tmp_path / "none") == ""
