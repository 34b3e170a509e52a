"""Save a training in its run folder while it goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from peewit.errors import PeewitError
from peewit.runs import folder as runfolder
from peewit.system.text import resuming
from peewit.training import checkpoint
from peewit.training.callbacks import Callback
from peewit.training.loop import TrainSetup, check_weights
from peewit.training.state import Row, TrainState


@dataclass
class SaveCheckpoints(Callback):
    """Saves the training in its run folder: after each epoch, and at intervals within it.

    Parameters
    ----------
    path : Path
        The run folder.
    setup : TrainSetup
    """

    path: Path
    setup: TrainSetup
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._schedule_next()

    def on_step_end(self, state: TrainState) -> None:
        """Save if the interval has passed."""
        if time.monotonic() >= self._next:
            self._save(state)
            self._schedule_next()

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        """Save weights, history and checkpoint."""
        self._save(state)

    def on_interrupt(self, state: TrainState) -> None:
        """Save the checkpoint."""
        self._save(state)

    def _schedule_next(self) -> None:
        self._next = time.monotonic() + 60 * self.setup.recipe.checkpoint_minutes

    def _save(self, state: TrainState) -> None:
        setup = self.setup
        check_weights(setup.model, state, setup.recipe)
        try:
            if state.step == 0:  # an epoch has just ended
                weights = setup.model.state_dict()
                checkpoint.write_tensors(self.path / runfolder.WEIGHTS, weights, {})
                runfolder.write_history(self.path, state.history)
            # last: a checkpoint at the end of an epoch implies that the other files are there
            file = self.path / runfolder.CHECKPOINT
            checkpoint.save(file, setup.model, setup.optimizer, state, setup.hard_examples)
        except PeewitError as error:
            todo = f"free some space or repair the folder, then resume: {resuming(self.path)}"
            raise PeewitError(error.what, error.why, todo) from error
