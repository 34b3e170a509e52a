"""Keeping a training to its budget while it runs. No PyTorch here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from peewit.training.budget.plan import Budget, Plan, python_seconds
from peewit.training.budget.threads import Threads

if TYPE_CHECKING:
    from peewit.training.checkpoint import Position

# How many of the last steps tell how fast the machine is at present.
RECENT = 9
# Where the steps are so much slower than they were, Python is measured too, so often: what another
# process takes from threads that wait for each other, a single thread need not lose.
SLOW, PYTHON_EVERY = 1.2, 3.0  # seconds


@dataclass
class Pace:
    """Keeps a training within its budget, whatever the machine does meanwhile.

    A schedule (``peewit.training.schedules.Schedule``) by time. From how long the last steps took
    it knows how fast the machine is now, and so how long what comes after the training will take:
    the training ends so much before the limit. ``share`` is what learning rates follow: it comes
    to 1 when the training ends, whatever number of steps that was.

    Parameters
    ----------
    budget : Budget
    plan : Plan
    begun : float
        The share of the training that was done before (of a training that goes on).
    target : float, optional
        The accuracy on held-out images with which the training ends too.
    threads : Threads, optional
        What is told of each step, so that there are no more threads than are of use.
    """

    budget: Budget
    plan: Plan
    begun: float = 0.0
    target: float | None = None
    threads: Threads | None = None
    _first: float = field(init=False)
    _share: float = field(init=False)
    _over: bool = field(init=False, default=False)
    _steps: deque[float] = field(init=False)
    _seen: tuple[int, float] | None = field(init=False, default=None)
    _python: tuple[float, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._first = self.budget.now()
        self._share = self.begun
        self._steps = deque(maxlen=RECENT)

    @property
    def slowdown(self) -> float:
        """How much slower the machine is at present than when it was measured."""
        if len(self._steps) < 3:
            return 1.0
        # not under 1: the first steps of a network, which were measured, are slower than later
        # ones, and what comes after the training is not
        return max(median(self._steps) / self.plan.speed.step, 1.0)

    @property
    def python_slowdown(self) -> float:
        """How much slower Python is at present than when it was measured; at most ``slowdown``."""
        slowdown, before = self.slowdown, self.plan.ending.python
        if slowdown < SLOW or before == 0:
            return slowdown
        now = self.budget.now()
        if self._python is None or now - self._python[0] >= PYTHON_EVERY:
            self._python = now, python_seconds(self.budget.now, best=False) / before
        return min(max(self._python[1], 1.0), slowdown)

    @property
    def end(self) -> float:
        """When the training has to end, on the budget's clock."""
        limit = self.budget.began + self.budget.seconds
        return limit - self.plan.ending.reserve(
            self.slowdown, self.plan.augmented, self.python_slowdown
        )

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
        if self.target is not None and position.history:
            self._over = self._over or position.history[-1]["validation_accuracy"] >= self.target
        # so that it ends half a step early at most, or half a step late
        self._over = self._over or self.budget.now() + usual / 2 > self.end
        if self._over and self.threads is not None:
            self.threads.settle()
        return self._over

    def _notice(self, position: Position) -> None:
        """Note how long the step since the last look took."""
        # at the first look nothing is known of how long what was done before has taken
        seen, seconds = self._seen or (position.seen, position.seconds)
        # the position's seconds begin again with each row of the history
        if position.seen > seen and position.seconds > seconds:
            batches = (position.seen - seen) / self.plan.speed.batch_size
            step = (position.seconds - seconds) / batches
            if self.threads is None or not self.threads.trying:
                self._steps.append(step)
            if self.threads is not None:
                # what the end needs is known again when RECENT more steps have been made
                tries = self.budget.now() + 2 * RECENT * step < self.end
                self.threads.stepped(step, self.plan.speed.step, tries=tries)
        self._seen = (position.seen, position.seconds)

    def augmentation_fits(self, test: float) -> bool:
        """Tell whether test-time augmentation still fits after a plain test of ``test`` seconds.

        Parameters
        ----------
        test : float
            What the plain test took, by which the rest is known.
        """
        if not self.plan.augmented:
            return False
        ending = self.plan.ending
        slowdown = max(test / ending.test, self.slowdown) if ending.test else self.slowdown
        # as measured just now, so without more for safety: it is worth being a second late
        python = min(self.python_slowdown, slowdown) if ending.python else slowdown
        needed = slowdown * ending.augmentation + python * (ending.rest + ending.report)
        return needed <= self.budget.left + 1.0
