"""Pictures that are decoded while they are used, one batch ahead."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.data.packing.decoding import pixel_hash
from peewit.data.pictures import Pictures
from peewit.data.store import Facts, part_of, positions
from peewit.errors import PeewitError

Pixels = npt.NDArray[np.uint8]


class LivePictures:
    """Pictures as ``Images`` that are decoded when they are indexed, or shortly before.

    Their pixels are those that a cache would contain, bit for bit.

    Parameters
    ----------
    pictures : Pictures
    facts : structured array, shape (N,)
        With the hashes that the pixels must have: a file may change while it is in use.
    """

    def __init__(self, pictures: Pictures, facts: Facts) -> None:
        self.pictures, self.facts = pictures, facts
        # one thread, which waits for the threads that decode
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[npt.NDArray[np.int64], Future[Pixels]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of pictures, height, width and channels."""
        return self.pictures.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""
        return self.pictures.dtype

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __len__(self) -> int:
        return len(self.pictures)

    def prefetch(self, rows: npt.NDArray[np.int64]) -> None:
        """Begin to decode the pictures at ``rows``, in the background."""
        self._next = rows, self._pool.submit(self._decode, rows)

    def __getitem__(self, rows: Any, /) -> Pixels:
        """Return pictures.

        Raises
        ------
        PeewitError
            One of them cannot be read any more, or has changed.
        """
        if isinstance(rows, tuple):
            chosen: Pixels = part_of(self, rows)
            return chosen
        numbers = positions(rows, len(self))
        if self._next is not None and np.array_equal(self._next[0], numbers):
            (_, future), self._next = self._next, None
            return future.result()
        wanted = numbers.reshape(-1)
        return self._decode(wanted).reshape(*numbers.shape, *self.shape[1:])

    def _decode(self, numbers: npt.NDArray[np.int64]) -> Pixels:
        pixels = self.pictures[numbers]
        for row, picture in zip(numbers.tolist(), pixels, strict=True):
            if pixel_hash(picture) != self.facts["hash"][row]:
                listing = self.pictures.listing
                raise PeewitError(
                    f"{listing.names[row]} in {listing.place} has changed since it was first read",
                    "the pictures must stay the same while they are used",
                    "start again",
                )
        return pixels
