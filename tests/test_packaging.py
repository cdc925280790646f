"""The wheel holds the three packages and nothing else, and works where it is installed and there alone."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = {"fastmf": ROOT, "fastmf_kernels": ROOT / "kernels", "fastmf_bench": ROOT / "bench"}
# What stands in for a GPU.
FOR_TESTS = {"fastmf_kernels/_cuda/simulated.py"}
USER_SCRIPT = """
from collections.abc import Sequence

import numpy as np

import fastmf


def neighbours(model: fastmf.ALS, items: Sequence[str]) -> list[object]:
    return list(model.similar_items(items, 2).to_arrow().to_pylist())


ratings = fastmf.Interactions.from_arrays(["ann", "bob", "ann"], ["a", "a", "b"], [5.0, 3.0, 4.0])
train, test = fastmf.split.random(ratings, test_fraction=0.4, seed=0)
model: fastmf.ALS = fastmf.ALS(n_factors=2, n_epochs=1).fit(train, validation=test)
factors = model.user_factors
ids: fastmf.Recommendations = model.recommend(["ann"], k=1, deny=["b"])
figures: dict[str, float] = fastmf.evaluate(model, test, k=(1, 2))
scores, indices = fastmf.top_k(factors, model.item_factors, 1)
error: float = fastmf.metrics.rmse(np.ones(2), np.zeros(2))
model.save("model", overwrite=True)
reveal_type(fastmf.load("model").predict("ann", "b"))
try:
    fastmf.SGD(n_factors=0)
except fastmf.errors.ParameterError as wrong:
    print(wrong, neighbours(model, ["a"]))
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel made of it, as an upload would have them."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


class Environment:
    """A virtual environment with the wheel and nothing of the checkout; the dependencies are those of these tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, with_pip=False)
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        self.before = self.files()
        self._pip("install", "--no-deps", "--no-index", wheel)
        # A path in a .pth file comes last, and .pth files at that path are not read: an editable install stays out.
        self.dependencies = self.site_packages / "dependencies.pth"
        self.dependencies.write_text(sysconfig.get_path("purelib") + "\n")

    def files(self) -> set[Path]:
        return set(self.folder.rglob("*"))

    def uninstall(self) -> None:
        self.dependencies.unlink()
        self._pip("uninstall", "--yes", "fastmf")

    def _pip(self, *arguments: object) -> None:
        run(sys.executable, "-m", "pip", "--python", self.python, *arguments, cwd=self.folder)


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    return Environment(tmp_path_factory.mktemp("venv"), wheel)


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    sources = {
        path.relative_to(root).as_posix()
        for package, root in SOURCE_ROOTS.items()
        for path in (root / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert {f"{package}/py.typed" for package in SOURCE_ROOTS} <= sources
    sources -= FOR_TESTS
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == sources
    assert {Path(name).name for name in metadata} == {"METADATA", "WHEEL", "RECORD", "LICENSE", "entry_points.txt"}


def test_source_distribution_can_be_tested(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    wanted = {"pyproject.toml", "README.md", "LICENSE", "tests/test_packaging.py", "kernels/fastmf_kernels/_jit.py"}
    assert wanted <= names
    assert {name for name in names if name.endswith((".pyc", ".kernel", ".parquet"))} == set()


@pytest.mark.skipif(sys.platform == "win32", reason="paths of a Unix environment")
def test_installed_wheel_runs_anywhere_and_leaves_nothing_behind(installed: Environment, tmp_path: Path) -> None:
    where = (
        "import fastmf, fastmf_kernels, fastmf_bench as b; print(fastmf.__file__, fastmf_kernels.__file__, b.__file__)"
    )
    for path in run(installed.python, "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed.site_packages)

    kernels = str(tmp_path / "kernels")
    run(installed.folder / "bin" / "fastmf", "demo", cwd=tmp_path, FASTMF_CACHE_DIR=kernels)

    assert pq.read_metadata(tmp_path / "recs.parquet").num_rows == 20_000
    # What was compiled is in the cache, not beside the code.
    assert list((tmp_path / "kernels").rglob("*.kernel"))
    installed.uninstall()
    assert installed.files() == installed.before


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is in the extra `dev`")
def test_a_script_that_uses_the_wheel_is_typed(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(USER_SCRIPT)

    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache")
    told = run(*mypy, "--python-executable", installed.python, "script.py", cwd=tmp_path)

    assert 'Revealed type is "numpy.ndarray' in told
    assert "Success: no issues found" in told
