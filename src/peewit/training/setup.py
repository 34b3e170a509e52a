"""What a recipe makes of the data: splits, sizes, model, optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError, UsageError
from peewit.models import build, minimum_size, native_size
from peewit.preprocessing import Preprocessing
from peewit.training.loop import Job
from peewit.training.optimizers import KerasAdam
from peewit.training.recipe import Recipe


def make_job(
    dataset: Dataset, test: Dataset | None, recipe: Recipe, note: Callable[[str], None]
) -> Job:
    """Return what ``recipe`` makes of the data.

    Parameters
    ----------
    dataset : Dataset
        The training set, from which validation images are held out if the recipe says so.
    test : Dataset or None
        The test set.
    recipe : Recipe
    note : callable
        Told in sentences what the user should know of it.

    Raises
    ------
    PeewitError
        The two sets do not fit together.
    UsageError
        The recipe does not fit the data.
    """
    if test is not None and not len(test):
        raise PeewitError("the test set has no images", todo="leave it out, or give another")
    if test is not None and (
        test.class_names != dataset.class_names or test.image_shape[2] != dataset.image_shape[2]
    ):
        raise PeewitError(
            "the test set does not go with the training set",
            "they differ in class names or channels",
        )
    if recipe.validate_on == "test":
        if test is None:
            raise UsageError(
                "cannot validate on the test set",
                "there is none",
                "validate on held-out images (validate_on: holdout)",
            )
        training, validation = dataset, test
        note(
            "validating on the test set, as the tutorial does: whatever is chosen by watching it "
            "makes the test accuracy too hopeful; holding images out keeps the test honest"
        )
    else:
        training, validation = dataset.split(recipe.validation_fraction, recipe.seed)
        if test is None:
            note("there is no test set: the final numbers are those of the validation images")
    if recipe.batch_size > len(training):
        raise UsageError(
            f"batch_size is {recipe.batch_size:,}",
            f"there are only {len(training):,} training images",
        )
    rule = _preprocessing(dataset, recipe, note)
    shape = (rule.height, rule.width, rule.channels)
    model: nn.Module = build(recipe.model, shape, len(dataset.class_names), recipe.seed)
    return Job(
        model=model,
        optimizer=KerasAdam(model.parameters(), lr=recipe.lr),
        preprocessing=rule,
        training=training,
        validation=validation,
        recipe=recipe,
    )


def _preprocessing(dataset: Dataset, recipe: Recipe, note: Callable[[str], None]) -> Preprocessing:
    height, width, channels = dataset.image_shape
    if recipe.image_size is not None:
        height = width = recipe.image_size
    elif min(height, width) < minimum_size(recipe.model):
        size = native_size(recipe.model)
        note(
            f"the images of {height} x {width} pixels are enlarged to {size} x {size}, "
            f"because the model {recipe.model} needs at least {minimum_size(recipe.model)}"
        )
        height = width = size
    # pixels / 255 and no more: the tutorial's
    return Preprocessing(height, width, channels, (0.0,) * channels, (1.0,) * channels)


def describe_data(dataset: Dataset, test: Dataset | None, job: Job) -> dict[str, Any]:
    """Return what is kept of the data in the run, and by which it is known again."""
    return {
        "origin": dataset.origin,
        "images": {
            "training": len(job.training),
            "validation": len(job.validation),
            "test": len(test) if test is not None else 0,
        },
        "fingerprints": {
            "training": dataset.fingerprint,
            "test": test.fingerprint if test is not None else "",
        },
    }
