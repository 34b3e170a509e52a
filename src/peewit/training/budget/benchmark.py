"""What this machine can do, measured: its best rate, and how fast networks train on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from peewit.data.dataset import Dataset
from peewit.evaluation.inference import logits_in_batches
from peewit.training.budget.plan import Speed
from peewit.training.build import make_job, network_size, resized
from peewit.training.checkpoint import Position
from peewit.training.loop import fit
from peewit.training.progress import Silent
from peewit.training.recipe import Recipe

# Large 3x3 convolutions: (images, channels in, channels out, height and width). Which of them is
# the fastest depends on the processor's caches and registers.
SHAPES = ((64, 64, 256, 16), (64, 256, 256, 8), (128, 128, 128, 8))
# Processors that multiply bfloat16 themselves; the others only pretend to.
BFLOAT16 = ("avx512_bf16", "amx_bf16")
# The first steps are slower: memory is new, caches are cold. Steps are made until the best of the
# last few is no longer so much better than any before, or there are so many.
LAST, BETTER, STEPS = 3, 0.98, 12
# The share of the training that they are like: of five eighths of it the whitening is at rest.
SHARE = 0.5
# Pixels of large images that are made small to measure with; for steps they are repeated.
PIXELS = 1 << 26
# Images that are predicted to measure how fast that is.
PREDICTED = 512


def best_rate(seconds: float = 0.9, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the operations a second of the fastest large 3x3 convolution here, forwards.

    It is PyTorch's own, in float32 and channels_last order, with the present number of threads:
    what a training's rate is compared with.

    Parameters
    ----------
    seconds : float
        How long to measure, at least one round of each shape.
    clock : callable
        Returns seconds.
    """
    best = 0.0
    for images, channels, filters, size in SHAPES:
        x = torch.ones(images, channels, size, size)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.ones(filters, channels, 3, 3)
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
    """A schedule that ends after a few steps, once they are alike, and keeps what they took.

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
        return SHARE

    def done(self, position: Position) -> bool:
        seen, seconds = self._seen
        if position.seen > seen:
            self.steps.append(position.seconds - seconds)
        # noted each time: the position's seconds begin again with each row of the history
        self._seen = (position.seen, position.seconds)
        before, last = self.steps[:-LAST], self.steps[-LAST:]
        alike = bool(before) and min(last) >= BETTER * min(before)
        late = bool(last) and self.clock() >= self._end
        return alike or late or len(self.steps) >= STEPS

    @property
    def usual(self) -> float:
        """What a step takes: the best of the last few, for what disturbs one will not last."""
        return min(self.steps[-LAST:])


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
    some = _some(dataset, recipe, min(len(dataset), 2 * recipe.batch_size))
    alike = recipe.replace(
        batch_size=min(recipe.batch_size, len(some)), validate_on="test", checkpoint_minutes=1e9
    )
    job = make_job(some, some.take([0]), alike, lambda sentence: None)
    # as if it had just been validated
    schedule, position = _FewSteps(seconds, clock), Position(validated=SHARE)
    fit(
        job,
        position,
        progress=Silent(),
        stop=lambda: False,
        save=lambda: None,
        schedule=schedule,
    )
    height, width, _ = dataset.image_shape
    images, predicted = dataset.images[: min(PREDICTED, max(1, PIXELS // (height * width)))], []
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
        step=schedule.usual * recipe.batch_size / alike.batch_size,
        inference=median(predicted),
        flops=position.flops / max(position.seen, 1) * recipe.batch_size,
    )


def _some(dataset: Dataset, recipe: Recipe, count: int) -> Dataset:
    """Return ``count`` of the images, in the network's size if they are larger."""
    height, width, _ = dataset.image_shape
    different = max(1, min(count, PIXELS // (height * width)))
    # from all over, because images may be sorted by class
    chosen = np.linspace(0, len(dataset) - 1, different).astype(np.int64)
    size = network_size(dataset, recipe)
    some = dataset.take(chosen)
    if size[0] * size[1] < height * width:
        some = replace(some, images=resized(some.images, *size))
    return some.take(np.arange(count) % different)
