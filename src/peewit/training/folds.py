"""Decide whether pictures without a test part are tested by cross-validation, in how many folds.

With few pictures a held-out test part says little: of 20 % of 40 pictures a class, 4 wrong ones
more or less are 5 percentage points in ten classes. Cross-validation tests all of them.
"""

from __future__ import annotations

import numpy as np

from peewit.data.dataset import Dataset
from peewit.errors import UsageError
from peewit.training.budget.benchmark import Machine
from peewit.training.budget.plan import FEWEST_STEPS, Speed
from peewit.training.defaults import OPEN, Note, filled
from peewit.training.recipe import Recipe
from peewit.training.resolve import resolve

# Below this median number of pictures of a class, all are tested instead of a fifth
FEW_PICTURES = 50
# 5 or 10 folds are recommended: R. Kohavi, "A Study of Cross-Validation and Bootstrap for Accuracy
# Estimation and Model Selection", IJCAI 1995; T. Hastie et al., "The Elements of Statistical
# Learning", 2009, section 7.10.
USUAL_FOLDS, MOST_FOLDS = 5, 10
# Each network of the cross-validation and the final one must have time for this many epochs
EPOCHS = 40


def resolve_with_folds(
    recipe: Recipe, dataset: Dataset, test: Dataset | None, machine: Machine, note: Note
) -> Recipe:
    """Return what ``resolve`` returns, with the number of folds.

    In a cross-validation with a time budget all networks share the minutes, so each of them is
    chosen for its part.

    Parameters
    ----------
    recipe : Recipe
    dataset : Dataset
        The training set, including the images to be held out.
    test : Dataset or None
        The test part of the source.
    machine : Machine
    note : callable
        Called with sentences that the user should know.

    Raises
    ------
    UsageError
        Folds are requested, and there is a test part, or no held-out validation; or a value does
        not fit the data.
    """
    _check(recipe, dataset, test)
    if not wants_folds(recipe, dataset, test):
        if dataset.names is not None:
            recipe = recipe.replace(folds=0)
        return resolve(recipe, dataset, machine, note)
    guess = recipe.folds or USUAL_FOLDS
    guess = min(guess, len(dataset))
    if recipe.minutes is None or recipe.head_only:
        return resolve(recipe.replace(folds=guess), dataset, machine, note)
    part = recipe.replace(folds=guess, minutes=recipe.minutes / guess)
    one = resolve(part, dataset, machine, note)
    speed, left = machine.speed_of(one), 60 * recipe.minutes - (machine.now() - machine.began)
    assert speed is not None, "a recipe with a budget has been measured"
    folds = recipe.folds or _as_time_allows(speed, left, len(dataset))
    folds = min(folds, len(dataset))
    if not folds:
        note(
            f"{recipe.minutes:g} minutes are too few for a cross-validation: a fifth of the "
            "pictures is held out for the test"
        )
    if folds != guess:
        # the open fields follow from the length of each training
        images = speed.images(left / max(folds, 1))
        opened = one.replace(**{name: getattr(recipe, name) for name in OPEN})
        one = filled(opened, dataset, images, lambda sentence: None)
    return one.replace(minutes=recipe.minutes, folds=folds)


def _as_time_allows(speed: Speed, seconds: float, images: int) -> int:
    """Return the number of folds for ``seconds`` of training in all; 0 if there is no time.

    >>> fast = Speed(model="fast-s", batch_size=50, step=0.05, inference=1e-4, flops=1e9)
    >>> [_as_time_allows(fast, seconds, images=500) for seconds in (2, 5, 60, 600)]
    [0, 2, 3, 10]
    """
    fewest = 3 * (FEWEST_STEPS * speed.step + 2 * images * speed.inference)
    if seconds < 2 * fewest:
        return 0
    return int(np.clip(speed.images(seconds) / images / EPOCHS, 2, MOST_FOLDS))


def wants_folds(recipe: Recipe, dataset: Dataset, test: Dataset | None) -> bool:
    """Return whether the pictures are to be tested by cross-validation."""
    if recipe.folds is not None:
        return recipe.folds > 0
    if test is not None or dataset.names is None or recipe.validate_on == "test":
        return False
    if recipe.until_accuracy is not None:  # which held-out images decide
        return False
    counts = dataset.class_counts
    return bool(np.median(counts[counts > 0]) < FEW_PICTURES)


def _check(recipe: Recipe, dataset: Dataset, test: Dataset | None) -> None:
    if not recipe.folds:
        return
    why = ""
    if test is not None:
        why = "the source has a test part, which is used instead"
    elif recipe.until_accuracy is not None:
        why = "until_accuracy needs held-out images"
    elif recipe.folds > len(dataset):
        why = f"there are only {len(dataset):,} images"
    if why:
        raise UsageError(f"is {recipe.folds}", why, "use folds 0", fields=["folds"])
