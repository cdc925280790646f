"""The compiler house: a cache that never runs old code and never fails a call, and threads that keep to their block.

Whatever is settled once in a process (cache, thread pool, fork) is tried in a fresh interpreter on a made-up package
of one kernel and one helper, beside copies of the real modules that compile: quick to compile, and free to be edited.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba  # noqa: TID251
import numpy as np
import pytest

from fastmf_kernels import _jit
from fastmf_kernels._types import Float32Array
from tests.kernels.made_up_package import CALL_PARALLEL, CALL_SERIAL, HELPER, machine_code, make_package

pytestmark = pytest.mark.slow

LAYERS = ("omp", "tbb", "workqueue")

# Ends with status 0 and a reason where the layer asked for cannot run here.
START_LAYER = """
import os
import threading
import numpy as np
from fastmf_kernels import _cache, _jit
from fastmf_kernels.kernel import apply
try:
    assert _jit.threading_layer() == os.environ["NUMBA_THREADING_LAYER"]
except ValueError as error:
    print("not available:", error)
    raise SystemExit
data = np.arange(10_000.0)
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return make_package(tmp_path)


@pytest.fixture
def call(house: Path, run_python: Callable[..., str]) -> Callable[..., str]:
    """Run a script that imports the made-up package."""

    def run(script: str, *args: str, **environment: str) -> str:
        return run_python(script, *args, path=house.parent, NUMBA_NUM_THREADS="2", **environment).strip()

    return run


def test_an_edited_helper_is_compiled_anew(tmp_path: Path, house: Path, call: Callable[..., str]) -> None:
    cache = tmp_path / "cache"
    assert call(CALL_SERIAL, FASTMF_CACHE_DIR=str(cache)) == "2.0"
    first = machine_code(cache)
    assert len(first) == 1

    (house / "helper.py").write_text(HELPER.replace("2 * x", "x / 2"))
    assert call(CALL_SERIAL, FASTMF_CACHE_DIR=str(cache)) == "0.5"
    both = machine_code(cache)
    assert len(both) == 2
    assert first.items() <= both.items()

    (house / "helper.py").write_text(HELPER)  # the way back finds the first cache
    assert call(CALL_SERIAL, FASTMF_CACHE_DIR=str(cache)) == "2.0"
    assert machine_code(cache) == both


def test_serial_and_parallel_code_are_kept_apart(tmp_path: Path, call: Callable[..., str]) -> None:
    cache = tmp_path / "cache"
    assert call(CALL_SERIAL + CALL_PARALLEL, FASTMF_CACHE_DIR=str(cache)).split() == ["2.0", "999000.0"]
    assert len(machine_code(cache)) == 2


def test_empty_setting_means_no_cache(tmp_path: Path, call: Callable[..., str]) -> None:
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    assert call(CALL_SERIAL, FASTMF_CACHE_DIR="", HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path)) == "2.0"
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before
    assert not machine_code(tmp_path)


def test_kernels_run_without_the_compiler(tmp_path: Path, call: Callable[..., str]) -> None:
    # Numba's own switch for debugging, under which kernels are plain Python functions.
    settings = {"FASTMF_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DISABLE_JIT": "1"}
    assert call(CALL_SERIAL + CALL_PARALLEL, **settings).split() == ["2.0", "999000.0"]


@pytest.mark.slow
def test_processes_share_a_cold_cache(
    tmp_path: Path, house: Path, call: Callable[..., str], start_python: Callable[..., "subprocess.Popen[str]"]
) -> None:
    settings = {"FASTMF_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_NUM_THREADS": "2"}
    processes = [start_python(CALL_PARALLEL, path=house.parent, **settings) for _ in range(3)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert [output.strip() for output, _ in results] == ["999000.0"] * 3

    written = machine_code(tmp_path / "cache")
    assert len(written) == 1
    assert call(CALL_PARALLEL, FASTMF_CACHE_DIR=settings["FASTMF_CACHE_DIR"]) == "999000.0"
    assert machine_code(tmp_path / "cache") == written  # neither more files nor newer ones: it was read


# Two functions of one factory, with too many statements to be inlined where they are called.
FACTORY = """
import numpy as np
from fastmf_kernels._jit import device, kernel

def make(operation):
    @device
    def work(x):
        for i in range(x.size):
            x[i] = operation(x[i])
        {statements}
    return work

add, double = make(device(lambda x: x + 1)), make(device(lambda x: 2 * x))

@kernel
def add_to_all(x):
    add(x)

@kernel
def double_all(x):
    double(x)
""".format(statements="; ".join(f"x[{n}] = np.cos(x[{n}] * x[{n + 1}]) if x[{n}] > 1e9 else x[{n}]" for n in range(99)))
CALL_ONE = """
import numpy as np, sys
from fastmf_kernels import factory
for name in sys.argv[1:]:
    x = np.full(200, 5.0)
    getattr(factory, name)(x)
    print(x[0])
"""
CALL_IN_CHILDREN = """
import numpy as np, os, sys
from fastmf_kernels import factory
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        getattr(factory, name)(np.full(200, 5.0))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("forked", [False, True])
def test_functions_of_a_factory_are_told_apart(
    forked: bool, tmp_path: Path, house: Path, call: Callable[..., str]
) -> None:
    (house / "factory.py").write_text(FACTORY)
    settings, names = {"FASTMF_CACHE_DIR": str(tmp_path / "cache")}, ("add_to_all", "double_all")

    if forked:
        call(CALL_IN_CHILDREN, *names, **settings)
    else:
        assert [call(CALL_ONE, name, **settings) for name in names] == ["6.0", "10.0"]

    assert len(machine_code(tmp_path / "cache")) == 2
    assert call(CALL_ONE, *names, **settings).split() == ["6.0", "10.0"]
    assert call(CALL_ONE, *reversed(names), **settings).split() == ["10.0", "6.0"]


@pytest.fixture(params=LAYERS)
def on_layer(request: pytest.FixtureRequest, call: Callable[..., str]) -> Callable[[str], str]:
    """Run a script once Numba's thread pool has started on one of its layers."""

    def run(script: str, *args: str) -> str:
        library_path = os.pathsep.join(
            [f"{sys.prefix}/lib", *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        )  # where pip puts libtbb, and the loader does not look
        output = call(
            START_LAYER + script,
            *args,
            FASTMF_CACHE_DIR="",
            NUMBA_THREADING_LAYER=request.param,
            LD_LIBRARY_PATH=library_path,
        )
        if output.startswith("not available"):
            pytest.skip(f"threading layer {request.param} {output}")
        return output

    return run


def test_threads_call_kernels_side_by_side(on_layer: Callable[[str], str]) -> None:
    output = on_layer("""
def work(number, failures):
    for turn in range(30):
        with _jit.threads(1 + (number + turn) % 2):
            if not (apply(data + number) == 2 * (data + number)).all():
                failures.append(number)

for n_threads in (2, 4):
    failures = []
    workers = [threading.Thread(target=work, args=(number, failures)) for number in range(n_threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(failures)
""")
    assert output.split() == ["[]", "[]"]


def test_a_forked_child_computes(on_layer: Callable[[str], str]) -> None:
    output = on_layer("""
import warnings
warnings.simplefilter("ignore")  # from 3.12 on Python warns that a fork leaves the pool behind: that is the point

def right(n_threads):
    with _jit.threads(n_threads):
        return bool((apply(data) == 2 * data).all())

assert right(2)
child = os.fork()
if child == 0:
    os._exit(0 if right(None) and right(2) else 1)
print(os.waitpid(child, 0)[1], right(2))
""")
    assert output == "0 True"


FORK_AT_WORK = """
import select, sys, warnings
from fastmf_kernels._jit import ParallelKernel
warnings.simplefilter("ignore")  # from 3.12 on Python warns of a fork beside threads: that is the point
forked_by, ended = sys.argv[1], threading.Event()

def is_right():
    fresh = ParallelKernel(apply._function)  # which is compiled, as there is no cache
    with _jit.threads(2):
        return bool((fresh.serial(data) == 2 * data).all() and (apply(data) == 2 * data).all())

def compile_and_compute():
    while not ended.is_set():
        assert is_right()

def compute():
    while not ended.is_set():
        with _jit.threads(2):
            apply(data)

def fork():
    for _ in range(4):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"right" if is_right() else b"wrong")
            os._exit(0)
        os.close(writing)
        ready = select.select([reading], [], [], 60)[0]
        if not ready:
            os.kill(child, 9)
        print("child:", os.read(reading, 5).decode() or "ended" if ready else "hangs", flush=True)
        os.close(reading)
        os.waitpid(child, 0)

assert is_right()
workers = [threading.Thread(target=work, daemon=True) for work in (compile_and_compute, compute)]
for worker in workers:
    worker.start()
if forked_by == "main":
    fork()
else:
    forking = threading.Thread(target=fork)
    forking.start()
    forking.join()
ended.set()
for worker in workers:
    worker.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("forked_by", ["main", "another"])
def test_children_answer_that_are_forked_while_threads_work(forked_by: str, on_layer: Callable[..., str]) -> None:
    told = on_layer(FORK_AT_WORK, forked_by).splitlines()  # TBB has something to say as well
    assert [line for line in told if line.startswith("child")] == ["child: right"] * 4


def test_a_child_forked_before_the_pool_starts_its_own(call: Callable[..., str]) -> None:
    output = call(
        """
import os
from fastmf_kernels import _cache, _jit
child = os.fork()
if child == 0:
    with _jit.threads(2):
        os._exit(int(_jit._pool_is_lost()))
print(os.waitpid(child, 0)[1])
""",
        FASTMF_CACHE_DIR="",
    )
    assert output == "0"


def test_threads_are_set_and_given_back() -> None:
    before = numba.get_num_threads()
    with _jit.threads(1) as count:
        assert count == numba.get_num_threads() == 1
        with _jit.threads(None) as inner:
            assert inner == numba.get_num_threads() == _jit.resolve_threads(None)
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before


def _fail_inside_threads() -> None:
    with _jit.threads(1):
        raise KeyError("from inside")


def test_threads_are_given_back_after_an_exception() -> None:
    before = numba.get_num_threads()
    with pytest.raises(KeyError, match="from inside"):
        _fail_inside_threads()
    assert numba.get_num_threads() == before


@pytest.mark.parametrize("n_threads", [0, -1])
def test_fewer_than_one_thread_is_refused(n_threads: int) -> None:
    before = numba.get_num_threads()
    with pytest.raises(ValueError, match=f"n_threads is {n_threads}; expected at least 1"), _jit.threads(n_threads):
        pass
    assert numba.get_num_threads() == before


def test_more_threads_than_the_pool_has() -> None:
    assert _jit.resolve_threads(10**6) == numba.config.NUMBA_NUM_THREADS


def test_the_quota_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_jit, "cpu_quota", lambda: 1)
    assert _jit.available_threads() == 1
    assert _jit.resolve_threads(None) == 1
    monkeypatch.setattr(_jit, "cpu_quota", lambda: 0)  # a quota of nothing still leaves the one that asks
    assert _jit.available_threads() == 1


NO_LIMIT = 2**31
QUOTAS = {
    "no control groups": ({}, NO_LIMIT),
    "v2": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    "v2, rounded up": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
    "v2, less than a core": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    "v2, no limit": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, NO_LIMIT),
    "v2, no file": ({"proc/self/cgroup": "0::/"}, NO_LIMIT),
    "v2, unreadable": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "what?"}, NO_LIMIT),
    "v2, nested: the parent is tighter": (
        {
            "proc/self/cgroup": "0::/machine/job",
            "sys/fs/cgroup/machine/cpu.max": "300000 100000",
            "sys/fs/cgroup/machine/job/cpu.max": "max 100000",
        },
        3,
    ),
    "v2, nested: the child is tighter": (
        {
            "proc/self/cgroup": "0::/machine/job",
            "sys/fs/cgroup/machine/cpu.max": "800000 100000",
            "sys/fs/cgroup/machine/job/cpu.max": "400000 100000",
        },
        4,
    ),
    "v2, a path of the host": (
        {"proc/self/cgroup": "0::/docker/1234", "sys/fs/cgroup/cpu.max": "500000 100000"},
        5,
    ),
    "v1": (
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
        3,
    ),
    "v1, no limit": (
        {
            "proc/self/cgroup": "4:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        NO_LIMIT,
    ),
    "v1 beside v2": (
        {
            "proc/self/cgroup": "4:cpu:/\n0::/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        6,
    ),
    "another group's limit": (
        {
            "proc/self/cgroup": "0::/mine",
            "sys/fs/cgroup/other/cpu.max": "100000 100000",
            "sys/fs/cgroup/mine/deeper/cpu.max": "100000 100000",
            "cpu.max": "100000 100000",
        },
        NO_LIMIT,
    ),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_cpu_quota(name: str, tmp_path: Path) -> None:
    files, expected = QUOTAS[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert _jit.cpu_quota(tmp_path) == expected


@_jit.device
def _classify(x: Float32Array) -> tuple[int, int, int]:
    nans = infinities = unequal = 0
    for i in range(x.size):
        nans += np.isnan(x[i])
        infinities += np.isinf(x[i])
        unequal += x[i] != x[i]
    return nans, infinities, unequal


def test_nan_and_infinity_stay_what_they_are() -> None:
    values = np.array([0, np.nan, 1, np.inf, -np.inf, np.nan, np.nan], np.float32)
    assert _classify(values) == (3, 2, 3)
    assert _classify(np.ones(5, np.float32)) == (0, 0, 0)
