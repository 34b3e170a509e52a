"""A training's numbers and pictures for TensorBoard."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from peewit.errors import PeewitError
from peewit.runs import folder as runfolder
from peewit.system.text import command
from peewit.training.checkpoint import Position, Row
from peewit.training.progress import Progress

FOLDER = "tensorboard"
# Steps between two points of a curve: enough to see its way, and files that stay small.
EVERY = 10


def summary_writer() -> Any:
    """Return PyTorch's writer of logs, which needs the package tensorboard.

    Raises
    ------
    PeewitError
        It is not installed.
    """
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise PeewitError(
            "logs for TensorBoard need the package tensorboard, which is not installed",
            todo="pip install 'peewit[tensorboard]'",
        ) from error


class TensorBoard:
    """Writes down what a training tells of itself, and passes it on.

    In the run's folder ``tensorboard`` there are then a log of the training (loss and accuracy
    every ten steps and every epoch, speed), one of the validation, under the same names, so that
    TensorBoard draws them in one chart, and, at the end, one of the pictures of the final test.
    All count steps.

    Parameters
    ----------
    shown : Progress
        What shows the training to the user, besides. It is also told how to see the curves.

    Raises
    ------
    PeewitError
        TensorBoard is not installed.
    """

    def __init__(self, shown: Progress) -> None:
        self._writer = summary_writer()
        self.shown = shown
        self._logs: dict[str, Any] = {}
        self._steps = self._step = 0
        self._before = (0, 0, 0.0)

    def folder(self, path: Path) -> None:
        """Say which command shows the curves. Nothing is made before the training begins."""
        self.path = path
        self.shown.folder(path)
        self.note(f"{command(['tensorboard', '--logdir', path / FOLDER])} shows the curves")

    def start(self, epochs: int | None, images: int, batch_size: int, position: Position) -> None:
        """Open the logs. Of a training that was stopped, what is done again counts no more."""
        self._steps = math.ceil(images / batch_size)
        self._step = position.epoch * self._steps + position.step
        self._before = (position.images, position.correct, position.loss_sum)
        try:
            for name in ("training", "validation"):
                self._open(name, purge_step=self._step + 1 if self._step else None)
        except OSError as error:
            self._give_up(error)
        self.shown.start(epochs, images, batch_size, position)

    def step(self, position: Position) -> None:
        """Write down the mean loss and accuracy of the last steps, if there are enough."""
        self._step = position.epoch * self._steps + position.step
        if self._step % EVERY == 0:
            images, correct, loss_sum = self._before
            count = position.images - images
            self._before = (position.images, position.correct, position.loss_sum)
            self._write(
                "training",
                {
                    "step/loss": (position.loss_sum - loss_sum) / count,
                    "step/accuracy": (position.correct - correct) / count,
                },
            )
        self.shown.step(position)

    def epoch_end(self, row: Row) -> None:
        """Write down the row."""
        self._before = (0, 0, 0.0)  # as the position's are, after a row
        speed = {
            f"speed/{name}": row[name]
            for name in ("images_per_second", "gflops", "share_of_best")
            if name in row
        }
        means = {f"epoch/{name}": row[name] for name in ("loss", "accuracy")}
        self._write("training", means | speed)
        validated = {f"epoch/{name}": row[f"validation_{name}"] for name in ("loss", "accuracy")}
        self._write("validation", validated)
        self.shown.epoch_end(row)

    def note(self, text: str) -> None:
        """Pass a sentence on."""
        self.shown.note(text)

    def close(self) -> None:
        """Write down the pictures that the run has now, and close the logs."""
        try:
            if self._logs and (self.path / runfolder.METRICS).is_file():
                self._pictures()
            for log in self._logs.values():
                log.close()
        except OSError as error:
            self._give_up(error)
        self._logs.clear()
        self.shown.close()

    def _open(self, name: str, purge_step: int | None = None) -> None:
        folder = self.path / FOLDER / name
        self._logs[name] = self._writer(str(folder), purge_step=purge_step)

    def _write(self, name: str, values: dict[str, float]) -> None:
        try:
            if name in self._logs:
                for key, value in values.items():
                    self._logs[name].add_scalar(key, value, self._step)
        except OSError as error:
            self._give_up(error)

    def _pictures(self) -> None:
        from PIL import Image

        self._open("final")
        log = self._logs["final"]
        log.add_text("recipe", f"```\n{(self.path / runfolder.RECIPE).read_text('utf-8')}```")
        for name in runfolder.PICTURES:
            if (self.path / name).is_file():
                with Image.open(self.path / name) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                log.add_image(Path(name).stem, pixels, self._step, dataformats="HWC")

    def _give_up(self, error: OSError) -> None:
        # the training is worth more than its log
        self._logs.clear()
        reason = (error.strerror or str(error)).lower()
        self.shown.note(f"the log for TensorBoard ends here: cannot write {self.path} ({reason})")
