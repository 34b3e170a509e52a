"""The state of a training run: its progress, and the sums since the last row of its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from peewit.system.validation import Count, Quantity, Share, validated

Row = dict[str, float]


class RowInFile(TypedDict):
    """The columns of a row of the history; the last four are missing in older and imported runs."""

    epoch: Count
    seconds: Quantity
    images_per_second: Quantity
    loss: float
    accuracy: Share
    validation_loss: float  # may be infinite or not a number if the network has diverged
    validation_accuracy: Share
    images: NotRequired[Count]
    flops: NotRequired[Count]
    gflops: NotRequired[Quantity]
    share_of_best: NotRequired[Quantity]


HISTORY_COLUMNS = tuple(RowInFile.__annotations__)


class _StateInFile(TypedDict):
    epoch: Count
    step: Count
    images: NotRequired[Count]
    correct: NotRequired[Count]
    loss_sum: NotRequired[float]
    seconds: NotRequired[Quantity]
    spent: NotRequired[Quantity]
    seen: NotRequired[Count]
    flops: NotRequired[Count]
    share: NotRequired[Quantity]
    validated: NotRequired[float]
    history: NotRequired[list[RowInFile]]
    rounds: NotRequired[list[Annotated[list[Quantity], Meta(min_length=2, max_length=2)]]]
    round_began: NotRequired[Quantity]


# attributes whose name in checkpoint files is another one
_NAMES_IN_FILES = {"fraction_done": "share"}


def read_row(file: Path, number: int, cells: Mapping[str, str | None]) -> Row:
    """Return the row ``number`` of the history in ``file`` from the texts of its cells.

    Raises
    ------
    PeewitError
        A value is missing or has another type.
    """
    filled = {name: cell for name, cell in cells.items() if cell}
    row = validated(file, filled, RowInFile, where=f"row {number}: ", numbers_as_text=True)
    return dict(row)  # type: ignore[arg-type]


@dataclass
class TrainState:
    """The progress of a training run.

    Parameters
    ----------
    epoch : int
        Finished epochs; at the end, including one that the time budget cut short.
    step : int
        Finished steps of the current epoch. After its last step and before its validation this is
        the number of steps per epoch.
    images, correct : int
        Images in the steps since the last row of the history, and how many of them were
        classified correctly.
    loss_sum : float
        The sum of their losses.
    seconds : float
        The time those steps took.
    spent : float
        Seconds of training in all sessions, including validation and saving.
    seen : int
        Images in all steps.
    flops : int
        Floating-point operations of all steps.
    fraction_done : float
        How much of the training was done, 0 to 1, when the last step began; 1 at the end.
    validated : float
        The value of ``fraction_done`` at the last row of the history.
    history : list of dict
        One row per validation: after each epoch, or after several short ones.
    rounds : list of [seconds, accuracy]
        The finished rounds of training to a target accuracy.
    round_began : float
        The value of ``spent`` when the current round began.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    correct: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    spent: float = 0.0
    seen: int = 0
    flops: int = 0
    fraction_done: float = 0.0
    validated: float = 0.0
    history: list[Row] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)
    round_began: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss since the last row, as Keras reports it."""
        return self.loss_sum / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """Fraction of the images since the last row that were classified correctly."""
        return self.correct / max(self.images, 1)

    @property
    def images_per_second(self) -> float:
        """Throughput since the last row."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def flops_per_second(self) -> float:
        """Floating-point operations per second since the last row."""
        before = self.history[-1].get("flops", 0) if self.history else 0
        return (self.flops - before) / max(self.seconds, 1e-9)

    @property
    def epochs_begun(self) -> int:
        """Epochs that have begun."""
        return self.epoch + (self.step > 0)

    def record_step(self, images: int, correct: int, loss: float, flops: int) -> None:
        """Count a step of ``images`` images with mean loss ``loss``."""
        self.step += 1
        self.images += images
        self.correct += correct
        self.loss_sum += loss * images
        self.seen += images
        self.flops += flops

    def add_row(self, row: Row, fraction_done: float) -> None:
        """Append a row of the history, validated at ``fraction_done``, and reset the sums."""
        self.history.append(row)
        self.validated = fraction_done
        self.images = self.correct = 0
        self.loss_sum = self.seconds = 0.0

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.step = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the values as they are stored in a checkpoint."""
        return {_NAMES_IN_FILES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, file: Path, values: Any) -> TrainState:
        """Return what ``to_dict`` wrote and ``file`` contains.

        Raises
        ------
        PeewitError
            A value is missing or has another type.
        """
        names = {stored: name for name, stored in _NAMES_IN_FILES.items()}
        known = validated(file, values, _StateInFile)
        return cls(**{names.get(name, name): value for name, value in known.items()})  # type: ignore[arg-type]
