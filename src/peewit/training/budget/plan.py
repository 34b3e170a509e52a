"""Training on time: what fits in a budget of minutes. No PyTorch here; ``pace`` keeps to it.

Everything here is arithmetic on measured seconds; ``probe`` measures them. The clock is an
argument, so that tests can bend it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peewit.errors import UsageError
from peewit.system.text import minutes
from peewit.training.budget.frontier import NETWORKS, Entry

# The end may come this much before the limit and no later: what was measured in advance is
# stretched by it.
SAFETY = 1.07
# Fewer steps than this are no training.
FEWEST_STEPS = 10
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
    now: Callable[[], float] = time.perf_counter

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
    step : float
        Seconds a training step.
    inference : float
        Seconds an image in evaluation.
    flops : float
        Operations a training step.
    """

    model: str
    batch_size: int
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
    report : float
        The report, if there is time for one.
    python : float
        What `python_seconds` was: ``rest`` and ``report`` are that much Python. 0 if not measured.
    """

    test: float
    augmentation: float
    rest: float
    report: float = 0.0
    python: float = 0.0

    def reserve(
        self, slowdown: float = 1.0, augmented: bool = True, python_slowdown: float | None = None
    ) -> float:
        """Return the seconds to keep for it on a machine that is ``slowdown`` times as slow.

        ``python_slowdown`` is how much slower Python is: as much, where it is not given.
        """
        network = self.test + augmented * self.augmentation
        python = slowdown if python_slowdown is None else python_slowdown
        return SAFETY * (slowdown * network + python * (self.rest + self.report))


def python_seconds(clock: Callable[[], float], *, best: bool = True) -> float:
    """Return what a small loop of Python takes, best or mean of three: the unit of all Python."""
    took = []
    for _ in range(3):
        began, total = clock(), 0
        for number in range(200_000):
            total += number % 7
        took.append(clock() - began)
    return min(took) if best else sum(took) / len(took)


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


def candidates(flops: Mapping[str, float], rate: float, seconds: float) -> list[Entry]:
    """Return the networks worth measuring: the one that fits best by calculation, and the next.

    Parameters
    ----------
    flops : mapping
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
    budget: Budget,
    speed: Speed,
    ending: Ending,
    images: int,
    augmented: bool = True,
    fewest: int = FEWEST_STEPS,
    trained: float = 0.0,
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
    fewest : int
        Steps that have to fit; 0 for a training that goes on, which may have had all its time.
    trained : float
        Seconds that it has had so far: what the end costs is weighed against the whole of it.

    Raises
    ------
    UsageError
        Not even a few steps fit; it says how many minutes are needed here.
    """
    left = budget.left
    extra = ending.reserve() - ending.reserve(augmented=False)
    augmented = augmented and extra <= DEAREST_AUGMENTATION * (left + trained)
    if augmented and left - ending.reserve() < fewest * speed.step:
        augmented = False
    training = max(0.0, left - ending.reserve(augmented=augmented))
    if training < fewest * speed.step:
        least = budget.elapsed + fewest * speed.step + ending.reserve(augmented=False)
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

    >>> print(too_little(6.0, 55.0))
    0.1 minutes are too little: loading, measuring, a few training steps and the test take about \
1 minute here; give --minutes 1 or more
    """
    needed, given = math.ceil(least * SAFETY / 6) / 10, float(f"{seconds / 60:.2g}")
    return UsageError(
        f"{minutes(given)} {'is' if given == 1 else 'are'} too little",
        f"loading, measuring, a few training steps and the test take about {minutes(needed)} here",
        f"give --minutes {needed:g} or more",
    )
