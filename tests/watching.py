"""A progress that acts at one step of a training, and keeps what it is told."""

from __future__ import annotations

from collections.abc import Callable

from peewit.training.checkpoint import Position
from peewit.training.progress import Silent


class At(Silent):
    """Does something at one step, and keeps what it is told."""

    def __init__(self, epoch: int = 99, step: int = 0, act: Callable[[], object] = list) -> None:
        self.place, self.act = (epoch, step), act
        self.notes: list[str] = []

    def step(self, position: Position) -> None:
        """Act, if this is the place."""
        if (position.epoch, position.step) == self.place:
            self.act()

    def note(self, text: str) -> None:
        """Keep the sentence."""
        self.notes.append(text)
