"""Images of a data set for a notebook."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from peewit.data.dataset import Dataset
from peewit.data.gallery import choose
from peewit.images.reader import Png
from peewit.plots.fonts import advice
from peewit.plots.grids import save_grid


def show(
    dataset: Dataset,
    indices: Sequence[int] | None = None,
    *,
    classes: Sequence[str] | None = None,
    count: int = 16,
    seed: int = 0,
) -> Png:
    """Draw images of a data set with their class names, for display in a notebook.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int, optional
        Positions of the images to draw, in this order; ``count`` and ``seed`` are then ignored.
    classes : sequence of str, optional
        Only images of these classes.
    count : int
        Number of images to draw at random.
    seed : int
        Seed of the random choice.

    Returns
    -------
    Png
        The picture; a notebook displays it.

    Raises
    ------
    UsageError
        An index or a class is not in the data set, ``count`` is less than 1, or no image is left.

    Examples
    --------
    >>> import numpy as np
    >>> data = Dataset(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2, ["no", "yes"])
    >>> show(data, [0, 1]).content[1:4]
    b'PNG'
    """
    chosen = choose(dataset, indices, classes, count, seed)
    if missing := advice(dataset.class_names):
        warnings.warn(missing, stacklevel=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.png"
        save_grid(path, dataset, chosen)
        return Png(path.read_bytes())
