"""The machine and the software of a run."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastmf.common.machine import count_cores, cpu_model, memory_gib
from fastmf_bench.peers import DISTRIBUTIONS, installed_version

_OF_CUDA = ("numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "torch")


def describe() -> dict[str, Any]:
    """Describe processor, memory, system, packages and revision, as JSON can hold it."""
    packages = ("fastmf", "numba", "numpy", "scipy", "pyarrow", *_OF_CUDA, *DISTRIBUTIONS.values())
    versions = {name: installed_version(name) for name in packages}
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": count_cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name, version in versions.items() if version is not None},
        "blas": f"{blas['name']} {blas['version']}",
        "revision": _revision(),
        "gpu": _gpu(),
    }


def _gpu() -> str | None:
    """Describe the GPU that fastmf would use; None where it would use none."""
    from fastmf_kernels._cuda import probe

    return probe.describe_device() if probe.obstacle() is None else None


def _revision() -> str | None:
    """Return the git revision, with a mark if files were changed; None outside a checkout."""
    root = Path(__file__).parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
