"""The machine and the software of a run."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastmf_bench.peers import DISTRIBUTIONS, installed_version

_OF_CUDA = ("numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "torch")


def describe() -> dict[str, Any]:
    """Describe processor, memory, system, packages and revision, as JSON can hold it."""
    packages = ("fastmf", "numba", "numpy", "scipy", "pyarrow", *_OF_CUDA, *DISTRIBUTIONS.values())
    versions = {name: installed_version(name) for name in packages}
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
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


def _cpu_model() -> str:
    """Name the processor; virtual machines often hide the model and show the family and features only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = (fields.get("flags") or fields.get("Features") or "").split()
    vectors = next((name for name in ("avx512f", "avx2", "asimd") if name in features), "no vectors known")
    return f"{fields.get('model name', 'unknown')} (family {fields.get('cpu family', '?')}, {vectors})"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _revision() -> str | None:
    """Return the git revision, with a mark if files were changed; None outside a checkout."""
    root = Path(__file__).parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
