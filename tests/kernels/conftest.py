"""What all kernel tests share: the variants, the reference they are held against, and fresh interpreters."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fastmf
import fastmf_kernels
from fastmf.backend import Kernels, get_backend
from fastmf.testing import VARIANTS


@pytest.fixture(params=VARIANTS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return get_backend(request.param)


@pytest.fixture
def reference() -> Kernels:
    return get_backend("reference")


@pytest.fixture
def start_python() -> Callable[..., "subprocess.Popen[str]"]:
    """Start a script in a new interpreter: for what is settled once in a process, such as the thread pool."""

    def start(script: str, *args: str, path: Path | None = None, **environment: str) -> "subprocess.Popen[str]":
        packages = [Path(package.__file__).parents[1] for package in (fastmf, fastmf_kernels)]
        search_path = os.pathsep.join(map(str, [path, *packages] if path else packages))
        return subprocess.Popen(
            [sys.executable, "-c", script, *args],
            env={**os.environ, "PYTHONPATH": search_path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run_python(start_python: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., str]:
    """Run a script in a new interpreter, insist that it succeeds, and return what it printed."""

    def run(script: str, *args: str, path: Path | None = None, **environment: str) -> str:
        process = start_python(script, *args, path=path, **environment)
        try:
            output, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        return output

    return run
