"""Which of several processes this one is, by the environment variables of torchrun."""

from __future__ import annotations

import os


def rank() -> int:
    """Return the number of this process, from 0; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def restarts() -> int:
    """Return how often torchrun has started the processes again after one of them had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
