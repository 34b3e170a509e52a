"""Plots of data sets and runs as PNG files, without a display and without global state."""

from peewit.plots.confusion import save_confusion
from peewit.plots.curves import save_compared_curves, save_curves
from peewit.plots.fonts import advice, legible
from peewit.plots.grids import save_grid, save_mistakes, save_pictures, save_uncertain
from peewit.plots.notebook import show
from peewit.plots.reliability import save_reliability

__all__ = [
    "advice",
    "legible",
    "save_compared_curves",
    "save_confusion",
    "save_curves",
    "save_grid",
    "save_mistakes",
    "save_pictures",
    "save_reliability",
    "save_uncertain",
    "show",
]
