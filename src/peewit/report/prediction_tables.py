"""The tables of the final test: every prediction, and the mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.gallery import surest_mistakes
from peewit.runs import folder as runfolder
from peewit.system.tables import file_cell, text_cell, write_csv

COLUMNS = ("file", "part", "label", "predicted", "confidence", "correct")


def write_prediction_tables(
    path: Path, data: Dataset, probabilities: npt.NDArray[np.float32], split: str
) -> None:
    """Write ``predictions.csv``, in the order of the data, and ``mistakes.csv``.

    The mistakes are sorted by confidence, highest first. Images without file names are called by
    their numbers, from 0.

    Parameters
    ----------
    path : Path
        The run folder.
    data : Dataset
        The images of the test.
    probabilities : float32 array, shape (N, classes)
    split : str
        "test" or "validation".

    Raises
    ------
    PeewitError
        A file cannot be written.
    """
    classes = [text_cell(name) for name in data.class_names]
    names = range(len(data)) if data.names is None else data.names
    predicted = probabilities.argmax(axis=1)

    def row(index: int) -> list[object]:
        label, answer = int(data.labels[index]), int(predicted[index])
        return [
            file_cell(str(names[index])),
            split,
            classes[label],
            classes[answer],
            f"{probabilities[index, answer]:.6f}",
            "yes" if label == answer else "no",
        ]

    write_csv(path / runfolder.PREDICTIONS, COLUMNS, map(row, range(len(data))))
    mistakes = surest_mistakes(data.labels, probabilities).tolist()
    write_csv(path / runfolder.MISTAKES_TABLE, COLUMNS, map(row, mistakes))
