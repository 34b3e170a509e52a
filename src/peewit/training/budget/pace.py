"""Keep training within its time budget. No PyTorch here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from peewit.training.budget.plan import Budget, Plan, python_seconds
from peewit.training.budget.threads import Threads
from peewit.training.state import TrainState

# The number of last steps whose median duration is the current speed of the machine.
RECENT = 9
# If steps are this much slower than measured, Python's speed is measured too, every few seconds:
# background load slows down threads that wait for each other more than a single thread.
SLOW, PYTHON_EVERY = 1.2, 3.0  # seconds


@dataclass
class Pace:
    """A schedule by time (``peewit.training.schedules.Schedule``) that adapts to background load.

    From the duration of the last steps it estimates the current speed of the machine, and from that
    the time for the work after training, which is kept free before the limit. ``fraction_done``,
    which the learning rates follow, reaches 1 when training ends, however many steps were run.

    Parameters
    ----------
    budget : Budget
    plan : Plan
    begun : float
        The fraction of the training that was done in earlier sessions.
    target : float, optional
        The accuracy on held-out images at which training ends early.
    threads : Threads, optional
        Receives the duration of each step, and adapts the number of threads to background load.
    """

    budget: Budget
    plan: Plan
    begun: float = 0.0
    target: float | None = None
    threads: Threads | None = None
    _first: float = field(init=False)
    _fraction: float = field(init=False)
    _over: bool = field(init=False, default=False)
    _steps: deque[float] = field(init=False)
    _seen: tuple[int, float] | None = field(init=False, default=None)
    _python: tuple[float, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._first = self.budget.now()
        self._fraction = self.begun
        self._steps = deque(maxlen=RECENT)

    @property
    def slowdown(self) -> float:
        """How much slower the machine is now than when it was measured, at least 1."""
        if len(self._steps) < 3:
            return 1.0
        # not below 1: the measured first steps of a network are slower than later ones, which does
        # not make the work after training faster
        return max(median(self._steps) / self.plan.speed.step, 1.0)

    @property
    def python_slowdown(self) -> float:
        """How much slower Python was when last measured, from 1 to ``slowdown``."""
        if self.slowdown < SLOW or self._python is None:
            return self.slowdown
        return min(max(self._python[1], 1.0), self.slowdown)

    @property
    def end(self) -> float:
        """The time at which training must end, on the budget's clock."""
        limit = self.budget.began + self.budget.seconds
        return limit - self.plan.ending.reserve(
            self.slowdown, self.plan.augmented, self.python_slowdown
        )

    def observe(self, state: TrainState) -> None:
        """Record the duration of the last step, and decide by the clock whether to continue."""
        self._note_step(state)
        self.measure_python()
        now, end = self.budget.now(), self.end
        done = (now - self._first) / (end - self._first) if now < end else 1.0
        # never decreases, even if the estimated end moves
        self._fraction = max(self._fraction, self.begun + (1 - self.begun) * done)
        usual = median(self._steps) if self._steps else self.plan.speed.step
        reached = self.target is not None and bool(state.history)
        if reached:
            reached = state.history[-1]["validation_accuracy"] >= (self.target or 0)
        # ends at most half a step early or late
        self._over = self._over or reached or now + usual / 2 > end
        if self._over and self.threads is not None:
            self.threads.settle()

    def fraction_done(self, state: TrainState) -> float:
        """Return how much of the training is done, 0 to 1; it never decreases."""
        return self._fraction

    def is_over(self, state: TrainState) -> bool:
        """Return whether training must end, because another step would end too late."""
        return self._over

    def _note_step(self, state: TrainState) -> None:
        # on the first call the duration of earlier steps is unknown
        seen, seconds = self._seen or (state.seen, state.seconds)
        # the state's seconds start from zero after each row of the history
        if state.seen > seen and state.seconds > seconds:
            batches = (state.seen - seen) / self.plan.speed.batch_size
            step = (state.seconds - seconds) / batches
            if self.threads is None or not self.threads.trying:
                self._steps.append(step)
            if self.threads is not None:
                # after a trial, RECENT more steps are needed to measure the slowdown again
                tries = self.budget.now() + 2 * RECENT * step < self.end
                self.threads.stepped(step, self.plan.speed.step, tries=tries)
        self._seen = (state.seen, state.seconds)

    def measure_python(self) -> None:
        """Measure Python's speed if the machine is slow and the last measurement is old."""
        before = self.plan.ending.python
        if self.slowdown < SLOW or before == 0:
            return
        now = self.budget.now()
        if self._python is None or now - self._python[0] >= PYTHON_EVERY:
            self._python = now, python_seconds(self.budget.now, best=False) / before

    def decide_augmentation(self, test: float) -> bool:
        """Decide whether test-time augmentation still fits after the plain test.

        Parameters
        ----------
        test : float
            Seconds that the plain test took, from which the rest is estimated.
        """
        if not self.plan.augmented:
            return False
        self.measure_python()
        ending = self.plan.ending
        slowdown = max(test / ending.test, self.slowdown) if ending.test else self.slowdown
        python = min(self.python_slowdown, slowdown) if ending.python else slowdown
        # just measured, so without a safety margin; a second too late is acceptable
        needed = slowdown * ending.augmentation + python * (ending.rest + ending.report)
        return needed <= self.budget.left + 1.0

    def decide_report(self) -> bool:
        """Decide whether there is time for the report."""
        self.measure_python()
        return self.plan.ending.report * self.python_slowdown <= self.budget.left + 1.0
