"""Choose images of a data set to show, and describe the data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.pictures import files_of
from peewit.errors import UsageError

# maximum number of images in one figure
MOST = 10_000


def choose(
    dataset: Dataset,
    indices: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    count: int = 16,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Choose images to show.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int, optional
        Exactly these images, in this order; ``count`` and ``seed`` are ignored.
    classes : sequence of str, optional
        Only images of these classes, in equal numbers (give or take one), class by class in the
        order given. With ``indices``: filter them by these classes.
    count : int
        Number of images to draw at random, at most ``MOST``; all if there are fewer.
    seed : int
        Random seed; the same seed draws the same images.

    Returns
    -------
    int64 array, shape (images,)
        Indices into ``dataset``.

    Raises
    ------
    UsageError
        An index or a class is not in the data set, ``count`` is less than 1 or more than ``MOST``,
        ``seed`` is negative, or no image is left.

    Examples
    --------
    >>> data = Dataset(np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2, ["no", "yes"])
    >>> choose(data, indices=[5, 0]).tolist()
    [5, 0]
    >>> data.labels[choose(data, classes=["yes"], count=2)].tolist()
    [1, 1]
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}", "it must be at least 0")
    labels = _labels_of(dataset, classes)
    if indices is not None:
        chosen = _checked_indices(dataset, indices)
        if classes is not None:
            chosen = chosen[np.isin(dataset.labels[chosen], labels)]
    elif not 1 <= count <= MOST:
        raise UsageError(f"cannot show {count:,} images", "", f"give 1 to {MOST:,}")
    elif classes is not None:
        random = np.random.default_rng(seed)
        # for example, 10 images of 3 classes: 4, 3 and 3
        shares = [len(part) for part in np.array_split(np.arange(count), len(labels))]
        members = [np.flatnonzero(dataset.labels == label) for label in labels]
        chosen = np.concatenate(
            [
                np.sort(random.permutation(part)[:share])
                for part, share in zip(members, shares, strict=True)
            ]
        )
    else:
        random = np.random.default_rng(seed)
        chosen = random.choice(len(dataset), size=min(count, len(dataset)), replace=False)
    if not len(chosen):
        raise UsageError("there is no image to show", "no image matches the selection")
    return chosen.astype(np.int64)


def surest_mistakes(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Return the indices of the wrong predictions, the most confident first.

    Parameters
    ----------
    labels : int array, shape (N,)
        True classes.
    probabilities : float array, shape (N, classes)

    Examples
    --------
    >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32)
    >>> surest_mistakes(np.array([0, 1, 0]), probabilities).tolist()
    [2, 1]
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    # stable, so that the same predictions always select the same images
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def least_sure(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return all indices, the least confident predictions first.

    >>> least_sure(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32)).tolist()
    [1, 2, 0]
    """
    return np.argsort(probabilities.max(axis=1), kind="stable")


def in_turn(
    labels: npt.NDArray[np.int64], among: npt.NDArray[np.int64], count: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Draw up to ``count`` of the indices ``among``, one of each class in each round.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 2])
    >>> labels[in_turn(labels, np.arange(6), count=4)].tolist()
    [0, 1, 2, 0]
    """
    drawn = np.random.default_rng(seed).permutation(among)
    round_ = np.empty(len(drawn), np.int64)
    for label in np.unique(labels[drawn]):
        members = labels[drawn] == label
        round_[members] = np.arange(members.sum())
    return drawn[np.lexsort((labels[drawn], round_))][:count].astype(np.int64)


def titles(dataset: Dataset, chosen: npt.NDArray[np.int64]) -> list[str]:
    """Return the class name of each chosen image."""
    return [dataset.class_names[label] for label in dataset.labels[chosen]]


def describe(dataset: Dataset) -> str:
    """Describe a data set: size, images per class, mean and standard deviation per channel.

    >>> data = Dataset(np.full((2, 4, 4, 1), 51, np.uint8), np.array([0, 1]), ["no", "yes"])
    >>> print(describe(data))
    2 images of 4 x 4, grey, in 2 classes
    <BLANKLINE>
    class  images
    no          1
    yes         1
    <BLANKLINE>
    channel   mean  deviation
    grey     0.200      0.000
    """
    from peewit.system.terminal import text_table

    if files_of(dataset.images):  # they have different sizes
        summary = f"{len(dataset):,} pictures in files, in {len(dataset.class_names)} classes"
        return f"{summary}\n\n{_counts(dataset)}"
    height, width, channels = dataset.image_shape
    kind = "grey" if channels == 1 else "RGB"
    summary = (
        f"{len(dataset):,} images of {width} x {height}, {kind}, "
        f"in {len(dataset.class_names)} classes"
    )
    mean, deviation = dataset.channel_statistics
    names = ["grey"] if channels == 1 else ["red", "green", "blue"]
    statistics = [[name, f"{mean[i]:.3f}", f"{deviation[i]:.3f}"] for i, name in enumerate(names)]
    return "\n\n".join(
        [
            summary,
            _counts(dataset),
            text_table(["channel", "mean", "deviation"], statistics, "lrr"),
        ]
    )


def _counts(dataset: Dataset) -> str:
    from peewit.system.terminal import text_table

    counts = [
        [name, f"{count:,}"]
        for name, count in zip(dataset.class_names, dataset.class_counts, strict=True)
    ]
    return text_table(["class", "images"], counts, "lr")


def _checked_indices(dataset: Dataset, indices: Sequence[int]) -> npt.NDArray[np.int64]:
    for index in indices:
        if not 0 <= index < len(dataset):
            raise UsageError(
                f"there is no image {index}",
                f"the {len(dataset):,} images are numbered from 0 to {len(dataset) - 1:,}",
            )
    return np.asarray(indices, dtype=np.int64)


def _labels_of(dataset: Dataset, classes: Sequence[str] | None) -> list[int]:
    names = list(dataset.class_names)
    for name in classes or ():
        if name not in names:
            raise UsageError(f"there is no class {name!r}", f"the classes are {', '.join(names)}")
    # duplicates are ignored
    return [names.index(name) for name in dict.fromkeys(classes or ())]
