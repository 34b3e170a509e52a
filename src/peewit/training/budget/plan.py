"""The arithmetic of a time budget: what fits into it. No PyTorch here.

All inputs are measured seconds: ``benchmark`` measures them, and ``pace`` keeps to the plan. The
clock is an argument, so that tests can control it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peewit.errors import UsageError
from peewit.system.text import minutes
from peewit.training.budget.frontier import NETWORKS, Entry

# The time reserved for the work after training is the predicted one times this factor: the run may
# end a little early, but not after the limit.
SAFETY = 1.07
# The least number of training steps.
FEWEST_STEPS = 10
# Test-time augmentation gains about a percentage point of accuracy; it may take at most this
# fraction of the time.
DEAREST_AUGMENTATION = 0.1


@dataclass(frozen=True)
class Budget:
    """A number of seconds, counted from ``began`` on the clock ``now``.

    >>> budget = Budget(60.0, began=100.0, now=lambda: 115.0)
    >>> budget.elapsed, budget.left
    (15.0, 45.0)
    """

    seconds: float
    began: float
    now: Callable[[], float] = time.perf_counter

    @property
    def elapsed(self) -> float:
        """Seconds since ``began``."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Seconds until the limit; negative after it."""
        return self.seconds - self.elapsed


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The speed of a network on this machine.

    Parameters
    ----------
    model : str
    batch_size : int
    step : float
        Seconds per training step.
    inference : float
        Seconds per image in inference.
    flops : float
        Floating-point operations per training step.
    """

    model: str
    batch_size: int
    step: float
    inference: float
    flops: float

    def images(self, seconds: float) -> float:
        """Return how many images are processed in ``seconds`` of training."""
        return seconds / self.step * self.batch_size


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The work after the last step, in seconds on the machine as it was measured.

    Parameters
    ----------
    test : float
        Validation and the plain final test.
    augmentation : float
        Test-time augmentation of the final test.
    rest : float
        Saving, pictures and exit.
    report : float
        The report, if there is time for it.
    python : float
        What `python_seconds` returned: ``rest`` and ``report`` scale with it. 0 if not measured.
    """

    test: float
    augmentation: float
    rest: float
    report: float = 0.0
    python: float = 0.0

    def reserve(
        self, slowdown: float = 1.0, augmented: bool = True, python_slowdown: float | None = None
    ) -> float:
        """Return the seconds to reserve for it on a machine that is ``slowdown`` times as slow.

        ``python_slowdown`` is the slowdown of Python, by default the same.
        """
        network = self.test + augmented * self.augmentation
        python = slowdown if python_slowdown is None else python_slowdown
        return SAFETY * (slowdown * network + python * (self.rest + self.report))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurements of the machine that training with a budget needs.

    Parameters
    ----------
    speed : Speed
        Of the recipe's network.
    ending : Ending
        What the work after the training takes.
    threads : int, optional
        How many threads were used, if not all of the recipe's; the training begins with them.
    """

    speed: Speed
    ending: Ending
    threads: int | None = None


def python_seconds(clock: Callable[[], float], *, best: bool = True) -> float:
    """Return the seconds that a small Python loop takes: the shortest of three, or the mean."""
    took = []
    for _ in range(3):
        began, total = clock(), 0
        for number in range(200_000):
            total += number % 7
        took.append(clock() - began)
    return min(took) if best else sum(took) / len(took)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a budget will be used.

    Parameters
    ----------
    speed : Speed
        Of the network that will be trained.
    ending : Ending
    augmented : bool
        Whether there is time for test-time augmentation.
    training : float
        Seconds of training.
    epochs : float
        Passes over the training images in that time.
    """

    speed: Speed
    ending: Ending
    augmented: bool
    training: float
    epochs: float


def choose(speeds: Sequence[Speed], seconds: float) -> Speed:
    """Return the largest network that can process its minimum number of images in ``seconds``.

    If none does, return the smallest.
    """
    needed = {entry.model: entry.images for entry in NETWORKS}
    by_size = sorted(speeds, key=lambda speed: speed.step / speed.batch_size)
    able = [speed for speed in by_size if speed.images(seconds) >= needed.get(speed.model, 0)]
    return able[-1] if able else by_size[0]


def candidates(flops: Mapping[str, float], rate: float, seconds: float) -> list[Entry]:
    """Return the networks worth measuring: the best fit by calculation, and its neighbour.

    Parameters
    ----------
    flops : mapping
        Training operations per image of each network.
    rate : float
        The expected training rate, in operations per second.
    seconds : float
        The length of the training.
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
        # the estimate may be off by a third
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
    """Plan the rest of ``budget``.

    Parameters
    ----------
    budget : Budget
    speed : Speed
        Of the chosen network.
    ending : Ending
        The work after its training.
    images : int
        Training images.
    augmented : bool
        Whether the recipe asks for test-time augmentation.
    fewest : int
        Steps that must fit; 0 for a resumed run, which may have used all of its time.
    trained : float
        Seconds of training so far: the cost of augmentation is compared with the total.

    Raises
    ------
    UsageError
        Not even a few steps fit. The message says how many minutes are needed.
    """
    left = budget.left
    extra = ending.reserve() - ending.reserve(augmented=False)
    augmented = augmented and extra <= DEAREST_AUGMENTATION * (left + trained)
    if augmented and left - ending.reserve() < fewest * speed.step:
        augmented = False
    training = max(0.0, left - ending.reserve(augmented=augmented))
    if training < fewest * speed.step:
        least = budget.elapsed + fewest * speed.step + ending.reserve(augmented=False)
        raise budget_too_small(budget.seconds, least)
    return Plan(
        speed=speed,
        ending=ending,
        augmented=augmented,
        training=training,
        epochs=speed.images(training) / images,
    )


def budget_too_small(seconds: float, least: float) -> UsageError:
    """Return the error for a budget of ``seconds`` if ``least`` seconds are needed.

    >>> print(budget_too_small(6.0, 55.0))
    0.1 minutes is not enough: loading, measuring, a few training steps and the test take about \
1 minute on this machine; give --minutes 1 or more
    """
    needed, given = math.ceil(least * SAFETY / 6) / 10, float(f"{seconds / 60:.2g}")
    return UsageError(
        f"{minutes(given)} is not enough",
        "loading, measuring, a few training steps and the test take about "
        f"{minutes(needed)} on this machine",
        f"give --minutes {needed:g} or more",
    )
