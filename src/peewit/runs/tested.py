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
    fitted : Dataset
        The training images without them.
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
    fitted: Dataset
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
        judged, fitted = test, train
        if run.recipe.validate_on == "holdout":
            fitted, held = train.split(run.recipe.validation_fraction, run.recipe.seed)
            judged = held if test is None or run.metrics.get("split") == "validation" else test
        if judged is None:
            raise PeewitError("the data of the run has no test set")
        return Tested(train, fitted, test, judged, None, [])
    division = as_recorded(parts, train, test)
    notes = []
    if division.missing:
        notes.append(
            f"{counted(len(division.missing), 'picture')} of the run ({named(division.missing)}) "
            "can no longer be read: the results are those of the others"
        )
    if division.added:
        notes.append(
            "left out, because the source did not have them when the run was trained: "
            f"{counted(len(division.added), 'picture')} ({named(division.added)})"
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
        data = division.dataset
        return Tested(data, data, None, data, logits[rows], notes, complete)
    judged = division.test
    if judged is None:
        judged = division.dataset.take(division.validation)
    if not len(judged):
        raise PeewitError("none of the images of the final test is still there")
    fitted = division.dataset.take(~division.validation)
    return Tested(division.dataset, fitted, division.test, judged, None, notes, complete)
