"""What the planner chooses on machines that exist only here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.training.budget import planner as timed
from peewit.training.budget.plan import Speed
from peewit.training.budget.rounds import next_round
from peewit.training.recipe import Recipe

# networks of the same shape have the same work, and are slow to make
build, training_flops = cache(timed.build), cache(timed.training_flops)
DATA = Dataset(np.zeros((5000, 8, 8, 3), np.uint8), np.arange(5000) % 2, ["cat", "dog"])


@dataclass
class Machine:
    """Trains fast-xs in ``step`` seconds a step, larger networks in as much more as they work."""

    step: float = 0.1
    bfloat16: float = 1.0
    cost: float = 0.0
    rates: tuple[float, float] = (1e11, 1e11)
    time: float = 0.0
    measured: list[tuple[str, str]] = field(default_factory=list)
    allowed: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def measure(self, dataset: Dataset, recipe: Recipe, seconds: float, clock: Any) -> Speed:
        self.measured.append((recipe.model, recipe.precision))
        self.allowed.append(seconds)
        self.time += self.cost
        order = ["fast-xs", "fast-s", "fast-m", "fast-l", "fast-xl", "tutorial"]
        step = self.step * 2 ** order.index(recipe.model)
        if recipe.precision == "bfloat16":
            step /= self.bfloat16
        return Speed(
            model=recipe.model,
            batch_size=recipe.batch_size,
            step=step,
            inference=1e-4,
            flops=1e10,
        )


class EvenMachine(Machine):
    """Reaches 1.2e11 operations a second with every network."""

    def measure(self, dataset: Dataset, recipe: Recipe, seconds: float, clock: Any) -> Speed:
        speed = super().measure(dataset, recipe, seconds, clock)
        flops = recipe.batch_size * training_flops(build(recipe.model, (8, 8, 3), 2, 0), (8, 8, 3))
        return replace(speed, step=flops / 1.2e11, flops=flops)


def choose(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float | None,
    settled: bool = False,
    test: Dataset | None = None,
    **changes: Any,
) -> timed.Choice:
    monkeypatch.setattr(timed, "build", build)
    monkeypatch.setattr(timed, "training_flops", training_flops)
    monkeypatch.setattr(timed, "measure", machine.measure)
    rates = iter(machine.rates)
    monkeypatch.setattr(timed, "best_rate", lambda seconds, clock: next(rates))
    monkeypatch.setattr(timed, "has_bfloat16", lambda: machine.bfloat16 != 1)
    monkeypatch.setattr(timed.budgets, "python_seconds", lambda clock, best=True: 0.01)
    budget = {"minutes": seconds / 60} if seconds else {"until_accuracy": 0.8}
    recipe = Recipe.preset("fast", **(budget | changes))
    return timed.choose(DATA, test, recipe, seconds, machine.now, settled=settled)


def test_the_network_fits_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    order = ["fast-xs", "fast-s", "fast-m", "fast-l", "fast-xl"]
    chosen = [
        order.index(choose(Machine(), monkeypatch, seconds).recipe.model)
        for seconds in (2.0, 20.0, 200.0, 2000.0, 20_000.0)
    ]
    assert chosen == sorted(chosen)
    assert chosen[0] == 0
    assert chosen[-1] == 4


def test_a_network_that_is_asked_for_is_the_only_one_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for model in ("fast-l", "tutorial"):
        machine, more = Machine(), {"optimizer": "adam"} if model == "tutorial" else {}
        choice = choose(machine, monkeypatch, 60.0, model=model, **more)
        assert choice.recipe.model == model
        assert machine.measured == [(model, "float32")]
        assert choice.best_rate == 1e11


@pytest.mark.parametrize(("factor", "precision"), [(2.0, "bfloat16"), (1.05, "float32")])
def test_bfloat16_is_taken_where_it_is_much_faster(
    factor: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(bfloat16=factor)
    choice = choose(machine, monkeypatch, 600.0, model="fast-xs")
    assert machine.measured == [("fast-xs", "float32"), ("fast-xs", "bfloat16")]
    assert choice.recipe.precision == precision
    assert choice.speed.step == pytest.approx(0.1 / (factor if precision == "bfloat16" else 1))


def test_other_networks_are_measured_in_the_precision_that_won(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timed, "_models", lambda *arguments: ["fast-s", "fast-xs"])
    for factor, precision in ((2.0, "bfloat16"), (1.05, "float32")):
        machine = Machine(bfloat16=factor)
        choice = choose(machine, monkeypatch, 60.0)
        both = [("fast-s", "float32"), ("fast-s", "bfloat16")]
        assert machine.measured == [*both, ("fast-xs", precision)]
        assert choice.recipe.precision == precision


def test_what_has_been_trained_already_keeps_its_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(bfloat16=2.0)
    choice = choose(machine, monkeypatch, 600.0, settled=True, model="fast-xs")
    assert machine.measured == [("fast-xs", "float32")]
    assert choice.recipe.precision == "float32"


def test_a_best_rate_that_was_disturbed_misleads_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed.kernels, "available", lambda: True)
    quiet, disturbed = EvenMachine(), EvenMachine(rates=(3e10, 1e11))
    right, wrong = (choose(machine, monkeypatch, 20.0) for machine in (quiet, disturbed))
    # it was begun with a smaller network
    assert disturbed.measured[0] != quiet.measured[0]
    assert wrong == right


def test_measuring_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(cost=5.0, bfloat16=2.0)
    choose(machine, monkeypatch, 60.0)
    assert len(machine.measured) == 1


def test_an_accuracy_without_minutes_has_the_time_that_it_should_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timed, "LONGEST_STEPS", 1e9)
    monkeypatch.setattr(timed.kernels, "available", lambda: True)
    rate = 1e11 * timed.USUAL_SHARE_OF_KERNELS
    chosen = []
    for accuracy in (0.5, 0.8, 0.9):
        machine, needed = EvenMachine(), next_round(accuracy, [], rate)
        assert needed is not None
        choice = choose(machine, monkeypatch, None, until_accuracy=accuracy)
        assert machine.allowed[0] == pytest.approx(timed.STEPS_SHARE * needed)
        # as if that time had been given
        alike = choose(EvenMachine(), monkeypatch, needed)
        assert choice.recipe.model == alike.recipe.model
        chosen.append(choice.recipe.model)
        # minutes that are fewer count, and more do not
        for minutes, seconds in ((needed / 120, needed / 2), (needed / 30, needed)):
            machine = EvenMachine()
            budget = {"minutes": minutes, "until_accuracy": accuracy}
            choose(machine, monkeypatch, 60 * minutes, **budget)
            assert machine.allowed[0] == pytest.approx(timed.STEPS_SHARE * seconds)
    assert len(set(chosen)) == 3


def test_the_end_is_planned_by_what_has_to_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = choose(Machine(), monkeypatch, 60.0, validation_fraction=0.1).ending
    # without a test set the 500 held-out images are judged too
    assert ending.test == pytest.approx(1000 * 1e-4)
    assert ending.rest == pytest.approx(timed.ENDING_LOOPS * 0.01)


def test_calibrating_looks_at_the_held_out_images_of_which_augmentation_knows_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test = DATA.take(range(200))
    calibrated, plain, watched = (
        choose(Machine(), monkeypatch, 60.0, test=test, validation_fraction=0.1, **changes).ending
        for changes in ({}, {"calibrate": False}, {"validate_on": "test"})
    )
    assert calibrated.test == pytest.approx((200 + 500 + 500) * 1e-4)
    assert plain.test == pytest.approx((200 + 500) * 1e-4)
    for ending, others in ((calibrated, 0), (plain, 500), (watched, 0)):
        looks = timed.AUGMENTED * 200 + others
        assert ending.augmentation == pytest.approx(looks * 1e-4)
    assert watched.test == pytest.approx((200 + 200) * 1e-4)
