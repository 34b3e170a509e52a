"""Limits that a child process, which reads an untrusted file, sets for itself."""

from __future__ import annotations

import contextlib
import faulthandler


def limit_time(seconds: float) -> None:
    """End this process after ``seconds``, by a thread that does not need the interpreter."""
    faulthandler.dump_traceback_later(seconds, exit=True)


def limit_memory(memory: int) -> None:
    """Limit the address space of this process to ``memory`` bytes, where the system can.

    Windows has no such limit, and macOS does not enforce it.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    # macOS refuses limits below what is reserved already
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard != resource.RLIM_INFINITY:
            memory = min(memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
