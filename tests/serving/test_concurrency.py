"""A recommender under threads, in forked and started processes, and on a file system that nobody can write to.

What is settled once in a process, such as the thread pool, is tried in fresh interpreters.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import fastmf
from fastmf.models import FactorModel
from fastmf_kernels import _cache
from tests.serving.conftest import LAYERS
from tests.serving.mixed_calls import CALLS, FILTERS, answers

ROOT = Path(__file__).parents[2]

# Ends with status 0 and a reason where the layer asked for cannot run here.
START_LAYER = """
import os, sys, threading, warnings
import fastmf
from fastmf_kernels import _jit
from tests.serving.mixed_calls import CALLS, FILTERS, answers
try:
    assert _jit.threading_layer() == os.environ["NUMBA_THREADING_LAYER"]
except ValueError as error:
    print("not available:", error)
    raise SystemExit
"""


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory, model: FactorModel, other_model: FactorModel) -> list[str]:
    """Two models of the same users and items."""
    folder = tmp_path_factory.mktemp("models")
    for name, each in (("a", model), ("b", other_model)):
        each.save(folder / name)
    return [str(folder / "a"), str(folder / "b")]


@pytest.fixture
def run_script(run_python: Callable[..., str]) -> Callable[..., str]:
    def run(script: str, *args: str, **environment: str) -> str:
        return run_python(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{script}", *args, **environment)

    return run


@pytest.fixture(params=LAYERS)
def on_layer(request: pytest.FixtureRequest, run_script: Callable[..., str]) -> Callable[..., str]:
    """Run a script once Numba's thread pool has started on one of its layers."""

    def run(script: str, *args: str) -> str:
        # Where pip puts libtbb, and the loader does not look.
        paths = [f"{sys.prefix}/lib", *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        settings = {"NUMBA_THREADING_LAYER": request.param, "LD_LIBRARY_PATH": os.pathsep.join(paths)}
        output = run_script(START_LAYER + script, *args, **settings)
        if output.startswith("not available"):
            pytest.skip(f"threading layer {request.param} {output}")
        return output

    return run


def test_calls_that_are_compared_differ_between_the_models(directories: list[str]) -> None:
    first, second = (answers(fastmf.Recommender(path, filters=FILTERS)) for path in directories)

    assert first.keys() == second.keys() == CALLS.keys()
    assert [name for name in CALLS if first[name] == second[name]] == ["stranger"]  # popularity is that of the data


def test_a_request_is_answered_by_one_model(directories: list[str]) -> None:
    """A request that began before a swap ends with the model that it began with, whatever it reads later."""
    recommender = fastmf.Recommender(directories[0], filters=FILTERS)
    before, other = answers(recommender), answers(fastmf.Recommender(directories[1], filters=FILTERS))
    swapped = False

    class Users(list[int]):
        """Users that are read while the model is swapped: the request has begun by then."""

        def __iter__(self):  # type: ignore[no-untyped-def]
            nonlocal swapped
            swapper = threading.Thread(target=recommender.swap, args=(directories[1],))
            swapper.start()
            swapper.join()
            swapped = True
            return super().__iter__()

    found = recommender.recommend(Users([9, 17]), 5, filters="large")

    assert swapped
    assert found.items.tobytes() == before["a filter"][0]
    assert CALLS["a filter"](recommender) == other["a filter"] != before["a filter"]


SWAPPING = """
N_SWAPS, N_THREADS = int(sys.argv[3]), 8
paths = sys.argv[1:3]
train = fastmf.testing.low_rank(n_users=60, n_items=900, density=0.08, seed=3)
parallel = fastmf.load(paths[0]).set_params(n_threads=2)
error = fastmf.evaluate(parallel, train, metrics=["rmse"])["rmse"]
few = FILTERS["few"], FILTERS["few"][:4]
expected = {name: {} for name in CALLS}
for path in paths:
    for number, items in enumerate(few):
        for name, answer in answers(fastmf.Recommender(path, filters={**FILTERS, "few": items})).items():
            expected[name].setdefault(answer, set()).add(path)
recommender = fastmf.Recommender(paths[0], filters=FILTERS)
ended, failures, met = threading.Event(), [], [set() for _ in range(N_THREADS)]

def ask(number):
    turn, names = number, list(CALLS)
    while not ended.is_set():
        name = names[turn % len(names)]
        turn += 1 + number
        answer = CALLS[name](recommender)
        if answer not in expected[name]:
            failures.append(name)
        elif len(expected[name][answer]) == 1:
            met[number] |= expected[name][answer]
        if turn % 5 == 0 and fastmf.evaluate(parallel, train, metrics=["rmse"])["rmse"] != error:
            failures.append("evaluate")

def guarded(number):
    try:
        ask(number)
    except BaseException as failure:
        failures.append(repr(failure))

workers = [threading.Thread(target=guarded, args=(number,)) for number in range(N_THREADS)]
for worker in workers:
    worker.start()
for swap in range(N_SWAPS):
    recommender.set_filter("few", few[swap // 2 % 2])
    recommender.swap(paths[1 - swap % 2])
    # Quick swaps may all be over before a thread has an answer of either model.
    while swap < 2 and not failures and paths[1 - swap % 2] not in set().union(*met):
        ended.wait(0.001)
ended.set()
for worker in workers:
    worker.join()
stats = recommender.stats()
print(failures, set().union(*met) == set(paths), stats["swaps"], stats["errors"], stats["requests"] > 0)
"""


@pytest.mark.slow
@pytest.mark.stress
def test_mixed_calls_while_models_are_swapped(on_layer: Callable[..., str], directories: list[str]) -> None:
    assert on_layer(SWAPPING, *directories, "100").strip() == "[] True 100 0 True"


@pytest.mark.slow
def test_mixed_calls_while_models_are_swapped_a_few_times(on_layer: Callable[..., str], directories: list[str]) -> None:
    assert on_layer(SWAPPING, *directories, "10").strip() == "[] True 10 0 True"


NO_THREADS = """
import os, threading
import numpy as np, pyarrow as pa, fastmf
from tests.serving.mixed_calls import FILTERS, answers
def count():
    return len(os.listdir("/proc/self/task")), threading.active_count()
fastmf.Recommender
before = count()
recommender = fastmf.Recommender(sys.argv[1], filters=FILTERS)
recommender.warmup()
answers(recommender)
recommender.swap(sys.argv[2], verify=True)
answers(recommender)
print(before == count(), before, count())
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="only Linux lists the threads of a process there")
def test_one_thread_starts_no_other(run_script: Callable[..., str], directories: list[str]) -> None:
    output = run_script(NO_THREADS, *directories, OPENBLAS_NUM_THREADS="1")

    assert output.startswith("True"), output


FORKS = """
warnings.simplefilter("ignore")  # from 3.12 on Python warns that a fork leaves the pool behind: that is the point
when = sys.argv[3]
recommender = fastmf.Recommender(sys.argv[1], filters=FILTERS)
expected = answers(recommender)
several = fastmf.Recommender(sys.argv[1], filters=FILTERS, n_threads=2)
if when == "after a parallel kernel":
    assert answers(several) == expected
workers, ended = [], threading.Event()
def work():
    while not ended.is_set():
        answers(several)
        recommender.swap(sys.argv[1])
if when == "while threads work":
    workers = [threading.Thread(target=work) for _ in range(3)]
for worker in workers:
    worker.start()
statuses = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            right = answers(recommender) == expected and answers(several) == expected
            recommender.swap(sys.argv[2])
            recommender.set_filter("new", [1])
            status = 0 if right and answers(recommender) != expected and recommender.stats()["errors"] == 0 else 2
        finally:
            os._exit(status)
    statuses.append(os.waitpid(child, 0)[1])
ended.set()
for worker in workers:
    worker.join()
print(statuses, answers(recommender) == expected)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["after a parallel kernel", "while threads work"])
def test_forked_children_answer(when: str, on_layer: Callable[..., str], directories: list[str]) -> None:
    told = on_layer(FORKS, *directories, when).splitlines()  # TBB has something to say as well

    assert told[-1] == "[0, 0, 0, 0] True"


@pytest.mark.slow
def test_children_forked_before_the_pool_starts_answer(run_script: Callable[..., str], directories: list[str]) -> None:
    prelude = "import os, threading, warnings, fastmf\nfrom tests.serving.mixed_calls import FILTERS, answers\n"

    assert run_script(prelude + FORKS, *directories, "before").strip() == "[0, 0, 0, 0] True"


PROCESSES = """
import multiprocessing, os
import fastmf
from tests.serving.mixed_calls import FILTERS, answers
from tests.serving.test_concurrency import answer_in_process
expected = answers(fastmf.Recommender(sys.argv[1], filters=FILTERS))
context = multiprocessing.get_context(sys.argv[2])
with context.Pool(2) as pool:
    found = pool.map(answer_in_process, [sys.argv[1]] * 4, chunksize=1)
print(len(found), all(answer == expected for answer in found))
"""


def answer_in_process(path: str) -> dict[str, tuple[bytes, ...]]:
    """Load a model and answer from it."""
    return answers(fastmf.Recommender(path, filters=FILTERS))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_a_pool_answer(method: str, run_script: Callable[..., str], directories: list[str]) -> None:
    output = run_script(PROCESSES, directories[0], method, PYTHONWARNINGS="ignore::DeprecationWarning")

    assert output.strip() == "4 True"


READ_ONLY = """
import os, sys
sys.path.insert(0, sys.argv[1])
import fastmf
from fastmf_kernels import _jit
from tests.serving.mixed_calls import FILTERS, answers
for folder in sys.argv[4:]:
    try:
        open(os.path.join(folder, "probe"), "w")
    except OSError as error:
        print("refused:", error.strerror)
recommender = fastmf.Recommender(sys.argv[2], filters=FILTERS)
recommender.warmup()
answers(recommender)
recommender.swap(sys.argv[3], verify=True)
expected = answers(recommender)
print(expected == answers(fastmf.Recommender(fastmf.load(sys.argv[3]), filters=FILTERS)), _jit.compilations().compiled)
"""
# Makes some folders read-only, and runs a command; the mounts end with the process.
MOUNTING = """
while [ "$1" != -- ]; do mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 97; shift; done
shift
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare, which mounts for one process alone")
def test_models_and_the_kernel_cache_may_be_read_only(directories: list[str]) -> None:
    cache = _cache.cache_root()
    if cache is None:
        pytest.skip("the kernel cache is off")
    for path in directories:  # what is not in the cache yet is stored now
        recommender = fastmf.Recommender(path, filters=FILTERS)
        recommender.warmup()
        answers(recommender)
    folders = [str(Path(directories[0]).parent), str(cache)]
    command = [sys.executable, "-W", "error", "-c", READ_ONLY, str(ROOT), *directories, *folders]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNTING, "sh", *folders, "--", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == 97 or "unshare failed" in done.stderr:
        pytest.skip(f"this user may not mount: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused: Read-only file system"] * 2 + ["True 0"]
