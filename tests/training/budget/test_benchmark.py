"""Measuring a machine: the arithmetic of it, on clocks that exist only here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from made_data import noise
from peewit.data.dataset import Dataset
from peewit.models.flops import training_flops
from peewit.models.registry import build
from peewit.training.budget import benchmark as probe
from peewit.training.checkpoint import Position
from peewit.training.recipe import Recipe

FAST = Recipe.preset("fast", model="fast-xs", batch_size=8)


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock on which each look takes ``seconds``."""
    ticks = count()
    return lambda: next(ticks) * seconds


def test_the_best_rate_is_that_of_the_fastest_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SHAPES", ((1, 2, 3, 4), (2, 4, 8, 8)))
    # each convolution takes a tick of this clock
    assert probe.best_rate(0.1, clock=ticking(0.01)) == pytest.approx(
        2 * 9 * 4 * 8 * 8 * 8 * 2 / 0.01
    )


def steps(schedule: probe._FewSteps, seconds: list[float]) -> int:
    """Make steps that take so long until the schedule ends; return how many were made."""
    position = Position()
    for made, took in enumerate(seconds):
        if schedule.done(position):
            return made
        position.seen += 8
        position.seconds += took
        if made == 1:  # a row of the history begins the seconds again
            schedule.done(position)
            position.seconds = 0.0
    return len(seconds)


def test_steps_are_made_until_they_are_alike() -> None:
    schedule = probe._FewSteps(100.0, lambda: 0.0)
    assert steps(schedule, [1.0, 0.5, 0.4, 0.41, 0.4, 0.42, 0.4, 0.4]) == 6
    assert schedule.usual == pytest.approx(0.4)
    assert schedule.steps[:3] == pytest.approx([1.0, 0.5, 0.4])


def test_steps_that_get_faster_and_faster_end_too() -> None:
    schedule = probe._FewSteps(100.0, lambda: 0.0)
    assert steps(schedule, [0.9**n for n in range(50)]) == probe.STEPS


def test_when_the_time_is_over_one_step_is_enough() -> None:
    schedule = probe._FewSteps(0.0, lambda: 0.0)
    assert steps(schedule, [1.0, 0.5]) == 1
    assert schedule.usual == 1.0


@pytest.mark.parametrize("recipe", [FAST, FAST.replace(schedule="constant"), Recipe(batch_size=8)])
def test_a_network_is_measured(recipe: Recipe) -> None:
    speed = probe.measure(noise(60, 32), recipe, 0.0)
    assert (speed.model, speed.batch_size) == (recipe.model, 8)
    assert speed.step > 0
    assert speed.inference > 0
    model = build(recipe.model, (32, 32, 3), 3, 0)
    if recipe == FAST:  # as in most of its training, the whitening is at rest
        model.get_parameter("whitening.bias").requires_grad_(False)
    assert speed.flops == 8 * training_flops(model, (32, 32, 3))


@pytest.mark.parametrize(
    "data", [noise(4, 8), noise(9, 1, 1), noise(150, 8, classes=100), noise(8, 90)]
)
def test_few_small_large_and_many_kinds_of_images_are_measured_too(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PIXELS", 20_000)  # two large ones, which are repeated
    speed = probe.measure(data, FAST, 0.0)
    assert speed.batch_size == 8
    assert speed.step > 0
