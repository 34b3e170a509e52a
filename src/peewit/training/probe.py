"""What this machine can do, measured: its best rate, and how fast networks train on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from peewit.data.dataset import Dataset
from peewit.inference import logits_in_batches
from peewit.training.budget import Speed
from peewit.training.checkpoint import Position
from peewit.training.loop import fit
from peewit.training.progress import Silent
from peewit.training.recipe import Recipe
from peewit.training.setup import make_job

# Large 3x3 convolutions: (images, channels in, channels out, height and width). Which of them is
# the fastest depends on the processor's caches and registers.
SHAPES = ((64, 64, 256, 16), (64, 256, 256, 8), (128, 128, 128, 8))
# Processors that multiply bfloat16 themselves; the others only pretend to.
BFLOAT16 = ("avx512_bf16", "amx_bf16")
# Steps are measured until there are so many, and the first is not counted: it prepares.
STEPS = 4
# Images that are predicted to measure how fast that is.
PREDICTED = 512


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


@dataclass
class _FewSteps:
    """A schedule that ends after a few steps and keeps what they took.

    Parameters
    ----------
    seconds : float
        Once they have passed, no more steps are made.
    """

    seconds: float
    clock: Callable[[], float]
    steps: list[float] = field(default_factory=list)
    _seen: tuple[int, float] = (0, 0.0)
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = self.clock() + self.seconds

    def share(self, position: Position) -> float:
        return 0.0

    def done(self, position: Position) -> bool:
        seen, seconds = self._seen
        if position.seen > seen:
            # the position's seconds begin again with each row of the history
            took = position.seconds - seconds if position.seconds > seconds else position.seconds
            self.steps.append(took)
            self._seen = (position.seen, position.seconds)
        made = len(self.steps)
        return made > STEPS or (made >= 1 and self.clock() >= self._end)


def measure(
    dataset: Dataset,
    recipe: Recipe,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Train a network like the recipe's for a few steps, predict a little, and forget it.

    Parameters
    ----------
    dataset : Dataset
        The training images, of which the first few are used.
    recipe : Recipe
        Its model, batch size, precision and so on.
    seconds : float
        How long the steps may take, but at least one is made, and how long predicting may.
    clock : callable
        Returns seconds.
    """
    # twice the batch leaves a whole one after some are held out; from all over, because images may
    # be sorted by class
    count = min(len(dataset), 2 * recipe.batch_size + 2)
    some = dataset.take(np.linspace(0, len(dataset) - 1, count).astype(np.int64))
    alike = recipe.replace(
        epochs=STEPS + 1,  # more than will be
        batch_size=max(1, min(recipe.batch_size, int(0.9 * count) - 1)),
        validate_on="holdout",
        validation_fraction=0.1,
        checkpoint_minutes=1e9,
    )
    job = make_job(some, None, alike, lambda sentence: None)
    schedule, position = _FewSteps(seconds, clock), Position()
    fit(
        job,
        position,
        progress=Silent(),
        stop=lambda: False,
        save=lambda: None,
        schedule=schedule,
    )
    images, predicted = dataset.images[: min(PREDICTED, len(dataset))], []
    began = end = clock()
    for logits in logits_in_batches(job.model, job.preprocessing, images):
        now = clock()
        predicted.append((now - end) / len(logits))
        end = now
        if end - began > seconds:
            break
    return Speed(
        model=recipe.model,
        batch_size=recipe.batch_size,
        precision=recipe.precision,
        step=median(schedule.steps[1:] or schedule.steps) * recipe.batch_size / alike.batch_size,
        inference=median(predicted),
        flops=position.flops / max(position.seen, 1) * recipe.batch_size,
    )
