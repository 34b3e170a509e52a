"""The environment of a run: threads, random state, and facts for the record."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy
import torch

import peewit
from peewit import kernels
from peewit.errors import UsageError
from peewit.system.cpu import processor_name, within_limit
from peewit.system.text import command, counted

# a resumed run keeps its number of threads, which may come from a machine with more cores
MOST_PER_CORE = 16


@contextmanager
def isolated(threads: int) -> Iterator[None]:
    """Use ``threads`` threads and a private random state; restore the caller's afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def usable_threads() -> int:
    """Return how many threads to use: PyTorch's choice, within the limit of a container.

    PyTorch counts the machine's cores, or uses ``OMP_NUM_THREADS``. It ignores a container's CPU
    time limit.
    """
    return within_limit(torch.get_num_threads())


def check_threads(threads: int, todo: str = "omit it for one per core") -> None:
    """Refuse far more threads than cores: every step would wait for all of them.

    Parameters
    ----------
    threads : int
    todo : str
        What the user can do instead.

    Raises
    ------
    UsageError
        There are more than ``MOST_PER_CORE`` per core.
    """
    cores = os.cpu_count() or 1
    if threads > MOST_PER_CORE * cores:
        raise UsageError(
            f"is {threads:,}",
            f"this machine has {counted(cores, 'core')}, and threads beyond that only wait for "
            "each other",
            todo,
            fields=["threads"],
        )


def describe(threads: int) -> dict[str, Any]:
    """Return the facts about machine and versions that are kept in a run."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "peewit": peewit.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "vector_features": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.available(),
        "cores": torch.get_num_threads(),
        "threads": threads,
        "command": command(sys.argv),
    }
