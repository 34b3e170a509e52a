"""The time at which the command began, from which a time budget counts."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/self/stat")
# A process that is older than this was another program before (a script's `exec`).
_LONGEST = 5.0


def process_age() -> float:
    """Return the age of this process in seconds (on Linux), or 0 if it is unknown."""
    try:
        # field 22 of proc_pid_stat(5); split after the name, which may contain spaces and brackets
        fields = _STAT.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = int(fields[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    return age if 0 <= age <= _LONGEST else 0.0


# On the clock of time.perf_counter, less the time that the interpreter took to start. Not
# time.monotonic, which has a resolution of 16 ms on Windows before Python 3.13.
BEGAN = time.perf_counter() - process_age()
