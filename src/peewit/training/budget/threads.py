"""Adapt the number of threads to background load. No PyTorch here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

# Threads that wait for each other all run at the speed of the slowest. If steps are slower by this
# factor than the number of threads explains, fewer threads may be faster.
LOST = 1.5
# Steps in the median; steps of a trial, the first of which is ignored because its caches are cold;
# and the factor by which a trial must shorten the steps.
RECENT, TRIAL, GAIN = 5, 4, 0.9
# Seconds of steps between two trials, doubled after each trial without a gain, and their maximum.
PAUSE, LONGEST_PAUSE = 5.0, 80.0


@dataclass
class Threads:
    """Finds the number of threads with the fastest steps during training.

    It tries fewer if steps are slow, and more if there are fewer than ``most``.

    Parameters
    ----------
    most : int
        The maximum.
    use : callable
        Called with the new number of threads.
    first : int, optional
        The number to start with, for which the usual duration of a step is known: by default
        ``most``.
    """

    most: int
    use: Callable[[int], None]
    first: int | None = None
    count: int = field(init=False)
    _first: int = field(init=False)
    _steps: deque[float] = field(init=False)
    _before: tuple[int, float] | None = field(init=False, default=None)
    _next: list[int] = field(init=False, default_factory=list)
    _tried: float = field(init=False, default=float("inf"))
    _passed: float = field(init=False, default=0.0)
    _pause: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.count = self._first = self.first or self.most
        self._steps = deque(maxlen=RECENT)

    @property
    def trying(self) -> bool:
        """Whether the last step belonged to a trial."""
        return self._before is not None

    def begin(self) -> None:
        """Use the number of threads to start with."""
        self.use(self.count)

    def settle(self) -> None:
        """Cancel a trial that has not ended."""
        if self._before is not None:
            self._set(self._before[0])
            self._before = None

    def stepped(self, seconds: float, usual: float, *, tries: bool = True) -> None:
        """Record the duration of a step, and change the number of threads if it is time.

        Parameters
        ----------
        seconds : float
            The duration of the step.
        usual : float
            The duration when the machine was measured, with ``first`` threads.
        tries : bool
            Whether a trial may start; false if only a few steps are left.
        """
        self._steps.append(seconds)
        self._passed += seconds
        if self._before is not None:
            self._judge(*self._before)
        elif tries and len(self._steps) == RECENT:
            now = median(self._steps)
            # the load has changed since the last trial: its candidate would win now
            wrong = GAIN * now > self._tried
            if self._passed < self._pause and not wrong:
                return
            self._next = self._candidates(now > LOST * usual * self._first / self.count)
            if self._next:
                self._before, self._tried = (self.count, now), float("inf")
                self._set(self._next.pop(0))

    def _candidates(self, slow: bool) -> list[int]:
        """Return the numbers of threads to try one after the other until one is better."""
        found = []
        if slow and self.count > 1:
            # while any thread shares its core, one thread less does not help: try far fewer too
            found += [max(1, self.count - 2**step) for step in range(self.count.bit_length())]
        if self.count < self.most:
            found += [self.most, self.count + 1]
        return list(dict.fromkeys(found))

    def _judge(self, count: int, before: float) -> None:
        """End a trial that is complete or clearly gains nothing."""
        counted = list(self._steps)[1:]
        lost = any(step > before for step in counted)
        if not lost and len(self._steps) < TRIAL:
            return
        if lost or median(counted) > GAIN * before:
            self._tried = min(self._tried, median(counted))
            if self._next:
                self._set(self._next.pop(0))
                return
            self._set(count)
            self._pause = min(max(PAUSE, 2 * self._pause), LONGEST_PAUSE)
        else:
            self._pause, self._tried = PAUSE, float("inf")
        self._before = None

    def _set(self, count: int) -> None:
        self.count = count
        self.use(count)
        self._steps.clear()
        self._passed = 0.0
