"""The plan of a training with a budget: from measuring this machine to a recipe and its ending."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from peewit import kernels
from peewit.data.dataset import Dataset
from peewit.models.flops import training_flops
from peewit.models.registry import FAST_WIDTHS, build, find
from peewit.system.text import counted, duration, minutes
from peewit.training.budget import plan as budgets
from peewit.training.budget.benchmark import best_rate, has_bfloat16, measure
from peewit.training.budget.frontier import NETWORKS
from peewit.training.budget.plan import Budget, Ending, Plan, Speed
from peewit.training.budget.rounds import next_round
from peewit.training.build import changed_side, network_size
from peewit.training.recipe import AUTO, Recipe
from peewit.training.resolve import complete

# The planner may take such a part of the budget for measuring: the best rate, and the networks.
MEASURING, RATE_SHARE, STEPS_SHARE = 0.06, 0.012, 0.012
LONGEST_RATE, LONGEST_STEPS = 0.9, 3.0  # seconds, each network
# What networks reach of PyTorch's best rate, before it is measured: more than all of it with the
# compiled kernels, whose convolutions do less arithmetic than they are counted with, and again as
# much where those multiply in bfloat16.
USUAL_SHARE, USUAL_SHARE_OF_KERNELS, USUAL_SHARE_OF_BFLOAT16 = 0.7, 1.2, 1.7
# bfloat16 costs a little accuracy, so it must be this much faster.
WORTH_BFLOAT16 = 1.1
# Five more views of a quarter of the images.
AUGMENTED = 1.3
# How many times what the loop of python_seconds takes: pictures, saving and leaving; the report.
ENDING_LOOPS, REPORT_LOOPS = 220.0, 100.0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the planner came to.

    Parameters
    ----------
    recipe : Recipe
        With a network, a batch size and a precision that fit.
    speed : Speed
        Of that network here.
    ending : Ending
    best_rate : float
        Operations a second of the fastest large convolution here.
    """

    recipe: Recipe
    speed: Speed
    ending: Ending
    best_rate: float


def choose(
    dataset: Dataset,
    test: Dataset | None,
    recipe: Recipe,
    seconds: float | None,
    clock: Callable[[], float] = time.perf_counter,
    *,
    settled: bool = False,
) -> Choice:
    """Measure this machine for a few seconds, and choose what ``recipe`` leaves open.

    Parameters
    ----------
    dataset : Dataset
        The training set with the images to be held out.
    test : Dataset or None
    recipe : Recipe
    seconds : float or None
        What is left for everything; None for as long as the recipe's accuracy needs.
    clock : callable
        Returns seconds.
    settled : bool
        Whether the recipe has been trained by already, so that nothing is open but the speed.
    """
    began = clock()
    # half before the networks and half after them: what disturbs one may be gone by the other
    each_rate = min(LONGEST_RATE, RATE_SHARE * (seconds or math.inf)) / 2
    best = best_rate(each_rate, clock=clock)
    tries_bfloat16 = not settled and recipe.precision == "float32" and has_bfloat16()
    usual = best * _usual_share(tries_bfloat16 or recipe.precision == "bfloat16")
    needed = next_round(recipe.until_accuracy or 1.0, [], usual)
    seconds = min(seconds or math.inf, needed or math.inf) if recipe.until_accuracy else seconds
    assert seconds is not None, "a recipe with a budget has minutes or an accuracy"
    flops = _flops(dataset, recipe)
    first, *_ = _models(recipe, flops, usual, seconds)
    each, end = min(LONGEST_STEPS, STEPS_SHARE * seconds), began + MEASURING * seconds
    measuring = _Measuring(dataset, each, end, clock)
    recipe, speed = measuring.first(recipe, first, tries_bfloat16)
    speeds = [speed]
    # by what that network reached, which tells more than a convolution did
    for model in _models(recipe, flops, speed.flops / speed.step, seconds):
        if model != first and measuring.has_time(speeds[-1]):
            speeds.append(measuring.speed(recipe, model))
    best = max(best, best_rate(each_rate, clock=clock))
    speed = budgets.choose(speeds, seconds)
    recipe = recipe.replace(model=speed.model)
    side = changed_side(dataset, network_size(dataset, recipe))
    held_out = recipe.validation_fraction if recipe.validate_on == "holdout" else 0.0
    training = len(dataset) * (1 - held_out)
    recipe = complete(recipe, speed.images(seconds), training, side)
    ending = _ending(dataset, test, recipe, speed, clock)
    return Choice(recipe=recipe, speed=speed, ending=ending, best_rate=best)


@dataclass(frozen=True)
class _Measuring:
    """Measures networks as long as there is time for it.

    Parameters
    ----------
    dataset : Dataset
    each : float
        Seconds for each network.
    end : float
        When it should be over, on the clock.
    clock : callable
        Returns seconds.
    """

    dataset: Dataset
    each: float
    end: float
    clock: Callable[[], float]

    def speed(self, recipe: Recipe, model: str) -> Speed:
        """Return how fast ``model`` is."""
        return measure(self.dataset, recipe.replace(model=model), self.each, self.clock)

    def first(self, recipe: Recipe, model: str, tries_bfloat16: bool) -> tuple[Recipe, Speed]:
        """Return the recipe with the better precision for ``model``, and its speed in that."""
        speed = self.speed(recipe, model)
        if tries_bfloat16 and find(model).family == "fast" and self.has_time(speed):
            less = recipe.replace(precision="bfloat16")
            other = self.speed(less, model)
            if speed.step >= WORTH_BFLOAT16 * other.step:
                return less, other
        return recipe, speed

    def has_time(self, like: Speed) -> bool:
        """Tell whether a few more steps like those fit."""
        return self.clock() + 2 * like.step < self.end


def _ending(
    dataset: Dataset, test: Dataset | None, recipe: Recipe, speed: Speed, clock: Callable[[], float]
) -> Ending:
    """Return what is to be done after the training, and how long it takes."""
    held_out = 0
    if recipe.validate_on == "holdout":
        held_out = round(len(dataset) * recipe.validation_fraction)
    judged = len(test) if test is not None else held_out
    validated = held_out if recipe.validate_on == "holdout" else judged
    python = budgets.python_seconds(clock)
    # Images that are watched and not judged are looked at once more: to calibrate by them, or else
    # to know of which images it is unsure.
    others = validated if test is not None and recipe.validate_on == "holdout" else 0
    calibrated, unsure = (others, 0) if recipe.calibrate else (0, others)
    return Ending(
        test=(judged + validated + calibrated) * speed.inference,
        augmentation=(AUGMENTED * judged + unsure) * speed.inference,
        rest=ENDING_LOOPS * python,
        report=REPORT_LOOPS * python,
        python=python,
    )


def _usual_share(bfloat16: bool) -> float:
    """Return what networks usually reach of PyTorch's best rate on this machine."""
    if not kernels.available():
        return USUAL_SHARE
    native = bfloat16 and kernels.multiplies_bfloat16()
    return USUAL_SHARE_OF_BFLOAT16 if native else USUAL_SHARE_OF_KERNELS


def _flops(dataset: Dataset, recipe: Recipe) -> dict[str, float]:
    """Return the training operations an image of each network that is to choose from."""
    if recipe.model != AUTO:
        return {}
    size = network_size(dataset, recipe.replace(model=NETWORKS[0].model))
    shape = (*size, dataset.image_shape[2])
    return {
        entry.model: training_flops(build(entry.model, shape, len(dataset.class_names), 0), shape)
        for entry in NETWORKS
    }


def _models(recipe: Recipe, flops: dict[str, float], rate: float, seconds: float) -> list[str]:
    """Return the networks to measure on a machine that reaches ``rate``, the best fit first."""
    if recipe.model != AUTO:
        return [recipe.model]
    return [entry.model for entry in budgets.candidates(flops, rate, seconds)]


def sentence(plan: Plan, recipe: Recipe, budget: Budget) -> str:
    """Return the plan as the user is told it."""
    model = recipe.model
    widths = "-".join(map(str, FAST_WIDTHS.get(model, ())))
    images = plan.speed.batch_size / plan.speed.step
    ends = budget.elapsed + plan.training
    return (
        f"{minutes(budget.seconds / 60)}: {model}"
        f"{f' ({widths})' if widths else ''}, about {counted(plan.epochs, 'epoch')} at "
        f"{images:,.0f} images/s{' in bfloat16' if recipe.precision == 'bfloat16' else ''}; the "
        f"training ends at about {duration(ends)}"
        + ("" if plan.augmented or not recipe.tta else "; no time for test-time augmentation")
    )
