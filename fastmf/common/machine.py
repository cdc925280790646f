"""The machine that a process runs on, and the memory that it takes: standard library alone."""

import os
import platform
from pathlib import Path


def cpu_model() -> str:
    """Name the processor; virtual machines often hide the model and show the family and features only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = (fields.get("flags") or fields.get("Features") or "").split()
    vectors = next((name for name in ("avx512f", "avx2", "asimd") if name in features), "no vectors known")
    return f"{fields.get('model name', 'unknown')} (family {fields.get('cpu family', '?')}, {vectors})"


def count_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """Return the memory of the machine in GiB; None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def peak_bytes(process: int | None = None) -> int:
    """Return the largest resident size so far of a process, this one if None; 0 where the system does not tell.

    Not `getrusage`, which counts what the parent held when it started the process.
    """
    try:
        status = Path("/proc", "self" if process is None else str(process), "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
