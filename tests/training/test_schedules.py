"""How far a training is, and what the rates are then."""

from __future__ import annotations

import pytest
import torch

from peewit.training.checkpoint import Position
from peewit.training.schedules import StepSchedule, set_rates


def test_steps_are_counted_over_all_epochs() -> None:
    schedule = StepSchedule(epochs=2, steps_per_epoch=5)
    shares = [
        schedule.share(Position(epoch=epoch, step=step)) for epoch in (0, 1) for step in range(5)
    ]
    assert shares == pytest.approx([step / 10 for step in range(10)])
    assert not schedule.done(Position(epoch=1, step=5))
    assert schedule.done(Position(epoch=2))
    assert schedule.share(Position(epoch=3)) == 1


def test_rates_fall_in_a_line_and_what_has_arrived_is_frozen() -> None:
    early, late = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD(
        [
            {"params": [early], "lr": 8.0, "first_lr": 8.0, "until": 0.5},
            {"params": [late], "lr": 2.0, "first_lr": 2.0},
        ]
    )
    for share, expected in [(0.0, [8, 2]), (0.25, [4, 1.5]), (0.5, [0, 1]), (1.0, [0, 0])]:
        set_rates(optimizer, share)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
        assert early.requires_grad == (share < 0.5)
        assert late.requires_grad
    set_rates(optimizer, 0.1)  # a finished run that is trained on for longer
    assert early.requires_grad
