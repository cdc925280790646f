"""Show the cores, libraries, cache and GPU of this machine, and which of them fastmf uses.

example:
  fastmf doctor
"""

import argparse
import importlib.metadata
import os
import platform
import sys
from typing import Any

from fastmf.cli.options import add_output_options, print_result

VARIABLES = ("FASTMF_CACHE_DIR", "FASTMF_PLAIN_LOOPS")
"""The environment variables of fastmf: `docs/environment.md` says what they mean."""
_PREFIX = "FASTMF_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Collect the facts and print them."""
    print_result(
        {
            **_versions(),
            **_threads(),
            **_cache(),
            "inner loops": _inner_loops(),
            "gpu": _gpu(),
            "environment": _environment(),
        },
        parsed.json,
    )
    return 0


def _versions() -> dict[str, Any]:
    packages = ("fastmf", "numba", "llvmlite", "numpy", "scipy", "pyarrow", "numba-cuda")
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        **{name: _installed(name) for name in packages},
        "cupy": _installed("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    }


def _installed(*names: str) -> str:
    """Return the version of a package that goes by several names."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _threads() -> dict[str, Any]:
    import numpy as np

    from fastmf_kernels import _jit

    layer = _jit.threading_layer()
    quota = _jit.cpu_quota()
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cores": os.cpu_count(),
        "cpu quota": "none" if quota >= 2**31 else quota,
        "threads used": _jit.resolve_threads(None),
        "threading layer": layer + _advice(layer),
        "blas": f"{blas['name']} {blas['version']}",
    }


def _advice(layer: str) -> str:
    if layer == "workqueue":
        return " (parallel calls from several threads run one after the other; install libgomp1 or tbb)"
    return ""


def _cache() -> dict[str, Any]:
    from fastmf_kernels import _cache, _jit

    obstacle, n_stored = _cache.why_not_writable(), _cache.count_stored(_jit.COMPILER) + _cache.count_stored("cuda")
    where = str(_cache.cache_root())
    if obstacle is not None:
        where = f"{where} (read-only)" if n_stored else f"off: {obstacle}"
    return {"kernel cache": where, "kernels cached": n_stored}


def _environment() -> str:
    """Say which variables of fastmf are set, also those that a slip of the pen has made of them."""
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIX)}
    words = (
        f"{name}={value!r}" + ("" if name in VARIABLES else " (not a variable of the library)")
        for name, value in found.items()
    )
    return ", ".join(words) or "nothing is set"


def _inner_loops() -> str:
    """Say whether kernels use explicit vector code."""
    from fastmf.backend import get_backend
    from fastmf_kernels import _jit, _vectors

    if not _jit.IS_COMPILING:
        return "plain Python: NUMBA_DISABLE_JIT is set"
    if _jit.PLAIN_LOOPS:
        return "plain: FASTMF_PLAIN_LOOPS is set"
    get_backend("cpu")
    in_use = _vectors.in_use()
    if all(in_use.values()):
        return "vector code"
    plain = ", ".join(name for name, is_used in in_use.items() if not is_used)
    return f"plain in {plain}: their vector code cannot be used with {_jit.COMPILER}, or gives other numbers"


def _gpu() -> str:
    from fastmf_kernels._cuda import probe

    obstacle = probe.obstacle()
    return f"not used: {obstacle}" if obstacle else f"{probe.describe_device()}: used with --device cuda"
