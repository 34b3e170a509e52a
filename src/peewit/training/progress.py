"""What the user sees while a training runs: always on stderr, at most five times a second."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from peewit.system.terminal import NotebookOutput, console_err
from peewit.system.text import printable
from peewit.training.checkpoint import Position, Row

HEADER = "  epoch      loss  accuracy  validation loss  accuracy  images/s     time"


class Progress(Protocol):
    """What a training tells of itself."""

    def folder(self, path: Path) -> None:
        """The run's folder is there. Comes before ``start``."""

    def start(self, epochs: int | None, images: int, batch_size: int, position: Position) -> None:
        """Training begins at ``position``; each epoch has ``images``.

        It runs to ``epochs``, or, where that is None, until its time is over.
        """

    def step(self, position: Position) -> None:
        """A step has been done. Called after each one, so it has to return at once."""

    def epoch_end(self, row: Row) -> None:
        """An epoch has ended and been validated."""

    def note(self, text: str) -> None:
        """Something is worth a sentence. May come before ``start``."""

    def close(self) -> None:
        """Nothing more will come."""


class Silent:
    """Shows nothing."""

    def folder(self, path: Path) -> None:
        """Do nothing."""

    def start(self, epochs: int | None, images: int, batch_size: int, position: Position) -> None:
        """Do nothing."""

    def step(self, position: Position) -> None:
        """Do nothing."""

    def epoch_end(self, row: Row) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """Plain lines, for logs: one an epoch, and within long epochs one every half minute."""

    interval = 30.0  # seconds between two showings of the step

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or console_err()
        self.epochs: int | None = None
        self.images = self.batch_size = self.steps = 0
        self._next = 0.0

    def folder(self, path: Path) -> None:
        """Do nothing: the end tells of it."""

    def start(self, epochs: int | None, images: int, batch_size: int, position: Position) -> None:
        """Show the head of the table."""
        self.epochs, self.images, self.batch_size = epochs, images, batch_size
        self.steps = math.ceil(images / batch_size)
        self.validation = ""
        if position.history:
            self.validation = f"validation {position.history[-1]['validation_accuracy']:.1%}"
        self._began = time.monotonic()
        self._before = self._done(position)
        self._share = position.share
        self._next = self._began + self.interval
        self.say(HEADER)

    def step(self, position: Position) -> None:
        """Show the step if it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.interval
            self.show(position)

    def epoch_end(self, row: Row) -> None:
        """Show the epoch's numbers."""
        self._next = time.monotonic() + self.interval
        self.validation = f"validation {row['validation_accuracy']:.1%}"
        of = f"/{self.epochs}" if self.epochs else ""
        self.say(
            f"{row['epoch']:3.0f}{of:<4}  {row['loss']:8.4f}  {row['accuracy']:8.1%}  "
            f"{row['validation_loss']:15.4f}  {row['validation_accuracy']:8.1%}  "
            f"{row['images_per_second']:8,.0f}  {clock(row['seconds']):>7}"
        )

    def note(self, text: str) -> None:
        """Show a sentence."""
        self.say(f"note: {printable(text)}")

    def close(self) -> None:
        """Do nothing: lines are complete at any time."""

    def show(self, position: Position) -> None:
        """Show where the training is."""
        self.say(", ".join(self.parts(position)))

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.console.print(line, soft_wrap=True)

    def parts(self, position: Position) -> list[str]:
        """Return epoch and step, speed, time left, loss, accuracy, and what else is known."""
        passed = max(time.monotonic() - self._began, 1e-9)
        if self.epochs:
            done = self._done(position)
            made, rest = float(done - self._before), float(self.epochs * self.images - done)
        else:
            made, rest = position.share - self._share, 1 - position.share
        left = clock(rest / made * passed) if made else "?"
        steps = f"{position.step:{len(str(self.steps))}}/{self.steps}"
        # padded to what is usual, so that nothing jumps
        parts = [
            f"epoch {position.epoch + 1}{f'/{self.epochs}' if self.epochs else ''}",
            f"step {steps}",
            f"{position.images_per_second:5,.0f} images/s",
            f"{left:>5} left",
            f"loss {position.loss:.3f}",
            f"accuracy {position.accuracy:5.1%}",
        ]
        if self.validation:
            parts.append(self.validation)
        if position.flops:
            parts.append(f"{position.flops_per_second / 1e9:.0f} GFLOP/s")
        return parts

    def _done(self, position: Position) -> int:
        # position.images may be those of several epochs: they are counted since the last row
        return position.epoch * self.images + min(position.step * self.batch_size, self.images)


class LiveLine(Lines):
    """For a terminal: a line that changes, below the table of epochs."""

    interval = 0.2

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._live: Live | None = None

    def start(self, epochs: int | None, images: int, batch_size: int, position: Position) -> None:
        """Show the head of the table and the line."""
        super().start(epochs, images, batch_size, position)
        # without rich's own thread, which would take turns with the training
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, position: Position) -> None:
        """Show where the training is, with what the terminal's width has room for."""
        assert self._live is not None
        parts = self.parts(position)
        parts[1] = parts[1].removeprefix("step ")  # a column more or less matters at 80
        room = self.console.width - 1
        while len("  ".join(parts)) > room and len(parts) > 1:
            parts.pop()
        line = Table.grid(padding=(0, 2, 0, 0))
        cells: list[Text | ProgressBar] = [Text(part, no_wrap=True) for part in parts]
        bar = min(room - len("  ".join(parts)) - 2, 24)
        if bar >= 8:
            cells.insert(1, ProgressBar(self.steps, position.step, width=bar))
        line.add_row(*cells)
        self._live.update(line, refresh=True)

    def epoch_end(self, row: Row) -> None:
        """Show the epoch's numbers above the line."""
        super().epoch_end(row)
        self._next = 0.0  # the line, which still shows the old epoch, is due

    def close(self) -> None:
        """Take the line away; the table stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class Notebook(Lines):
    """For a notebook: one output, which is the table of epochs with a changing line below."""

    interval = 0.5  # each showing is a message to the browser

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._output = NotebookOutput()

    def show(self, position: Position) -> None:
        """Show where the training is."""
        self._update("  ".join(self.parts(position)))

    def say(self, line: str) -> None:
        """Add a line that stays."""
        self._lines.append(line)
        self._update("")

    def close(self) -> None:
        """Take the changing line away; the table stays."""
        self._update("")

    def _update(self, last: str) -> None:
        self._output.show("\n".join([*self._lines, last]).rstrip())


def automatic() -> Progress:
    """Return what suits where the program runs: a notebook, a terminal, or a file or pipe."""
    console = console_err()
    if console.is_jupyter:
        return Notebook()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveLine(console)
    return Lines(console)


def clock(seconds: float) -> str:
    """Return a time as people write it.

    >>> clock(42), clock(3599.7), clock(7325)
    ('0:42', '1:00:00', '2:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
