"""The loop reports the numbers that Keras does; its order depends only on seed and state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from peewit.training.callbacks import Callback, CallbackList, StopTraining
from peewit.training.recipe import Recipe
from peewit.training.sampler import epoch_order
from peewit.training.schedules import EpochSchedule
from peewit.training.state import Row, TrainState

RULE = Preprocessing(2, 2, 1, (0.0,), (1.0,))


@pytest.fixture(autouse=True)
def own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build_setup(lr: float = 0.1, **changes: Any) -> loop.TrainSetup:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return loop.TrainSetup(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        preprocessing=RULE,
        training=noise(10, 2, 1),
        validation=noise(7, 2, 1, seed=1),
        recipe=Recipe(**{"epochs": 2, "batch_size": 4, **changes}),
    )


class Watch(Callback):
    """Records the events, and stops when ``stop`` returns True."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self.stop = stop
        self.events: list[tuple[str, int, int]] = []
        self.rows: list[Row | None] = []

    def on_step_end(self, state: TrainState) -> None:
        self.events.append(("step", state.epoch, state.step))

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        self.events.append(("epoch", state.epoch, state.step))
        self.rows.append(row)

    def on_interrupt(self, state: TrainState) -> None:
        self.events.append(("interrupt", state.epoch, state.step))

    def should_stop(self) -> bool:
        return self.stop()


def test_epoch_equals_a_manual_computation() -> None:
    job, position = build_setup(epochs=1), TrainState()
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

    loop.fit(job, position)
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


def test_dropout_is_active_only_in_training() -> None:
    modes = []

    class Watching(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    job = build_setup()
    job.model[1] = Watching(4, 3)  # type: ignore[operator]
    loop.fit(job, TrainState())
    assert modes == ([(True, True)] * 3 + [(False, False)]) * 2


def test_each_epoch_shuffles_all_images() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        assert sorted(order) == list(range(100))
    assert len({tuple(order) for order in orders}) == 3
    assert (orders[0] == epoch_order(0, 0, 100)).all()


def test_callbacks_follow_steps_and_epochs() -> None:
    watch = Watch()
    loop.fit(build_setup(), TrainState(), CallbackList([watch]))
    assert watch.events == [
        *(("step", 0, 1), ("step", 0, 2), ("step", 0, 3), ("epoch", 1, 0)),
        *(("step", 1, 1), ("step", 1, 2), ("step", 1, 3), ("epoch", 2, 0)),
    ]
    assert [row["epoch"] for row in watch.rows if row] == [1, 2]


def test_a_decaying_learning_rate_does_not_validate_after_each_short_epoch() -> None:
    watch, setup = Watch(), build_setup(epochs=20, schedule="linear")
    for group in setup.optimizer.param_groups:
        group["first_lr"] = group["lr"]
    loop.fit(setup, TrainState(), CallbackList([watch]))
    validated = [number for number, row in enumerate(watch.rows, 1) if row is not None]
    assert validated == [3, 6, 9, 12, 15, 18, 20]


def test_stop_finishes_the_step() -> None:
    state = TrainState()
    watch = Watch(lambda: state.step == 2)
    with pytest.raises(StopTraining):
        loop.fit(build_setup(), state, CallbackList([watch]))
    assert watch.events == [("step", 0, 1), ("step", 0, 2), ("interrupt", 0, 2)]


def test_stop_during_validation_keeps_the_steps_of_the_epoch() -> None:
    state, asked = TrainState(), list[int]()

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3  # after each of the three steps, then in validation

    watch = Watch(stop)
    with pytest.raises(StopTraining):
        loop.fit(build_setup(), state, CallbackList([watch]))
    assert watch.events[-1] == ("interrupt", 0, 3)
    assert state.history == []
    loop.fit(build_setup(), state)
    assert state.history[0]["loss"] > 0
    assert state.epoch == 2


def test_schedule_queries_have_no_side_effects() -> None:
    # the loop observes once before the first step, and once after each step and validation
    asked: list[str] = []

    class Counting(EpochSchedule):
        def observe(self, state: TrainState) -> None:
            asked.append("observe")

    setup = build_setup()
    loop.fit(setup, TrainState(), schedule=Counting(2, setup.steps_per_epoch))
    assert len(asked) == 1 + 6 + 2


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_equals_pytorchs_bit_for_bit(smoothing: float) -> None:
    for count, classes in ((1, 2), (7, 3), (32, 10), (250, 100)):
        logits = torch.randn(count, classes, requires_grad=True)
        labels = torch.randint(0, classes, (count,))
        mean, each = loop.cross_entropy(logits, labels, smoothing)
        (gradient,) = torch.autograd.grad(mean, logits)
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        (expected_gradient,) = torch.autograd.grad(expected, logits)
        assert torch.equal(mean, expected)
        assert torch.equal(gradient, expected_gradient)
        assert torch.equal(
            each,
            F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none"),
        )
        assert not each.requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_loss_is_detected_in_its_step(bad: float) -> None:
    setup, state, watch = build_setup(), TrainState(step=1), Watch()
    with torch.no_grad():
        setup.model[1].weight.fill_(bad)  # type: ignore[index]
    with pytest.raises(PeewitError, match="epoch 1, step 2: the loss is not a finite number"):
        loop.fit(setup, state, CallbackList([watch]))
    assert watch.events == []


def test_non_finite_weights_are_detected_by_the_end_of_the_epoch() -> None:
    # the loss of the step that breaks them is still finite
    setup, watch = build_setup(lr=1e38), Watch()
    with torch.no_grad():
        setup.model[1].weight.mul_(100)  # type: ignore[index]
    setup.optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(PeewitError, match="not a finite number"):
        loop.fit(setup, TrainState(), CallbackList([watch]))
    assert "epoch" not in [event for event, *_ in watch.events]
    with pytest.raises(PeewitError, match=r"a weight is not a finite number.*--lr"):
        loop.check_weights(setup.model, TrainState(), setup.recipe)
