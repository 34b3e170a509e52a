"""Accuracy and loss over the epochs, of one run or of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from peewit.plots import fonts
from peewit.plots.fonts import legible
from peewit.plots.style import ACCENT, FAINT, SERIES, drawing, show_text
from peewit.runs.run import Run, names_of

History = Sequence[Mapping[str, float]]
MEASURES = (("accuracy", "Accuracy"), ("loss", "Loss"))
# Minimum distance between two labels, in points, so that they do not overlap
LABEL_DISTANCE = 12
# With more epochs, a marker at each would hide the line
MARKED_EPOCHS = 30
# Two names of this many characters do not fit side by side in the legend
LONG_NAME = 45


def save_curves(path: Path | str, history: History, title: str = "") -> None:
    """Draw training and validation accuracy and loss as a PNG file.

    Parameters
    ----------
    path : Path or str
    history : sequence of mappings
        One per epoch, with ``epoch``, ``accuracy``, ``loss``, ``validation_accuracy`` and
        ``validation_loss`` (accuracies 0 to 1). Values that are missing or not finite are
        skipped.
    title : str, optional

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    title = fonts.title(title)
    with drawing(path, 9.0, 3.6, [title]) as figure:
        for axes, measure in _panels(figure, title):
            ends = []
            for key, label, colour in (
                (measure, "training", FAINT),
                (f"validation_{measure}", "validation", ACCENT),
            ):
                epochs, values = _line(history, key)
                _draw(axes, epochs, values, color=colour)
                if epochs:
                    ends.append((values[-1], f"{label} {_number(measure, values[-1])}", colour))
            _finish(axes, history, measure)
            _label_ends(axes, history, ends)


def save_compared_curves(path: Path | str, runs: Sequence[Run]) -> None:
    """Draw accuracy and loss of several runs in one PNG file.

    Bold lines are validation, thin lines of the same colour are training.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    names = _legend_names(runs, legible(names_of(runs), "run"))
    # Runs that share a colour have different line styles
    styles: list[dict[str, Any]] = [
        {"color": SERIES[n % len(SERIES)], "linestyle": ("-", "--", ":")[n // len(SERIES) % 3]}
        for n in range(len(runs))
    ]
    columns = 2 if max(map(len, names), default=0) < LONG_NAME else 1
    height = 3.8 + 0.2 * math.ceil(len(runs) / columns)
    with drawing(path, 9.0, height, names) as figure:
        longest: History = max((run.history for run in runs), key=len, default=[])
        for axes, measure in _panels(figure, "Validation (bold lines) and training (thin lines)"):
            for run, style in zip(runs, styles, strict=True):
                _draw(axes, *_line(run.history, measure), alpha=0.4, linewidth=1.0, **style)
                _draw(axes, *_line(run.history, f"validation_{measure}"), **style)
            _finish(axes, longest, measure)
        # Not the drawn lines: a run without epochs has none, but is in the legend
        lines = [Line2D([], [], linewidth=1.8, **style) for style in styles]
        figure.legend(lines, names, loc="outside lower left", ncols=columns)


def _legend_names(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Return the names, with a remark for runs whose curves hide those of another."""
    keys = [f"{part}{measure}" for measure, _ in MEASURES for part in ("", "validation_")]
    drawn = [[_line(run.history, key) for key in keys] for run in runs]
    labels = []
    for name, run, curves in zip(names, runs, drawn, strict=True):
        twin = names[drawn.index(curves)]
        labels.append(f"{name} (same curves as {twin})" if run.history and twin != name else name)
    return labels


def _panels(figure: Figure, title: str) -> list[tuple[Axes, str]]:
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
    panels = figure.subplots(1, 2)
    for axes, (_, name) in zip(panels, MEASURES, strict=True):
        axes.set_title(name)
    return [(axes, key) for axes, (key, _) in zip(panels, MEASURES, strict=True)]


def _line(history: History, key: str) -> tuple[list[int], list[float]]:
    points = [
        (int(row["epoch"]), float(row[key]))
        for row in history
        if key in row and math.isfinite(row[key])
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _draw(axes: Axes, epochs: list[int], values: list[float], **style: Any) -> None:
    # Not clipped, so that markers at the edge are complete. Without clipping, matplotlib cannot lay
    # out empty lines.
    if epochs:
        marker = {"marker": "o", "markersize": 3.0} if len(epochs) <= MARKED_EPOCHS else {}
        axes.plot(epochs, values, clip_on=False, **{"linewidth": 1.8, **marker, **style})


def _finish(axes: Axes, history: History, measure: str) -> None:
    """Set ticks and limits of the axes."""
    if not history:
        show_text(axes, "no finished epoch yet")
        return
    first, last = int(history[0]["epoch"]), int(history[-1]["epoch"])
    if first == last:
        # A single epoch has no width
        axes.set_xlim(first - 1, last + 1)
        axes.set_xticks([first])
    else:
        axes.set_xlim(first, last)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10 if last < 100 else 5, integer=True))
    axes.margins(y=0.08)
    axes.set_xlabel("epoch")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    if measure == "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")


def _label_ends(axes: Axes, history: History, ends: list[tuple[float, str, str]]) -> None:
    """Write the last value of each line next to its end, without overlaps."""
    if not ends:
        return
    low, high = axes.get_ylim()
    # The plot is about 2.6 inches of 72 points high, in a figure of 3.6 inches
    points = 2.6 * 72 / (high - low)
    lifted = -math.inf
    for value, text, colour in sorted(ends):
        place = max((value - low) * points, lifted + LABEL_DISTANCE)
        lifted = place
        axes.annotate(
            text,
            (int(history[-1]["epoch"]), value),
            xytext=(9, place - (value - low) * points),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold" if colour == ACCENT else "normal",
            annotation_clip=False,
        )


def _number(measure: str, value: float) -> str:
    return f"{value:.1%}" if measure == "accuracy" else f"{value:.3f}"
