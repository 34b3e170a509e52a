"""The reliability diagram: accuracy by confidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import PercentFormatter

from peewit.evaluation.reliability import ConfidenceBin
from peewit.plots.style import ACCENT, FAINT, GOOD, INK, WARNING, drawing


def save_reliability(path: Path | str, bins: Sequence[ConfidenceBin], title: str = "") -> None:
    """Draw the reliability diagram, and the number of images per bin, as a PNG file.

    Red marks confidence above accuracy (overconfident), green confidence below accuracy
    (underconfident).

    Parameters
    ----------
    path : Path or str
    bins : sequence of ConfidenceBin
        ``Evaluation.reliability``: bins of equal width from 0 to 1.
    title : str, optional

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    width = 1 / len(bins)
    middles = [(number + 0.5) * width for number in range(len(bins))]
    drawn = [(x, part) for x, part in zip(middles, bins, strict=True) if part.images]
    places = [x for x, _ in drawn]
    # Each bar is stacked: the lower of confidence and accuracy, then the gap to the higher one
    common = [min(part.accuracy, part.confidence) for _, part in drawn]
    gaps = [abs(part.confidence - part.accuracy) for _, part in drawn]
    colours = [WARNING if part.confidence > part.accuracy else GOOD for _, part in drawn]
    with drawing(path, 4.6, 5.2) as figure:
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        above.bar(places, common, 0.92 * width, color=ACCENT, alpha=0.85)
        above.bar(places, gaps, 0.92 * width, bottom=common, color=colours, alpha=0.6)
        above.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
        above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        above.set_title(title or "Reliability: accuracy by confidence")
        below.bar(places, [part.images for _, part in drawn], 0.92 * width, color=FAINT)
        below.set(xlabel="confidence", ylabel="images")
        for axis in (above.xaxis, above.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for axes in (above, below):
            axes.tick_params(length=0)
