"""Check that an exported file predicts as the Run does: the same real pictures through both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from peewit.data.sources import SOURCES, Splits, load, moved, where
from peewit.errors import PeewitError
from peewit.evaluation.inference import softmax
from peewit.runs.run import Run
from peewit.runs.tested import find_tested

Images = npt.NDArray[np.uint8]
Predictor = Callable[[Images], npt.NDArray[np.float32]]  # (N, H, W, C) -> probabilities

SAMPLE_SIZE = 256
# two classes whose probabilities are closer than this are a tie, which rounding may decide
TIE = 1e-5
# float32 runtimes differ by about 1e-6; a difference above this means a different network
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Sample:
    """Pictures to compare predictions on: arrays of one size each, and where they come from."""

    groups: tuple[Images, ...]
    origin: str


@dataclass(frozen=True)
class Agreement:
    """How two sets of predictions compare.

    Attributes
    ----------
    pictures : int
        Number of pictures compared.
    difference : float
        Largest difference between two probabilities.
    changed : int
        Number of pictures for which another class is predicted.
    origin : str
        Where the pictures come from.
    """

    pictures: int
    difference: float
    changed: int
    origin: str

    def __str__(self) -> str:
        different = f"a different class for {self.changed} of {self.pictures}"
        classes = different if self.changed else f"the same class for all {self.pictures}"
        return f"{classes} images, probabilities within {self.difference:.1e} ({self.origin})"


def sample_pictures(run: Run, count: int = SAMPLE_SIZE) -> Sample:
    """Return pictures of the run's own data if it is on this machine, synthetic ones otherwise.

    Most have the size of the data. Two are tiled from several pictures, one wide and one tall, to
    compare resizing as well; both are larger than the network's input.
    """
    found = _test_pictures(run, count)
    pictures, origin = found or (_synthetic(run, count), "synthetic, since its data is unavailable")
    wide = np.concatenate(list(pictures[:6]), axis=1)[None]
    tall = np.concatenate(list(pictures[:3]), axis=0)[None]
    return Sample((pictures, wide, tall), origin)


def run_data(run: Run, data: str | Path | None = None) -> Splits:
    """Return the data that the run was trained on, without downloading anything.

    Parameters
    ----------
    run : Run
    data : path, optional
        Location of the data, if not the one stored in the run.

    Raises
    ------
    PeewitError
        The data is not on this machine, cannot be read, or has other classes than the run.
    """
    source = dict(run.source)
    name = source.get("source")
    todo = "name its archive or folder with --data"
    if data is not None:
        source = moved(source, data)
    elif not name:
        raise PeewitError(
            f"cannot load the data of {run.path}", "the run does not record its location", todo
        )
    elif name in SOURCES and name != "digits" and not source.get("data"):
        found = [place.path for place in where(name) if place.found]
        if not found:
            raise PeewitError(
                f"{name} is not on this machine", "", f"run peewit data fetch {name}, or {todo}"
            )
        source["data"] = found[0]  # loading by name alone might download it
    splits = load(**source)
    if tuple(splits.train.class_names) != run.class_names:
        raise PeewitError(
            f"cannot use {splits.train.origin} for {run.path}",
            "its classes differ from those of the run",
            todo,
        )
    if splits.train.names is None:
        return splits
    parts = find_tested(run, splits.train, splits.test)
    return splits._replace(
        train=parts.training, test=parts.test, notes=(*splits.notes, *parts.notes)
    )


def run_predictor(run: Run) -> Predictor:
    """Return a function that predicts with the run's own network, without augmentation."""
    import torch

    model = run.model()

    def predict(images: Images) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return softmax(model(run.preprocessing.tensor(images)).numpy())

    return predict


def compare(ours: Predictor, theirs: Predictor, sample: Sample) -> Agreement:
    """Compare two predictors on a sample."""
    expected = np.concatenate([ours(group) for group in sample.groups])
    actual = np.concatenate([theirs(group) for group in sample.groups])
    return compare_probabilities(expected, actual, sample.origin)


def compare_probabilities(
    ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], origin: str
) -> Agreement:
    """Compare probabilities (N, classes).

    >>> a = np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)
    >>> compare_probabilities(a, a[:, ::-1], "nowhere").changed
    1
    """
    rows = np.arange(len(ours))
    # by how much their class is less probable than ours, both by our own probabilities
    margin = ours.max(1) - ours[rows, theirs.argmax(1)]
    difference = float(np.abs(ours - theirs).max())
    return Agreement(len(ours), difference, int((margin > TIE).sum()), origin)


def require_agreement(result: Agreement, file: str) -> None:
    """Raise unless the predictions agree.

    Raises
    ------
    PeewitError
        The class of an image changes, or probabilities differ by more than rounding explains.
    """
    # `not ... <=`, so that NaN is a disagreement
    if result.changed or not result.difference <= TOLERANCE:
        raise PeewitError(
            f"{file} does not agree with the run and was not kept",
            f"it predicts {result}",
            "please report this as a bug",
        )


def _test_pictures(run: Run, count: int) -> tuple[Images, str] | None:
    """Return test images of the run's data and their origin; None if it is not available."""
    try:
        splits = run_data(run)
        data = splits.test if splits.test is not None else splits.train
        step = max(1, len(data) // count)
        return np.array(data.images[: step * count : step]), data.origin
    except PeewitError:  # also if one of them cannot be read
        return None


def _synthetic(run: Run, count: int) -> Images:
    """Return smooth coloured noise, on which it is at least as hard to agree as on photographs."""
    rule = run.preprocessing
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 8, 8, rule.channels))
    rows, columns = (np.arange(size) * 8 // size for size in (rule.height, rule.width))
    fine = random.integers(-30, 30, (count, rule.height, rule.width, rule.channels))
    images: Images = np.clip(coarse[:, rows][:, :, columns] + fine, 0, 255).astype(np.uint8)
    return images
