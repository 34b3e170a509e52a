"""One look for all pictures, and the one way in which they are written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from peewit.system.files import replacing

DPI = 150
INK = "#22262b"
FAINT = "#8b949e"
RULE = "#e3e6ea"
ACCENT = "#1c6ca1"
WARNING = "#b3402a"
GOOD = "#1a7148"
# Okabe and Ito's colours, which people with any colour vision can tell apart, without the yellow,
# which is too light for a line on white
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")

# Any, because matplotlib's own types for this differ between its versions
_LOOK: dict[Any, Any] = {
    # the font that comes with matplotlib, so that every machine draws the same picture
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    # class names are data: "$5" is not mathematics
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    "legend.frameon": False,
}


@contextmanager
def drawing(path: Path | str, width: float, height: float) -> Iterator[Figure]:
    """Give a figure of ``width`` x ``height`` inches to draw on; write it as PNG at the end.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    with matplotlib.rc_context(_LOOK), warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes; no reason for a note
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        yield figure
        with replacing(Path(path)) as partial:
            # no version in the file: the same data give the same bytes
            canvas.print_figure(str(partial), format="png", dpi=DPI, metadata={"Software": None})


def say(axes: Axes, sentence: str) -> None:
    """Fill ``axes`` with a sentence instead of a drawing."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes)
