"""When the command began: the minutes of a budget count from there."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/self/stat")
# A process that took longer to come here was something else before (a script's `exec`).
_LONGEST = 5.0


def process_age() -> float:
    """Return the seconds since this process began, where the system tells (Linux), or 0."""
    try:
        # after the name, which may hold spaces and brackets; see proc_pid_stat(5), field 22
        fields = _STAT.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = int(fields[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    return age if 0 <= age <= _LONGEST else 0.0


# On time.perf_counter's scale: before this line, by what starting the interpreter took. Not
# time.monotonic's, which moves in steps of 16 ms in Windows before Python 3.13.
BEGAN = time.perf_counter() - process_age()
