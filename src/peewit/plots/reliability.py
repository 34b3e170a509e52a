"""How right a classifier is when it is so sure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import PercentFormatter

from peewit.evaluation.reliability import ConfidenceBin
from peewit.plots.style import ACCENT, FAINT, GOOD, INK, WARNING, drawing


def save_reliability(path: Path | str, bins: Sequence[ConfidenceBin], title: str = "") -> None:
    """Draw accuracy by confidence, and how many answers there are of each, as a PNG file.

    Red is what the answers are surer than right, green what they are less sure than right.

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
    # as far as confidence and accuracy go together, and what one of them has more
    both = [min(part.accuracy, part.confidence) for _, part in drawn]
    gaps = [abs(part.confidence - part.accuracy) for _, part in drawn]
    colours = [WARNING if part.confidence > part.accuracy else GOOD for _, part in drawn]
    with drawing(path, 4.6, 5.2) as figure:
        figure.set_layout_engine("constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        above.bar(places, both, 0.92 * width, color=ACCENT, alpha=0.85)
        above.bar(places, gaps, 0.92 * width, bottom=both, color=colours, alpha=0.6)
        above.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
        above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        above.set_title(title or "Confidence and accuracy")
        below.bar(places, [part.images for _, part in drawn], 0.92 * width, color=FAINT)
        below.set(xlabel="confidence", ylabel="answers")
        for axis in (above.xaxis, above.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for axes in (above, below):
            axes.tick_params(length=0)
