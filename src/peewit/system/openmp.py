"""Settings for OpenMP, whose threads PyTorch and the compiled kernels use. No PyTorch here."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from peewit.system.cpu import own_cores, within_limit

# How long a waiting thread stays awake before it sleeps: turns of a loop in GCC's runtime
# (PyTorch's on Linux; up to 140 cycles each), milliseconds in LLVM's and Intel's (on macOS and
# Windows), which cannot be shorter. By default it is 300,000 turns, or 200 ms. The tutorial on two
# busy cores: 223 images/s with 300,000 turns, 529 with 10,000, 788 with 1,000, 732 with 0.
# Without a busy loop 1,000 turns cost 13 % of the tutorial's speed, and 10,000 nothing that could
# be measured.
SPINS, MILLISECONDS = "10000", "1"


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set up OpenMP for a machine that is shared with others, unless PyTorch has been imported.

    The runtime reads its environment variables once, when PyTorch loads it. Those that the user has
    set are kept.

    The threads of a training wait for each other many times per step. By default they do so in a
    loop for milliseconds before they sleep. On a core that another process wants, the loop takes
    time from the thread that is waited for. No result depends on how threads wait.

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
