"""How far a training is, and what the rates are then. By time it is ``pace.Pace`` that tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from peewit.training.checkpoint import Position

if TYPE_CHECKING:
    import torch

# The whitening layer's bias is trained for this share: afterwards nothing before the first 3x3
# convolution needs a gradient, which saves 4 % of the FLOPs (arXiv 2404.00498, section 3.2).
WHITENING_SHARE = 3 / 8


class Schedule(Protocol):
    """What decides when a training ends."""

    def share(self, position: Position) -> float:
        """Return how much of the training is done, from 0 to 1."""

    def done(self, position: Position) -> bool:
        """Return whether it has ended. Once true, it stays true."""


@dataclass(frozen=True)
class StepSchedule:
    """Ends after so many epochs.

    >>> schedule = StepSchedule(epochs=4, steps_per_epoch=10)
    >>> schedule.share(Position(epoch=1, step=5)), schedule.done(Position(epoch=4))
    (0.375, True)
    """

    epochs: int
    steps_per_epoch: int

    def share(self, position: Position) -> float:
        """Return how much of the training is done, from 0 to 1."""
        done = position.epoch * self.steps_per_epoch + position.step
        return min(1.0, done / (self.epochs * self.steps_per_epoch))

    def done(self, position: Position) -> bool:
        """Return whether it has ended."""
        return position.epoch >= self.epochs


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Let each group's rate fall to 0 in a line, and what has arrived there get no gradient.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Each of whose groups has the rate that it begins with as ``first_lr``, and may have the
        share of the training at which it arrives at 0 as ``until`` (1 by default).
    share : float
        How much of the training is done, from 0 to 1.
    """
    for group in optimizer.param_groups:
        left = 1 - share / group.get("until", 1.0)
        group["lr"] = group["first_lr"] * max(0.0, left)
        if "until" in group:
            for parameter in group["params"]:
                parameter.requires_grad_(left > 0)
