"""Settings for OpenMP, whose threads PyTorch and the compiled kernels use. No PyTorch here."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from peewit.system.cpu import own_cores, within_limit

# How long a waiting thread stays awake before it sleeps: turns of a loop in GCC's runtime
# (PyTorch's on Linux), milliseconds in LLVM's and Intel's (on macOS and Windows).
SPINS, MILLISECONDS = "10000", "1"


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set up OpenMP for a machine that is shared with others, unless PyTorch has been imported.

    The runtime reads its environment variables once, when PyTorch loads it. Those that the user has
    set are kept.

    The threads of a training wait for each other several hundred times per step. By default they do
    so in a loop, for milliseconds, before they sleep. On a core that another process wants, such a
    loop takes the time from the thread that is waited for.
    No result depends on how threads wait.

    Parameters
    ----------
    environment : mutable mapping
        The variables to change.
    """
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
        environment.setdefault("KMP_BLOCKTIME", MILLISECONDS)
    cores = own_cores()
    if within_limit(cores) < cores:  # PyTorch knows nothing of quotas
        environment.setdefault("OMP_NUM_THREADS", str(within_limit(cores)))
