"""The page of ``peewit similar``: pictures, and the training images that are similar to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.prediction.predict import Prediction
from peewit.prediction.similar import Neighbour, SimilarImages
from peewit.report.pictures import embedded
from peewit.report.sentences import percent
from peewit.report.write import render
from peewit.runs.run import Run
from peewit.system.files import write_text


class Answer(NamedTuple):
    """What the page shows of a picture.

    Parameters
    ----------
    prediction : Prediction
    image : uint8 array, shape (H, W, C)
        As the network sees it.
    neighbours : list of Neighbour
    """

    prediction: Prediction
    image: npt.NDArray[np.uint8]
    neighbours: list[Neighbour]


def write_similar(run: Run, index: SimilarImages, answers: Sequence[Answer], out: Path) -> Path:
    """Write one HTML file with pictures and their most similar training images; return its path.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    rows = []
    for answer in answers:
        name, share = answer.prediction.labels[0]
        rows.append(
            {
                "name": answer.prediction.name,
                "predicted": f"{name} ({percent(share)})",
                "image": embedded(answer.image),
                "neighbours": [
                    {
                        "label": one.label,
                        "same": one.label == name,
                        "name": one.name,
                        "similarity": f"{one.similarity:.3f}",
                        "image": embedded(index.training.images[one.index]),
                    }
                    for one in answer.neighbours
                ],
            }
        )
    name = run.path.resolve().name
    write_text(out, render("similar.html", title=f"{name} - Peewit", name=name, rows=rows))
    return out
