"""What a report can show beyond the numbers: the pictures, and the answers to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError
from peewit.evaluation.inference import softmax
from peewit.images.gallery import in_turn, least_sure, surest_mistakes
from peewit.runs.run import Run

if TYPE_CHECKING:
    from peewit.data.download.rate import Progress

# Three rows of eight
SHOWN = 24
# Pictures with heat maps, of each kind: in the picture file two rows of pairs, three of triples
EXPLAINED = 6
# Four of each of ten classes
SAMPLES = 40


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """The images that a run was tested on, with its answers, and those it was trained on.

    Parameters
    ----------
    training : Dataset
        The training images, or all of which they are a part.
    judged : Dataset
        The images of the final test.
    logits : float32 array, shape (N, classes)
        The answers to ``judged``.
    """

    training: Dataset
    judged: Dataset
    logits: npt.NDArray[np.float32]

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Each class's probability, float32, shape (N, classes)."""
        return softmax(self.logits)

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The classes that were answered, int64, shape (N,)."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @cached_property
    def mistakes(self) -> npt.NDArray[np.int64]:
        """The positions of all wrong answers, the most confident first."""
        return surest_mistakes(self.judged.labels, self.probabilities)

    @cached_property
    def uncertain(self) -> npt.NDArray[np.int64]:
        """The positions of the least confident answers."""
        return least_sure(self.probabilities)[:SHOWN]

    @cached_property
    def samples(self) -> npt.NDArray[np.int64]:
        """Positions in ``training``: some of each class, class by class."""
        labels = self.training.labels
        drawn = in_turn(labels, np.arange(len(labels)), SAMPLES)
        return np.asarray(drawn[np.argsort(labels[drawn], kind="stable")])

    @cached_property
    def explained(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The positions of right answers, one a class, and of wrong ones, to explain."""
        labels = self.judged.labels
        right = np.flatnonzero(self.predicted == labels)
        return in_turn(labels, right, EXPLAINED), self.mistakes[:EXPLAINED]


def gather(
    run: Run,
    data: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Evidence, tuple[str, ...]]:
    """Load a finished run's data again and let the run answer.

    Parameters
    ----------
    run : Run
    data : path, optional
        Where the source lies now, if it is not where it was.
    progress : callable, optional
        Called during a download.

    Returns
    -------
    Evidence
    tuple of str
        What is to be said about the data.

    Raises
    ------
    PeewitError
        The run is not finished, does not know where its data came from, or that is gone or has
        changed.
    """
    from peewit.data.sources import load, moved

    if not run.metrics:
        raise PeewitError("the run has not been tested yet")
    if not run.source:
        raise PeewitError("the run does not say how its data is loaded")
    train, test, notes = load(**moved(run.source, data), progress=progress)
    known = {"test": run.metrics.get("fingerprint"), **run.dataset.get("fingerprints", {})}
    for part, dataset in (("training", train), ("test", test)):
        if known.get(part) and (dataset is None or dataset.fingerprint != known[part]):
            raise PeewitError(f"the {part} images are not those that the run knows")
    judged = test
    if run.metrics.get("split") == "validation" or test is None:
        _, judged = train.split(run.recipe.validation_fraction, run.recipe.seed)
    if judged is None or len(judged) != run.metrics.get("images"):
        raise PeewitError("the images of the final test cannot be told from the others any more")
    return Evidence(training=train, judged=judged, logits=run.logits(judged.images)), notes
