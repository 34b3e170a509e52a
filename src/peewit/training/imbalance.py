"""Imbalanced classes: whether to weight the loss, and the weights. No PyTorch here."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.evaluation.metrics import imbalance
from peewit.training.recipe import Recipe

Counts = npt.NDArray[np.int64]

# From this ratio of the largest class to the smallest on, the loss is weighted. Square roots,
# because they raise the balanced accuracy nearly as much as the inverse numbers, at about the same
# accuracy (benchmarks/imbalance.py, three seeds, in points): trashnet, 1:4, +7.0 +- 4.4 and
# +2.0 +- 3.7; CIFAR-10, 1:10, +8.4 +- 3.5 and +0.7 +- 1.4; 1:50, +10.1 +- 3.6 and +1.4 +- 2.6. On
# flowers, 1:16, there is no clear effect: +1.1 +- 3.1 and +0.7 +- 2.4. The inverse numbers cost up
# to 13.5 points of accuracy.
WEIGHTED_FROM = 3.0
POWERS = {"sqrt": 0.5, "balanced": 1.0}


def choose_weights(counts: Counts) -> Literal["sqrt", "none"]:
    """Return whether to weight the loss for classes with ``counts`` images.

    >>> choose_weights(np.array([300, 200])), choose_weights(np.array([300, 40]))
    ('none', 'sqrt')
    """
    return "sqrt" if imbalance(counts) >= WEIGHTED_FROM else "none"


def loss_weights(counts: Counts, power: float) -> npt.NDArray[np.float32] | None:
    """Return the weight of each class in the loss: a power of the inverse of its number of images.

    The mean over the images is 1, so that the learning rate keeps its meaning. None if all classes
    have the same number of images.

    Parameters
    ----------
    counts : int64 array, shape (classes,)
        Training images of each class.
    power : float
        1 gives all classes the same total weight.

    Returns
    -------
    float32 array, shape (classes,), or None

    Examples
    --------
    >>> loss_weights(np.array([6, 2]), 1).tolist(), loss_weights(np.array([5, 5]), 1)
    ([0.6666666865348816, 2.0], None)
    """
    present = counts > 0
    if len(np.unique(counts[present])) < 2:
        return None
    weights = np.maximum(counts, 1.0) ** -power
    weights *= counts.sum() / (weights * counts).sum()
    return np.asarray(weights, np.float32)


def imbalance_sentence(dataset: Dataset, recipe: Recipe) -> str:
    """Return what the user should know about imbalanced classes; empty if there is nothing.

    Parameters
    ----------
    dataset : Dataset
        The training images.
    recipe : Recipe
        Resolved.
    """
    counts = dataset.class_counts
    ratio = imbalance(counts)
    if ratio < WEIGHTED_FROM:
        return ""
    present = np.flatnonzero(counts)
    largest = int(present[counts[present].argmax()])
    smallest = int(present[counts[present].argmin()])
    names = dataset.class_names
    found = (
        f"the classes are imbalanced: {names[largest]!r} has {counts[largest]:,} training images, "
        f"{names[smallest]!r} {counts[smallest]:,}"
    )
    if recipe.class_weights in POWERS:
        return (
            f"{found}; the loss gives more weight to images of small classes (class_weights: "
            f"{recipe.class_weights}; none counts all images equally)"
        )
    return f"{found}; all images count equally (class_weights: sqrt or balanced changes that)"
