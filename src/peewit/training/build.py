"""What a recipe makes of the data: splits, sizes, model, first layer, optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError, UsageError
from peewit.images.preprocessing import Preprocessing
from peewit.models.flops import TrainingFlops
from peewit.models.registry import build, find, minimum_size, native_size
from peewit.models.whitening import whitening_filters
from peewit.training.augment import Augment
from peewit.training.loop import Job
from peewit.training.optimizers.keras_adam import KerasAdam
from peewit.training.optimizers.muon import Muon
from peewit.training.recipe import Recipe
from peewit.training.resolve import bounded, complete
from peewit.training.sampler import HardExamples
from peewit.training.schedules import WHITENING_SHARE

# airbench94's with Muon (kellerjordan.github.io/posts/muon). The last two are for the sum of the
# batch's losses; its head has unit deviation and is divided by 256, where ours is divided by 9, so
# that the same rate means (9 / 256) ** 2 as much. With another rate of Muon's they change in
# proportion.
MUON_RATE, BIAS_RATE, HEAD_RATE = 0.24, 0.053, 0.67 * (9 / 256) ** 2
# an image of the batch, divided by the rate: so that rate times decay is the same for all
WEIGHT_DECAY = 2e-6
# the statistics of so many images' patches are those of all, and soon counted
WHITENING_IMAGES = 5_000
RESIZED_AT_ONCE = 256
FEWEST_STEPS = 10  # an epoch
LEAST_OF_ONE = 16  # pixels: three halvings leave two


def fitted(recipe: Recipe, dataset: Dataset, note: Callable[[str], None]) -> Recipe:
    """Return a fast recipe as it suits a small data set; others stay as they are.

    It holds out a thousand images, or a tenth of few, so that the validation says something; and
    it makes ten steps an epoch or more, because few steps are few changes to the weights.

    Parameters
    ----------
    recipe : Recipe
    dataset : Dataset
        The training set with the images to be held out.
    note : callable
        Told in a sentence what was changed.
    """
    if recipe.optimizer != "muon":
        return recipe
    count = len(dataset)
    least = min(0.1, 1000 / max(count, 1))
    if recipe.validate_on == "holdout" and recipe.validation_fraction < least:
        note(f"{least:.2g} of the images are held out for validation, because there are few")
        recipe = recipe.replace(validation_fraction=least)
    kept = count if recipe.validate_on == "test" else count * (1 - recipe.validation_fraction)
    batch = max(min(2, int(kept)), int(kept / FEWEST_STEPS))
    if recipe.batch_size > batch:
        note(f"a step takes {batch:,} images instead of {recipe.batch_size:,}, for there are few")
        recipe = recipe.replace(batch_size=batch)
    return recipe


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
    size, (height, width, _) = network_size(training, recipe, note), training.image_shape
    images = (recipe.epochs or 1) * recipe.steps(len(training)) * recipe.batch_size
    side = changed_side(training, size)
    recipe = bounded(complete(recipe, images, len(training), side), side, note)
    fast, changed = find(recipe.model).family == "fast", _changes_images(recipe)
    if fast and recipe.batch_size == 1 and min(size) < LEAST_OF_ONE:
        raise UsageError(
            "batch_size is 1",
            f"of images of {size[0]} x {size[1]} nothing but a pixel arrives at the last layers of "
            f"{recipe.model}, and one value cannot be normalised",
            "take steps of 2 images or more",
        )
    if (fast or changed) and size[0] * size[1] < height * width:
        # once, not in each epoch; and a shift by pixels means the network's pixels
        training = replace(training, images=resized(training.images, *size))
    rule = _preprocessing(training, recipe, *size)
    shape = (rule.height, rule.width, rule.channels)
    model: nn.Module = build(recipe.model, shape, len(dataset.class_names), recipe.seed)
    augment = _augment(training, recipe) if changed else None
    hard = None
    if recipe.skip_easy:
        hard = HardExamples(len(training), recipe.skip_easy, recipe.batch_size, recipe.seed)
    if fast:
        _whiten(model, training, rule)
    return Job(
        model=model,
        optimizer=make_optimizer(model, recipe),
        preprocessing=rule,
        training=training,
        validation=validation,
        recipe=recipe,
        augment=augment,
        hard=hard,
        work=TrainingFlops(model),
    )


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for all of the model's parameters that are trained.

    The recipe has a learning rate.
    """
    assert recipe.lr is not None
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adam":
        optimizer = KerasAdam(trained.values(), lr=recipe.lr)
    else:
        scale = recipe.lr / MUON_RATE
        filters = [parameter for parameter in trained.values() if parameter.ndim == 4]
        whitening, head = trained.pop("whitening.bias"), trained.pop("head.weight")
        biases = [parameter for parameter in trained.values() if parameter.ndim == 1]

        def group(parameters: list[nn.Parameter], rate: float, **more: float) -> dict[str, Any]:
            rate *= recipe.batch_size  # of the loop's mean loss
            decay = WEIGHT_DECAY * recipe.batch_size / rate
            settings = {"lr": rate * scale, "momentum": 0.85, "weight_decay": decay}
            return {"params": parameters, **settings, **more}

        others = [
            group([whitening], BIAS_RATE, until=WHITENING_SHARE),
            group(biases, BIAS_RATE),
            group([head], HEAD_RATE),
        ]
        optimizer = Muon(filters, lr=recipe.lr, others=others)
    if recipe.schedule == "linear":
        for settings in optimizer.param_groups:
            settings["first_lr"] = settings["lr"]
    return optimizer


def _changes_images(recipe: Recipe) -> bool:
    return recipe.flip != "none" or bool(recipe.translate) or recipe.cutout > 0


def _augment(training: Dataset, recipe: Recipe) -> Augment:
    """Return what changes the training images."""
    fill = None
    if recipe.cutout:  # only its squares have a colour, and counting all pixels takes a while
        fill = [round(255 * float(value)) for value in training.channel_statistics[0]]
    return Augment(
        training.images,
        recipe.seed,
        flip=recipe.flip,
        translate=recipe.translate or 0,
        cutout=recipe.cutout,
        fill=fill,
    )


def resized(images: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return ``images`` in another size, uint8, (N, H, W, C) -> (N, height, width, C)."""
    channels = images.shape[3]
    plain = Preprocessing(height, width, channels, (0.0,) * channels, (1.0,) * channels)
    out = np.empty((len(images), height, width, channels), np.uint8)
    for first in range(0, len(images), RESIZED_AT_ONCE):
        part = slice(first, first + RESIZED_AT_ONCE)
        x = plain.tensor(images[part]).mul_(255).round_()  # (n, C, H, W)
        out[part] = x.permute(0, 2, 3, 1).numpy()
    return out


def _whiten(model: nn.Module, training: Dataset, rule: Preprocessing) -> None:
    """Set the first layer from the training images, spread over all of them."""
    count = min(len(training), WHITENING_IMAGES)
    chosen = np.linspace(0, len(training) - 1, count).astype(np.int64)
    filters = whitening_filters(rule.tensor(training.images[chosen]))
    model.get_parameter("whitening.weight").data.copy_(filters)


def _preprocessing(dataset: Dataset, recipe: Recipe, height: int, width: int) -> Preprocessing:
    channels = dataset.image_shape[2]
    if recipe.normalize:
        mean, deviation = dataset.channel_statistics
        # a channel that is the same everywhere has no deviation to divide by
        scale = np.where(deviation > 0, deviation, 1.0)
        return Preprocessing(height, width, channels, tuple(mean), tuple(scale))
    # pixels / 255 and no more: the tutorial's
    return Preprocessing(height, width, channels, (0.0,) * channels, (1.0,) * channels)


def network_size(
    dataset: Dataset, recipe: Recipe, note: Callable[[str], None] = lambda sentence: None
) -> tuple[int, int]:
    """Return height and width of what the recipe's network reads of these images."""
    height, width, _ = dataset.image_shape
    largest = find(recipe.model).largest_size
    if recipe.image_size is not None:
        return recipe.image_size, recipe.image_size
    if min(height, width) < minimum_size(recipe.model):
        size = native_size(recipe.model)
        note(
            f"the images of {height} x {width} pixels are enlarged to {size} x {size}, "
            f"because the model {recipe.model} needs at least {minimum_size(recipe.model)}"
        )
        return size, size
    if largest is not None and max(height, width) > largest:
        note(
            f"the images of {height} x {width} pixels are resized to {largest} x {largest}, for "
            f"which the model {recipe.model} was made (another size: --image-size)"
        )
        return largest, largest
    return height, width


def changed_side(dataset: Dataset, size: tuple[int, int]) -> int:
    """Return the shorter side of the images as augmentation changes them, in pixels.

    That is the network's ``size``, or their own where the network is given them enlarged.
    """
    return min(*size, *dataset.image_shape[:2])


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
