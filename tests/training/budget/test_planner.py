"""The choices of the planner on simulated machines."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_machine import MadeMachine
from peewit.data.dataset import Dataset
from peewit.data.folder import FolderFiles
from peewit.data.listing import Listing
from peewit.data.pictures import Pictures
from peewit.training.budget import planner
from peewit.training.budget.frontier import Entry
from peewit.training.budget.plan import Ending, Speed
from peewit.training.budget.rounds import next_round
from peewit.training.recipe import Recipe
from peewit.training.resolve import resolve

# networks of the same shape have the same operations, and are slow to build
build, training_flops = cache(planner.build), cache(planner.training_flops)
DATA = Dataset(np.zeros((5000, 8, 8, 3), np.uint8), np.arange(5000) % 2, ["cat", "dog"])


class EvenMachine(MadeMachine):
    """Reaches 1.2e11 operations per second with every network."""

    def made_speed(self, recipe: Recipe) -> Speed:
        speed = super().made_speed(recipe)
        flops = recipe.batch_size * training_flops(build(recipe.model, (8, 8, 3), 2, 0), (8, 8, 3))
        return replace(speed, step=flops / 1.2e11, flops=flops)


@pytest.fixture(autouse=True)
def fast_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "build", build)
    monkeypatch.setattr(planner, "training_flops", training_flops)


def recipe_for(seconds: float | None, **changes: Any) -> Recipe:
    budget = {"minutes": seconds / 60} if seconds else {"until_accuracy": 0.8}
    return Recipe.preset("fast", **(budget | changes))


def choose(
    machine: MadeMachine, seconds: float | None, settled: bool = False, **changes: Any
) -> planner.Choice:
    return planner.choose_network(DATA, recipe_for(seconds, **changes), machine, settled=settled)


def pictures(count: int) -> Dataset:
    """Return pictures whose files do not exist: choosing a network reads none of them."""
    names = [f"{number}.jpg" for number in range(count)]
    listing = Listing(
        place=Path("pets"),
        names=names,
        labels=np.arange(count) % 2,
        class_names=("cat", "dog"),
        files=FolderFiles(Path("pets"), names),
        stamps=np.zeros((count, 2), np.int64),
        parts=np.zeros(count, np.uint8),
    )
    store = Pictures(listing=listing)
    return Dataset(store, listing.labels, listing.class_names, names=names)


@pytest.mark.parametrize(
    ("seconds", "changes", "model", "size"),
    [
        # fast-xs makes 2,500 images per second: 20, 60 and 250 passes over 1,000 pictures
        (8.0, {}, "fast-xs/2", 64),
        (27.0, {}, "fast-xs/2", 64),
        (150.0, {"image_size": 32}, "fast-xs", 32),
        (150.0, {"image_size": 48}, "fast-xs", 48),
        (150.0, {"image_size": 112}, "fast-xs/2", 112),
        (150.0, {"model": "fast-s"}, "fast-s", None),
    ],
)
def test_the_size_of_pictures_fits_the_budget(
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    changes: dict[str, Any],
    model: str,
    size: int | None,
) -> None:
    monkeypatch.setattr(planner.plans, "candidates", lambda *arguments: [Entry("fast-xs", 0)])
    machine = MadeMachine()
    recipe = recipe_for(seconds, **changes)
    choice = planner.choose_network(pictures(1000), recipe, machine)
    assert (choice.recipe.model, choice.recipe.image_size) == (model, size)
    assert machine.speed_of(choice.recipe) == choice.speed


def test_more_time_or_fewer_pictures_allow_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner.plans, "candidates", lambda *arguments: [Entry("fast-xs", 0)])

    def size(count: int, seconds: float) -> int:
        choice = planner.choose_network(pictures(count), recipe_for(seconds), MadeMachine())
        assert choice.recipe.image_size is not None
        return choice.recipe.image_size

    assert [size(1000, seconds) for seconds in (10.0, 50.0, 1000.0)] == [64, 96, 128]
    assert [size(count, 100.0) for count in (1000, 2000, 10_000)] == [128, 96, 64]


def ending(test: Dataset | None = None, **changes: Any) -> Ending:
    machine = MadeMachine()
    recipe = resolve(recipe_for(60.0, validation_fraction=0.1, **changes), DATA, machine)
    measured = planner.measure(DATA, test, recipe, machine)
    assert measured is not None
    assert measured.speed.model == recipe.model
    return measured.ending


def test_the_network_fits_the_time() -> None:
    order = ["fast-xs", "fast-s", "fast-m", "fast-l", "fast-xl"]
    chosen = [
        order.index(choose(MadeMachine(), seconds).recipe.model)
        for seconds in (2.0, 20.0, 200.0, 2000.0, 20_000.0)
    ]
    assert chosen == sorted(chosen)
    assert chosen[0] == 0
    assert chosen[-1] == 4


def test_a_requested_network_is_the_only_one_measured() -> None:
    for model in ("fast-l", "tutorial"):
        machine, more = MadeMachine(), {"optimizer": "adam"} if model == "tutorial" else {}
        choice = choose(machine, 60.0, model=model, **more)
        assert choice.recipe.model == model
        assert machine.measured == [(model, "float32")]
        assert machine.best_rate == 1e11


@pytest.mark.parametrize(("factor", "precision"), [(2.0, "bfloat16"), (1.05, "float32")])
def test_bfloat16_is_chosen_if_it_is_much_faster(factor: float, precision: str) -> None:
    machine = MadeMachine(bfloat16=factor)
    choice = choose(machine, 600.0, model="fast-xs")
    assert machine.measured == [("fast-xs", "float32"), ("fast-xs", "bfloat16")]
    assert choice.recipe.precision == precision
    assert choice.speed.step == pytest.approx(0.1 / (factor if precision == "bfloat16" else 1))


def test_other_networks_are_measured_in_the_chosen_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = [Entry("fast-s", 0), Entry("fast-xs", 0)]
    monkeypatch.setattr(planner.plans, "candidates", lambda *arguments: entries)
    for factor, precision in ((2.0, "bfloat16"), (1.05, "float32")):
        machine = MadeMachine(bfloat16=factor)
        choice = choose(machine, 60.0)
        both = [("fast-s", "float32"), ("fast-s", "bfloat16")]
        assert machine.measured == [*both, ("fast-xs", precision)]
        assert choice.recipe.precision == precision


def test_resumed_run_keeps_its_precision() -> None:
    machine = MadeMachine(bfloat16=2.0)
    choice = choose(machine, 600.0, settled=True, model="fast-xs")
    assert machine.measured == [("fast-xs", "float32")]
    assert choice.recipe.precision == "float32"


def test_background_load_during_the_rate_measurement_does_not_mislead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planner.kernels, "available", lambda: True)
    quiet, disturbed = EvenMachine(), EvenMachine(rates=(3e10, 1e11))
    right, wrong = (choose(machine, 20.0) for machine in (quiet, disturbed))
    # it started with a smaller network
    assert disturbed.measured[0] != quiet.measured[0]
    assert wrong == right
    assert disturbed.best_rate == quiet.best_rate


def test_measurements_stay_within_their_share() -> None:
    machine = MadeMachine(cost=5.0, bfloat16=2.0)
    choose(machine, 60.0)
    assert len(machine.measured) == 1


def test_time_before_planning_counts() -> None:
    late = EvenMachine()
    late.time = 54.0
    assert choose(late, 60.0).seconds == pytest.approx(6.0)


def test_accuracy_without_minutes_gets_the_predicted_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planner, "LONGEST_STEPS", 1e9)
    monkeypatch.setattr(planner.kernels, "available", lambda: True)
    rate = 1e11 * planner.USUAL_SHARE_OF_KERNELS
    chosen = []
    for accuracy in (0.5, 0.8, 0.9):
        machine, needed = EvenMachine(), next_round(accuracy, [], rate)
        assert needed is not None
        choice = choose(machine, None, until_accuracy=accuracy)
        assert machine.allowed[0] == pytest.approx(planner.STEPS_SHARE * needed)
        # the same as with that budget
        alike = choose(EvenMachine(), needed)
        assert choice.recipe.model == alike.recipe.model
        chosen.append(choice.recipe.model)
        # a smaller budget limits it, a larger one does not
        for minutes, seconds in ((needed / 120, needed / 2), (needed / 30, needed)):
            machine = EvenMachine()
            budget = {"minutes": minutes, "until_accuracy": accuracy}
            choose(machine, 60 * minutes, **budget)
            assert machine.allowed[0] == pytest.approx(planner.STEPS_SHARE * seconds)
    assert len(set(chosen)) == 3


def test_the_planned_end_includes_all_inference() -> None:
    planned = ending()
    # without a test set the 500 held-out images are also the final test
    assert planned.test == pytest.approx(1000 * 1e-4)
    assert planned.rest == pytest.approx(planner.ENDING_LOOPS * 0.01)


def test_calibration_and_augmentation_share_the_held_out_images() -> None:
    test = DATA.take(range(200))
    calibrated, plain, watched = (
        ending(test, **changes) for changes in ({}, {"calibrate": False}, {"validate_on": "test"})
    )
    assert calibrated.test == pytest.approx((200 + 500 + 500) * 1e-4)
    assert plain.test == pytest.approx((200 + 500) * 1e-4)
    for planned, others in ((calibrated, 0), (plain, 500), (watched, 0)):
        views = planner.AUGMENTED * 200 + others
        assert planned.augmentation == pytest.approx(views * 1e-4)
    assert watched.test == pytest.approx((200 + 200) * 1e-4)


def test_the_networks_are_measured_with_the_threads_that_the_training_begins_with() -> None:
    machine = MadeMachine(free=2)
    recipe = resolve(recipe_for(60.0, threads=4), DATA, machine)
    measured = planner.measure(DATA, None, recipe, machine)
    assert measured is not None
    assert measured.threads == 2
    assert recipe.threads == 4  # the maximum, as before


def test_epochs_need_no_plan_but_fast_networks_the_best_rate() -> None:
    for recipe, rate in ((Recipe(), None), (Recipe.preset("fast", model="fast-xs"), 1e11)):
        machine = MadeMachine()
        assert planner.measure(DATA, None, recipe, machine) is None
        assert machine.best_rate == rate
        assert machine.measured == []


def test_resumed_run_is_measured_once() -> None:
    machine = MadeMachine()
    recipe = Recipe.preset("fast", minutes=1, model="fast-s", threads=1)
    measured = planner.measure(DATA, None, recipe, machine)
    assert measured is not None
    assert measured.speed == machine.speed_of(recipe)
    assert machine.measured == [("fast-s", "float32")]
