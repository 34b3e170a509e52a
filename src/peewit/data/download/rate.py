"""How far a download is, and how fast."""

from __future__ import annotations

import time
import urllib.parse
from collections import deque
from dataclasses import dataclass

from peewit.system.text import duration

# seconds between two reports of progress
_PAUSE = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a download is."""

    url: str
    """Where it comes from."""
    received: int
    """Bytes on disk, those of an earlier attempt included."""
    total: int | None
    """Bytes in all, where known."""
    rate: float
    """Bytes a second, over the last seconds."""

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate, in seconds, where it can be known.

        >>> Progress("https://example.org/a", 50, 150, 20.0).seconds_left
        5.0
        """
        if self.total is None or self.rate <= 0:
            return None
        return (self.total - self.received) / self.rate

    def __str__(self) -> str:
        """Return it in words.

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
    """Bytes a second over the last ``window`` seconds, from however many requests."""

    def __init__(self, window: float) -> None:
        self.window = window
        now = time.monotonic()
        self.samples = deque([(now, 0)])
        self.reported = now
        self.full = False
        """Whether it has been measured for as long as the window."""

    def add(self, count: int) -> None:
        """Note that so many bytes have come."""
        now = time.monotonic()
        self.full = self.full or now - self.samples[0][0] >= self.window
        self.samples.append((now, self.samples[-1][1] + count))
        while len(self.samples) > 2 and now - self.samples[1][0] >= self.window:
            self.samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes a second."""
        (before, had), (now, has) = self.samples[0], self.samples[-1]
        return (has - had) / max(now - before, 1e-6)

    def due(self) -> bool:
        """Whether it is time to report progress again; then the pause starts anew."""
        now = self.samples[-1][0]
        if now - self.reported < _PAUSE:
            return False
        self.reported = now
        return True


def host(url: str) -> str:
    """Return the part of a URL that says whose it is.

    >>> host("https://example.org/a.tar.gz")
    'example.org'
    """
    return urllib.parse.urlsplit(url).netloc or url
