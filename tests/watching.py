"""A progress observer that acts at one training step, and records its notes."""

from __future__ import annotations

from collections.abc import Callable

from peewit.training.checkpoint import Position
from peewit.training.progress import Silent


class At(Silent):
    """Call ``act`` at one step, and record all notes."""

    def __init__(self, epoch: int = 99, step: int = 0, act: Callable[[], object] = list) -> None:
        self.place, self.act = (epoch, step), act
        self.notes: list[str] = []

    def step(self, position: Position) -> None:
        """Call ``act`` if this is the step."""
        if (position.epoch, position.step) == self.place:
            self.act()

    def note(self, text: str) -> None:
        """Record the note."""
        self.notes.append(text)
