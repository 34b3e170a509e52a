"""Build what training needs from a resolved recipe and the data: splits, model, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.data.dataset import Dataset
from peewit.data.division import Division
from peewit.data.duplicates import copies_in, copies_named, labelled_differently
from peewit.errors import PeewitError, UsageError
from peewit.images.fitting import Fit
from peewit.images.preprocessing import Preprocessing
from peewit.models.efficientnet_lite import EfficientNetLite
from peewit.models.flops import TrainingFlops
from peewit.models.pretrained import load_weights
from peewit.models.registry import find
from peewit.models.whitening import whitening_filters
from peewit.training.augment import Augment
from peewit.training.defaults import chosen_fit, network_size
from peewit.training.fields import per_channel
from peewit.training.imbalance import POWERS, loss_weights
from peewit.training.loop import TrainSetup
from peewit.training.network import build_network
from peewit.training.optimizers import make_optimizer
from peewit.training.recipe import Recipe
from peewit.training.sampler import HardExamples

# the patch statistics of this many images are those of all, and counted quickly
WHITENING_IMAGES = 5_000
RESIZED_AT_ONCE = 256
NAMED = 5  # classes in a note
LEAST_OF_ONE = 16  # pixels: three halvings leave two


def check_data(dataset: Dataset, test: Dataset | None, recipe: Recipe) -> None:
    """Refuse data that nothing can be learned from, or two sets that do not fit together.

    Raises
    ------
    PeewitError
        There are fewer images than classes or all are of one class; or the test set is empty or
        has other classes or channels.
    UsageError
        The recipe validates on the test set, and there is none.
    """
    names, found = dataset.class_names, np.unique(dataset.labels)
    if len(dataset) < len(names):
        raise PeewitError(
            f"{len(dataset):,} training images are too few for {len(names):,} classes",
            "each class needs at least one",
        )
    if len(found) < 2:
        raise PeewitError(
            f"all training images belong to the class {names[found[0]]!r}",
            "a classifier needs at least two classes",
            "add images of another class",
        )
    if test is not None and not len(test):
        raise PeewitError("the test set has no images", todo="omit it, or use another")
    if test is not None and (
        test.class_names != dataset.class_names or test.image_shape[2] != dataset.image_shape[2]
    ):
        raise PeewitError(
            "the test set does not fit the training set",
            "they differ in class names or channels",
        )
    if recipe.validate_on == "test" and test is None:
        raise UsageError(
            "cannot validate on the test set",
            "there is none",
            "validate on held-out images (validate_on: holdout)",
        )


def build_setup(
    dataset: Dataset,
    test: Dataset | None,
    recipe: Recipe,
    note: Callable[[str], None],
    division: Division | None = None,
) -> TrainSetup:
    """Return everything that training by ``recipe`` needs.

    Parameters
    ----------
    dataset : Dataset
        The training set, from which validation images are held out if the recipe says so.
    test : Dataset or None
        The test set.
    recipe : Recipe
        Resolved.
    note : callable
        Called with sentences that the user should know.
    division : Division, optional
        Which images of ``dataset`` are held out; by default ``Dataset.split`` chooses them.

    Raises
    ------
    PeewitError
        The data cannot be split.
    UsageError
        The recipe does not fit the data.
    """
    _note_contradictions(dataset, note)
    if recipe.validate_on == "test":
        assert test is not None, "check_data has refused this"
        training, validation = dataset, test
        copies = _note_duplicates(training, test, "test", note)
        note(
            "validating on the test set, as the tutorial does: any choice based on these numbers "
            "biases the test accuracy upwards; holding out training images avoids that"
        )
    elif division is not None and division.folds is not None:
        copies, training, validation = [], dataset, dataset.take([])
    else:
        copies = [] if test is None else _note_duplicates(dataset, test, "test", note)
        held = (
            dataset.validation_mask(recipe.validation_fraction, recipe.seed)
            if division is None
            else division.validation
        )
        training, validation = dataset.take(~held), dataset.take(held)
        held_out = _note_duplicates(training, validation, "validation", note)
        if test is None:
            copies = held_out
            note("there is no test set: the final metrics are those of the validation images")
    judged = test if test is not None else validation
    _note_rare_classes(dataset, training, judged if len(judged) else dataset, note)
    return setup_of(training, validation, recipe, note, copies)


def setup_of(
    training: Dataset,
    validation: Dataset,
    recipe: Recipe,
    note: Callable[[str], None],
    copies: Sequence[int] = (),
) -> TrainSetup:
    """Return everything that training by ``recipe`` on these images needs.

    Parameters
    ----------
    training, validation : Dataset
    recipe : Recipe
        Resolved.
    note : callable
        Called with sentences that the user should know.
    copies : sequence of int
        Indices of the images of the final test that are also training images.

    Raises
    ------
    UsageError
        The recipe does not fit the data.
    """
    if recipe.batch_size > len(training) and not recipe.head_only:  # which has no batches
        raise UsageError(
            f"is {recipe.batch_size:,}",
            f"there are only {len(training):,} training images",
            fields=["batch_size"],
        )
    size, (height, width, _) = network_size(training, recipe, note), training.image_shape
    fit = chosen_fit(recipe)
    fast = find(recipe.model).family == "fast"
    augmented = recipe.flip != "none" or bool(recipe.translate) or recipe.cutout > 0
    augmented = augmented or recipe.random_crop < 1
    if fast and recipe.batch_size == 1 and min(size) < LEAST_OF_ONE:
        raise UsageError(
            "is 1",
            f"images of {size[0]} x {size[1]} are reduced to a single value per channel in the "
            f"last layers of {recipe.model}, and batch normalisation needs at least two",
            "use a batch size of 2 or more",
            fields=["batch_size"],
        )
    if (fast or augmented) and size[0] * size[1] < height * width:
        # once, not in each epoch; translation is in pixels of the network's input
        training = replace(training, images=resized(training.images, *size, fit))
    rule = _preprocessing(training, recipe, *size, fit)
    shape = (rule.height, rule.width, rule.channels)
    model = build_network(recipe, shape, len(training.class_names))
    hard_examples = None
    if recipe.skip_easy:
        hard_examples = HardExamples(
            len(training), recipe.skip_easy, recipe.batch_size, recipe.seed
        )
    weights = None
    if recipe.class_weights in POWERS:
        weights = loss_weights(training.class_counts, POWERS[recipe.class_weights])
    if fast:
        _whiten(model, training, rule)
    if isinstance(model, EfficientNetLite):
        load_weights(model, recipe.model)
    return TrainSetup(
        model=model,
        optimizer=make_optimizer(model, recipe),
        preprocessing=rule,
        training=training,
        validation=validation,
        recipe=recipe,
        augment=_augment(training, recipe) if augmented else None,
        hard_examples=hard_examples,
        class_weights=None if weights is None else torch.from_numpy(weights),
        flops=TrainingFlops(model),
        copies=copies,
    )


def _note_rare_classes(
    dataset: Dataset, training: Dataset, judged: Dataset, note: Callable[[str], None]
) -> None:
    """Note classes that cannot be learned or tested, because they have hardly any images."""
    given, kept, tested = (part.class_counts for part in (dataset, training, judged))
    for rare, consequence in (
        (given == 0, "no training images: the network cannot learn to recognise {them}"),
        (
            (given > 0) & (kept == 0),
            "no training images left, because all are held out for validation: use a smaller "
            "validation_fraction",
        ),
        (kept == 1, "only one training image: the network may not recognise others"),
        (tested == 0, "no images in the final test: {their} accuracy is not measured"),
    ):
        names = [repr(dataset.class_names[int(number)]) for number in np.flatnonzero(rare)]
        if len(names) == 1:
            note(f"the class {names[0]} has {consequence.format(them='it', their='its')}")
        elif names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            found = consequence.format(them="them", their="their")
            note(f"the classes {', '.join(names[:NAMED])}{more} have {found}")


def _note_duplicates(
    training: Dataset, judged: Dataset, split: str, note: Callable[[str], None]
) -> list[int]:
    """Return which images of ``judged`` are also training images, and note it."""
    copies: list[int] = copies_in(judged, training).tolist()
    if copies:
        found = copies_named(split, copies, len(judged), judged.names, judged.groups is not None)
        note(f"{found}: the {split} accuracy is too optimistic")
    return copies


def _note_contradictions(dataset: Dataset, note: Callable[[str], None]) -> None:
    """Note identical training images with different labels."""
    found = labelled_differently(dataset)
    if len(found):
        first = found[dataset.image_hashes[found] == dataset.image_hashes[found[0]]]
        labels = dataset.labels[first]
        other = int(first[np.argmax(labels != labels[0])])
        pair = [int(first[0]), other]
        classes = [repr(dataset.class_names[dataset.labels[i]]) for i in pair]
        if dataset.names is not None:
            named = zip((dataset.names[i] for i in pair), classes, strict=True)
            example = " and ".join(f"{name} ({label})" for name, label in named)
        else:
            example = (
                f"numbers {pair[0]} ({classes[0]}) and {pair[1]} ({classes[1]}), counted from 0"
            )
        note(
            f"{len(found):,} training images are copies of others with another label, for example "
            f"{example}: no classifier can get all of them right"
        )


def _augment(training: Dataset, recipe: Recipe) -> Augment:
    """Return what augments the training images."""
    fill = None
    if recipe.cutout:  # only its squares need a colour, and counting all pixels takes time
        fill = [round(255 * float(value)) for value in training.channel_statistics[0]]
    return Augment(
        training.images,
        recipe.seed,
        flip=recipe.flip,
        translate=recipe.translate or 0,
        cutout=recipe.cutout,
        fill=fill,
        crop=recipe.random_crop,
    )


def resized(
    images: npt.NDArray[np.uint8], height: int, width: int, fit: Fit
) -> npt.NDArray[np.uint8]:
    """Return ``images`` in another size, uint8, (N, H, W, C) -> (N, height, width, C)."""
    channels = images.shape[3]
    plain = Preprocessing(height, width, channels, (0.0,) * channels, (1.0,) * channels, fit)
    out = np.empty((len(images), height, width, channels), np.uint8)
    for first in range(0, len(images), RESIZED_AT_ONCE):
        part = slice(first, first + RESIZED_AT_ONCE)
        x = plain.tensor(images[part]).mul_(255).round_()  # (n, C, H, W)
        out[part] = x.permute(0, 2, 3, 1).numpy()
    return out


def _whiten(model: nn.Module, training: Dataset, rule: Preprocessing) -> None:
    """Initialise the whitening layer from training images, spread over all of them."""
    count = min(len(training), WHITENING_IMAGES)
    chosen = np.linspace(0, len(training) - 1, count).astype(np.int64)
    filters = whitening_filters(rule.tensor(training.images[chosen]))
    model.get_parameter("whitening.weight").data.copy_(filters)


def _preprocessing(
    dataset: Dataset, recipe: Recipe, height: int, width: int, fit: Fit
) -> Preprocessing:
    if recipe.backbone_mean is not None and recipe.backbone_std is not None:
        given_mean, given_std = map(per_channel, (recipe.backbone_mean, recipe.backbone_std))
        return Preprocessing(height, width, 3, given_mean, given_std, fit)
    given = find(recipe.model).normalisation
    if given is not None:
        return Preprocessing(height, width, 3, (given[0],) * 3, (given[1],) * 3, fit)
    channels = dataset.image_shape[2]
    if recipe.normalize:
        mean, deviation = dataset.channel_statistics
        # a constant channel has a standard deviation of 0, which cannot be divided by
        scale = np.where(deviation > 0, deviation, 1.0)
        return Preprocessing(height, width, channels, tuple(mean), tuple(scale), fit)
    # only pixels / 255, as in the tutorial
    return Preprocessing(height, width, channels, (0.0,) * channels, (1.0,) * channels, fit)


def describe_data(dataset: Dataset, test: Dataset | None, setup: TrainSetup) -> dict[str, Any]:
    """Return the facts about the data that a run stores, and that identify it on resuming."""
    return {
        "origin": dataset.origin,
        "images": {
            "training": len(setup.training),
            "validation": len(setup.validation),
            "test": len(test) if test is not None else 0,
        },
        "fingerprints": {
            "training": dataset.fingerprint,
            "test": test.fingerprint if test is not None else "",
        },
    }
