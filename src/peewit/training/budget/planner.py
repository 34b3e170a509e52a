"""Plan training with a budget: measure this machine, choose a network, estimate the end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from peewit import kernels
from peewit.data.dataset import Dataset
from peewit.data.pictures import files_of
from peewit.models.flops import training_flops
from peewit.models.registry import FAST_WIDTHS, HALF, build, find
from peewit.system.text import counted, duration, minutes
from peewit.training.budget import plan as plans
from peewit.training.budget.benchmark import Machine
from peewit.training.budget.frontier import NETWORKS, SIZES, grid_size, picture_size
from peewit.training.budget.plan import Budget, Ending, Measured, Plan, Speed
from peewit.training.budget.rounds import next_round
from peewit.training.defaults import network_size, training_images
from peewit.training.recipe import AUTO, Recipe

# The fractions of the budget that may be spent on all measurements, the best rate and each network,
# and the longest that the last two may take in seconds.
MEASURING, RATE_SHARE, STEPS_SHARE = 0.06, 0.012, 0.012
LONGEST_RATE, LONGEST_STEPS = 0.9, 3.0
# The usual rate of networks relative to PyTorch's best, before they are measured: above 1 with the
# compiled kernels, whose convolutions do less arithmetic than is counted for them, and even higher
# if they multiply in bfloat16.
USUAL_SHARE, USUAL_SHARE_OF_KERNELS, USUAL_SHARE_OF_BFLOAT16 = 0.7, 1.2, 1.7
# bfloat16 costs a little accuracy, so it is used only if it is this much faster.
WORTH_BFLOAT16 = 1.1
# Test-time augmentation: five more views of a quarter of the images.
AUGMENTED = 1.3
# Images of noise in place of pictures that would have to be decoded: 25 MB of 128 x 128 pixels.
STAND_INS = 512
# The time for saving, pictures and exit, and for the report, in units of `python_seconds`.
ENDING_LOOPS, REPORT_LOOPS = 220.0, 100.0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The choice of the planner.

    Parameters
    ----------
    recipe : Recipe
        With a network and a precision.
    speed : Speed
        Of that network on this machine.
    seconds : float
        The length of the run, including the work before and after training.
    """

    recipe: Recipe
    speed: Speed
    seconds: float


def choose_network(
    dataset: Dataset, recipe: Recipe, machine: Machine, *, settled: bool = False
) -> Choice:
    """Measure this machine for a few seconds, and choose the network and the precision.

    Parameters
    ----------
    dataset : Dataset
        The training set, including the images to be held out.
    recipe : Recipe
        With minutes or an accuracy to reach.
    machine : Machine
        Stores the measurements.
    settled : bool
        Whether network and precision are fixed (a resumed run), so that only the speed is measured.
    """
    with machine.measuring(recipe.threads or 1):
        machine.adapt_threads(recipe.threads or 1)
        pictures = _stand_in(dataset) if files_of(dataset.images) is not None else None
        if pictures is None or settled or recipe.model != AUTO or recipe.minutes is None:
            return _choose(pictures or dataset, recipe, machine, settled)
        # the network first, at the resolution at which its layers will compute
        grid = grid_size(recipe.image_size)
        choice = _choose(pictures, recipe.replace(image_size=grid), machine, settled)
        passes = choice.speed.images(choice.seconds) / max(training_images(recipe, dataset), 1)
        return _in_detail(choice, passes, pictures, recipe, machine)


def _stand_in(dataset: Dataset) -> Dataset:
    """Return noise in place of pictures: as fast to train on, and nothing has to be decoded."""
    count = min(len(dataset), STAND_INS)
    noise = np.random.default_rng(0).integers(0, 256, (count, *dataset.image_shape), np.uint8)
    return Dataset(noise, dataset.labels[:count], dataset.class_names)


def _in_detail(
    choice: Choice, passes: float, dataset: Dataset, recipe: Recipe, machine: Machine
) -> Choice:
    """Return the choice for pictures in files, with the input size that suits the budget."""
    size = recipe.image_size or picture_size(passes)
    model = choice.recipe.model
    recipe = choice.recipe.replace(
        model=f"{model}{HALF}" if size >= SIZES[0] else model, image_size=size
    )
    speed = machine.measure_speed(dataset, recipe, min(LONGEST_STEPS, STEPS_SHARE * choice.seconds))
    return Choice(recipe=recipe, speed=speed, seconds=choice.seconds)


def _choose(dataset: Dataset, recipe: Recipe, machine: Machine, settled: bool) -> Choice:
    began = machine.now()
    left = math.inf if recipe.minutes is None else 60 * recipe.minutes - (began - machine.began)
    # half before the networks and half after them, in case background load affects one of the two
    each_rate = min(LONGEST_RATE, RATE_SHARE * left) / 2
    best = machine.measure_rate(each_rate)
    try_bfloat16 = not settled and recipe.precision == "float32" and machine.has_bfloat16()
    usual = best * _usual_share(try_bfloat16 or recipe.precision == "bfloat16")
    seconds = left
    if recipe.until_accuracy is not None:
        seconds = min(left, next_round(recipe.until_accuracy, [], usual) or math.inf)
    each, end = min(LONGEST_STEPS, STEPS_SHARE * seconds), began + MEASURING * seconds

    def has_time(like: Speed) -> bool:
        return machine.now() + 2 * like.step < end

    flops = _flops(dataset, recipe)
    first, *_ = _models(recipe, flops, usual, seconds)
    recipe = recipe if recipe.model == first else recipe.replace(model=first)
    automatic = bool(flops)
    speed = machine.measure_speed(dataset, recipe, each)
    if try_bfloat16 and find(first).family and has_time(speed):
        lower = recipe.replace(precision="bfloat16")
        other = machine.measure_speed(dataset, lower, each)
        if speed.step >= WORTH_BFLOAT16 * other.step:
            recipe, speed = lower, other
    speeds = [speed]
    if automatic:
        # the rate of one network predicts that of another better than a convolution's rate does
        for entry in plans.candidates(flops, speed.flops / speed.step, seconds):
            if entry.model != first and has_time(speeds[-1]):
                candidate = recipe.replace(model=entry.model)
                speeds.append(machine.measure_speed(dataset, candidate, each))
    machine.measure_rate(each_rate)
    speed = plans.choose(speeds, seconds)
    return Choice(recipe=recipe.replace(model=speed.model), speed=speed, seconds=seconds)


def measure(
    dataset: Dataset, test: Dataset | None, recipe: Recipe, machine: Machine, *, rated: bool = True
) -> Measured | None:
    """Measure what is still unknown for training by the resolved ``recipe``.

    Without ``rated``, the machine's best rate is only measured if a plan needs it.

    Returns
    -------
    Measured or None
        None for a recipe that counts epochs: it needs no plan.
    """
    if recipe.head_only:
        return None
    if recipe.by_epochs:
        if rated and find(recipe.model).family == "fast":
            with machine.measuring(recipe.threads or 1):
                machine.measure_rate()  # the history relates the training rate to it
        return None
    speed = machine.speed_of(recipe)
    if speed is None:  # a resumed run
        speed = choose_network(dataset, recipe, machine, settled=True).speed
    ending = _ending(dataset, test, recipe, speed, machine)
    return Measured(speed=speed, ending=ending, threads=machine.count)


def _ending(
    dataset: Dataset, test: Dataset | None, recipe: Recipe, speed: Speed, machine: Machine
) -> Ending:
    """Return how long the work after the training takes."""
    held_out = 0
    if recipe.validate_on == "holdout":
        held_out = len(dataset) - training_images(recipe, dataset)
    judged = len(test) if test is not None else held_out
    validated = held_out if recipe.validate_on == "holdout" else judged
    python = machine.measure_python()
    # Validation images that are not the test images are evaluated once more: for calibration, or
    # to find the confidence below which test-time augmentation is used.
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
    """Return the usual rate of networks relative to PyTorch's best on this machine."""
    if not kernels.available():
        return USUAL_SHARE
    native = bfloat16 and kernels.multiplies_bfloat16()
    return USUAL_SHARE_OF_BFLOAT16 if native else USUAL_SHARE_OF_KERNELS


def _flops(dataset: Dataset, recipe: Recipe) -> dict[str, float]:
    """Return the training operations per image of each candidate network."""
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
    return [entry.model for entry in plans.candidates(flops, rate, seconds)]


def sentence(plan: Plan, recipe: Recipe, budget: Budget) -> str:
    """Return the plan in a sentence for the user."""
    model = recipe.model
    widths = "-".join(map(str, FAST_WIDTHS.get(model.removesuffix(HALF), ())))
    size = f" on {recipe.image_size} x {recipe.image_size} pixels" if recipe.image_size else ""
    images = plan.speed.batch_size / plan.speed.step
    ends = budget.elapsed + plan.training
    return (
        f"{minutes(budget.seconds / 60)}: {model}"
        f"{f' ({widths})' if widths else ''}{size}, about {counted(plan.epochs, 'epoch')} at "
        f"{images:,.0f} images/s{' in bfloat16' if recipe.precision == 'bfloat16' else ''}; the "
        f"training ends after about {duration(ends)}"
        + ("" if plan.augmented or not recipe.tta else "; no time for test-time augmentation")
    )
