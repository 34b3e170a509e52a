"""The report's pictures as files in the run's folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from peewit import plots
from peewit.evaluation.metrics import evaluate
from peewit.plots.style import ACCENT, INK, WARNING
from peewit.report.evidence import Evidence
from peewit.report.explanations import Explanation
from peewit.report.inline import filter_sheet
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import replacing

# Each weight of a filter becomes a square of so many pixels
FILTER_SCALE = 12


def draw(
    run: Run,
    evidence: Evidence,
    explained: Sequence[Explanation],
    filters: npt.NDArray[np.float32] | None,
) -> None:
    """Write the pictures that the training itself has not drawn yet.

    Parameters
    ----------
    run : Run
    evidence : Evidence
    explained : sequence of Explanation
    filters : float32 array, shape (filters, 1 or 3, height, width), or None

    Raises
    ------
    PeewitError
        A file cannot be written.
    """
    judged, names = evidence.judged, evidence.judged.class_names
    answers = (judged.images, judged.labels, evidence.probabilities, names)
    plots.save_uncertain(run.path / runfolder.UNCERTAIN, *answers)
    result = evaluate(evidence.logits, judged.labels, names)
    plots.save_reliability(run.path / runfolder.RELIABILITY, result.reliability)
    heading = f"Training pictures: {run.dataset.get('origin') or run.path.name}"
    plots.save_grid(run.path / runfolder.SAMPLES, evidence.training, evidence.samples, heading)
    if explained:
        _heat_maps(run, explained)
    if filters is not None:
        sheet = filter_sheet(filters, columns=16 if len(filters) > 24 else 8)
        large = sheet.repeat(FILTER_SCALE, axis=0).repeat(FILTER_SCALE, axis=1)
        with replacing(run.path / runfolder.FILTERS) as partial:
            Image.fromarray(large).save(partial, "png")


def _heat_maps(run: Run, explained: Sequence[Explanation]) -> None:
    images, captions = [], []
    for one in explained:
        right = one.for_truth is None
        images += [one.image, one.for_answer]
        colour = ACCENT if right else WARNING
        # two lines, for a name and a number do not always fit into one
        answer = [(f"for {one.answer}", colour), (f"{one.confidence:.1%}", colour)]
        captions += [[(one.truth, INK)], answer]
        if one.for_truth is not None:
            images.append(one.for_truth)
            captions.append([(f"for {one.truth}", INK)])
    heading = "What spoke for which class (Grad-CAM)"
    plots.save_pictures(run.path / runfolder.HEAT_MAPS, images, captions, heading, columns=6)
