"""The loop's numbers are Keras's, and its order depends on nothing but seed and position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from made_data import noise
from peewit.errors import PeewitError
from peewit.images.preprocessing import Preprocessing
from peewit.training import loop
from peewit.training.checkpoint import Position
from peewit.training.progress import Silent
from peewit.training.recipe import Recipe
from peewit.training.sampler import epoch_order

RULE = Preprocessing(2, 2, 1, (0.0,), (1.0,))


@pytest.fixture(autouse=True)
def own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make_job(lr: float = 0.1, **changes: Any) -> loop.Job:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return loop.Job(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        preprocessing=RULE,
        training=noise(10, 2, 1),
        validation=noise(7, 2, 1, seed=1),
        recipe=Recipe(**{"epochs": 2, "batch_size": 4, **changes}),
    )


def never() -> bool:
    return False


def nothing() -> None:
    return


def test_an_epoch_is_what_it_would_be_by_hand() -> None:
    job, position = make_job(epochs=1), Position()
    weight, bias = (tensor.detach().clone() for tensor in job.model.parameters())
    order = epoch_order(0, 0, 10)
    losses, right = [], 0
    for batch in (order[:4], order[4:8], order[8:]):
        x = torch.tensor(job.training.images[batch].reshape(-1, 4) / 255).float()
        y = torch.tensor(job.training.labels[batch])
        weight, bias = weight.requires_grad_(), bias.requires_grad_()
        logits = x @ weight.T + bias
        loss = F.cross_entropy(logits, y)
        right += int((logits.argmax(1) == y).sum())
        losses += [loss.item()] * len(batch)
        down_weight, down_bias = torch.autograd.grad(loss, (weight, bias))
        weight, bias = (weight - 0.1 * down_weight).detach(), (bias - 0.1 * down_bias).detach()

    assert loop.fit(job, position, progress=Silent(), stop=never, save=nothing)
    assert torch.allclose(job.model[1].weight, weight)  # type: ignore[index]
    assert position.epoch == 1
    (row,) = position.history
    assert row["loss"] == pytest.approx(np.mean(losses))
    assert row["accuracy"] == right / 10
    images = torch.tensor(job.validation.images.reshape(-1, 4) / 255).float()
    logits, labels = images @ weight.T + bias, torch.tensor(job.validation.labels)
    assert row["validation_loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
    assert row["validation_accuracy"] == pytest.approx(
        (logits.argmax(1) == labels).float().mean().item()
    )
    assert row["seconds"] > 0
    assert row["images_per_second"] > 0


def test_training_has_dropout_and_validation_has_not() -> None:
    modes = []

    class Watching(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    job = make_job()
    job.model[1] = Watching(4, 3)  # type: ignore[operator]
    loop.fit(job, Position(), progress=Silent(), stop=never, save=nothing)
    assert modes == ([(True, True)] * 3 + [(False, False)]) * 2


def test_each_epoch_has_its_own_order_of_all_images() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        assert sorted(order) == list(range(100))
    assert len({tuple(order) for order in orders}) == 3
    assert (orders[0] == epoch_order(0, 0, 100)).all()


def test_it_saves_at_each_epochs_end_and_in_between_when_asked() -> None:
    saved: list[tuple[int, int]] = []
    for minutes, expected in [
        (60.0, [(1, 0), (2, 0)]),
        (0.0, [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]),
    ]:
        position = Position()
        saved.clear()
        loop.fit(
            make_job(checkpoint_minutes=minutes),
            position,
            progress=Silent(),
            stop=never,
            save=lambda position=position: saved.append((position.epoch, position.step)),
        )
        assert saved == expected


def test_a_stop_ends_the_step_and_saves() -> None:
    position, saved = Position(), []
    ended = loop.fit(
        make_job(),
        position,
        progress=Silent(),
        stop=lambda: position.step == 2,
        save=lambda: saved.append((position.epoch, position.step)),
    )
    assert not ended
    assert saved == [(0, 2)]


def test_a_stop_during_validation_keeps_the_epochs_steps() -> None:
    position, asked, saved = Position(), [], []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 4  # after each of the three steps, before validation, in it

    def save() -> None:
        saved.append((position.epoch, position.step))

    assert not loop.fit(make_job(), position, progress=Silent(), stop=stop, save=save)
    assert saved == [(0, 3)]
    assert loop.fit(make_job(), position, progress=Silent(), stop=never, save=save)
    assert position.history[0]["loss"] > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_noticed_in_its_step(bad: float) -> None:
    job, position, saved = make_job(), Position(step=1), []
    with torch.no_grad():
        job.model[1].weight.fill_(bad)  # type: ignore[index]
    with pytest.raises(PeewitError, match="epoch 1, step 2: the loss is no longer a finite number"):
        loop.fit(
            job, position, progress=Silent(), stop=never, save=lambda: saved.append(position.step)
        )
    assert saved == []


def test_weights_that_are_no_numbers_are_not_saved() -> None:
    # the loss of the step that breaks them is still a number
    job, saved = make_job(lr=1e38, checkpoint_minutes=0), []
    with torch.no_grad():
        job.model[1].weight.mul_(100)  # type: ignore[index]
    job.optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(
        PeewitError, match=r"a weight is no longer a finite number .*; train with a"
    ):
        loop.fit(job, Position(), progress=Silent(), stop=never, save=lambda: saved.append(1))
    assert saved == []
