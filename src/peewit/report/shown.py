"""The pictures of a report, and what stands under each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.report.evidence import SHOWN, Evidence
from peewit.report.explanations import Explanation
from peewit.report.inline import SMALL, jpeg, picture
from peewit.report.words import share


def samples(evidence: Evidence) -> list[dict[str, Any]]:
    """Return some training pictures of each class."""
    data = evidence.training
    return [
        {**_image(data.images[index], data.class_names[data.labels[index]]), "answer": ""}
        for index in evidence.samples
    ]


def answers(evidence: Evidence) -> dict[str, Any]:
    """Return the most confident mistakes and the least confident answers."""
    mistakes, of = evidence.mistakes[:SHOWN], len(evidence.mistakes)
    which = f"The {len(mistakes)} most confident of {of:,} wrong answers"
    if len(mistakes) == of:
        which = f"All {of} wrong answers, the most confident first" if of > 1 else "The only one"
    return {
        "mistakes": [_answer(evidence, index) for index in mistakes],
        "mistakes_text": f"{which}, in {len(evidence.judged):,} pictures.",
        "uncertain": [_answer(evidence, index) for index in evidence.uncertain],
    }


def explained(explanations: Sequence[Explanation]) -> list[list[dict[str, Any]]]:
    """Return, for each explanation, its picture and its heat maps."""
    found = []
    for one in explanations:
        parts = [_image(one.image, one.truth)]
        parts.append(_heat(one.for_answer, one.answer, f"{one.answer} {share(one.confidence)}"))
        if one.for_truth is not None:
            parts.append(_heat(one.for_truth, one.truth, one.truth))
        found.append(parts)
    return found


def _heat(image: npt.NDArray[np.uint8], name: str, text: str) -> dict[str, Any]:
    alt = f"The same picture, bright where it spoke for {name}"
    return {"uri": jpeg(image), "small": False, "alt": alt, "text": f"for {text}"}


def _answer(evidence: Evidence, index: int) -> dict[str, Any]:
    data = evidence.judged
    truth, answered = int(data.labels[index]), int(evidence.predicted[index])
    sure = share(float(evidence.probabilities[index, answered]))
    right, name = truth == answered, data.class_names[truth]
    return {
        **_image(data.images[index], name),
        "answer": f"{data.class_names[answered]} {sure}",
        "text": "right" if right else f"is {name}",
        "right": right,
    }


def _image(image: npt.NDArray[np.uint8], name: str) -> dict[str, Any]:
    small = max(image.shape[:2]) <= SMALL
    return {"uri": picture(image), "small": small, "alt": f"Picture of {name}", "text": name}
