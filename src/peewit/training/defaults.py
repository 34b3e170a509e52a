"""Values for the open fields of a recipe, from data and run length. No PyTorch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peewit.data.dataset import Dataset
from peewit.images.fitting import Fit
from peewit.models.registry import find
from peewit.training.imbalance import choose_weights
from peewit.training.recipe import AUTO, Recipe

Note = Callable[[str], None]

# the fields that may be open
OPEN = ("lr", "translate", "skip_easy", "class_weights")

# Muon's best rate for a run of this many steps, and the power of the steps by which it falls:
# found with single runs of fast-m, validated with test-time augmentation. 1,043 steps: 0.06
# 89.0 %, 0.10 88.9 %, 0.17 87.6 %; 522 steps, of 500 images each: 0.10 88.7 %, 0.14 88.9 %, 0.24
# 88.4 %; 387 steps: 0.10 85.7 %, 0.17 85.1 %.
STEPS, RATE, POWER = 400, 0.115, 0.3
HIGHEST_RATE = 0.24  # airbench94's

# The fraction of easy images that short runs leave out, and below how many epochs a run is short.
# Validation accuracy with test-time augmentation, with all images and without the easy quarter: 2
# epochs of fast-s 84.3 and 84.9 % (two runs each), 4 of fast-m 87.6 and 88.3 %; chosen in each
# pass, 4 of fast-l 88.9 and 89.8 %. 9 epochs of fast-l: 90.8 % with all, 90.3 % without half.
SKIP_EASY, FEW_EPOCHS = 0.25, 6

# Held-out accuracy on five sets of photographs at 48 pixels, three seeds (benchmarks/fit.py): crop
# minus stretch is -0.5 +- 0.5 points and pad minus stretch -0.8 +- 0.5 (mean of the pairs, standard
# error). Only stretching keeps all of a picture and fills the input.
FIT: Fit = "stretch"


def training_images(recipe: Recipe, dataset: Dataset) -> int:
    """Return how many images are left for training when ``Dataset.split`` has held some out."""
    if recipe.validate_on == "test" or recipe.folds:
        return len(dataset)
    if dataset.validation is not None:
        return len(dataset) - int(dataset.validation.sum())
    held_out = [round(recipe.validation_fraction * int(count)) for count in dataset.class_counts]
    return len(dataset) - sum(held_out)


def filled(recipe: Recipe, dataset: Dataset, images: float, note: Note) -> Recipe:
    """Return ``recipe`` with its open fields filled and its augmentation bounded.

    Translation is at most a quarter of the side, cutout half of it: values that suit photographs
    would leave nothing of small images.

    Parameters
    ----------
    recipe : Recipe
        With a network.
    dataset : Dataset
        The training set, including the images to be held out.
    images : float
        How many images are processed in training, including repetitions.
    note : callable
        Called with a sentence about each value that was reduced.

    Examples
    --------
    >>> import numpy as np
    >>> data = Dataset(np.zeros((50, 32, 32, 3), np.uint8), np.arange(50) % 2, ["cat", "dog"])
    >>> recipe = filled(Recipe.preset("fast"), data, 250_000, print)
    >>> recipe.lr, recipe.translate, recipe.skip_easy
    (0.087, 2, 0.0)
    """
    side = augmented_side(dataset, network_size(dataset, recipe))
    values = {
        "lr": muon_rate(images / recipe.batch_size),
        "translate": translation(side),
        "skip_easy": skip_easy(images / max(training_images(recipe, dataset), 1)),
        "class_weights": choose_weights(dataset.class_counts),
    }
    recipe = with_open_fields(recipe, values).replace(fit=chosen_fit(recipe))
    most = {"translate": side // 4, "cutout": side // 2}
    less = {name: most[name] for name in most if getattr(recipe, name) > most[name]}
    for name, pixels in less.items():
        note(f"the images are small: {name} is {pixels} instead of {getattr(recipe, name)}")
    return recipe.replace(**less)


def with_open_fields(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return ``recipe`` with ``values`` for those of ``OPEN`` that it leaves open."""
    left = [name for name in OPEN if getattr(recipe, name) in (None, AUTO)]
    return recipe.replace(**{name: values[name] for name in left})


def muon_rate(steps: float) -> float:
    """Return Muon's learning rate, to two digits, for a run of ``steps`` steps.

    >>> muon_rate(1), muon_rate(180), muon_rate(1_000), muon_rate(10_000)
    (0.24, 0.15, 0.087, 0.044)
    """
    return float(f"{min(RATE * (STEPS / max(steps, 1)) ** POWER, HIGHEST_RATE):.2g}")


def translation(side: int) -> int:
    """Return the random translation in pixels for images of ``side`` pixels: 2 for CIFAR-10's 32.

    >>> translation(32), translation(28), translation(12), translation(8)
    (2, 2, 1, 0)
    """
    return round(side / 16)


def skip_easy(epochs: float) -> float:
    """Return the fraction of easy images that a run of ``epochs`` epochs leaves out.

    >>> skip_easy(4.3), skip_easy(9)
    (0.25, 0.0)
    """
    return SKIP_EASY if epochs < FEW_EPOCHS else 0.0


def network_size(
    dataset: Dataset, recipe: Recipe, note: Note = lambda sentence: None
) -> tuple[int, int]:
    """Return the input height and width of the recipe's network for these images."""
    height, width, _ = dataset.image_shape
    model = find(recipe.model)
    if recipe.image_size is not None:
        return recipe.image_size, recipe.image_size
    if min(height, width) < model.minimum_size:
        size = model.native_size
        note(
            f"images of {height} x {width} pixels are enlarged to {size} x {size}, "
            f"because the model {recipe.model} needs at least {model.minimum_size}"
        )
        return size, size
    largest = model.largest_size
    if largest is not None and max(height, width) > largest:
        note(
            f"images of {height} x {width} pixels are resized to {largest} x {largest}, the "
            f"native size of the model {recipe.model} (--image-size changes it)"
        )
        return largest, largest
    return height, width


def chosen_fit(recipe: Recipe) -> Fit:
    """Return how images of another aspect ratio are fitted into the network's input."""
    return FIT if recipe.fit == "auto" else recipe.fit


def augmented_side(dataset: Dataset, size: tuple[int, int]) -> int:
    """Return the shorter side, in pixels, of the images that augmentation changes.

    These have the network's input ``size``, or their own if the network enlarges them.
    """
    return min(*size, *dataset.image_shape[:2])
