"""Machine code on disk: named by what it is compiled from, used by whom can read it, and never a reason to fail.

Kernels are those of a made-up package beside copies of the modules that compile: see `test_jit`.
"""

import ast
import importlib.util
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmf_kernels import _cache, _jit, _notes, _sources
from fastmf_kernels._notes import KernelCacheWarning
from tests.kernels.made_up_package import CALL_SERIAL, machine_code, make_package

pytestmark = pytest.mark.slow

PACKAGE = Path(_jit.__file__).parent
OPERATIONS = {"als", "fold_in", "layout", "linalg", "negative_sampling", "predict", "rerank", "sgd", "svdpp", "topk"}
ROWS = {"fold_in", "negative_sampling", "sgd", "svdpp"}
PANELS = OPERATIONS - {"layout"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path)


@pytest.fixture
def call(package: Path, run_python: Callable[..., str]) -> Callable[..., str]:
    """Run a script that imports the made-up package, with warnings as errors."""

    def run(script: str, **environment: str) -> str:
        settings = {"NUMBA_NUM_THREADS": "2", "PYTHONWARNINGS": "error", **environment}
        return run_python(script, path=package.parent, **settings).strip()

    return run


# Which sources a kernel is compiled from


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


SOURCES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str) -> Iterator[str]:
    """What a module imports of this package, by its syntax tree."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in SOURCES)
        elif isinstance(node, ast.ImportFrom) and node.module in SOURCES:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from {name if name in SOURCES else str(node.module) for name in names}


def all_behind(module: str) -> set[str]:
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports_of(name)
    return found


def kernel_modules() -> list[str]:
    """Modules of the CPU that have kernels."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in SOURCES.items() if ".cuda" not in name}
    return [name for name, text in texts.items() if "\n@kernel\n" in text or "\n@parallel\n" in text]


@pytest.mark.parametrize("module", SOURCES)
def test_imports_are_followed(module: str) -> None:
    assert _sources.modules_behind(module) == all_behind(module)


class Copy:
    """A copy of the package, whose sources can be edited."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / PACKAGE.name
        shutil.copytree(PACKAGE, self.root, ignore=shutil.ignore_patterns("__pycache__"))
        self.kernels = kernel_modules()

    def hashes(self) -> dict[str, str]:
        spec = importlib.util.spec_from_file_location("sources_of_a_copy", self.root / "_sources.py")
        assert spec is not None
        assert spec.loader is not None
        sources = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sources)
        return {module: sources.source_hash(module) for module in self.kernels}

    def changed_by(self, path: str) -> set[str]:
        """The operations whose machine code is another one after a docstring of a file was edited."""
        before = self.hashes()
        text = (self.root / path).read_text(encoding="utf-8")
        (self.root / path).write_text('"""Edited."""\n' + text, encoding="utf-8")
        after = self.hashes()
        (self.root / path).write_text(text, encoding="utf-8")
        assert self.hashes() == before
        return {module.split(".")[1] for module in self.kernels if after[module] != before[module]}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.mark.parametrize(
    ("path", "operations"),
    {
        "_jit.py": OPERATIONS,
        "_cache.py": OPERATIONS,
        "_vectors.py": PANELS,
        "_builder.py": PANELS,
        "_cuda/rows.py": set(),
        "_cuda/isa.py": set(),
        "_cuda/jit.py": set(),
        "__init__.py": set(),
        "linalg/__init__.py": set(),
        "linalg/panels.py": PANELS,
        "linalg/panels_simd.py": PANELS,
        "linalg/rows.py": ROWS,
        "linalg/rows_simd.py": ROWS,
        "topk/cpu/tiles.py": {"topk"},
        "topk/cpu/tiles_simd.py": {"topk"},
        "als/cpu/rows.py": {"als"},
        "als/reference.py": {"als"},
        "linalg/reference.py": {"als"},
        "predict/reference.py": set(),
        "topk/cuda/screen.py": set(),
    }.items(),
)
def test_an_edit_changes_the_operations_that_import_it(path: str, operations: set[str], copy: Copy) -> None:
    assert copy.changed_by(path) == operations


# Where it cannot be stored, or was stored by somebody else


@pytest.mark.parametrize("obstacle", ["a file in the way", "a folder in place of the entry"])
def test_a_cache_that_cannot_be_written_is_told_once(obstacle: str, tmp_path: Path, call: Callable[..., str]) -> None:
    # Below a regular file nothing can be made, not even by root, whom permissions do not stop.
    cache = tmp_path / "cache"
    if obstacle == "a file in the way":
        cache.touch()
    else:
        call(CALL_SERIAL, FASTMF_CACHE_DIR=str(cache))
        (entry,) = cache.rglob(f"*{_cache.SUFFIX}")
        entry.unlink()
        (entry / "taken").mkdir(parents=True)
    record = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import numpy as np
    from fastmf_kernels.kernel import apply
    print(apply.serial(np.ones(1))[0], apply.serial(np.ones(1, np.float32))[0])
print(len(said), *(f"{note.category.__name__} {note.filename} {note.message}" for note in said))
"""
    told = call(record, FASTMF_CACHE_DIR=str(cache)).splitlines()

    assert told[0] == "2.0 2.0"
    assert told[1].startswith(
        "1 KernelCacheWarning <string> kernels are compiled in this process and forgotten with it"
    )
    assert f"the kernel cache {cache} cannot be written" in told[1]


# The process becomes another user when all that the compiler loads by and by is loaded; root may do everything.
AS_ANOTHER_USER = """
import os, sys
from fastmf_kernels._jit import compilations, kernel
assert kernel(lambda x: x + 1)(1) == 2
from fastmf_kernels.kernel import apply
if sys.argv[1] == "another user" and os.geteuid() == 0:
    os.seteuid(65534)
os.umask(0o077)
before = compilations()
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users and modes of a Unix system")
def test_a_cache_of_another_user_is_used(tmp_path: Path, run_python: Callable[..., str]) -> None:
    folder = tmp_path
    if os.geteuid() == 0:  # what pytest makes is closed to other users
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
    package = make_package(folder)
    script = AS_ANOTHER_USER + CALL_SERIAL + "print(*(n - m for n, m in zip(compilations(), before)))"
    try:
        for user, compiled in (("the first", "1 1"), ("another user", "0 0")):
            settings = {"FASTMF_CACHE_DIR": str(folder / "cache"), "PYTHONWARNINGS": "error"}
            told = run_python(script, user, path=package.parent, **settings).splitlines()
            assert told == ["2.0", compiled]
            for path in (folder / "cache", *(folder / "cache").rglob("*")):
                path.chmod(path.stat().st_mode & ~0o222)
        assert len(machine_code(folder / "cache")) == 1
    finally:
        for path in (folder / "cache", *(folder / "cache").rglob("*")):
            path.chmod(0o755)
        if folder != tmp_path:
            shutil.rmtree(folder)


def test_everybody_can_read_and_nobody_else_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What lies there is run: nobody else may write to it.
    monkeypatch.setenv("FASTMF_CACHE_DIR", str(tmp_path / "very" / "deep" / "cache"))
    folder = _cache.folder_of("fastmf_kernels.layout.cpu", "a compiler")
    assert folder is not None
    before = os.umask(0o077)
    try:
        assert _cache.write(folder / "one", b"content")
    finally:
        os.umask(before)
    made = (folder, *folder.parents[:3])
    assert [oct(path.stat().st_mode & 0o777) for path in made] == ["0o755"] * 4
    assert oct((folder / "one").stat().st_mode & 0o777) == "0o644"
    assert list(folder.iterdir()) == [folder / "one"]


def test_disk_full_while_saving(tmp_path: Path, call: Callable[..., str]) -> None:
    break_saving = """
import errno, pathlib, warnings
def write_bytes(self, content):
    print("saving")
    raise OSError(errno.ENOSPC, "No space left on device")
pathlib.Path.write_bytes = write_bytes
warnings.simplefilter("ignore")
"""
    output = call(break_saving + CALL_SERIAL + CALL_SERIAL, FASTMF_CACHE_DIR=str(tmp_path / "cache"))
    assert output.split() == ["saving", "2.0", "2.0"]  # compiled once, and kept in memory
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "cache" in path.parts]


def test_cache_deleted_while_in_use(tmp_path: Path, call: Callable[..., str]) -> None:
    # As another version of the sources does when it makes room for its own.
    delete = """
import shutil
from fastmf_kernels._cache import cache_root
from fastmf_kernels.kernel import apply
apply._serial
shutil.rmtree(cache_root(), ignore_errors=True)
"""
    assert call(delete + CALL_SERIAL, FASTMF_CACHE_DIR=str(tmp_path / "cache")) == "2.0"


# Damage


# Every start of a process is played by a kernel object of its own, which knows of no machine code.
FUZZ = """
import random, sys
import numpy as np
from fastmf_kernels import _jit
from fastmf_kernels.kernel import apply

path, seed, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
whole = open(path, "rb").read()

def damaged():
    content, kind = bytearray(whole), draw.randrange(4)
    start = draw.randrange(len(content))
    if kind == 0:
        del content[start:]
    elif kind == 1:
        content[start:start + 512] = bytes(len(content[start:start + 512]))
    elif kind == 2:
        for _ in range(draw.randrange(1, 9)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    else:
        content += content[start:]
    return bytes(content)

for _ in range(n):
    content = damaged()
    with open(path, "wb") as file:
        file.write(content)
    before = _jit.compilations().compiled
    fresh = type(apply)(apply._function)
    x = np.arange(5.0)
    assert (fresh.serial(x) == 2 * x).all()
    assert _jit.compilations().compiled - before == (content != whole)
print("done")
"""


@pytest.mark.stress
@pytest.mark.slow
def test_damaged_files_are_compiled_anew(
    tmp_path: Path, package: Path, call: Callable[..., str], start_python: Callable[..., "subprocess.Popen[str]"]
) -> None:
    processes = []
    for seed in range(2):
        cache = tmp_path / f"cache{seed}"
        call(CALL_SERIAL, FASTMF_CACHE_DIR=str(cache))
        (entry,) = cache.rglob(f"*{_cache.SUFFIX}")
        arguments = (str(entry), str(seed), "100")
        processes.append(start_python(FUZZ, *arguments, path=package.parent, FASTMF_CACHE_DIR=str(cache)))
    outcomes = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert [output for output, _ in outcomes] == ["done\n"] * 2


def test_a_damaged_file_is_compiled_anew(tmp_path: Path, call: Callable[..., str]) -> None:
    # A power loss can leave a file that was renamed into place without its contents.
    cache = tmp_path / "cache"
    call(CALL_SERIAL, FASTMF_CACHE_DIR=str(cache))
    (entry,) = cache.rglob(f"*{_cache.SUFFIX}")
    whole = entry.read_bytes()
    middle = len(whole) // 2
    entry.write_bytes(whole[:middle] + bytes(512) + whole[middle + 512 :])
    count = CALL_SERIAL + "from fastmf_kernels._jit import compilations\nprint(*compilations())"
    assert call(count, FASTMF_CACHE_DIR=str(cache)).split() == ["2.0", "1", "1"]
    assert call(count, FASTMF_CACHE_DIR=str(cache)).split() == ["2.0", "0", "0"]


def test_every_damaged_content_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMF_CACHE_DIR", str(tmp_path))
    path, content = tmp_path / "module-0123456789abcdef" / "entry", bytes(range(256))
    assert _cache.write(path, content)
    whole = path.read_bytes()
    assert _cache.read(path) == content

    draw = random.Random(0)
    for place in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        for damaged in (whole[:place], bytes(changed), whole + whole[:place] + b"\0"):
            path.write_bytes(damaged)
            assert _cache.read(path) is None
    path.unlink()
    assert _cache.read(path) is None


@pytest.mark.parametrize("other", ["module-0123456789abcdef/another", "another-0123456789abcdef/entry"])
def test_the_machine_code_of_another_kernel_is_not_taken(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMF_CACHE_DIR", str(tmp_path))
    path = tmp_path / "module-0123456789abcdef" / "entry"
    for one, content in ((path, b"one"), (tmp_path / other, b"another")):
        assert _cache.write(one, content)

    (tmp_path / other).replace(path)

    assert _cache.read(path) is None


def test_a_cache_may_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMF_CACHE_DIR", str(tmp_path / "cache"))
    assert _cache.write(tmp_path / "cache" / "module-0123456789abcdef" / "entry", b"content")

    (tmp_path / "cache").rename(tmp_path / "image")

    assert _cache.read(tmp_path / "image" / "module-0123456789abcdef" / "entry") == b"content"


# Arrays that may not be written to


def test_read_only_arrays_need_no_code_of_their_own(tmp_path: Path, call: Callable[..., str]) -> None:
    script = """
import itertools
from typing import NamedTuple
import numpy as np
from fastmf_kernels._jit import compilations, kernel

class Pair(NamedTuple):
    x: np.ndarray
    y: np.ndarray

def add(pair, others, z):
    return pair.x[0] + pair.y[0] + others[0][0] + others[1][0] + z[0]

add = kernel(add)
arrays = [np.full(3, 2.0 ** n) for n in range(5)]
for kinds in itertools.product((True, False), repeat=5):
    a, b, c, d, e = (array.copy() for array in arrays)
    for array, is_writable in zip((a, b, c, d, e), kinds):
        array.flags.writeable = is_writable
    for _ in range(2):
        assert add(Pair(a, b), (c, d), e) == 31
print(compilations().compiled, len(add._serial.overloads))
"""
    assert call(script, FASTMF_CACHE_DIR=str(tmp_path / "cache")).split() == ["1", "1"]


# Which folders are kept


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTMF_CACHE_DIR", str(tmp_path / "caches"))
    return tmp_path / "caches"


def make_folders(root: Path, module: str, n: int) -> list[Path]:
    """Folders of other versions of a module, the oldest first."""
    folders = [root / f"{module}-{i:016x}" for i in range(n)]
    for age, folder in enumerate(reversed(folders), start=1):
        folder.mkdir(parents=True)
        (folder / "one.kernel").touch()
        os.utime(folder, (10**9 - age, 10**9 - age))
    return folders


def test_old_folders_are_deleted_when_a_new_one_is_made(root: Path) -> None:
    old, others = make_folders(root, "layout.cpu", 5), make_folders(root, "als.cpu", 5)
    new = _cache.folder_of("fastmf_kernels.layout.cpu", "compiler")
    assert new is not None
    assert new.parent == root
    assert _cache.write(new / "one", b"")
    assert set(root.iterdir()) == {old[-1], old[-2], new, *others}


def test_nothing_else_is_deleted(root: Path) -> None:
    # Somebody may point the setting at a folder that holds more than caches.
    for name in ("thesis", "photos", "layout.cpu-0123456789abcdef.old", "my-layout.cpu-0123456789abcdef"):
        (root / name).mkdir(parents=True)
    (root / "layout.cpu-fedcba9876543210").write_text("a file")
    before = set(root.iterdir())
    make_folders(root, "layout.cpu", 3)
    new = _cache.folder_of("fastmf_kernels.layout.cpu", "compiler")
    assert new is not None
    _cache.write(new / "one", b"")
    assert before < set(root.iterdir())


def test_folders_stay_while_theirs_exists(root: Path) -> None:
    new = _cache.folder_of("fastmf_kernels.layout.cpu", "compiler")
    assert new is not None
    new.mkdir(parents=True)
    make_folders(root, "layout.cpu", 5)
    before = set(root.iterdir())
    _cache.write(new / "one", b"")
    assert set(root.iterdir()) == before


def test_compilers_have_folders_of_their_own(root: Path) -> None:
    folders = {_cache.folder_of("fastmf_kernels.layout.cpu", name) for name in ("numba 1", "numba 2")}
    assert len(folders) == 2


def test_cache_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMF_CACHE_DIR", "/somewhere")
    assert _cache.cache_root() == Path("/somewhere")
    monkeypatch.setenv("FASTMF_CACHE_DIR", "")
    assert _cache.cache_root() is None
    assert _cache.folder_of("fastmf_kernels.layout.cpu", "compiler") is None
    monkeypatch.delenv("FASTMF_CACHE_DIR")
    root = _cache.cache_root()
    assert root is not None
    assert root.parts[-2:] == ("fastmf", "kernels")


def test_the_home_directory_of_a_cache_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("FASTMF_CACHE_DIR", "~/cache")
    assert _cache.cache_root() == Path("/home/somebody/cache")


@pytest.mark.parametrize("raises", [True, False])
def test_without_a_home_directory_there_is_no_cache(raises: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def user_cache_dir(*_: object, **__: object) -> str:  # versions of platformdirs differ
        if raises:
            raise RuntimeError("could not determine the home directory")
        return "~/.cache/fastmf"

    monkeypatch.delenv("FASTMF_CACHE_DIR", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", user_cache_dir)
    _notes.forget()

    with pytest.warns(KernelCacheWarning, match="no home directory for the kernel cache; set FASTMF_CACHE_DIR"):
        assert _cache.cache_root() is None
    assert _cache.folder_of("fastmf_kernels.layout.cpu", "compiler") is None
    assert _cache.why_not_writable() == "there is no home directory"
    assert _cache.count_stored("compiler") == 0


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_a_file_in_the_place_of_the_cache(mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "taken").chmod(mode)
    monkeypatch.setenv("FASTMF_CACHE_DIR", str(tmp_path / "taken"))

    assert _cache.why_not_writable() == f"{tmp_path / 'taken'} is not writable"
    assert _cache.count_stored("compiler") == 0


def test_a_cache_below_a_folder_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def stat_outside(path: Any, **settings: Any) -> os.stat_result:
        if "closed" in Path(path).parts:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **settings)

    monkeypatch.setenv("FASTMF_CACHE_DIR", "/closed/cache")
    monkeypatch.setattr(os, "stat", stat_outside)

    assert _cache.why_not_writable() == (None if os.access("/", os.W_OK) else "/closed/cache is not writable")
    assert _cache.count_stored("compiler") == 0


def test_kernels_of_tests_are_not_stored(root: Path) -> None:
    @_jit.kernel
    def double(x: Any) -> Any:
        return x + x

    _notes.forget()
    assert double(np.float64(2)) == 4  # and no warning: there is nothing to be told
    assert not root.exists()
    assert issubclass(KernelCacheWarning, UserWarning)
