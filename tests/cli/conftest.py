"""The command as people run it: in a process of its own and a directory of its own, on small data made once."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

import fastmf
import fastmf_bench
import fastmf_kernels
from fastmf.cli import main
from fastmf.cli.model_options import models_by_command_name
from fastmf.models import FactorModel

Done = subprocess.CompletedProcess[str]


class Data(NamedTuple):
    """Ratings, and a model of each kind that the library trained on them."""

    ratings: Path
    test: Path
    models: dict[str, Path]


class Start(Protocol):
    def __call__(
        self, *args: object, prelude: str = "", stdout: int = ..., stderr: int = ...
    ) -> "subprocess.Popen[str]": ...


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    ratings = fastmf.testing.film_club(n_users=60, n_items=30, mean_ratings=15)
    train, test = fastmf.split.per_user(ratings, test_fraction=0.2)
    train.to_parquet(folder / "ratings.parquet")
    test.to_parquet(folder / "test.parquet")
    models = models_by_command_name()
    for name, model in models.items():
        size = {"n_factors": 4, "n_epochs": 2} if issubclass(model, FactorModel) else {}
        model(**size).fit(fastmf.read_parquet(folder / "ratings.parquet")).save(folder / name)
    return Data(folder / "ratings.parquet", folder / "test.parquet", {name: folder / name for name in models})


@pytest.fixture
def start_fastmf(tmp_path: Path) -> Iterator[Start]:
    """Start ``fastmf ARGS`` in the test's directory; ``prelude`` is Python to run in that process before it."""
    started: list[subprocess.Popen[str]] = []
    packages = [Path(package.__file__).parents[1] for package in (fastmf, fastmf_kernels, fastmf_bench)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "PYTHONWARNINGS": "error",
        "PYTHONUNBUFFERED": "",  # standard output fails where it fails for everybody: when it is flushed
    }

    def start(
        *args: object, prelude: str = "", stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        script = f"{prelude}\nimport sys\nfrom fastmf.cli import main\nsys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, *(("-c", script) if prelude else ("-m", "fastmf")), *map(str, args)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_fastmf(start_fastmf: Start) -> Callable[..., Done]:
    """Run ``fastmf ARGS`` in a process of its own to the end, and insist on its exit status."""

    def run(*args: object, status: int = 0, prelude: str = "") -> Done:
        process = start_fastmf(*args, prelude=prelude)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == status, errors
        return Done(process.args, process.returncode, output, errors)

    return run


@pytest.fixture
def call_fastmf(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Done]:
    """Run ``fastmf ARGS`` in this process, where one of its own would add nothing, and insist on its exit status."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object, status: int = 0) -> Done:
        capsys.readouterr()
        try:
            returned = main(list(map(str, args)))
        except SystemExit as exit_:
            returned = int(exit_.code or 0)
        output, errors = capsys.readouterr()
        assert returned == status, errors
        return Done(args, returned, output, errors)

    return call


@pytest.fixture
def contents(tmp_path: Path) -> Callable[[], dict[str, bytes | None]]:
    """Everything below the test's directory, hidden files too: to compare before with after."""
    return lambda: {
        path.relative_to(tmp_path).as_posix(): path.read_bytes() if path.is_file() else None
        for path in tmp_path.rglob("*")
    }
