"""Whether an exported file gives the Run's answers: the same real pictures through both."""

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

Pictures = npt.NDArray[np.uint8]
Answers = Callable[[Pictures], npt.NDArray[np.float32]]

COUNT = 256
# Two classes that are nearer to each other than this are a tie: rounding may break it either way
TIE = 1e-5
# what float32 runtimes may differ by; they differ by 1e-6, so more than this is another network
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Sample:
    """Pictures to compare answers on: groups of one size each, and where they are from."""

    groups: tuple[Pictures, ...]
    origin: str


@dataclass(frozen=True)
class Agreement:
    """How two sets of answers compare.

    Attributes
    ----------
    pictures : int
    difference : float
        The largest difference of a probability.
    changed : int
        How many pictures are taken for another class.
    origin : str
        Where the pictures are from.
    """

    pictures: int
    difference: float
    changed: int
    origin: str

    def __str__(self) -> str:
        agrees = "the same class" if not self.changed else f"another class for {self.changed}"
        return (
            f"{agrees}, and probabilities within {self.difference:.1e}, on {self.pictures} "
            f"pictures ({self.origin})"
        )


def sample(run: Run, count: int = COUNT) -> Sample:
    """Return pictures of the run's own data where it is on this machine, and made ones elsewhere.

    Most have the size of the data; a few are put together from several, so that resizing is
    compared as well.
    """
    found = own_pictures(run, count)
    pictures, origin = found if found else (_made(run, count), "made up, for want of its data")
    # pictures side by side: wide ones and tall ones, larger than what the network reads
    wide = np.concatenate(list(pictures[:6]), axis=1)[None]
    tall = np.concatenate(list(pictures[:3]), axis=0)[None]
    return Sample((pictures, wide, tall), origin)


def own_pictures(run: Run, count: int) -> tuple[Pictures, str] | None:
    """Return test pictures of the data that the run names, or None if it is not on this machine."""
    try:
        splits = own_data(run)
    except PeewitError:
        return None
    data = splits.test if splits.test is not None else splits.train
    step = max(1, len(data) // count)
    return np.array(data.images[::step][:count]), data.origin


def own_data(run: Run, data: str | Path | None = None) -> Splits:
    """Return the data that the run was trained on, without downloading anything.

    Parameters
    ----------
    run : Run
    data : path, optional
        Where it lies, if not where the run says.

    Raises
    ------
    PeewitError
        It is not on this machine, cannot be read, or has other classes than the run.
    """
    source = dict(run.source)
    name = source.get("source")
    todo = "name its archive or folder with --data"
    if data is not None:
        source = moved(source, data)
    elif not name:
        raise PeewitError(
            f"there is no data to go with {run.path}", "the run does not know where it lies", todo
        )
    elif name in SOURCES and name != "digits" and not source.get("data"):
        found = [place.path for place in where(name) if place.found]
        if not found:
            raise PeewitError(
                f"{name} is not on this machine", "", f"peewit data fetch {name}, or {todo}"
            )
        source["data"] = found[0]  # by its name alone it might be downloaded
    splits = load(**source)
    if tuple(splits.train.class_names) != run.class_names:
        raise PeewitError(
            f"{splits.train.origin} does not go with {run.path}",
            "its classes are not those of the run",
            todo,
        )
    return splits


def answers_of(run: Run) -> Answers:
    """Return what the run's network itself answers, one view of each picture."""
    import torch

    model = run.model()

    def answers(pictures: Pictures) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return softmax(model(run.preprocessing.tensor(pictures)).numpy())

    return answers


def compare(ours: Answers, theirs: Answers, pictures: Sample) -> Agreement:
    """Ask both about all pictures."""
    first = np.concatenate([ours(group) for group in pictures.groups])
    second = np.concatenate([theirs(group) for group in pictures.groups])
    return agreement(first, second, pictures.origin)


def agreement(
    ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], origin: str
) -> Agreement:
    """Compare probabilities (N, classes).

    >>> a = np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)
    >>> agreement(a, a[:, ::-1], "nowhere").changed
    1
    """
    rows = np.arange(len(ours))
    # how much less likely the other's choice is to us than our own
    lost = ours.max(1) - ours[rows, theirs.argmax(1)]
    difference = float(np.abs(ours - theirs).max())
    return Agreement(len(ours), difference, int((lost > TIE).sum()), origin)


def require(result: Agreement, file: str) -> None:
    """Raise unless the two agree.

    Raises
    ------
    PeewitError
        They take a picture for different classes, or differ more than rounding explains.
    """
    # written so that NaN is a disagreement
    if result.changed or not result.difference <= TOLERANCE:
        raise PeewitError(
            f"{file} does not agree with the run and was not kept",
            f"it gives {result}",
            "please report it",
        )


def _made(run: Run, count: int) -> Pictures:
    """Make smooth coloured noise: at least as hard to agree on as photographs."""
    rule = run.preprocessing
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 8, 8, rule.channels))
    rows, columns = (np.arange(size) * 8 // size for size in (rule.height, rule.width))
    fine = random.integers(-30, 30, (count, rule.height, rule.width, rule.channels))
    pictures: Pictures = np.clip(coarse[:, rows][:, :, columns] + fine, 0, 255).astype(np.uint8)
    return pictures
