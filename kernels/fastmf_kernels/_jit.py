"""Compiling: flags, machine code from the cache, threads, and locks. No other module of the CPU imports Numba.

The others decorate plain functions with `device` (called by kernels), `kernel` or `parallel` (called from Python), and
call parallel kernels inside ``with threads(n_threads):``.
"""

import contextlib
import functools
import hashlib
import itertools
import math
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import numba  # noqa: TID251

from fastmf_kernels._cache import SUFFIX, folder_of, read, write
from fastmf_kernels._notes import about_to_compile
from fastmf_kernels._sources import has_file

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

prange = numba.prange

# No fastmath: machine code that is loaded from the cache has been optimised once more than code that was just compiled.
# If the optimiser may reorder sums, the two differ in their last bits. Long sums are in explicit vector code instead.
_FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# For debugging: compile loops as they are written, without explicit vector code.
PLAIN_LOOPS = bool(os.environ.get("FASTMF_PLAIN_LOOPS"))
COMPILER = f"numba {numba.__version__}, {sys.implementation.cache_tag}{', plain loops' if PLAIN_LOOPS else ''}"
compiler_lock = numba.core.compiler_lock.global_compiler_lock
IS_COMPILING = not numba.config.DISABLE_JIT
"""Numba's own switch for debugging, ``NUMBA_DISABLE_JIT``, leaves kernels plain Python functions."""


def _number_functions_apart() -> None:
    """Let Numba count functions from a random number on, so that no two processes give a function the same one.

    In machine code a function's symbol is made of its name, the types of its arguments, and this number. Numba counts
    from 1 in each process, so that two functions of one factory may have the same symbol in what two processes have
    stored. Where both are loaded, one of them is then called in place of the other.
    """
    numba.core.bytecode.FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6)))


_number_functions_apart()


def device(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that kernels call. It is not stored by itself: its machine code is part of its callers'."""
    return numba.njit(**_FLAGS)(function)  # type: ignore[no-any-return]


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `device`, and inline every call: for functions with many arrays that are called for each rating."""
    return numba.njit(forceinline=True, **_FLAGS)(function)  # type: ignore[no-any-return]


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
        return self._serial(*args, **kwargs)


class ParallelKernel(Kernel[P, R]):
    """A function with `prange` loops, compiled when first called: for all threads, or (``serial``) for the caller's.

    The parallel call must stand inside ``with threads(...)``. In a child process forked after OpenMP started, where
    another parallel region would end the process, it falls back to the serial machine code.
    """

    @property
    def _parallel(self) -> Callable[P, R]:
        return self._machine_code("parallel", parallel=True)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._serial(*args, **kwargs) if _pool_is_lost() else self._parallel(*args, **kwargs)

    def serial(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on the calling thread alone: no pool, no lock; for work too small to be worth a parallel launch."""
        return self._serial(*args, **kwargs)


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
        All cores if None. The caller is the first of them. Fewer are used where the system does not allow them all.
    make_scratch : callable
        Called once in each thread; all tasks of the thread get what it returns.
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

    helpers: list[threading.Thread] = []
    for _ in range(1, count):
        helper = threading.Thread(target=work, daemon=True)
        try:
            helper.start()
        except RuntimeError:  # the system starts no more threads: fewer do the work
            break
        helpers.append(helper)
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


class Compilations(NamedTuple):
    """Machine codes that were compiled in this process, and those of them that were stored."""

    compiled: int
    stored: int


_compilations = Compilations(0, 0)


def compilations() -> Compilations:
    """Count what was compiled in this process so far, rather than loaded from the cache."""
    return _compilations


class _KernelCache:
    """Stands in for the cache of a Numba dispatcher: it is asked before a kernel is compiled, and told afterwards.

    Both happen under Numba's compiler lock.
    """

    cache_path: str | None = None

    def __init__(self, function: Callable[..., object], *, parallel: bool) -> None:
        self._function, self._parallel = function, parallel

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the kernel for arguments of some types, or None if it has to be compiled."""
        target_context.refresh()
        path = self._path(signature, target_context.codegen())
        content = None if path is None else read(path)
        if content is None:
            about_to_compile()
            return None
        from numba.core.compiler import CompileResult  # noqa: TID251

        return CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Store a kernel; where that fails, it is compiled again in the next process."""
        global _compilations
        path = self._path(signature, compiled.codegen)
        is_stored = False
        if path is not None and not compiled.library.has_dynamic_globals:
            is_stored = write(path, pickle.dumps(compiled._reduce(), protocol=pickle.HIGHEST_PROTOCOL))
        _compilations = Compilations(_compilations.compiled + 1, _compilations.stored + is_stored)

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        function = self._function
        folder = folder_of(function.__module__, COMPILER) if has_file(function.__module__) else None
        if folder is None:
            return None
        variant = "parallel" if self._parallel else "serial"
        parts = (function.__qualname__, str(signature), variant, *map(str, codegen.magic_tuple()))
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        return folder / f"{function.__name__}-{digest}{SUFFIX}"


def _compile(function: Callable[P, R], *, parallel: bool) -> Callable[P, R]:
    dispatcher = numba.njit(parallel=parallel, **_FLAGS)(function)
    if IS_COMPILING:
        dispatcher._cache = _KernelCache(function, parallel=parallel)
        dispatcher.compile = functools.partial(_compile_once, dispatcher, dispatcher.compile)
    return dispatcher  # type: ignore[no-any-return]


def _compile_once(dispatcher: Any, compile_for: Callable[[tuple[Any, ...]], Any], given: tuple[Any, ...]) -> Any:
    """Compile for arguments of some types, with the machine code of writable arrays serving read-only ones as well.

    To Numba these are two types, and it would compile anew for every mix of them.
    """
    writable = tuple(map(_writable, given))
    entry_point = compile_for(writable)
    if writable != given:
        with compiler_lock:
            dispatcher._insert([kind._code for kind in given], entry_point, False)
    return entry_point


def _writable(kind: Any) -> Any:
    """Return a type with all arrays in it writable."""
    types = numba.types
    if isinstance(kind, types.Array):
        return kind.copy(readonly=False)
    if isinstance(kind, types.BaseTuple):
        return types.BaseTuple.from_types(tuple(map(_writable, kind.types)), getattr(kind, "instance_class", None))
    return kind


_compile_lock = threading.RLock()


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
    with _pool_lock:
        numba.get_num_threads()
        return str(numba.threading_layer())


_workqueue_lock = threading.RLock()
_pool_lock = threading.RLock()
_blocks_of_threads: set[object] = set()
"""The ``threads`` blocks that run at the moment, of all threads."""


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
    block = object()
    with _pool_lock:
        before = numba.get_num_threads()
        numba.set_num_threads(count)
    _blocks_of_threads.add(block)
    try:
        yield count
    finally:
        _blocks_of_threads.discard(block)
        with _pool_lock:
            numba.set_num_threads(before)


_lost_pool = threading.Event()


def _pool_is_lost() -> bool:
    return _lost_pool.is_set()


# A child process has the memory of its parent as it was when it was forked, and of its threads only the one that forked
# it. A lock that another thread held stays locked in the child for ever: those that a kernel's call may need are taken
# before. Numba's is held while a kernel is compiled, LLVM's inside of that, and the pool's where a block of `threads`
# begins and ends: Numba then holds a lock that it shares with child processes.
_llvm_lock: Any = getattr(numba.core.codegen.ll.ffi.lib, "_lock", contextlib.nullcontext())
_locks_of_forks = (_compile_lock, compiler_lock, _pool_lock, _llvm_lock)
_forked_by_main_thread = False


def _before_fork() -> None:
    global _forked_by_main_thread
    for lock in _locks_of_forks:
        lock.__enter__()
    _forked_by_main_thread = threading.current_thread() is threading.main_thread()


def _after_fork() -> None:
    for lock in reversed(_locks_of_forks):
        lock.__exit__(None, None, None)


def _after_fork_in_child() -> None:
    """Count functions anew, and give up the thread pool where it cannot be started again.

    Without a pool kernels run on the thread that calls them. The pool of OpenMP ends a child that uses it. Those of TBB
    and ``workqueue`` start anew in the child, unless they were at work when it was forked; TBB's also needs the main
    thread to have forked it.
    """
    global _workqueue_lock
    _after_fork()
    _number_functions_apart()
    _workqueue_lock = threading.RLock()
    was_at_work = bool(_blocks_of_threads)
    _blocks_of_threads.clear()
    try:
        layer = numba.threading_layer()
    except ValueError:
        return  # the pool had not started: the child starts its own
    if layer == "omp" or was_at_work or (layer == "tbb" and not _forked_by_main_thread):
        _lost_pool.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
