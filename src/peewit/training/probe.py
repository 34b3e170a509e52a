"""What this machine can do, measured: its best rate, and how fast networks train on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

# Large 3x3 convolutions: (images, channels in, channels out, height and width). Which of them is
# the fastest depends on the processor's caches and registers.
SHAPES = ((64, 64, 256, 16), (64, 256, 256, 8), (128, 128, 128, 8))
# Processors that multiply bfloat16 themselves; the others only pretend to.
BFLOAT16 = ("avx512_bf16", "amx_bf16")
# bfloat16 costs a little accuracy, so it must be this much faster.
WORTH = 1.1


def best_rate(
    seconds: float = 0.9,
    precision: str = "float32",
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the operations a second of the fastest large 3x3 convolution here, forwards.

    It is PyTorch's own, in channels_last order, with the present number of threads: what a
    training's rate is compared with.

    Parameters
    ----------
    seconds : float
        How long to measure, at least one round of each shape.
    precision : str
        "float32" or "bfloat16".
    clock : callable
        Returns seconds.
    """
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    best = 0.0
    for images, channels, filters, size in SHAPES:
        x = torch.ones(images, channels, size, size, dtype=kind)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.ones(filters, channels, 3, 3, dtype=kind)
        flops = 2 * 9 * channels * filters * size * size * images
        shortest, end = float("inf"), clock() + seconds / len(SHAPES)
        with torch.inference_mode():
            F.conv2d(x, weight, padding=1)  # the first one prepares
            while True:
                began = clock()
                F.conv2d(x, weight, padding=1)
                now = clock()
                shortest = min(shortest, now - began)
                if now >= end:
                    break
        best = max(best, flops / shortest)
    return best


def has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself, as far as PyTorch knows.

    >>> has_bfloat16() in (True, False)
    True
    """
    # since PyTorch 2.11; before, and where it does not know, float32 is never wrong
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in BFLOAT16)
