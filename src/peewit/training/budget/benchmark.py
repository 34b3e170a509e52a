"""Measure this machine: its best rate, and how fast networks train on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from peewit.data.dataset import Dataset
from peewit.evaluation.inference import logits_in_batches
from peewit.system.cpu import own_cores
from peewit.system.load import cores_used_by_others
from peewit.system.malloc import freed_memory_kept
from peewit.training.budget.plan import Speed, python_seconds
from peewit.training.budget.threads import Threads
from peewit.training.build import build_setup, resized
from peewit.training.defaults import chosen_fit, filled, network_size
from peewit.training.environment import isolated, usable_threads
from peewit.training.loop import fit
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState

# Large 3x3 convolutions: (images, channels in, channels out, height and width). Which one is
# fastest depends on the processor's caches and registers.
SHAPES = ((64, 64, 256, 16), (64, 256, 256, 8), (128, 128, 128, 8))
# Features of processors that multiply bfloat16 natively; others emulate it.
BFLOAT16 = ("avx512_bf16", "amx_bf16")
# The first steps are slower: memory is new, caches are cold. Steps are run until the best of the
# last few is hardly better than the best before, or until this many have been run.
LAST, BETTER, STEPS = 3, 0.98, 12
# The steps are measured as if this fraction of the training was done: for the last five eighths the
# whitening layer is frozen.
FRACTION = 0.5
# Pixels of large images that are resized for a measurement; steps repeat these images.
PIXELS = 1 << 26
# A core counts as used if other programs take more than all but this fraction of its time.
PARTLY_FREE = 0.25
# Images for measuring inference.
PREDICTED = 512


@dataclass
class Machine:
    """The measurements of this machine for one training run.

    Parameters
    ----------
    began : float
        When the command started, on the clock ``now``: budgets count from there.
    now : callable
        Returns seconds.
    processes : int
        How many processes will divide each batch. The speed of one is measured, and taken to grow
        with their number: the schedule follows the clock if the network between them is slow.

    Attributes
    ----------
    best_rate : float or None
        The highest rate measured so far, in operations per second.
    count : int or None
        The number of threads that the networks were measured with: fewer than requested if other
        processes use the cores and fewer are faster.
    """

    began: float
    now: Callable[[], float] = time.perf_counter
    processes: int = 1
    best_rate: float | None = field(init=False, default=None)
    count: int | None = field(init=False, default=None)
    _speeds: dict[tuple[object, ...], Speed] = field(init=False, default_factory=dict)

    @property
    def threads(self) -> int:
        """How many threads to use by default."""
        return usable_threads()

    def free_threads(self) -> int:
        """Return how many threads to use by default if their number cannot change later.

        Threads that wait for each other all run at the speed of the slowest, so cores that other
        programs use get no thread. ``OMP_NUM_THREADS`` overrides this.
        """
        if "OMP_NUM_THREADS" in os.environ or self.threads == 1:
            return self.threads
        free = own_cores() - int(cores_used_by_others() + PARTLY_FREE)
        return max(1, min(self.threads, free))

    def has_bfloat16(self) -> bool:
        """Return whether the processor multiplies bfloat16 natively."""
        return has_bfloat16()

    @contextmanager
    def measuring(self, threads: int) -> Iterator[None]:
        """Use ``threads`` threads, and keep freed memory, as training does."""
        with isolated(threads), freed_memory_kept():
            yield

    def adapt_threads(self, threads: int) -> None:
        """Use the fastest number of threads at present, at most ``threads``, as a training does."""
        self.count = fastest_count(threads, torch.set_num_threads, self.now)

    def measure_rate(self, seconds: float = 0.9) -> float:
        """Measure the best rate for ``seconds``; return the highest so far."""
        self.best_rate = max(self.best_rate or 0.0, best_rate(seconds, self.now))
        return self.best_rate

    def measure_speed(self, dataset: Dataset, recipe: Recipe, seconds: float) -> Speed:
        """Measure the recipe's network and remember it; see ``measure``."""
        speed = measure(dataset, recipe, seconds, self.now)
        if self.processes > 1:
            speed = replace(speed, step=speed.step / self.processes)
        self._speeds[measured_as(recipe)] = speed
        return speed

    def speed_of(self, recipe: Recipe) -> Speed | None:
        """Return the measured speed of the recipe's network; None if it was not measured."""
        return self._speeds.get(measured_as(recipe))

    def measure_python(self) -> float:
        """Return the seconds that a small Python loop takes."""
        return python_seconds(self.now)


def measured_as(recipe: Recipe) -> tuple[object, ...]:
    """Return what the speed of a recipe depends on."""
    return recipe.model, recipe.precision, recipe.batch_size, recipe.image_size


def best_rate(seconds: float = 0.9, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the rate of the fastest large 3x3 convolution, in operations per second.

    It is PyTorch's own forward pass, in float32 and channels_last, with the current number of
    threads. Training rates are compared with it.

    Parameters
    ----------
    seconds : float
        How long to measure; each shape is run at least once.
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
            F.conv2d(x, weight, padding=1)  # warm-up
            while True:
                began = clock()
                F.conv2d(x, weight, padding=1)
                now = clock()
                shortest = min(shortest, now - began)
                if now >= end:
                    break
        best = max(best, flops / shortest)
    return best


def fastest_count(threads: int, use: Callable[[int], None], clock: Callable[[], float]) -> int:
    """Return the number of threads with which a convolution is fastest at present.

    Parameters
    ----------
    threads : int
        The maximum. Fewer must be clearly faster, which they are if other processes use the cores.
    use : callable
        Called with each number of threads to try, and at the end with the number returned.
    clock : callable
        Returns seconds.
    """
    images, channels, filters, size = SHAPES[1]
    x = torch.ones(images, channels, size, size).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(filters, channels, 3, 3)
    found, tried = Threads(threads, use), False
    use(threads)
    with torch.inference_mode():
        F.conv2d(x, weight, padding=1)  # warm-up
        while found.trying or not tried:
            began = clock()
            F.conv2d(x, weight, padding=1)
            # it tries fewer threads if the duration is longer than usual, so always
            found.stepped(clock() - began, usual=0.0)
            tried = tried or found.trying or threads == 1
    return found.count


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 natively, as far as PyTorch knows.

    >>> has_bfloat16() in (True, False)
    True
    """
    # since PyTorch 2.11; without it, float32 is always correct
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in BFLOAT16)


@dataclass
class _FewSteps:
    """A schedule that ends once the step time has settled, and keeps the durations.

    Parameters
    ----------
    seconds : float
        No further step is started after this time.
    """

    seconds: float
    clock: Callable[[], float]
    steps: list[float] = field(default_factory=list)
    _seen: tuple[int, float] = (0, 0.0)
    _over: bool = False
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = self.clock() + self.seconds

    def observe(self, state: TrainState) -> None:
        seen, seconds = self._seen
        if state.seen > seen:
            self.steps.append(state.seconds - seconds)
        # the state's seconds start from zero after each row of the history
        self._seen = (state.seen, state.seconds)
        before, last = self.steps[:-LAST], self.steps[-LAST:]
        alike = bool(before) and min(last) >= BETTER * min(before)
        late = bool(last) and self.clock() >= self._end
        self._over = self._over or alike or late or len(self.steps) >= STEPS

    def fraction_done(self, state: TrainState) -> float:
        return FRACTION

    def is_over(self, state: TrainState) -> bool:
        return self._over

    @property
    def usual(self) -> float:
        """The duration of a step: the shortest of the last few, least affected by load."""
        return min(self.steps[-LAST:])


def measure(
    dataset: Dataset,
    recipe: Recipe,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Train a network like the recipe's for a few steps, run inference briefly, and discard it.

    Parameters
    ----------
    dataset : Dataset
        The training images; only a few are used.
    recipe : Recipe
        Its model, batch size, precision and so on. Open fields are filled as for a short run.
    seconds : float
        Limit for the steps (at least one is run), and for inference.
    clock : callable
        Returns seconds.
    """
    some = _some(dataset, recipe, min(len(dataset), 2 * recipe.batch_size))
    alike = recipe.replace(
        batch_size=min(recipe.batch_size, len(some)),
        validate_on="test",
        checkpoint_minutes=1e9,
        batch_norm_statistics="moving",
    )
    alike = filled(alike, some, alike.batch_size, lambda sentence: None)
    setup = build_setup(some, some.take([0]), alike, lambda sentence: None)
    # as if it had just been validated
    schedule, state = _FewSteps(seconds, clock), TrainState(validated=FRACTION)
    fit(setup, state, schedule=schedule)
    height, width, _ = dataset.image_shape
    images, predicted = dataset.images[: min(PREDICTED, max(1, PIXELS // (height * width)))], []
    began = end = clock()
    for logits in logits_in_batches(setup.model, setup.preprocessing.tensor, images):
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
        flops=state.flops / max(state.seen, 1) * recipe.batch_size,
    )


def _some(dataset: Dataset, recipe: Recipe, count: int) -> Dataset:
    """Return ``count`` of the images, resized to the network's input if they are larger."""
    height, width, _ = dataset.image_shape
    different = max(1, min(count, PIXELS // (height * width)))
    # spread over all of them, because images may be sorted by class
    chosen = np.linspace(0, len(dataset) - 1, different).astype(np.int64)
    size = network_size(dataset, recipe)
    some = dataset.take(chosen)
    if size[0] * size[1] < height * width:
        some = replace(some, images=resized(some.images, *size, chosen_fit(recipe)))
    return some.take(np.arange(count) % different)
