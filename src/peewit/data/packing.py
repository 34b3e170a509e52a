"""Decode the pictures of a data set once, at the size at which they are used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.pictures import Pictures
from peewit.data.store import Images, Selection
from peewit.errors import PeewitError
from peewit.images.fitting import Fit
from peewit.system.cpu import usable_cores

Note = Callable[[str], None]
# Unreadable files that a sentence names
NAMED = 3


class Packed(NamedTuple):
    """Decoded pictures, and the files that could not be decoded.

    Parameters
    ----------
    images : Images, shape (n, height, width, channels)
    rows : int64 array, shape (n,)
        Their numbers in the listing.
    unreadable : list of PeewitError
        One for each file that could not be decoded.
    """

    images: Images
    rows: npt.NDArray[np.int64]
    unreadable: list[PeewitError]


def pack(pictures: Pictures, rows: npt.NDArray[np.int64]) -> Packed:
    """Decode the pictures at ``rows``; leave out those that cannot be read."""

    def attempt(row: int) -> npt.NDArray[np.uint8] | PeewitError:
        try:
            return pictures.decode(row)
        except PeewitError as error:
            return error

    with ThreadPoolExecutor(usable_cores()) as pool:
        results = list(pool.map(attempt, rows.tolist()))
    decoded = [result for result in results if not isinstance(result, PeewitError)]
    images = np.stack(decoded) if decoded else np.empty((0, *pictures.shape[1:]), np.uint8)
    kept = [not isinstance(result, PeewitError) for result in results]
    return Packed(
        images,
        rows[np.array(kept, bool)],
        [result for result in results if isinstance(result, PeewitError)],
    )


def at_size(dataset: Dataset, height: int, width: int, fit: Fit, note: Note) -> Dataset:
    """Return a data set of picture files with its pictures decoded at one size.

    Files that cannot be read are left out, with a note. A data set of arrays is returned unchanged.
    """
    store: Images = dataset.images
    rows = np.arange(len(dataset))
    if isinstance(store, Selection):
        rows, store = store.rows, store.store
    if not isinstance(store, Pictures):
        return dataset
    packed = pack(store.at(height, width, fit), rows)
    if packed.unreadable:
        count = len(packed.unreadable)
        named = "; ".join(str(error) for error in packed.unreadable[:NAMED])
        more = "; ..." if count > NAMED else ""
        note(f"{count:,} of {len(rows):,} pictures cannot be read and are left out: {named}{more}")
    taken = dataset.take(np.flatnonzero(np.isin(rows, packed.rows)))
    return Dataset(
        packed.images,
        taken.labels,
        taken.class_names,
        taken.origin,
        taken.names,
        taken.groups,
    )
