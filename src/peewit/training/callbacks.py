"""Callbacks: how progress, checkpoints, TensorBoard and a user's own code follow training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from peewit.data.packing.decoding import Progress
from peewit.training.state import Row, TrainState


class StopTraining(Exception):  # noqa: N818  (a request, as Python's StopIteration is)
    """A callback asked training to stop. Everything up to here is saved."""


@dataclass(frozen=True)
class TrainInfo:
    """Facts that are known when the first step begins.

    Parameters
    ----------
    epochs : int or None
        The number of epochs; None if training ends by time or by accuracy.
    images : int
        Images per epoch.
    batch_size : int
    """

    epochs: int | None
    images: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return -(-self.images // self.batch_size)


class Callback:
    """Follows training. Subclass it and override what you need; the methods here do nothing.

    Pass instances to ``peewit.train(..., callbacks=[...])``. They are called in that order, in the
    thread that trains, so each method must return quickly. ``state`` is the live state: read it, do
    not change it.

    Examples
    --------
    >>> class LossLog(Callback):
    ...     def on_epoch_end(self, state, row):
    ...         print(f"epoch {row['epoch']:.0f}: validation loss {row['validation_loss']:.3f}")
    >>> LossLog().on_epoch_end(TrainState(), {"epoch": 1, "validation_loss": 1.25})
    epoch 1: validation loss 1.250
    """

    # Called before the checkpoint of a step is saved, not after it: for a record that must have
    # every step after a crash. Steps that are repeated come twice.
    before_checkpoint = False

    def on_note(self, text: str) -> None:
        """Handle a sentence for the user. May come before ``on_train_begin``."""

    def on_decoding(self, progress: Progress) -> None:
        """Handle the progress of decoding picture files, before ``on_train_begin``.

        Called several times a second; ``progress.done`` of ``progress.total`` pictures are decoded.
        """

    def on_run_folder(self, path: Path) -> None:
        """Handle the creation or the resumption of the run folder ``path``."""

    def on_train_begin(self, info: TrainInfo, state: TrainState) -> None:
        """Handle the start of training, at ``state`` if the run is resumed."""

    def on_fold_begin(self, fold: int, folds: int, info: TrainInfo, state: TrainState) -> None:
        """Handle the start of the training of a fold of the cross-validation, from 1 to ``folds``.

        It comes before ``on_train_begin``, and the steps of a fold call ``on_fold_step`` only.
        """

    def on_fold_step(self, state: TrainState) -> None:
        """Handle the end of a step in a fold."""

    def on_step_end(self, state: TrainState) -> None:
        """Handle the end of a step."""

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        """Handle the end of an epoch.

        ``row`` is the new row of the history: epoch, loss, accuracy, validation_loss,
        validation_accuracy, seconds, images_per_second and so on (``Run.history``). It is None
        after an epoch without validation: the ``fast`` recipes validate about eight times.
        """

    def on_interrupt(self, state: TrainState) -> None:
        """Handle an early stop, which the ``should_stop`` of a callback requested."""

    def on_train_end(self, path: Path) -> None:
        """Handle the end of the final test: ``peewit.Run.open(path)`` has its metrics."""

    def close(self) -> None:
        """Release resources. Called last, whether the training finished, stopped or failed."""

    def should_stop(self) -> bool:
        """Return whether to save and stop: asked after each step and each validation batch.

        ``peewit.train`` then raises ``Interrupted``, and the run can be resumed.
        """
        return False


class CallbackList(Callback):
    """Several callbacks as one: everything the trainer reports, saves and stops on goes through it.

    Parameters
    ----------
    callbacks : iterable of Callback
        Called in this order.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)

    def note(self, text: str) -> None:
        """Pass a note to the user."""
        self.on_note(text)

    def check_stop(self) -> None:
        """Raise StopTraining if a callback asks to stop."""
        if self.should_stop():
            raise StopTraining

    def on_note(self, text: str) -> None:
        """Call ``on_note`` of every callback."""
        for callback in self.callbacks:
            callback.on_note(text)

    def on_decoding(self, progress: Progress) -> None:
        """Call ``on_decoding`` of every callback."""
        for callback in self.callbacks:
            callback.on_decoding(progress)

    def on_run_folder(self, path: Path) -> None:
        """Call ``on_run_folder`` of every callback."""
        for callback in self.callbacks:
            callback.on_run_folder(path)

    def on_train_begin(self, info: TrainInfo, state: TrainState) -> None:
        """Call ``on_train_begin`` of every callback."""
        for callback in self.callbacks:
            callback.on_train_begin(info, state)

    def on_fold_begin(self, fold: int, folds: int, info: TrainInfo, state: TrainState) -> None:
        """Call ``on_fold_begin`` of every callback."""
        for callback in self.callbacks:
            callback.on_fold_begin(fold, folds, info, state)

    def on_fold_step(self, state: TrainState) -> None:
        """Call ``on_fold_step`` of every callback."""
        for callback in self.callbacks:
            callback.on_fold_step(state)

    def on_step_end(self, state: TrainState) -> None:
        """Call ``on_step_end`` of every callback."""
        for callback in self.callbacks:
            callback.on_step_end(state)

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        """Call ``on_epoch_end`` of every callback."""
        for callback in self.callbacks:
            callback.on_epoch_end(state, row)

    def on_interrupt(self, state: TrainState) -> None:
        """Call ``on_interrupt`` of every callback."""
        for callback in self.callbacks:
            callback.on_interrupt(state)

    def on_train_end(self, path: Path) -> None:
        """Call ``on_train_end`` of every callback."""
        for callback in self.callbacks:
            callback.on_train_end(path)

    def close(self) -> None:
        """Close every callback."""
        for callback in self.callbacks:
            callback.close()

    def should_stop(self) -> bool:
        """Return whether any callback asks to stop."""
        return any(callback.should_stop() for callback in self.callbacks)
