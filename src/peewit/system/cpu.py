"""The processor: its name, and how many threads this process may keep busy. No PyTorch here."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def within_limit(threads: int) -> int:
    """Return ``threads``, or fewer where a container may use less processor time than that.

    Many threads on little time are far slower than few.
    """
    try:
        limit, period = CGROUP_LIMIT.read_text(encoding="ascii").split()
        allowed = round(int(limit) / int(period))
    except (OSError, ValueError):  # no Linux, no container, or "max": no limit
        return threads
    return max(1, min(threads, allowed))


def usable_cores() -> int:
    """Return how many threads can run at the same time."""
    try:
        mine = len(os.sched_getaffinity(0))
    except AttributeError:  # Windows and macOS, where a process is not bound to cores
        mine = os.cpu_count() or 1
    return within_limit(mine)


def processor_name() -> str:
    """Return the processor's name as its maker gives it, or as near as the system tells."""
    try:
        with CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:  # as far as needed: the system writes them, a page for each core
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
