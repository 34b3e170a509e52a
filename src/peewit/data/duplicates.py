"""Find identical images: in two data sets, or in one under different labels.

Images are compared by a hash of their pixels (`Dataset.image_hashes`), so only exact copies are
found: not the same photograph in another size, crop or compression.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset

# Indices that a sentence names
_NAMED = 5


def also_in(images: Dataset, others: Dataset) -> npt.NDArray[np.int64]:
    """Return the indices of those images of a data set that are also in another one.

    Parameters
    ----------
    images, others : Dataset
        Compared by pixels, whatever their labels.

    Returns
    -------
    int64 array, shape (n,)
        Indices into ``images``, ascending.

    Examples
    --------
    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    >>> train = Dataset(pixels[:2], np.array([0, 1]), ["a", "b"])
    >>> test = Dataset(pixels[1:], np.array([1, 0]), ["a", "b"])
    >>> also_in(test, train)
    array([0])
    """
    if images.image_shape != others.image_shape:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(images.image_hashes, others.image_hashes))


def copies_in(images: Dataset, others: Dataset) -> npt.NDArray[np.int64]:
    """Return the indices of images that are also in another data set, or whose group is, ascending.

    Parameters
    ----------
    images, others : Dataset
        With or without groups, which are numbered together.
    """
    copies = also_in(images, others)
    if images.groups is None or others.groups is None:
        return copies
    return np.union1d(copies, np.flatnonzero(np.isin(images.groups, others.groups)))


def labelled_differently(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return the indices of images that are also in the data set under another label.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    int64 array, shape (n,)
        Identical images next to each other, in the order of the first of each.

    Examples
    --------
    >>> pixels = np.array([5, 7, 5, 7], np.uint8).reshape(4, 1, 1, 1)
    >>> labelled_differently(Dataset(pixels, np.array([0, 1, 1, 1]), ["a", "b"]))
    array([0, 2])
    """
    _, first, group = np.unique(dataset.image_hashes, return_index=True, return_inverse=True)
    lowest = np.full(len(first), len(dataset.class_names), np.int64)
    highest = np.full(len(first), -1, np.int64)
    np.minimum.at(lowest, group, dataset.labels)
    np.maximum.at(highest, group, dataset.labels)
    found = np.flatnonzero((lowest < highest)[group])
    return found[np.argsort(first[group[found]], kind="stable")]


def copies_named(
    split: str,
    indices: Sequence[int],
    total: int,
    names: Sequence[str] | None = None,
    groups: bool = False,
) -> str:
    """Return how many images are also training images, and which, as the start of a sentence.

    Validation images without names have no numbers that a user could look up, so they are only
    counted. With ``groups``, near-duplicates and images of one group count too.

    Examples
    --------
    >>> copies_named("test", [3], 90)
    '1 of 90 test images is also a training image (number 3, counted from 0)'
    >>> copies_named("test", [3, 8], 90)
    '2 of 90 test images are also training images (numbers 3, 8, counted from 0)'
    """
    one = len(indices) == 1
    count = f"{len(indices):,} of {total:,} {split} images {also_training(len(indices), groups)}"
    if names is not None:
        listed = ", ".join(names[index] for index in indices[:_NAMED])
        return f"{count} ({listed}{', ...' if len(indices) > _NAMED else ''})"
    if split != "test":
        return count
    named = ", ".join(str(index) for index in indices[:_NAMED])
    more = ", ..." if len(indices) > _NAMED else ""
    return f"{count} ({'number' if one else 'numbers'} {named}{more}, counted from 0)"


def also_training(count: int, groups: bool) -> str:
    """Return what copies of training images are, as the rest of a sentence.

    >>> also_training(1, False), also_training(2, True)
    ('is also a training image', 'are in a group with, or nearly identical to, training images')
    """
    one = count == 1
    if groups:
        image = "a training image" if one else "training images"
        return f"{'is' if one else 'are'} in a group with, or nearly identical to, {image}"
    return "is also a training image" if one else "are also training images"
