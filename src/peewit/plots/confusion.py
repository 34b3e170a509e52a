"""The confusion matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import PercentFormatter

from peewit.evaluation.metrics import Evaluation
from peewit.plots.fonts import legible
from peewit.plots.style import ACCENT, INK, RULE, drawing

# With more classes the numbers in the cells would be too small to read
NUMBERED_CLASSES = 20
# Longer names would leave no room for the matrix
LONGEST_NAME = 40


def save_confusion(path: Path | str, evaluation: Evaluation, title: str = "") -> None:
    """Draw the confusion matrix as a PNG file.

    Rows are true classes, columns predicted classes. The colour is the share of the row, the number
    in a cell is the number of images. With more than 20 classes, the cells have no numbers.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    counts = evaluation.confusion
    names = [
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
        for name in legible([scores.name for scores in evaluation.per_class])
    ]
    classes = len(names)
    # A class without images has an empty row: avoid a division by zero
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    numbered = classes <= NUMBERED_CLASSES
    side = max(3.2, 0.46 * classes) if numbered else min(14.0, max(7.0, 0.125 * classes))
    with drawing(path, side + 2.0, side + 1.4, [*names, title]) as figure:
        # With the default margins of 0.04 inches, title and labels touch the edge
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
        axes = figure.subplots()
        colours = LinearSegmentedColormap.from_list("peewit", ["#ffffff", "#9cc4de", ACCENT])
        # The square root makes mistakes of 1 % visible next to recalls of 90 %
        scale = PowerNorm(0.5, vmin=0, vmax=1)
        image = axes.imshow(shares, cmap=colours, norm=scale)
        axes.set_title(
            title or f"Accuracy {evaluation.accuracy:.1%} on {evaluation.images:,} images"
        )
        size = 9 if numbered else max(3.5, min(8, 72 * side / classes * 0.7))
        axes.set_xticks(range(classes), names, fontsize=size, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", labelrotation=45 if numbered else 90)
        if not numbered:
            for label in axes.get_xticklabels():
                label.set_verticalalignment("center")
        axes.set_yticks(range(classes), names, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set(visible=True, color=RULE)
        if numbered:
            digits = len(str(counts.max()))
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    colour = "white" if scale(shares[row, column]) > 0.7 else INK
                    axes.text(
                        column,
                        row,
                        str(count),
                        ha="center",
                        va="center",
                        color=colour,
                        fontsize=8 if digits <= 4 else 6,
                    )
        bar = figure.colorbar(image, ax=axes, shrink=0.5 if numbered else 0.25, aspect=20, pad=0.02)
        bar.set_ticks([0, 0.01, 0.05, 0.2, 0.5, 1])
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        bar.ax.tick_params(length=0, labelsize=8)
        bar.outline.set_visible(False)
        bar.set_label("share of the true class", fontsize=8)
