"""The one place that compiles: compiler flags, kernel cache, threads, and the lock around them.

Everybody else writes plain functions and decorates them with `device` (called by kernels) or `parallel` (a kernel), and
calls kernels inside ``with threads(n_threads):``.
"""

import functools
import hashlib
import math
import os
import pickle
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

import numba  # noqa: TID251
import platformdirs

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

prange = numba.prange

# No fastmath: a kernel from the cache has been optimised once more than one just compiled, and where the optimiser may
# reorder sums their last bits then differ. Long sums are in explicit vector code, in the order that it says.
_FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_CACHES_KEPT = 3
# For the doubtful and the curious: compile loops as they are written, without explicit vector code.
PLAIN_LOOPS = bool(os.environ.get("FASTMF_PLAIN_LOOPS"))
PLAIN: dict[str, Callable[..., object]] = {}
"""The functions whose place explicit vector code takes, as they are written."""


def device(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that kernels call. It is never cached by itself: its machine code lives in its callers."""
    return numba.njit(**_FLAGS)(function)  # type: ignore[no-any-return]


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `device`, and into every place of call: for what runs once a rating and takes many arrays."""
    return numba.njit(forceinline=True, **_FLAGS)(function)  # type: ignore[no-any-return]


def in_vectors(load: Callable[[], ModuleType]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let explicit vector code take a function's place in kernels; where it cannot be used, compile like `device`.

    It is what the function of the same name emits in the module that ``load`` imports. It cannot be used where nothing
    is compiled (``NUMBA_DISABLE_JIT``), where ``FASTMF_PLAIN_LOOPS`` is set, and with a compiler whose interface has
    changed.
    """

    def decorate(plain: Callable[P, R]) -> Callable[P, R]:
        PLAIN[plain.__name__] = plain
        if numba.config.DISABLE_JIT or PLAIN_LOOPS:
            return device(plain)
        try:
            from fastmf_kernels import _builder

            emitters = load()
        except (ImportError, AttributeError):
            return device(plain)
        return _builder.compiled_as(getattr(emitters, plain.__name__))(plain)  # type: ignore[no-any-return]

    return decorate


@functools.cache
def has_byte_products() -> bool:
    """Whether this processor multiplies and adds bytes several times as fast as float32 numbers."""
    try:
        from fastmf_kernels import _builder
    except (ImportError, AttributeError):
        return False
    return not PLAIN_LOOPS and not numba.config.DISABLE_JIT and _builder.has_byte_products()


class Kernel(Generic[P, R]):
    """A function compiled when first called, for the calling thread; other threads may run it at the same time."""

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._codes: dict[str, Callable[P, R]] = {}

    @property
    def _serial(self) -> Callable[P, R]:
        return self._machine_code("serial", parallel=False)

    def _machine_code(self, name: str, parallel: bool) -> Callable[P, R]:
        codes = self._codes
        if name not in codes:
            with _compile_lock:  # the threads of a half sweep all come here at once
                if name not in codes:
                    codes[name] = _compile(self._function, parallel=parallel)
        return codes[name]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return _call(self._serial, *args, **kwargs)


class ParallelKernel(Kernel[P, R]):
    """A function with `prange` loops, compiled when first called: for all threads, or (``serial``) for the caller's.

    The parallel call must stand inside ``with threads(...)``. In a child process forked after OpenMP started, where
    another parallel region would end the process, it falls back to the serial machine code.
    """

    @property
    def _parallel(self) -> Callable[P, R]:
        return self._machine_code("parallel", parallel=True)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return _call(self._serial if _pool_is_lost() else self._parallel, *args, **kwargs)

    def serial(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on the calling thread alone: no pool, no lock; for work too small to be worth a parallel launch."""
        return _call(self._serial, *args, **kwargs)


kernel = Kernel
parallel = ParallelKernel


def run_tasks(
    task: Callable[[int, S], object], n_tasks: int, n_threads: int | None, make_scratch: Callable[[], S]
) -> None:
    """Call ``task(number, scratch)`` for every number below ``n_tasks``, on several threads.

    A thread that is done takes the next number: tasks that take longest should come first. For kernels that run for
    milliseconds and more; they release the interpreter lock.

    Parameters
    ----------
    task : callable
    n_tasks : int
    n_threads : int, optional
        All cores if None. The caller is the first of them.
    make_scratch : callable
        Called once a thread; its tasks, which run one after the other, share what it returns.
    """
    count = max(1, min(resolve_threads(None) if n_threads is None else n_threads, n_tasks))
    numbers = iter(range(n_tasks))  # its `next` is atomic
    failures: list[BaseException] = []

    def work() -> None:
        try:
            scratch = make_scratch()
            for number in numbers:
                if failures:
                    return
                task(number, scratch)
        except BaseException as failure:
            failures.append(failure)

    helpers = [threading.Thread(target=work, daemon=True) for _ in range(1, count)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _compile(function: Callable[P, R], *, parallel: bool) -> Callable[P, R]:
    # Numba keys a cache entry by signature, not by flags, so the two machine codes need two directories.
    directory = cache_directory()
    dispatcher = numba.njit(parallel=parallel, **_FLAGS)(function)
    if directory is not None and not numba.config.DISABLE_JIT:
        with _compile_lock:
            before = numba.config.CACHE_DIR
            numba.config.CACHE_DIR = str(directory / ("parallel" if parallel else "serial"))
            try:
                dispatcher.enable_caching()
            except (RuntimeError, OSError):
                pass  # no usable cache: the kernel is compiled in this process and forgotten with it
            finally:
                numba.config.CACHE_DIR = before
    return dispatcher  # type: ignore[no-any-return]


def _call(dispatcher: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return dispatcher(*args, **kwargs)
    except (OSError, EOFError, pickle.UnpicklingError):
        # Kernels do no I/O and have not run yet: this is Numba failing to store what it compiled (disk full) or to read
        # what was stored (a file cut short). Go on without the cache.
        dispatcher._cache.disable()  # type: ignore[attr-defined]
        return dispatcher(*args, **kwargs)


_compile_lock = threading.RLock()


@functools.cache
def source_hash() -> str:
    """Hash of every source file of this package: the name of the cache that fits it.

    Numba's own cache looks at the file of the kernel only and would go on running old machine code after a change in
    a helper (numba issue 1833).
    """
    digest = hashlib.sha256(f"{numba.__version__} {PLAIN_LOOPS}".encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def cache_root() -> Path | None:
    """Directory that holds the kernel caches of all versions, or None when ``FASTMF_CACHE_DIR`` is set but empty."""
    configured = os.environ.get("FASTMF_CACHE_DIR")
    if configured is None:
        return Path(platformdirs.user_cache_dir("fastmf", appauthor=False)) / "kernels"
    return Path(configured) if configured else None


@functools.cache
def cache_directory() -> Path | None:
    """Make and return the cache directory of these sources; None when caching is off or the place is not writable."""
    root = cache_root()
    if root is None:
        return None
    directory = root / source_hash()
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _prune(root)
        probe = directory / f".writable-{os.getpid()}-{threading.get_ident()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError:
        return None
    return directory


def _prune(root: Path) -> None:
    """Delete the caches of all but the newest few versions of the sources."""
    # Only what `source_hash` names: the user may have pointed us at a directory that holds other things too.
    ours = (p for p in root.iterdir() if re.fullmatch("[0-9a-f]{16}", p.name) and p.is_dir())
    caches = sorted(ours, key=lambda p: p.stat().st_mtime, reverse=True)
    for stale in caches[_CACHES_KEPT:]:
        shutil.rmtree(stale, ignore_errors=True)


def available_threads() -> int:
    """Count the threads a kernel may use: the cores this process may run on, within the container's CPU quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, min(cores, cpu_quota()))


def cpu_quota(root: Path = Path("/")) -> int:
    """Return the CPU quota of this process's control group in cores, rounded up; a huge number if there is none."""
    unlimited = 2**31
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return unlimited
    quota = float(unlimited)
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = root / "sys/fs/cgroup" / controllers, _quota_v1
        else:
            continue
        # Inside a container the path may name a directory of the host: the mounted root then holds the limit.
        folder = base / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(base):
                quota = min(quota, read(group))
    return math.ceil(quota)


def _quota_v2(group: Path) -> float:
    try:
        allowed, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if allowed == "max" else float(allowed) / float(period)


def _quota_v1(group: Path) -> float:
    try:
        allowed = float((group / "cpu.cfs_quota_us").read_text())
        period = float((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return math.inf
    return allowed / period if allowed > 0 else math.inf


def resolve_threads(n_threads: int | None) -> int:
    """Turn an ``n_threads`` argument (None: all there are) into a count that Numba's pool can serve."""
    if n_threads is None:
        return min(available_threads(), int(numba.config.NUMBA_NUM_THREADS))
    if n_threads < 1:
        raise ValueError(f"n_threads is {n_threads}; expected at least 1, or None for all cores")
    return min(n_threads, int(numba.config.NUMBA_NUM_THREADS))


def threading_layer() -> str:
    """Start Numba's thread pool if need be and name its layer: ``omp``, ``tbb`` or ``workqueue``."""
    numba.get_num_threads()
    return str(numba.threading_layer())


_workqueue_lock = threading.RLock()


@contextmanager
def threads(n_threads: int | None) -> Iterator[int]:
    """Let parallel kernels in the block use ``n_threads`` threads; the caller's own setting comes back afterwards.

    Numba's ``workqueue`` layer aborts the process when two threads enter it at once, so there the blocks of different
    threads run one after the other; ``omp`` and ``tbb`` run side by side.
    """
    count = resolve_threads(n_threads)
    if _pool_is_lost():
        yield 1
        return
    if threading_layer() == "workqueue":
        with _workqueue_lock:
            yield from _masked(count)
    else:
        yield from _masked(count)


def _masked(count: int) -> Iterator[int]:
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield count
    finally:
        numba.set_num_threads(before)


_lost_pool = threading.Event()


def _pool_is_lost() -> bool:
    return _lost_pool.is_set()


def _after_fork() -> None:
    global _workqueue_lock, _compile_lock
    _workqueue_lock, _compile_lock = threading.RLock(), threading.RLock()
    try:
        layer = numba.threading_layer()
    except ValueError:
        return  # the pool had not started: the child starts its own
    if layer == "omp":
        _lost_pool.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
