"""Progress and transfer rate of a download."""

from __future__ import annotations

import time
import urllib.parse
from collections import deque
from dataclasses import dataclass

from peewit.system.text import duration

# Seconds between two reports of progress.
_INTERVAL = 0.1


@dataclass(frozen=True)
class Progress:
    """The progress of a download."""

    url: str
    """Where the file is downloaded from."""
    received: int
    """Bytes on disk, including those of earlier attempts."""
    total: int | None
    """Size of the file in bytes, if known."""
    rate: float
    """Bytes per second, over the last few seconds."""

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate, in seconds; None if unknown.

        >>> Progress("https://example.org/a", 50, 150, 20.0).seconds_left
        5.0
        """
        if self.total is None or self.rate <= 0:
            return None
        return (self.total - self.received) / self.rate

    def __str__(self) -> str:
        """Return the progress as text.

        >>> print(Progress("https://example.org/a/b.tar.gz?x=1", 52_000_000, 170_498_071, 2e6))
        example.org: 52.0 of 170.5 MB, 2.0 MB/s, 59 s left
        """
        text = f"{host(self.url)}: {self.received / 1e6:.1f}"
        if self.total is not None:
            text += f" of {self.total / 1e6:.1f}"
        text += f" MB, {self.rate / 1e6:.1f} MB/s"
        if self.seconds_left is not None:
            text += f", {duration(self.seconds_left)} left"
        return text


class Meter:
    """Transfer rate over the last ``window`` seconds, across requests."""

    def __init__(self, window: float) -> None:
        self.window = window
        now = time.monotonic()
        self.samples = deque([(now, 0)])
        self.reported = now
        self.full = False
        """Whether the measurements cover the whole window."""

    def add(self, count: int) -> None:
        """Record that ``count`` bytes were received."""
        now = time.monotonic()
        self.full = self.full or now - self.samples[0][0] >= self.window
        self.samples.append((now, self.samples[-1][1] + count))
        while len(self.samples) > 2 and now - self.samples[1][0] >= self.window:
            self.samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes per second."""
        (start, before), (end, after) = self.samples[0], self.samples[-1]
        return (after - before) / max(end - start, 1e-6)

    def due(self) -> bool:
        """Return whether to report progress now; if so, start the next interval."""
        now = self.samples[-1][0]
        if now - self.reported < _INTERVAL:
            return False
        self.reported = now
        return True


def host(url: str) -> str:
    """Return the host of a URL, or the text itself if it has none.

    >>> host("https://example.org/a.tar.gz")
    'example.org'
    """
    return urllib.parse.urlsplit(url).netloc or url
