"""Resolve the open fields of a recipe: once, before training, in one place."""

from __future__ import annotations

from peewit.data.dataset import Dataset
from peewit.models.registry import find
from peewit.system.text import counted
from peewit.training.budget.benchmark import Machine
from peewit.training.budget.frontier import by_images
from peewit.training.budget.planner import choose_network
from peewit.training.defaults import Note, filled, training_images
from peewit.training.imbalance import imbalance_sentence
from peewit.training.optimizers import OPTIMIZERS
from peewit.training.recipe import AUTO, Recipe

FEWEST_STEPS = 10  # per epoch
# of fine-tuning, within the budget: with fewer, the last layer alone is as good
FEWEST_PASSES = 3
HELD_OUT = 1_000  # images for validation, or a tenth of a small data set


def resolve(
    recipe: Recipe, dataset: Dataset, machine: Machine, note: Note = lambda sentence: None
) -> Recipe:
    """Return ``recipe`` with everything that it leaves open, for this data and this machine.

    It fixes the number of threads, a validation set and a batch size that suit a small data set,
    the network (``auto``) and its precision if there is a budget, the learning rate, the
    augmentation, the fraction of easy images to skip and the class weights. From here on the recipe
    does not change.

    Parameters
    ----------
    recipe : Recipe
    dataset : Dataset
        The training set, including the images to be held out.
    machine : Machine
        Measures how fast the candidate networks are if the recipe has a budget.
    note : callable
        Called with a sentence about each change that the user should know about.

    Raises
    ------
    UsageError
        A value does not fit the data.
    """
    if recipe.threads is None:
        recipe = recipe.replace(threads=_threads(recipe, machine, note))
    recipe = for_small_data(recipe, dataset, note)
    if recipe.head_only:
        recipe, images = recipe.replace(fine_tune="none"), 0.0
    elif recipe.by_epochs:
        epochs = recipe.epochs or 0
        if recipe.model == AUTO:
            recipe = recipe.replace(model=by_images(epochs * len(dataset)))
        fast = find(recipe.model).family == "fast"
        if fast and recipe.precision == "float32" and machine.has_bfloat16():
            # not chosen automatically: the same recipe and seed must give the same weights
            note(
                "this processor has native bfloat16: --precision bfloat16 may make training "
                "much faster"
            )
        images = float(epochs * recipe.steps(training_images(recipe, dataset)) * recipe.batch_size)
    else:
        choice = choose_network(dataset, recipe, machine)
        recipe, images = choice.recipe, choice.speed.images(choice.seconds)
        if recipe.start == "pretrained":
            passes = images / max(training_images(recipe, dataset), 1)
            worthwhile = recipe.fine_tune == "all" or passes >= FEWEST_PASSES
            recipe = recipe.replace(fine_tune="all" if worthwhile else "none")
    recipe = filled(recipe, dataset, images, note)
    if sentence := imbalance_sentence(dataset, recipe):
        note(sentence)
    return recipe


def _threads(recipe: Recipe, machine: Machine, note: Note) -> int:
    """Return the number of threads. A training with a budget adapts it to other programs later."""
    if not recipe.by_epochs:
        return machine.threads
    free = machine.free_threads()
    if free < machine.threads:
        note(
            f"other programs use {counted(machine.threads - free, 'core')}: training with "
            f"{counted(free, 'thread')} (for the weights of {counted(machine.threads, 'thread')}, "
            f"use --threads {machine.threads})"
        )
    return free


def for_small_data(recipe: Recipe, dataset: Dataset, note: Note) -> Recipe:
    """Return a ``fast`` recipe adapted to a small data set; other recipes are returned unchanged.

    A thousand images are held out, or a tenth of a small data set, for a meaningful validation
    accuracy; and an epoch has at least ten steps, because fewer hardly change the weights.
    """
    if not OPTIMIZERS[recipe.optimizer].full_batches:
        return recipe
    count = len(dataset)
    least = min(0.1, HELD_OUT / max(count, 1))
    drawn = recipe.validate_on == "holdout" and not recipe.folds and dataset.validation is None
    if drawn and recipe.validation_fraction < least:
        note(f"the data set is small: {100 * least:.2g}% of the images are held out for validation")
        recipe = recipe.replace(validation_fraction=least)
    kept = count if recipe.validate_on == "test" else count * (1 - recipe.validation_fraction)
    batch = max(min(2, int(kept)), int(kept / FEWEST_STEPS))
    if recipe.batch_size > batch:
        note(f"the data set is small: the batch size is {batch:,} instead of {recipe.batch_size:,}")
        recipe = recipe.replace(batch_size=batch)
    return recipe
