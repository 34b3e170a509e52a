"""What the user sees while a training runs, always on stderr."""

from __future__ import annotations

import math
import sys
import time
from typing import Protocol, TextIO

from peewit.training.checkpoint import Position, Row


class Progress(Protocol):
    """What a training tells about itself."""

    def start(self, epochs: int, images: int, batch_size: int, position: Position) -> None:
        """Training begins at ``position``, to run to ``epochs`` with ``images`` in each."""

    def step(self, position: Position) -> None:
        """A step has been done. Called often: must return at once."""

    def epoch_end(self, row: Row) -> None:
        """An epoch has ended and been validated."""

    def note(self, text: str) -> None:
        """Tell something in a sentence."""

    def close(self) -> None:
        """Nothing more will come."""


class Silent:
    """Shows nothing."""

    def start(self, epochs: int, images: int, batch_size: int, position: Position) -> None: ...
    def step(self, position: Position) -> None: ...
    def epoch_end(self, row: Row) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


class Lines:
    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file or sys.stderr

    def start(self, epochs: int, images: int, batch_size: int, position: Position) -> None:
        self.epochs = epochs
        self.steps = math.ceil(images / batch_size)
        self.last = time.monotonic()

    def step(self, position: Position) -> None:
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            self.note(f"step {position.step}/{self.steps} {position.loss:.4f}")

    def epoch_end(self, row: Row) -> None:
        self.note(f"{row}")

    def note(self, text: str) -> None:
        print(text, file=self.file, flush=True)

    def close(self) -> None: ...


def automatic() -> Progress:
    """Return what suits where the program runs."""
    return Lines()
