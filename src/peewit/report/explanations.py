"""Heat maps over some right and some wrong answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from peewit.evaluation.gradcam import heat_maps, overlay
from peewit.images.preprocessing import Preprocessing
from peewit.report.evidence import Evidence

if TYPE_CHECKING:
    from torch import nn

# Heat maps are smooth: they are laid over pixels enlarged to this, the size of plots.grids
SIZE = 160


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """A picture and where it spoke for what.

    Parameters
    ----------
    image : uint8 array, shape (H, W, 1) or (H, W, 3)
    truth, answer : str
        The right class, and the one that was answered.
    confidence : float
        The answer's probability.
    for_answer : uint8 array, shape (h, w, 3)
        The picture under its heat map for the answer.
    for_truth : uint8 array, shape (h, w, 3), or None
        That for the right class, where it is another.
    """

    image: npt.NDArray[np.uint8]
    truth: str
    answer: str
    confidence: float
    for_answer: npt.NDArray[np.uint8]
    for_truth: npt.NDArray[np.uint8] | None


def explain(
    evidence: Evidence,
    chosen: npt.NDArray[np.int64],
    model: nn.Module,
    preprocessing: Preprocessing,
) -> list[Explanation]:
    """Return the explanations of the answers at the positions ``chosen``.

    Raises
    ------
    PeewitError
        The network has no heat maps.
    """
    data = evidence.judged
    images = np.asarray(data.images[chosen])
    truths, answers = data.labels[chosen], evidence.predicted[chosen]
    for_answers = heat_maps(model, preprocessing, images, answers)
    for_truths = heat_maps(model, preprocessing, images, truths)
    return [
        Explanation(
            image=images[n],
            truth=data.class_names[truths[n]],
            answer=data.class_names[answers[n]],
            confidence=float(evidence.probabilities[index, answers[n]]),
            for_answer=_laid(images[n], for_answers[n]),
            for_truth=_laid(images[n], for_truths[n]) if truths[n] != answers[n] else None,
        )
        for n, index in enumerate(chosen)
    ]


def _laid(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the picture, enlarged in whole pixels if it is small, under a smooth heat map."""
    height, width, channels = image.shape
    scale = SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kept = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    flat = np.ascontiguousarray(image[:, :, 0] if channels == 1 else image)
    large = np.asarray(Image.fromarray(flat).resize(size, kept))
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC))
    # bicubic overshoots
    return overlay(large.reshape(size[1], size[0], channels), np.clip(smooth, 0, 1))
