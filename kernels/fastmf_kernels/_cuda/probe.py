"""What this machine offers to CUDA, and what is missing; nothing of CUDA is loaded before it has been found."""

import ctypes
import importlib.util
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

_INSTALL = 'pip install "fastmf[cuda]" (drivers of release 580 or later) or "fastmf[cuda12]" (earlier ones)'
_PACKAGES = {"numba_cuda": "numba-cuda", "cupy": "CuPy"}
_SIMULATOR = "fastmf_kernels._cuda.simulated"
_NO_SIMULATOR = (
    "NUMBA_ENABLE_CUDASIM is set, and the simulator is in the sources of fastmf alone, for its tests; unset it, or run "
    "from a checkout"
)
# What the kernels need: warps that synchronise by mask.
_LEAST_CAPABILITY = (7, 0)


# numba-cuda up to this version looks for `numpy.row_stack`, which NumPy 2.5 has no more.
_LAST_FOR_OLDER_NUMPY = (0, 30, 4)


class Driver(NamedTuple):
    """The NVIDIA driver.

    Attributes
    ----------
    release : str
        As "580.65.06"; empty if it cannot be told.
    cuda : (int, int)
        The newest CUDA version that it serves.
    """

    release: str
    cuda: tuple[int, int]


def find_driver() -> Driver | None:
    """Return the driver of this machine, or None if there is none."""
    for name in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            version = ctypes.c_int(0)
            if ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version)) == 0:
                return Driver(_release(), (version.value // 1000, version.value % 1000 // 10))
        except (OSError, AttributeError):
            continue
    return None


def _release(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", path.read_text())
    except OSError:
        return ""
    return found[0] if found else ""


def _lacks_row_stack() -> bool:
    import numpy as np

    return not hasattr(np, "row_stack")


def _version(package: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version(package))[:3])


def is_simulated() -> bool:
    """Whether Numba's simulator stands in for a device."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def obstacle() -> str | None:
    """Say what keeps kernels from running on a GPU here and what to do; None if nothing does."""
    if is_simulated():
        return None if importlib.util.find_spec(_SIMULATOR) else _NO_SIMULATOR
    missing = [name for package, name in _PACKAGES.items() if importlib.util.find_spec(package) is None]
    obstacles = [f"not installed: {' and '.join(missing)}; run {_INSTALL}"] if missing else []
    if not missing and _lacks_row_stack() and _version("numba-cuda") <= _LAST_FOR_OLDER_NUMPY:
        obstacles.append(
            f"numba-cuda {version('numba-cuda')} does not work with NumPy {version('numpy')}; run "
            'pip install "numpy<2.5"'
        )
    if find_driver() is None:
        obstacles.append(
            "there is no NVIDIA driver on this machine; install one (https://www.nvidia.com/drivers), or let the GPU "
            'into the container ("docker run --gpus all")'
        )
    if obstacles:
        return "; and ".join(obstacles)
    from fastmf_kernels._cuda.jit import cuda

    if not cuda.is_available():
        return f"the driver offers no GPU: {cuda.cuda_error() or 'none is visible; look at CUDA_VISIBLE_DEVICES'}"
    capability = tuple(cuda.get_current_device().compute_capability)
    if capability < _LEAST_CAPABILITY:
        found, least = (".".join(map(str, version)) for version in (capability, _LEAST_CAPABILITY))
        return f"the GPU has compute capability {found}; expected {least} or later"
    return None


def describe_device() -> str:
    """Name the GPU that kernels run on, its memory, and the driver."""
    if is_simulated():
        return "Numba's simulator, for tests (NUMBA_ENABLE_CUDASIM is set)"
    from fastmf_kernels._cuda.jit import cuda

    device, driver = cuda.get_current_device(), find_driver()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    capability = ".".join(map(str, device.compute_capability))
    memory = cuda.current_context().get_memory_info().total / 2**30
    release = "" if driver is None else f", driver {driver.release} for CUDA {'.'.join(map(str, driver.cuda))}"
    return f"{name}, compute capability {capability}, {memory:.0f} GiB{release}"
