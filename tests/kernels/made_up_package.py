"""A package of one kernel and one helper, beside copies of the modules that compile: quick, and free to be edited."""

import shutil
from pathlib import Path

from fastmf_kernels import _cache, _jit

HELPER = """
from fastmf_kernels._jit import device

@device
def change(x):
    return 2 * x
"""
KERNEL = """
import numpy as np
from fastmf_kernels._jit import parallel, prange
from fastmf_kernels.helper import change

@parallel
def apply(x):
    result = np.empty_like(x)
    for i in prange(x.size):
        result[i] = change(x[i])
    return result
"""
CALL_SERIAL = """
import numpy as np
from fastmf_kernels.kernel import apply
print(apply.serial(np.ones(1))[0])
"""
CALL_PARALLEL = """
import numpy as np
from fastmf_kernels._jit import threads
from fastmf_kernels.kernel import apply
with threads(2):
    print(apply(np.arange(1000.0)).sum())
"""


def make_package(folder: Path) -> Path:
    """Make it in a folder, and return where it is."""
    package = folder / "source" / "fastmf_kernels"
    package.mkdir(parents=True)
    for path in Path(_jit.__file__).parent.glob("_*.py"):
        shutil.copy(path, package)
    for name, text in (("__init__.py", ""), ("helper.py", HELPER), ("kernel.py", KERNEL)):
        (package / name).write_text(text)
    return package


def machine_code(cache: Path) -> dict[str, int]:
    """The files of kernels below ``cache``, with the times at which they were written."""
    return {str(path): path.stat().st_mtime_ns for path in cache.rglob(f"*{_cache.SUFFIX}")}
