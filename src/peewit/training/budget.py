"""Training on time: what fits in a budget of minutes, and keeping to it. No PyTorch here.

Everything here is arithmetic on measured seconds; ``probe`` measures them. The clock is an
argument, so that tests can bend it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from peewit.errors import UsageError
from peewit.training.frontier import NETWORKS, Entry

if TYPE_CHECKING:
    from peewit.training.checkpoint import Position

# The end may come this much before the limit and no later: what was measured in advance is
# stretched by it.
SAFETY = 1.07
# Fewer steps than this are no training.
FEWEST_STEPS = 10
# How many of the last steps tell how fast the machine is at present.
RECENT = 9
# Test-time augmentation is worth about a point of accuracy, so not every price.
DEAREST_AUGMENTATION = 0.1


@dataclass(frozen=True)
class Budget:
    """Seconds that may pass, counted from ``began`` on the clock ``now``.

    >>> budget = Budget(60.0, began=100.0, now=lambda: 115.0)
    >>> budget.elapsed, budget.left
    (15.0, 45.0)
    """

    seconds: float
    began: float
    now: Callable[[], float] = time.monotonic

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Seconds until the limit; negative after it."""
        return self.seconds - self.elapsed


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured of a network on this machine.

    Parameters
    ----------
    model : str
    batch_size : int
    precision : str
        "float32" or "bfloat16".
    step : float
        Seconds a training step.
    inference : float
        Seconds an image in evaluation.
    flops : float
        Operations a training step.
    """

    model: str
    batch_size: int
    precision: str = "float32"
    step: float
    inference: float
    flops: float

    def images(self, seconds: float) -> float:
        """Return how many images a training of so many seconds goes through."""
        return seconds / self.step * self.batch_size


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What comes after the last step, in seconds on the machine as it was measured.

    Parameters
    ----------
    test : float
        Validation and the plain final test.
    augmentation : float
        Test-time augmentation of the final test.
    rest : float
        Saving, pictures, and leaving.
    """

    test: float
    augmentation: float
    rest: float

    def reserve(self, slowdown: float = 1.0, augmented: bool = True) -> float:
        """Return the seconds to keep for it on a machine that is ``slowdown`` times as slow."""
        return SAFETY * slowdown * (self.test + augmented * self.augmentation + self.rest)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done with a budget.

    Parameters
    ----------
    speed : Speed
        The network, how it is trained, and how fast it is here.
    ending : Ending
    augmented : bool
        Whether the final test has time for test-time augmentation.
    training : float
        Seconds of training.
    epochs : float
        How many passes over the training images those will be.
    """

    speed: Speed
    ending: Ending
    augmented: bool
    training: float
    epochs: float


def choose(speeds: Sequence[Speed], seconds: float) -> Speed:
    """Return the largest network that sees enough images in ``seconds`` to be worth its size.

    Where none does, it is the smallest.
    """
    needed = {entry.model: entry.images for entry in NETWORKS}
    by_size = sorted(speeds, key=lambda speed: speed.step / speed.batch_size)
    able = [speed for speed in by_size if speed.images(seconds) >= needed.get(speed.model, 0)]
    return able[-1] if able else by_size[0]


def candidates(flops: dict[str, float], rate: float, seconds: float) -> list[Entry]:
    """Return the networks worth measuring: the one that fits best by calculation, and the next.

    Parameters
    ----------
    flops : dict
        Training operations an image of each network.
    rate : float
        Operations a second that the machine is expected to reach in training.
    seconds : float
        The training's length.
    """
    able = [
        index
        for index, entry in enumerate(NETWORKS)
        if seconds * rate / flops[entry.model] >= entry.images
    ]
    best = able[-1] if able else 0
    seen = seconds * rate / flops[NETWORKS[best].model]
    chosen = [NETWORKS[best]]
    if best + 1 < len(NETWORKS):
        larger = NETWORKS[best + 1]
        # the calculation is good to a third
        if seconds * rate / flops[larger.model] >= larger.images / 1.5:
            return [*chosen, larger]
    if best > 0 and seen < NETWORKS[best].images * 1.5:
        chosen.append(NETWORKS[best - 1])
    return chosen


def make_plan(
    budget: Budget, speed: Speed, ending: Ending, images: int, augmented: bool = True
) -> Plan:
    """Return what to do with what is left of ``budget``.

    Parameters
    ----------
    budget : Budget
    speed : Speed
        The chosen network.
    ending : Ending
        What it will need after its training.
    images : int
        Training images.
    augmented : bool
        Whether the recipe asks for test-time augmentation.

    Raises
    ------
    UsageError
        Not even a few steps fit; it says how many minutes are needed here.
    """
    left = budget.left
    extra = ending.reserve() - ending.reserve(augmented=False)
    augmented = augmented and extra <= DEAREST_AUGMENTATION * left
    if augmented and left - ending.reserve() < FEWEST_STEPS * speed.step:
        augmented = False
    training = left - ending.reserve(augmented=augmented)
    if training < FEWEST_STEPS * speed.step:
        least = budget.elapsed + FEWEST_STEPS * speed.step + ending.reserve(augmented=False)
        raise too_little(budget.seconds, least)
    return Plan(
        speed=speed,
        ending=ending,
        augmented=augmented,
        training=training,
        epochs=speed.images(training) / images,
    )


def too_little(seconds: float, least: float) -> UsageError:
    """Return the error of a budget that is too small; ``least`` seconds would do.

    >>> print(too_little(6.0, 14.2))
    0.1 minutes are too little: loading, measuring, a few training steps and the test take about \
0.3 minutes here; give --minutes 0.3 or more
    """
    minutes = math.ceil(least * SAFETY / 6) / 10
    return UsageError(
        f"{seconds / 60:.2g} minutes are too little",
        "loading, measuring, a few training steps and the test take about "
        f"{minutes:g} minutes here",
        f"give --minutes {minutes:g} or more",
    )


@dataclass
class Pace:
    """Keeps a training within its budget, whatever the machine does meanwhile.

    A schedule (``peewit.training.schedule.Schedule``) by time. From how long the last steps took
    it knows how fast the machine is now, and so how long what comes after the training will take:
    the training ends so much before the limit. ``share`` is what learning rates follow: it comes
    to 1 when the training ends, whatever number of steps that was.

    Parameters
    ----------
    budget : Budget
    plan : Plan
    begun : float
        The share of the training that was done before (of a training that goes on).
    """

    budget: Budget
    plan: Plan
    begun: float = 0.0
    augmented: bool = field(init=False)
    _first: float = field(init=False)
    _share: float = field(init=False)
    _over: bool = field(init=False, default=False)
    _steps: deque[float] = field(init=False)
    _seen: tuple[int, int, float] = field(init=False, default=(-1, 0, 0.0))

    def __post_init__(self) -> None:
        self.augmented = self.plan.augmented
        self._first = self.budget.now()
        self._share = self.begun
        self._steps = deque(maxlen=RECENT)

    @property
    def slowdown(self) -> float:
        """How much slower the machine is at present than when it was measured."""
        if len(self._steps) < 3:
            return 1.0
        # What comes after the training is not all arithmetic, so it gains less from a machine
        # that was busy when it was measured and is quiet now.
        return max(median(self._steps) / self.plan.speed.step, 0.8)

    @property
    def end(self) -> float:
        """When the training has to end, on the budget's clock."""
        limit = self.budget.began + self.budget.seconds
        return limit - self.plan.ending.reserve(self.slowdown, self.augmented)

    def share(self, position: Position) -> float:
        """Return how much of the training is done, 0 to 1; it never goes back."""
        self._notice(position)
        now, end = self.budget.now(), self.end
        if now >= end:
            self._share = 1.0
        else:
            done = (now - self._first) / (end - self._first)
            self._share = max(self._share, self.begun + (1 - self.begun) * done)
        return self._share

    def done(self, position: Position) -> bool:
        """Return whether the training has to end, because another step would end too late."""
        self._notice(position)
        usual = median(self._steps) if self._steps else self.plan.speed.step
        # so that it ends half a step early at most, or half a step late
        self._over = self._over or self.budget.now() + usual / 2 > self.end
        return self._over

    def _notice(self, position: Position) -> None:
        """Note how long the steps since the last look took."""
        epoch, step, seconds = self._seen
        if position.epoch == epoch and position.step > step:
            self._steps.append((position.seconds - seconds) / (position.step - step))
        self._seen = (position.epoch, position.step, position.seconds)

    def augmentation_fits(self, test: float) -> bool:
        """Tell whether test-time augmentation still fits after a plain test of ``test`` seconds.

        Parameters
        ----------
        test : float
            What the plain test took, by which the rest is known.
        """
        if not self.augmented:
            return False
        ending = self.plan.ending
        slowdown = max(test / ending.test, self.slowdown) if ending.test else self.slowdown
        # as measured just now, so without more for safety: it is worth being a second late
        needed = slowdown * (ending.augmentation + ending.rest)
        return needed <= self.budget.left + 1.0
