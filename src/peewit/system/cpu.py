"""The CPU: its name, and how many threads this process may use. No PyTorch here."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CPU_INFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
# One line for each hierarchy that this process belongs to: its number, its controllers, and the
# path of the process's group in it (cgroups(7)).
MEMBERSHIP = Path("/proc/self/cgroup")


def within_limit(threads: int) -> int:
    """Return ``threads``, or fewer if a CPU quota (cgroup), as of a container, allows fewer.

    More threads than the quota allows are throttled, and far slower than fewer threads.
    """
    return max(1, min([threads, *map(round, _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the CPU quotas, in cores, of this process's groups and of all groups around them."""
    for folder in _groups():
        # version 2 has both numbers in one file, version 1 each in its own
        for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            try:
                words = [word for file in files for word in (folder / file).read_text().split()]
                quota, period = map(int, words)
            except (OSError, ValueError):  # no such file, or "max": no quota
                continue
            if quota > 0 and period > 0:  # version 1 has -1 for none
                yield quota / period


def _groups() -> Iterator[Path]:
    """Yield the folders in which the quotas of this process may be."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux, or no /proc
        lines = []
    # A container may see the path of its group on the host, but its own group at the root, so each
    # group is looked for in all parents of the path too.
    for line in [*lines, "0::/", "1:cpu:/"]:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # version 2; beside version 1 it is mounted in a folder of its own
            roots = [CGROUPS, CGROUPS / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [CGROUPS / "cpu", CGROUPS / controllers]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        if ".." in inside.parts:  # outside of what this process can see
            inside = PurePosixPath()
        for root in roots:
            for group in (inside, *inside.parents):
                yield root / group


def own_cores() -> int:
    """Return how many cores this process may run on, whatever its quota."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Windows and macOS have no CPU affinity
        return os.cpu_count() or 1


def usable_cores() -> int:
    """Return how many threads can run at the same time."""
    return within_limit(own_cores())


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
