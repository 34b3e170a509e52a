"""A callback that acts at one training step, and stores the notes."""

from __future__ import annotations

from collections.abc import Callable

from peewit.training.callbacks import Callback
from peewit.training.state import TrainState


class At(Callback):
    """Calls ``act`` at one step, and stores the notes."""

    def __init__(self, epoch: int = 99, step: int = 0, act: Callable[[], object] = list) -> None:
        self.place, self.act = (epoch, step), act
        self.notes: list[str] = []

    def on_step_end(self, position: TrainState) -> None:
        """Call ``act`` if this is the step."""
        if (position.epoch, position.step) == self.place:
            self.act()

    def on_note(self, text: str) -> None:
        """Store the sentence."""
        self.notes.append(text)
