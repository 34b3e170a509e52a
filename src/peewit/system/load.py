"""How much of the processor other programs use. No PyTorch here."""

from __future__ import annotations

import os
import time
from pathlib import Path

CPU_TIMES = Path("/proc/stat")
# The system counts in hundredths of a second per core.
SECONDS = 0.25


def cores_used_by_others(seconds: float = SECONDS) -> float:
    """Return how many of this process's cores other programs use, measured for ``seconds``.

    Returns
    -------
    float
        From 0 to the number of cores; 0 where the system does not say (Windows and macOS).
    """
    before, own_before, began = _busy_seconds(), _own_seconds(), time.perf_counter()
    time.sleep(seconds)
    after, own_after, ended = _busy_seconds(), _own_seconds(), time.perf_counter()
    if before is None or after is None:
        return 0.0
    return max(0.0, ((after - before) - (own_after - own_before)) / (ended - began))


def _busy_seconds() -> float | None:
    """Return the seconds of work on this process's cores since the start; None if unknown."""
    try:
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in CPU_TIMES.read_text(encoding="ascii").splitlines()]
        # proc_stat(5): user, nice, system, idle, iowait, irq, softirq. Time stolen by other virtual
        # machines is left out: fewer threads do not help against it.
        ticks = sum(
            sum(map(int, (*words[1:4], *words[6:8]))) for words in lines if words[0] in cores
        )
        return ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):
        return None


def _own_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system
