"""Pictures of a data set for a notebook."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from peewit.data.dataset import Dataset
from peewit.images.gallery import choose
from peewit.images.reader import Png
from peewit.plots.grids import save_grid


def show(
    dataset: Dataset,
    indices: Sequence[int] | None = None,
    *,
    classes: Sequence[str] | None = None,
    count: int = 16,
    seed: int = 0,
) -> Png:
    """Draw pictures of a data set with their class names; a notebook shows what this returns.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int, optional
        These pictures, in this order; ``count`` and ``seed`` then mean nothing.
    classes : sequence of str, optional
        Only pictures of these classes.
    count : int
        How many to draw at random.
    seed : int
        Which ones; the same seed, the same pictures.

    Returns
    -------
    Png

    Raises
    ------
    UsageError
        An index or a class is not in the data set, ``count`` is less than 1, or nothing is left.

    Examples
    --------
    >>> import numpy as np
    >>> data = Dataset(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2, ["no", "yes"])
    >>> show(data, [0, 1]).content[1:4]
    b'PNG'
    """
    chosen = choose(dataset, indices, classes, count, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.png"
        save_grid(path, dataset, chosen)
        return Png(path.read_bytes())
