"""The pictures of a report: embedded in the page as data URIs, and as files in the run folder."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from peewit import plots
from peewit.evaluation.metrics import evaluate
from peewit.plots.style import ACCENT, INK, WARNING
from peewit.report import links
from peewit.report.evidence import SHOWN, Evidence, Explanation
from peewit.report.sentences import percent
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import replacing

if TYPE_CHECKING:
    from torch import nn

Pixels = npt.NDArray[np.uint8]

# Up to this many pixels an image is embedded as it is and enlarged without smoothing
SMALL = 64
# Longest side, in pixels, of the thumbnail of a larger image
THUMBNAIL = 192
# Pixels per weight of a filter in filters.png
FILTER_SCALE = 12


def sample_figures(evidence: Evidence) -> list[dict[str, Any]]:
    """Return figures of a few training images of each class."""
    data = evidence.training
    return [
        _figure(data.images[index], data.class_names[data.labels[index]])
        | {"answer": "", "file": ""}
        for index in evidence.samples
    ]


def prediction_figures(evidence: Evidence, folder: Path | None, page: Path) -> dict[str, Any]:
    """Return figures of the most confident mistakes and of the least confident predictions.

    Parameters
    ----------
    evidence : Evidence
    folder : Path or None
        The folder that contains the picture files of the data.
    page : Path
        The HTML file, from which they are linked.
    """
    mistakes, total = evidence.mistakes[:SHOWN], len(evidence.mistakes)
    images = f"{len(evidence.judged):,} image{'' if len(evidence.judged) == 1 else 's'}"
    text = f"The {len(mistakes)} most confident of {total:,} mistakes in {images}."
    if len(mistakes) == total:
        text = f"All {total} mistakes in {images}, most confident first."
    if total == 1:
        text = f"The only mistake in {images}."

    def figures(chosen: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        return [_prediction_figure(evidence, int(index), folder, page) for index in chosen]

    return {
        "mistakes": figures(mistakes),
        "mistakes_text": text,
        "uncertain": figures(evidence.uncertain),
    }


def explanation_figures(explanations: Sequence[Explanation]) -> list[list[dict[str, Any]]]:
    """Return, for each explanation, figures of the image and of its heat maps."""
    rows = []
    for one in explanations:
        name = one.predicted_class
        text = f"predicted: {name} ({percent(one.confidence)})"
        row = [
            _figure(one.image, one.true_class),
            _overlay_figure(one.predicted_overlay, name, text),
        ]
        if one.true_overlay is not None:
            name = one.true_class
            row.append(_overlay_figure(one.true_overlay, name, f"true: {name}"))
        rows.append(row)
    return rows


def _prediction_figure(
    evidence: Evidence, index: int, folder: Path | None, page: Path
) -> dict[str, Any]:
    data = evidence.judged
    file = "" if data.names is None else str(data.names[index])
    label, predicted = int(data.labels[index]), int(evidence.predicted[index])
    confidence = percent(float(evidence.probabilities[index, predicted]))
    right, name = label == predicted, data.class_names[label]
    return {
        **_figure(data.images[index], name),
        "answer": f"{data.class_names[predicted]} ({confidence})",
        "text": "correct" if right else f"true: {name}",
        "right": right,
        "file": links.shown(file),
        "link": links.link(folder, file, page) if file else "",
    }


def _overlay_figure(image: Pixels, name: str, text: str) -> dict[str, Any]:
    alt = f"Heat map for {name} over the same image"
    return {"uri": jpeg(image), "small": False, "alt": alt, "text": text}


def _figure(image: Pixels, name: str) -> dict[str, Any]:
    small = max(image.shape[:2]) <= SMALL
    return {"uri": embedded(image), "small": small, "alt": f"Image of {name}", "text": name}


def embedded(image: Pixels) -> str:
    """Return an image, uint8 (H, W, 1) or (H, W, 3), or its thumbnail if large, as a data URI."""
    if max(image.shape[:2]) <= SMALL:
        return png(image)
    thumbnail = Image.fromarray(_without_grey_axis(image))
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return jpeg(np.asarray(thumbnail))


def png(image: Pixels) -> str:
    """Return pixels, uint8 (H, W, 1), (H, W, 3) or (H, W, 4), as a lossless data URI."""
    return _data_uri(image, "png", optimize=False, compress_level=6)


def jpeg(image: Pixels) -> str:
    """Return an image, uint8 (H, W, 1) or (H, W, 3), as a data URI with lossy compression."""
    return _data_uri(image, "jpeg", quality=85)


def from_png(content: bytes) -> str:
    """Return the content of a PNG file as a data URI."""
    return f"data:image/png;base64,{b64encode(content).decode('ascii')}"


def _data_uri(image: Pixels, kind: str, **options: int | bool) -> str:
    content = io.BytesIO()
    Image.fromarray(_without_grey_axis(image)).save(content, kind, **options)
    return f"data:image/{kind};base64,{b64encode(content.getvalue()).decode('ascii')}"


def _without_grey_axis(image: Pixels) -> Pixels:
    # Pillow takes grey images without a channel axis only
    return np.ascontiguousarray(
        image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    )


def first_filters(model: nn.Module | None) -> npt.NDArray[np.float32] | None:
    """Return the weights of the first layer if it is a convolution over pixels.

    Returns
    -------
    float32 array, shape (filters, 1 or 3, height, width), or None
    """
    if model is None:
        return None
    for values in model.state_dict().values():
        if values.ndim == 4:
            return values.float().numpy() if values.shape[1] in (1, 3) else None
    return None


def filter_sheet(filters: npt.NDArray[np.float32], columns: int | None = None) -> Pixels:
    """Draw filters side by side: 0 is grey, the largest weight of each filter has full intensity.

    Parameters
    ----------
    filters : float32 array, shape (filters, channels, height, width)
        With 1 or 3 channels.
    columns : int, optional
        Number of filters per row; by default 8, or 16 for more than 24 filters.

    Returns
    -------
    uint8 array, shape (h, w, 4)
        One pixel per weight, with transparent lines one pixel wide between the filters.

    Examples
    --------
    >>> sheet = filter_sheet(np.array([1, -1], np.float32).reshape(2, 1, 1, 1))
    >>> sheet[0].tolist()
    [[255, 255, 255, 255], [0, 0, 0, 0], [1, 1, 1, 255]]
    """
    count, channels, height, width = filters.shape
    columns = min(columns or (16 if count > 24 else 8), count)
    rows = math.ceil(count / columns)
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shares = filters / np.maximum(largest, np.finfo(np.float32).tiny)
    colours = np.rint(128 + 127 * shares).astype(np.uint8).transpose(0, 2, 3, 1)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for number, colour in enumerate(colours):
        y, x = number // columns * (height + 1), number % columns * (width + 1)
        sheet[y : y + height, x : x + width, :3] = colour if channels == 3 else colour[..., :1]
        sheet[y : y + height, x : x + width, 3] = 255
    return sheet


def save_pictures(
    run: Run,
    evidence: Evidence,
    explanations: Sequence[Explanation],
    filters: npt.NDArray[np.float32] | None,
) -> None:
    """Write the picture files that the training itself has not written yet.

    Parameters
    ----------
    run : Run
    evidence : Evidence
    explanations : sequence of Explanation
    filters : float32 array, shape (filters, 1 or 3, height, width), or None

    Raises
    ------
    PeewitError
        A file cannot be written.
    """
    judged, names = evidence.judged, evidence.judged.class_names
    predictions = (judged.images, judged.labels, evidence.probabilities, names)
    plots.save_uncertain(run.path / runfolder.UNCERTAIN, *predictions)
    result = evaluate(evidence.logits, judged.labels, names)
    plots.save_reliability(run.path / runfolder.RELIABILITY, result.reliability)
    heading = f"Training images: {run.dataset.get('origin') or run.path.name}"
    plots.save_grid(run.path / runfolder.SAMPLES, evidence.training, evidence.samples, heading)
    if explanations:
        _save_heat_maps(run, explanations)
    if filters is not None:
        sheet = filter_sheet(filters)
        large = sheet.repeat(FILTER_SCALE, axis=0).repeat(FILTER_SCALE, axis=1)
        with replacing(run.path / runfolder.FILTERS) as partial:
            Image.fromarray(large).save(partial, "png")


def _save_heat_maps(run: Run, explanations: Sequence[Explanation]) -> None:
    images, captions = [], []
    names = dict(zip(run.class_names, plots.legible(run.class_names), strict=True))
    for one in explanations:
        colour = ACCENT if one.true_overlay is None else WARNING
        images += [one.image, one.predicted_overlay]
        # Two lines, because a long name leaves no room for the number
        predicted = [
            (f"predicted: {names[one.predicted_class]}", colour),
            (percent(one.confidence), colour),
        ]
        captions += [[(names[one.true_class], INK)], predicted]
        if one.true_overlay is not None:
            images.append(one.true_overlay)
            captions.append([(f"true: {names[one.true_class]}", INK)])
    heading = "Grad-CAM heat maps: the regions that each prediction is based on"
    plots.save_pictures(run.path / runfolder.HEAT_MAPS, images, captions, heading, columns=6)
