"""Grids of labelled images: samples of a data set, mistakes, uncertain predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from peewit.data.dataset import Dataset
from peewit.data.gallery import least_sure, surest_mistakes
from peewit.plots import fonts
from peewit.plots.fonts import legible
from peewit.plots.style import ACCENT, DPI, FAINT, INK, WARNING, drawing

# In pixels of the PNG file
PICTURE = 160
GAP = 22
LINE = 22
HEADING = 46
FONT_POINTS = 8.0

# Lines of text with their colours
Caption = Sequence[tuple[str, str]]


def save_grid(
    path: Path | str, dataset: Dataset, indices: npt.ArrayLike, heading: str = ""
) -> None:
    """Draw images with their class names and positions as a PNG file.

    Small images are enlarged by a whole factor, so that each pixel is a sharp square.

    Parameters
    ----------
    path : Path or str
    dataset : Dataset
    indices : int array, shape (images,)
        Positions in ``dataset``, in this order; at least one.
    heading : str, optional

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    names = legible(dataset.class_names)
    captions = [[(names[dataset.labels[index]], INK), (f"#{index}", FAINT)] for index in chosen]
    save_pictures(path, [dataset.images[index] for index in chosen], captions, heading)


def save_mistakes(
    path: Path | str,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    class_names: Sequence[str],
    count: int = 24,
) -> None:
    """Draw the most confident mistakes as a PNG file.

    Parameters
    ----------
    path : Path or str
    images : uint8 array, shape (N, H, W, 1) or (N, H, W, 3)
    labels : int array, shape (N,)
        The true classes.
    probabilities : float array, shape (N, classes)
    class_names : sequence of str
    count : int
        Maximum number of images.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    mistakes = surest_mistakes(labels, probabilities)
    if not len(mistakes):
        with drawing(path, 6.0, 1.6) as figure:
            figure.text(0.5, 0.5, f"No mistakes in {len(labels):,} images", ha="center", size=11)
        return
    worst = mistakes[:count]
    which = f"The {len(worst)} most confident of {len(mistakes):,} mistakes"
    if len(worst) == len(mistakes):
        which = f"All {len(mistakes)} mistakes" if len(mistakes) > 1 else "The only mistake"
    heading = f"{which} in {len(labels):,} images"
    captions = _captions(worst, labels, probabilities, class_names)
    save_pictures(path, [images[index] for index in worst], captions, heading)


def save_uncertain(
    path: Path | str,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    class_names: Sequence[str],
    count: int = 24,
) -> None:
    """Draw the least confident predictions, correct or not, as a PNG file.

    See :func:`save_mistakes` for the parameters.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    chosen = least_sure(probabilities)[:count]
    captions = _captions(chosen, labels, probabilities, class_names)
    heading = f"The {len(chosen)} least confident of {len(labels):,} predictions"
    save_pictures(path, [images[index] for index in chosen], captions, heading)


def _captions(
    chosen: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    class_names: Sequence[str],
) -> list[Caption]:
    captions: list[Caption] = []
    names = legible(class_names)
    for index in chosen:
        predicted, label = int(probabilities[index].argmax()), int(labels[index])
        text = f"{names[predicted]} ({probabilities[index, predicted]:.1%})"
        if predicted == label:
            captions.append([(text, ACCENT), ("correct", INK)])
        else:
            captions.append([(text, WARNING), (f"true: {names[label]}", INK)])
    return captions


def save_pictures(
    path: Path | str,
    images: Sequence[npt.NDArray[np.uint8]],
    captions: Sequence[Caption],
    heading: str = "",
    columns: int | None = None,
) -> None:
    """Draw images with captions as a PNG file.

    Parameters
    ----------
    path : Path or str
    images : sequence of uint8 arrays, shape (H, W, 1) or (H, W, 3)
        At least one.
    captions : sequence of sequences of (text, colour)
        The lines of text below each image.
    heading : str, optional
    columns : int, optional
        Number of images per row; chosen by their number if omitted.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    sized = [_sized(image) for image in images]
    columns = columns or _columns(len(images))
    rows = math.ceil(len(images) / columns)
    cell_height = max(len(image) for image in sized)
    cell_width = max(image.shape[1] for image in sized)
    step_x = cell_width + GAP
    step_y = cell_height + LINE * max(map(len, captions)) + GAP
    top = HEADING if heading else 0
    width, height = GAP + columns * step_x, GAP + top + rows * step_y
    heading = fonts.title(heading)
    texts = [heading, *(text for caption in captions for text, _ in caption)]
    with drawing(path, width / DPI, height / DPI, texts) as figure:
        if heading:
            title = figure.text(0, 0, heading, size=10, weight="bold", va="center")
            # The heading may be wider than the images
            width = max(width, math.ceil(title.get_window_extent().width) + 2 * GAP)
            figure.set_size_inches(width / DPI, height / DPI)
            title.set_position((GAP / width, 1 - (GAP + 8) / height))
        for index, (image, caption) in enumerate(zip(sized, captions, strict=True)):
            x = GAP + index % columns * step_x
            y = height - GAP - top - index // columns * step_y
            figure.figimage(image, x, y - len(image))
            for line, (text, colour) in enumerate(caption):
                base = y - cell_height - LINE * (line + 1) + 3
                _write(figure, x, base, text, colour, cell_width + GAP - 6)


def _columns(count: int) -> int:
    """Return the number of images per row.

    >>> [_columns(count) for count in (4, 9, 10, 16, 17, 24, 100)]
    [4, 5, 5, 4, 6, 6, 10]
    """
    if count <= 6:
        return count
    # Somewhat wider than high, with few empty places in the last row
    wanted = min(10.0, math.sqrt(count * 1.5))
    return min(range(4, 11), key=lambda columns: -count % columns + abs(columns - wanted))


def _sized(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an RGB image, uint8 (h, w, 3), with the longer side near ``PICTURE`` pixels."""
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    height, width = rgb.shape[:2]
    factor = PICTURE // max(height, width)
    if factor:
        return rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    from PIL import Image

    scale = PICTURE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def _write(figure: Figure, x: float, y: float, text: str, colour: str, room: float) -> None:
    """Write ``text`` at pixel ``x``, ``y`` from below, shortened to ``room`` pixels."""
    width, height = figure.get_size_inches() * DPI
    written = figure.text(x / width, y / height, text, color=colour, size=FONT_POINTS)
    shown = text
    while len(shown) > 1 and written.get_window_extent().width > room:
        shown = shown[:-1]
        written.set_text(shown.rstrip() + "…")
