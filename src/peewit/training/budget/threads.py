"""Going on with fewer threads while other processes have a part of the machine. No PyTorch here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

# Threads that wait for each other are all as slow as the one whose core is shared: steps that take
# so much longer than their number of threads explains may be faster with fewer threads.
LOST = 1.5
# Steps that are looked at; steps of a trial, of which the first is not counted, for it begins with
# other caches; and what a trial has to gain.
RECENT, TRIAL, GAIN = 5, 4, 0.9
# Seconds of steps between two trials, twice as many after each that gained nothing, and the most.
PAUSE, LONGEST_PAUSE = 5.0, 80.0


@dataclass
class Threads:
    """Finds how many threads the steps of a training are fastest with, while it runs.

    It tries fewer where steps are slow, and more where there are fewer than at first.

    Parameters
    ----------
    most : int
        The number to begin with.
    use : callable
        Called with the number of threads from now on.
    """

    most: int
    use: Callable[[int], None]
    count: int = field(init=False)
    _steps: deque[float] = field(init=False)
    _before: tuple[int, float] | None = field(init=False, default=None)
    _next: list[int] = field(init=False, default_factory=list)
    _tried: float = field(init=False, default=float("inf"))
    _passed: float = field(init=False, default=0.0)
    _pause: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.count = self.most
        self._steps = deque(maxlen=RECENT)

    @property
    def trying(self) -> bool:
        """Whether the last step was one of a trial."""
        return self._before is not None

    def settle(self) -> None:
        """Go back to the number before a trial that has not ended."""
        if self._before is not None:
            self._set(self._before[0])
            self._before = None

    def stepped(self, seconds: float, usual: float, *, tries: bool = True) -> None:
        """Note how long a step took, and change the number of threads if it is time to.

        Parameters
        ----------
        seconds : float
            What the step took.
        usual : float
            What a step took with all threads when the machine was measured.
        tries : bool
            Whether a trial may begin: not where only a few steps are left.
        """
        self._steps.append(seconds)
        self._passed += seconds
        if self._before is not None:
            self._judge(*self._before)
        elif tries and len(self._steps) == RECENT:
            now = median(self._steps)
            # steps became slow while the last trial was made, or after it: it should have won
            wrong = GAIN * now > self._tried
            if self._passed < self._pause and not wrong:
                return
            self._next = self._candidates(now > LOST * usual * self.most / self.count)
            if self._next:
                self._before, self._tried = (self.count, now), float("inf")
                self._set(self._next.pop(0))

    def _candidates(self, slow: bool) -> list[int]:
        """Return the numbers to try one after the other, until one is better."""
        found = []
        if slow and self.count > 1:
            # as long as one thread shares its core, fewer are no faster: so not only one less
            found += [max(1, self.count - 2**step) for step in range(self.count.bit_length())]
        if self.count < self.most:
            found += [self.most, self.count + 1]
        return list(dict.fromkeys(found))

    def _judge(self, count: int, before: float) -> None:
        """End a trial that has lasted long enough, or is seen to gain nothing."""
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
