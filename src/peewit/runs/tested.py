"""Find the images on which a run was tested in its data, by the record of its parts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.division import FOLD, as_recorded, named
from peewit.errors import PeewitError
from peewit.runs import folder as runfolder
from peewit.runs.folds import FoldResults
from peewit.runs.run import Run
from peewit.system.text import counted


class Tested(NamedTuple):
    """The images of a run's final test.

    Parameters
    ----------
    training : Dataset
        The training images, with those for validation.
    test : Dataset or None
        The test part; None if the final test was a validation or a cross-validation.
    judged : Dataset
        The images of the final test.
    logits : float32 array, shape (N, classes), or None
        Their out-of-fold logits, if the final test was a cross-validation: the network itself was
        trained on these images.
    notes : list of str
        How the data has changed since the training, and what that means.
    complete : bool
        Whether all images of the final test are still there.
    """

    training: Dataset
    test: Dataset | None
    judged: Dataset
    logits: npt.NDArray[np.float32] | None
    notes: list[str]
    complete: bool = True


def find_tested(run: Run, train: Dataset, test: Dataset | None) -> Tested:
    """Return the images on which a run was tested.

    Parameters
    ----------
    run : Run
    train, test : Dataset
        The parts of its source.

    Raises
    ------
    PeewitError
        The images cannot be found.
    """
    parts = runfolder.read_split(run.path) if train.names is not None else {}
    if not parts:
        judged = test
        if run.metrics.get("split") == "validation" or test is None:
            _, judged = train.split(run.recipe.validation_fraction, run.recipe.seed)
        assert judged is not None
        return Tested(train, test, judged, None, [])
    division = as_recorded(parts, train, test)
    notes = []
    if division.missing:
        notes.append(
            f"{counted(len(division.missing), 'picture')} of the run ({named(division.missing)}) "
            "can no longer be read: the results are those of the others"
        )
    if division.added:
        notes.append(
            f"{counted(len(division.added), 'picture')} ({named(division.added)}) came after the "
            "training: they are in no part of the run, and are left out"
        )
    complete = not division.missing
    if division.folds is not None:
        names = [name for name, part in parts.items() if part.startswith(FOLD)]
        logits = FoldResults.read(run.path, len(names), len(run.class_names)).logits
        scaling = run.metrics.get("temperature_scaling")
        if scaling:
            logits = logits / np.float32(scaling["temperature"])
        here = set(division.dataset.names or ())
        rows = [row for row, name in enumerate(names) if name in here]
        return Tested(division.dataset, None, division.dataset, logits[rows], notes, complete)
    judged = division.test
    if judged is None:
        judged = division.dataset.take(division.validation)
    if not len(judged):
        raise PeewitError("none of the images of the final test is still there")
    return Tested(division.dataset, division.test, judged, None, notes, complete)
