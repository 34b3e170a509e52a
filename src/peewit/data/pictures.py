"""Pictures in files, as images of one size that are decoded when they are needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.data.listing import Listing
from peewit.data.store import Images, Selection, part_of, positions
from peewit.images.fitting import Fit
from peewit.images.scaled import read_sized
from peewit.system.cpu import usable_cores

# Height and width, in pixels, of pictures that are indexed before a size has been chosen.
NOMINAL = 128


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """The pictures of a listing as ``Images``: decoded, each time, when they are indexed.

    Parameters
    ----------
    listing : Listing
    height, width, channels : int
        Of each decoded picture.
    fit : {"crop", "pad", "stretch"}
        How a picture with another aspect ratio is fitted into that size.
    strict : bool
        Whether a picture that cannot be read is an error, instead of being left out with a note.
    """

    listing: Listing
    height: int = NOMINAL
    width: int = NOMINAL
    channels: int = 3
    fit: Fit = "crop"
    strict: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of pictures, height, width and channels."""
        return (len(self.listing), self.height, self.width, self.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]:
        """Decode the pictures at ``rows``, with all cores.

        Raises
        ------
        PeewitError
            One of them cannot be read.
        """
        if isinstance(rows, tuple):
            chosen: npt.NDArray[np.uint8] = part_of(self, rows)
            return chosen
        numbers = positions(rows, len(self))
        if numbers.ndim == 0:
            return self.decode(int(numbers))
        out = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor(usable_cores()) as pool:
            for place, pixels in enumerate(pool.map(self.decode, numbers.tolist())):
                out[place] = pixels
        return out

    def decode(self, number: int) -> npt.NDArray[np.uint8]:
        """Decode one picture: uint8, (height, width, channels).

        Raises
        ------
        PeewitError
            It cannot be read.
        """
        return self.decode_content(self.listing.files.read(number), number)

    def decode_content(self, content: bytes, number: int) -> npt.NDArray[np.uint8]:
        """Decode the content of the file of picture ``number``; see `decode`."""
        return read_sized(
            content,
            self.listing.names[number],
            height=self.height,
            width=self.width,
            channels=self.channels,
            fit=self.fit,
        )

    def at(self, height: int, width: int, fit: Fit) -> Pictures:
        """Return the same pictures, decoded at another size."""
        return replace(self, height=height, width=width, fit=fit)


def files_of(images: Images) -> tuple[Pictures, npt.NDArray[np.int64]] | None:
    """Return pictures in files and which of them ``images`` are; None if they are decoded."""
    rows = np.arange(len(images))
    if isinstance(images, Selection):
        rows, images = images.rows, images.store
    return (images, rows) if isinstance(images, Pictures) else None
