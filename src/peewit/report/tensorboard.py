"""A callback that logs the curves and pictures of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from peewit.errors import PeewitError
from peewit.runs import folder as runfolder
from peewit.system.text import command
from peewit.training.callbacks import Callback, TrainInfo
from peewit.training.state import Row, TrainState

FOLDER = "tensorboard"
# Steps between two points of a curve: enough detail, and small files.
EVERY = 10


def is_logged(run: Path) -> bool:
    """Return whether the training in the folder ``run`` has logs, which a resume continues."""
    return (run / FOLDER).is_dir()


def summary_writer() -> Any:
    """Return PyTorch's SummaryWriter, which needs the package tensorboard.

    Raises
    ------
    PeewitError
        The package is not installed.
    """
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise PeewitError(
            "TensorBoard logs need the package tensorboard",
            todo="install it with: pip install 'peewit[tensorboard]'",
        ) from error


class TensorBoard(Callback):
    """Logs training for TensorBoard.

    The run folder's ``tensorboard`` gets a log of the training (loss and accuracy every ten steps
    and every epoch, throughput), one of the validation, under the same names so that TensorBoard
    draws both in one chart, and, at the end, one with the pictures of the final test. The x axis of
    all is the step. Each point is written to its file before the checkpoint of its step is saved,
    so that a training that was killed and resumed has logged every step once.

    Parameters
    ----------
    note : callable
        Called with sentences for the user: the command that shows the curves, and failures.

    Raises
    ------
    PeewitError
        TensorBoard is not installed.
    """

    before_checkpoint = True

    def __init__(self, note: Callable[[str], None]) -> None:
        self._writer = summary_writer()
        self._note = note
        self._logs: dict[str, Any] = {}
        self._steps = self._step = 0
        self._before = (0, 0, 0.0)

    def on_run_folder(self, path: Path) -> None:
        """Note which command shows the curves, and create the folder, by which a resume knows."""
        self.path = path
        try:
            (path / FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._give_up(error)
        self._note(f"{command(['tensorboard', '--logdir', path / FOLDER])} shows the curves")

    def on_train_begin(self, info: TrainInfo, state: TrainState) -> None:
        """Open the logs. Steps that a resumed training repeats replace the earlier points."""
        self._steps = info.steps
        self._step = state.epoch * self._steps + state.step
        self._before = (state.images, state.correct, state.loss_sum)
        try:
            for name in ("training", "validation"):
                self._open(name, purge_step=self._step + 1)
        except OSError as error:
            self._give_up(error)

    def on_step_end(self, state: TrainState) -> None:
        """Log the mean loss and accuracy of the last ten steps."""
        self._step = state.epoch * self._steps + state.step
        if self._step % EVERY == 0:
            images, correct, loss_sum = self._before
            count = state.images - images
            self._before = (state.images, state.correct, state.loss_sum)
            self._write(
                "training",
                {
                    "step/loss": (state.loss_sum - loss_sum) / count,
                    "step/accuracy": (state.correct - correct) / count,
                },
            )

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        """Log the new row of the history."""
        if row is None:
            return
        self._before = (0, 0, 0.0)  # the state's sums start from zero after a row
        speed = {
            f"speed/{name}": row[name]
            for name in ("images_per_second", "gflops", "share_of_best")
            if name in row
        }
        means = {f"epoch/{name}": row[name] for name in ("loss", "accuracy")}
        self._write("training", means | speed)
        validated = {f"epoch/{name}": row[f"validation_{name}"] for name in ("loss", "accuracy")}
        self._write("validation", validated)

    def on_train_end(self, path: Path) -> None:
        """Log the pictures of the run."""
        try:
            if self._logs:
                self._pictures()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the logs."""
        try:
            for log in self._logs.values():
                log.close()
        except OSError as error:
            self._give_up(error)
        self._logs.clear()

    def _open(self, name: str, purge_step: int) -> None:
        folder = self.path / FOLDER / name
        self._logs[name] = self._writer(str(folder), purge_step=purge_step)

    def _write(self, name: str, values: dict[str, float]) -> None:
        try:
            if name in self._logs:
                for key, value in values.items():
                    self._logs[name].add_scalar(key, value, self._step)
                self._logs[name].flush()
        except OSError as error:
            self._give_up(error)

    def _pictures(self) -> None:
        from PIL import Image

        self._open("final", purge_step=self._step)
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
        self._note(f"the TensorBoard log ends here: cannot write {self.path} ({reason})")
