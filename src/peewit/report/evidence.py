"""The data behind a report: images, the model's outputs for them, and Grad-CAM explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from peewit.data.dataset import Dataset
from peewit.data.gallery import in_turn, least_sure, surest_mistakes
from peewit.errors import PeewitError
from peewit.evaluation.gradcam import heat_maps, overlay
from peewit.evaluation.inference import softmax
from peewit.images.preprocessing import Preprocessing
from peewit.runs.run import Run
from peewit.runs.tested import find_tested

if TYPE_CHECKING:
    from torch import nn

    from peewit.data.download.rate import Progress
    from peewit.data.packing.decoding import Show

# Three rows of eight
SHOWN = 24
# Images with heat maps, correct and wrong each: two rows of pairs and three of triples in the file
EXPLAINED = 6
# Four of each of ten classes
SAMPLES = 40
# Longest side, in pixels, of an image under its heat map: the size of images in plots.grids
OVERLAY_SIZE = 160


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """The images of the final test, the model's outputs for them, and the training images.

    Parameters
    ----------
    training : Dataset
        The training images, or a data set that contains them.
    judged : Dataset
        The images of the final test.
    logits : float32 array, shape (N, classes)
        The model's outputs for ``judged``.
    source : mapping
        The arguments of ``load`` for the data, if they are not those of the run.
    """

    training: Dataset
    judged: Dataset
    logits: npt.NDArray[np.float32]
    source: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Class probabilities, float32, shape (N, classes)."""
        return softmax(self.logits)

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Predicted classes, int64, shape (N,)."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @cached_property
    def mistakes(self) -> npt.NDArray[np.int64]:
        """Positions of all wrong predictions, most confident first."""
        return surest_mistakes(self.judged.labels, self.probabilities)

    @cached_property
    def uncertain(self) -> npt.NDArray[np.int64]:
        """Positions of the least confident predictions."""
        return least_sure(self.probabilities)[:SHOWN]

    @cached_property
    def samples(self) -> npt.NDArray[np.int64]:
        """Positions in ``training`` of a few images of each class, ordered by class."""
        labels = self.training.labels
        drawn = in_turn(labels, np.arange(len(labels)), SAMPLES)
        return np.asarray(drawn[np.argsort(labels[drawn], kind="stable")])

    @cached_property
    def explained(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Positions of the images with heat maps: correct ones of different classes; mistakes."""
        labels = self.judged.labels
        right = np.flatnonzero(self.predicted == labels)
        return in_turn(labels, right, EXPLAINED), self.mistakes[:EXPLAINED]


def gather(
    run: Run,
    data: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    show: Show | None = None,
) -> tuple[Evidence, tuple[str, ...]]:
    """Load the data of a finished run again and run the model on it.

    Parameters
    ----------
    run : Run
    data : path, optional
        The current location of the data, if it has been moved.
    progress : callable, optional
        Called during a download.
    show : callable, optional
        Called while picture files are decoded.

    Returns
    -------
    Evidence
    tuple of str
        Notes about the data, for the user.

    Raises
    ------
    PeewitError
        The run is not finished, does not record where its data came from, or the data is missing
        or has changed.
    """
    from peewit.data.packing import sized_for
    from peewit.data.sources import load, moved

    if not run.metrics:
        raise PeewitError("the run has not been tested yet")
    if not run.source:
        raise PeewitError("the run does not record where its data came from")
    source = moved(run.source, data)
    splits = load(**source, progress=progress)
    notes = list(splits.notes)
    train, test = (
        None if part is None else sized_for(part, run.preprocessing, notes.append, show)
        for part in (splits.train, splits.test)
    )
    assert train is not None
    found = find_tested(run, train, test)
    notes += found.notes
    recorded = {"test": run.metrics.get("fingerprint"), **run.dataset.get("fingerprints", {})}
    for part, dataset in (("training", found.training), ("test", found.test)):
        if not found.complete:
            break
        if recorded.get(part) and (dataset is None or dataset.fingerprint != recorded[part]):
            raise PeewitError(f"the {part} images are not those that are recorded in the run")
    judged = found.judged
    if found.complete and len(judged) != run.metrics.get("images"):
        raise PeewitError("the images of the final test cannot be identified in the data")
    logits = run.logits(judged.images) if found.logits is None else found.logits
    evidence = Evidence(training=found.training, judged=judged, logits=logits, source=source)
    return evidence, tuple(notes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """An image and the regions that its prediction is based on.

    Parameters
    ----------
    image : uint8 array, shape (H, W, 1) or (H, W, 3)
    true_class, predicted_class : str
    confidence : float
        The probability of the predicted class.
    predicted_overlay : uint8 array, shape (h, w, 3)
        The image under the heat map for the predicted class.
    true_overlay : uint8 array, shape (h, w, 3), or None
        The image under the heat map for the true class; None for a correct prediction.
    """

    image: npt.NDArray[np.uint8]
    true_class: str
    predicted_class: str
    confidence: float
    predicted_overlay: npt.NDArray[np.uint8]
    true_overlay: npt.NDArray[np.uint8] | None


def explain(
    evidence: Evidence,
    chosen: npt.NDArray[np.int64],
    model: nn.Module,
    preprocessing: Preprocessing,
) -> list[Explanation]:
    """Explain the predictions at the positions ``chosen`` with Grad-CAM heat maps.

    Raises
    ------
    PeewitError
        The model does not support heat maps.
    """
    data = evidence.judged
    images = np.asarray(data.images[chosen])
    labels, predicted = data.labels[chosen], evidence.predicted[chosen]
    part = preprocessing.region(*images.shape[1:3])
    predicted_maps, true_maps = (
        heat_maps(model, preprocessing.tensor, images, classes, part)
        for classes in (predicted, labels)
    )
    return [
        Explanation(
            image=images[n],
            true_class=data.class_names[labels[n]],
            predicted_class=data.class_names[predicted[n]],
            confidence=float(evidence.probabilities[index, predicted[n]]),
            predicted_overlay=_overlay(images[n], predicted_maps[n]),
            true_overlay=_overlay(images[n], true_maps[n]) if labels[n] != predicted[n] else None,
        )
        for n, index in enumerate(chosen)
    ]


def _overlay(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the image, enlarged without smoothing if it is small, under a smooth heat map."""
    height, width, channels = image.shape
    scale = OVERLAY_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    flat = np.ascontiguousarray(image[:, :, 0] if channels == 1 else image)
    large = np.asarray(Image.fromarray(flat).resize(size, resampling))
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC))
    # Bicubic interpolation overshoots
    return overlay(large.reshape(size[1], size[0], channels), np.clip(smooth, 0, 1))
