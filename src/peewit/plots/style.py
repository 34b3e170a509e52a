"""The common style of all plots, and how they are written."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from peewit.plots.fonts import families
from peewit.system.files import replacing

DPI = 150
INK = "#22262b"
FAINT = "#8b949e"
RULE = "#e3e6ea"
ACCENT = "#1c6ca1"
WARNING = "#b3402a"
GOOD = "#1a7148"
# The palette of Okabe and Ito, distinguishable with any colour vision, without its yellow, which is
# too light for a line on white
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")

# Any, because the types of matplotlib's settings differ between its versions
_LOOK: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    # Class names may contain "$", which does not start a formula
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
def drawing(
    path: Path | str, width: float, height: float, texts: Iterable[str] = ()
) -> Iterator[Figure]:
    """Yield a figure of ``width`` x ``height`` inches, and write it as a PNG file at the end.

    The fonts are those that have the characters of ``texts``.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    look = _LOOK | {"font.family": families(texts)}
    with matplotlib.rc_context(look), warnings.catch_warnings():
        # fonts.legible replaces names that no font has, and fonts.advice says so
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        yield figure
        with replacing(Path(path)) as partial:
            # No version in the file, so that the same data gives the same bytes
            canvas.print_figure(str(partial), format="png", dpi=DPI, metadata={"Software": None})


def show_text(axes: Axes, text: str) -> None:
    """Show ``text`` instead of a plot."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
