"""The CPU: its name, and how many threads this process may use. No PyTorch here."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def within_limit(threads: int) -> int:
    """Return ``threads``, or fewer if the CPU quota of the container (cgroup) allows fewer.

    More threads than the quota allows are throttled, and far slower than fewer threads.
    """
    try:
        limit, period = CGROUP_LIMIT.read_text(encoding="ascii").split()
        allowed = round(int(limit) / int(period))
    except (OSError, ValueError):  # not Linux, no container, or "max": no limit
        return threads
    return max(1, min(threads, allowed))


def usable_cores() -> int:
    """Return how many threads can run at the same time."""
    try:
        mine = len(os.sched_getaffinity(0))
    except AttributeError:  # Windows and macOS have no CPU affinity
        mine = os.cpu_count() or 1
    return within_limit(mine)


def processor_name() -> str:
    """Return the CPU's model name, or the nearest to it that the system reports."""
    try:
        with CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:  # the kernel generates it, a page per core: read no further
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
