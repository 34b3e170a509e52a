"""The one type that every source becomes: labelled pictures in memory or on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError

# pixels of which a histogram is made at once: they take 128 MB
_COUNTED_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, immutable.

    Parameters
    ----------
    images : uint8 array or memory map, shape (N, H, W, C)
        Pixels from 0 to 255; C is 1 (grey) or 3 (RGB).
    labels : int64 array, shape (N,)
        Class numbers, from 0 to ``len(class_names) - 1``.
    class_names : sequence of str
        One name a class.
    origin : str, optional
        Where the data came from, in words ("cifar10 train, /data/cifar-10-python.tar.gz").

    Raises
    ------
    PeewitError
        Shapes, types or labels do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> data = Dataset(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1]), ["no", "yes"])
    >>> len(data), data.image_shape, data.class_counts.tolist()
    (4, (8, 8, 1), [2, 2])
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: Sequence[str]
    origin: str = field(default="")

    def __post_init__(self) -> None:
        images, labels = self.images, np.asarray(self.labels)
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
            raise PeewitError(
                "these images cannot be a data set",
                f"they are {images.dtype} with shape {images.shape}",
                "give uint8 with shape (N, H, W, 1) or (N, H, W, 3)",
            )
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise PeewitError(
                "these labels cannot go with the images",
                f"they are {labels.dtype} with shape {labels.shape} for {len(images)} images",
                "give one whole number an image",
            )
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.class_names)):
            raise PeewitError(
                "these labels cannot go with the class names",
                f"they run from {labels.min()} to {labels.max()} for {len(self.class_names)} names",
                "number the classes from 0",
            )
        # frozen: object.__setattr__ is how a frozen dataclass normalises its own fields
        labels = np.array(labels, dtype=np.int64)
        labels.flags.writeable = False
        images = images.view()
        images.flags.writeable = False
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", tuple(str(name) for name in self.class_names))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """Images of each class, int64, shape (classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """A checksum of pixels, labels and names (sha256, hexadecimal): the same data, the same."""
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.data)
        return digest.hexdigest()

    @cached_property
    def channel_statistics(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and standard deviation of each channel, in units of the full range (0 to 1)."""
        # a histogram a channel is exact, and needs no float copy of the pixels
        values = np.arange(256) / 255
        count, height, width, channels = self.images.shape
        counts = np.zeros((channels, 256), np.int64)
        # in parts, because to count a byte numpy makes it eight
        few = max(1, _COUNTED_AT_ONCE // max(height * width, 1))
        for first in range(0, count, few):
            flat = self.images[first : first + few].reshape(-1, channels)
            counts += [np.bincount(flat[:, c], minlength=256) for c in range(channels)]
        share = counts / max(count * height * width, 1)
        mean = share @ values
        deviation = np.sqrt((share * (values[None] - mean[:, None]) ** 2).sum(1))
        return mean, deviation

    def take(self, indices: npt.ArrayLike) -> Dataset:
        """Return the images at ``indices`` (whole numbers or a mask), in that order."""
        chosen = np.asarray(indices)
        if not chosen.size:
            chosen = chosen.astype(np.int64)  # numpy makes an empty list float64
        return Dataset(self.images[chosen], self.labels[chosen], self.class_names, self.origin)

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split off a part, class by class, so that both parts have the classes' proportions.

        Parameters
        ----------
        fraction : float
            The share of each class that goes to the second part, more than 0 and less than 1.
        seed : int
            Which images go there; the same seed gives the same split.

        Returns
        -------
        tuple of Dataset
            The larger rest and the part that was split off, both in the original order.

        Raises
        ------
        PeewitError
            A part would be empty.
        """
        if not 0 < fraction < 1:
            raise PeewitError(
                f"cannot split off {fraction} of the images", "it is not between 0 and 1"
            )
        random = np.random.default_rng(seed)
        away = np.zeros(len(self), dtype=bool)
        for label in range(len(self.class_names)):
            members = np.flatnonzero(self.labels == label)
            away[random.permutation(members)[: round(fraction * len(members))]] = True
        if not away.any() or away.all():
            raise PeewitError(
                f"cannot split off {fraction:g} of {len(self)} images",
                "one part would be empty",
                "use more images or another share",
            )
        return self.take(~away), self.take(away)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image_shape))
        return f"Dataset({len(self):,} images of {shape}, {len(self.class_names)} classes)"
