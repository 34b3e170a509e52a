"""The progress of training by epochs, and its learning rates."""

from __future__ import annotations

import pytest
import torch

from peewit.training.schedules import EpochSchedule, set_learning_rates
from peewit.training.state import TrainState


def test_steps_are_counted_over_all_epochs() -> None:
    schedule = EpochSchedule(epochs=2, steps_per_epoch=5)
    shares = [
        schedule.fraction_done(TrainState(epoch=epoch, step=step))
        for epoch in (0, 1)
        for step in range(5)
    ]
    assert shares == pytest.approx([step / 10 for step in range(10)])
    assert not schedule.is_over(TrainState(epoch=1, step=5))
    assert schedule.is_over(TrainState(epoch=2))
    assert schedule.fraction_done(TrainState(epoch=3)) == 1


def test_rates_decay_linearly_and_finished_groups_are_frozen() -> None:
    early, late = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD(
        [
            {"params": [early], "lr": 8.0, "first_lr": 8.0, "until": 0.5},
            {"params": [late], "lr": 2.0, "first_lr": 2.0},
        ]
    )
    for share, expected in [(0.0, [8, 2]), (0.25, [4, 1.5]), (0.5, [0, 1]), (1.0, [0, 0])]:
        set_learning_rates(optimizer, share)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
        assert early.requires_grad == (share < 0.5)
        assert late.requires_grad
    set_learning_rates(optimizer, 0.1)  # a finished run with a larger number of epochs
    assert early.requires_grad
