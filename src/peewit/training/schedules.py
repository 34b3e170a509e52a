"""Schedules: the progress of training, when it ends, and the learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from peewit.training.state import TrainState

if TYPE_CHECKING:
    import torch

# The whitening layer's bias is trained for this fraction of the training. Afterwards nothing before
# the first 3x3 convolution needs a gradient, which saves 4 % of the FLOPs (arXiv 2404.00498,
# section 3.2).
WHITENING_FRACTION = 3 / 8


class Schedule(Protocol):
    """Decides how much of the training is done, and when it ends.

    ``observe`` is called before the first step, after each step and after each validation. The two
    other methods have no side effects and refer to the last call of ``observe``.
    """

    def observe(self, state: TrainState) -> None:
        """Record the state and the time."""

    def fraction_done(self, state: TrainState) -> float:
        """Return how much of the training is done, from 0 to 1."""

    def is_over(self, state: TrainState) -> bool:
        """Return whether it has ended. Once true, it stays true."""


@dataclass(frozen=True)
class EpochSchedule:
    """Ends after a number of epochs; ``peewit.training.budget.pace`` has the schedule by time.

    >>> schedule = EpochSchedule(epochs=4, steps_per_epoch=10)
    >>> schedule.fraction_done(TrainState(epoch=1, step=5)), schedule.is_over(TrainState(epoch=4))
    (0.375, True)
    """

    epochs: int
    steps_per_epoch: int

    def observe(self, state: TrainState) -> None:
        """Do nothing: epochs are counted by the state."""

    def fraction_done(self, state: TrainState) -> float:
        """Return how much of the training is done, from 0 to 1."""
        done = state.epoch * self.steps_per_epoch + state.step
        return min(1.0, done / (self.epochs * self.steps_per_epoch))

    def is_over(self, state: TrainState) -> bool:
        """Return whether all epochs have ended."""
        return state.epoch >= self.epochs


def set_learning_rates(optimizer: torch.optim.Optimizer, fraction_done: float) -> None:
    """Decay each group's learning rate linearly to 0, perhaps after a linear warm-up.

    Groups that have reached 0 before the end are frozen.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Each group has its initial rate as ``first_lr``, and optionally ``warm_up``, the fraction of
        the training in which the rate rises to it from 0, and ``until``, the fraction at which it
        is back at 0 (1 by default). Parameters of a group with ``until`` get no gradient
        afterwards.
    fraction_done : float
        How much of the training is done, from 0 to 1.
    """
    for group in optimizer.param_groups:
        left = 1 - fraction_done / group.get("until", 1.0)
        warm = min(1.0, fraction_done / group["warm_up"]) if group.get("warm_up") else 1.0
        group["lr"] = group["first_lr"] * max(0.0, left) * warm
        if "until" in group:
            for parameter in group["params"]:
                parameter.requires_grad_(left > 0)
