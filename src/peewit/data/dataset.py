"""The common type of all data sets: labelled images in memory, memory-mapped or in files."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.data.splitting import Units, fold_numbers, held_out
from peewit.data.store import recorded, select
from peewit.errors import PeewitError

if TYPE_CHECKING:
    from peewit.data.listing import Listing

# Pixels per histogram call: they take 128 MB
_COUNTED_AT_ONCE = 1 << 24
# Images copied at a time to hash them, if they are not contiguous in memory
_HASHED_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Dataset:
    """An immutable set of labelled images.

    Parameters
    ----------
    images : uint8 array, memory map or other ``Images``, shape (N, H, W, C)
        Pixels, 0 to 255; C is 1 (grey) or 3 (RGB).
    labels : int64 array, shape (N,)
        Class numbers, from 0 to ``len(class_names) - 1``.
    class_names : sequence of str
        The name of each class.
    origin : str, optional
        Where the data comes from, for people ("cifar10 train, /data/cifar-10-python.tar.gz").
    names : sequence of str, length N, optional
        What each image is called in results: the path of its file in the source.
    groups : int64 array, shape (N,), optional
        Images with the same number belong together, such as those of one person or near-duplicates:
        a split keeps them on one side.
    validation : bool array, shape (N,), optional
        Which images the source sets apart for validation; by default they are drawn.

    Raises
    ------
    PeewitError
        Shapes, dtypes, labels, names and groups do not match, or two classes have the same name.

    Examples
    --------
    >>> import numpy as np
    >>> data = Dataset(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1]), ["no", "yes"])
    >>> len(data), data.image_shape, data.class_counts.tolist()
    (4, (8, 8, 1), [2, 2])
    """

    images: Any
    labels: npt.NDArray[np.int64]
    class_names: Sequence[str]
    origin: str = field(default="")
    names: Sequence[str] | None = field(default=None)
    groups: npt.NDArray[np.int64] | None = field(default=None)
    validation: npt.NDArray[np.bool_] | None = field(default=None)

    def __post_init__(self) -> None:
        images, labels = self.images, np.asarray(self.labels)
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
            raise PeewitError(
                "invalid images",
                f"they are {images.dtype} with shape {images.shape}",
                "pass uint8 with shape (N, H, W, 1) or (N, H, W, 3)",
            )
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise PeewitError(
                "the labels do not match the images",
                f"they are {labels.dtype} with shape {labels.shape} for {len(images)} images",
                "pass one integer per image",
            )
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.class_names)):
            raise PeewitError(
                "the labels do not match the class names",
                f"they go from {labels.min()} to {labels.max()} for {len(self.class_names)} names",
                "number the classes from 0",
            )
        names = tuple(str(name) for name in self.class_names)
        duplicate = next((name for name, count in Counter(names).items() if count > 1), None)
        if duplicate is not None:
            raise PeewitError(
                f"two classes have the name {duplicate!r}",
                "no prediction could tell them apart",
                "give each class a different name",
            )
        per_image = {"names": self.names, "groups": self.groups, "validation": self.validation}
        for what, values in per_image.items():
            if values is not None and len(values) != len(images):
                raise PeewitError(
                    f"the {what} do not match the images",
                    f"they are {len(values)} for {len(images)} images",
                    "pass one per image",
                )
        # object.__setattr__ is how a frozen dataclass normalises its own fields
        labels = np.array(labels, dtype=np.int64)
        labels.flags.writeable = False
        if isinstance(images, np.ndarray):
            images = images.view()
            images.flags.writeable = False
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", names)

    @classmethod
    def from_folder(cls, path: str | Path) -> Dataset:
        """Return all pictures of a folder of class folders, which are decoded when needed.

        Also a table or an archive; see `peewit.data.listing_of`. `peewit.load` returns the parts
        of a source that has a test part.

        Raises
        ------
        PeewitError
            There are no labelled pictures at the path.
        """
        from peewit.data.formats import listing_of

        listing = listing_of(Path(path))
        if listing is None:
            raise PeewitError(f"{path} has no pictures", "", "use peewit.load for other data")
        return cls._of(listing)

    @classmethod
    def from_files(cls, paths: Sequence[str | Path], labels: Sequence[object]) -> Dataset:
        """Return picture files, anywhere on disk, with a label for each: its name or number."""
        from peewit.data.arrays import listing_of_files

        return cls._of(listing_of_files(paths, labels))

    @classmethod
    def from_pictures(cls, pictures: Sequence[Any], labels: Sequence[object]) -> Dataset:
        """Return pictures of Pillow, of any sizes and modes, with a label for each."""
        from peewit.data.arrays import listing_of_pictures

        return cls._of(listing_of_pictures(pictures, labels))

    @classmethod
    def from_arrays(
        cls,
        images: npt.ArrayLike,
        labels: npt.ArrayLike,
        class_names: Sequence[str] | None = None,
    ) -> Dataset:
        """Return images from arrays in one of several usual forms.

        Parameters
        ----------
        images : array, shape (N, H, W), (N, H, W, C) or (N, C, H, W)
            Whole numbers from 0 to 255, or fractions from 0 to 1.
        labels : array, shape (N,)
            Numbers or names.
        class_names : sequence of str, optional
            By default, the different labels in natural order.
        """
        from peewit.data.arrays import number_classes, to_images

        return cls(to_images(images), *number_classes(labels, class_names))

    @classmethod
    def _of(cls, listing: Listing) -> Dataset:
        from peewit.data.pictures import Pictures

        return cls(
            Pictures(listing=listing),
            listing.labels,
            listing.class_names,
            str(listing.place),
            listing.names,
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        _, height, width, channels = self.images.shape
        return int(height), int(width), int(channels)

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """Number of images in each class, int64, shape (classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Checksum of pixels, labels and class names (sha256, hexadecimal)."""
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        hashes = recorded(self.images, "hash")
        if hashes is not None:  # a million pictures of 32 x 32 pixels are 3 GB to read
            digest.update(np.ascontiguousarray(hashes).data)
        else:
            for first in range(0, len(self), _HASHED_AT_ONCE):
                part = self.images[first : first + _HASHED_AT_ONCE]
                digest.update(np.ascontiguousarray(part).data)
        digest.update(self.labels.data)
        return digest.hexdigest()

    @cached_property
    def image_hashes(self) -> npt.NDArray[np.uint64]:
        """A hash of the pixels of each image, uint64, shape (N,), to find identical images.

        With 64 bits, two different ones among 60,000 images have the same hash with a probability
        of 1e-10. The 60,000 images of CIFAR-10 take 0.2 s.
        """
        hashes = recorded(self.images, "hash")
        if hashes is not None:
            return np.array(hashes)
        found = bytearray()
        size = math.prod(self.image_shape)
        for first in range(0, len(self), _HASHED_AT_ONCE):
            part = np.ascontiguousarray(self.images[first : first + _HASHED_AT_ONCE])
            pixels = part.reshape(-1).data
            # SHA-256, because processors have instructions for it: it took half of BLAKE2b's time
            for number in range(len(part)):
                one = pixels[number * size : (number + 1) * size]
                found += hashlib.sha256(one).digest()[:8]
        return np.frombuffer(found, np.uint64)

    @cached_property
    def channel_statistics(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and standard deviation of each channel, for pixels scaled to 0 to 1.

        Both are float64, shape (channels,).
        """
        sums, squares = (recorded(self.images, fact) for fact in ("sums", "squares"))
        if sums is not None and squares is not None:
            return _statistics(sums, squares, math.prod(self.image_shape[:2]))
        # a histogram of each channel is exact and needs no float copy of the pixels
        values = np.arange(256) / 255
        count, height, width, channels = self.images.shape
        counts = np.zeros((channels, 256), np.int64)
        # in chunks, because bincount converts each byte to 8 bytes
        chunk = max(1, _COUNTED_AT_ONCE // max(height * width, 1))
        for first in range(0, count, chunk):
            flat = self.images[first : first + chunk].reshape(-1, channels)
            counts += [np.bincount(flat[:, c], minlength=256) for c in range(channels)]
        share = counts / max(count * height * width, 1)
        mean = share @ values
        deviation = np.sqrt((share * (values[None] - mean[:, None]) ** 2).sum(1))
        return mean, deviation

    def take(self, indices: npt.ArrayLike) -> Dataset:
        """Return the images at ``indices`` (integers or a boolean mask), in that order.

        They are not copied: the new data set refers to the same pixels.
        """
        chosen = np.asarray(indices)
        if not chosen.size:
            chosen = chosen.astype(np.int64)  # an empty list becomes float64
        rows = np.arange(len(self))[chosen]
        taken = Dataset(
            select(self.images, rows),
            self.labels[rows],
            self.class_names,
            self.origin,
            None if self.names is None else [self.names[row] for row in rows.tolist()],
            None if self.groups is None else self.groups[rows],
            None if self.validation is None else self.validation[rows],
        )
        if "image_hashes" in vars(self):  # known already
            vars(taken)["image_hashes"] = self.image_hashes[rows]
        return taken

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split into two parts, stratified by class, without separating a group.

        With names, the split follows from them and the seed alone, on every machine; an added
        picture leaves almost all others where they were.

        Parameters
        ----------
        fraction : float
            Fraction of each class that goes to the second part, more than 0 and less than 1.
            Groups can make it impossible to meet exactly.
        seed : int
            Seed of the random selection; the same seed returns the same split.

        Returns
        -------
        tuple of Dataset
            The remaining images and those that were split off, both in the original order.

        Raises
        ------
        PeewitError
            ``fraction`` is not between 0 and 1, or a part would be empty.
        """
        split_off = self.split_mask(fraction, seed)
        return self.take(~split_off), self.take(split_off)

    def split_mask(self, fraction: float, seed: int = 0) -> npt.NDArray[np.bool_]:
        """Return which images ``split`` splits off, bool, shape (N,)."""
        if not 0 < fraction < 1:
            raise PeewitError(
                f"cannot split off {fraction} of the images", "it is not between 0 and 1"
            )
        if self.names is not None or self.groups is not None:
            return held_out(self._units(seed), fraction)
        random = np.random.default_rng(seed)
        split_off = np.zeros(len(self), dtype=bool)
        for label in range(len(self.class_names)):
            members = np.flatnonzero(self.labels == label)
            split_off[random.permutation(members)[: round(fraction * len(members))]] = True
        if not split_off.any() or split_off.all():
            raise PeewitError(
                f"cannot split off {fraction:g} of {len(self)} images",
                "one part would be empty",
                "use more images or another fraction",
            )
        return split_off

    def validation_mask(self, fraction: float, seed: int = 0) -> npt.NDArray[np.bool_]:
        """Return which images to validate on, bool, shape (N,).

        They are those that the source sets apart, or else those of ``split_mask``.
        """
        if self.validation is not None and 0 < self.validation.sum() < len(self):
            return self.validation
        return self.split_mask(fraction, seed)

    def folds(self, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
        """Divide into folds for cross-validation, stratified by class, without separating a group.

        Parameters
        ----------
        count : int
            Number of folds, at least 2.
        seed : int
            The same seed returns the same folds.

        Returns
        -------
        int64 array, shape (N,)
            The fold of each image, from 0.

        Raises
        ------
        PeewitError
            There are fewer groups, or images, than folds.
        """
        return fold_numbers(self._units(seed), count)

    def grouped(self, groups: npt.NDArray[np.int64]) -> Dataset:
        """Return the same images with other groups, int64, shape (N,)."""
        other = replace(self, groups=groups)
        if "image_hashes" in vars(self):  # known already
            vars(other)["image_hashes"] = self.image_hashes
        return other

    def _units(self, seed: int) -> Units:
        return Units(
            labels=self.labels,
            classes=len(self.class_names),
            seed=seed,
            names=self.names,
            groups=self.groups,
        )

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image_shape))
        return f"Dataset({len(self):,} images of {shape}, {len(self.class_names)} classes)"


def _statistics(
    sums: npt.NDArray[np.uint64], squares: npt.NDArray[np.uint64], pixels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of each channel, from sums over ``pixels`` an image."""
    count = max(len(sums) * pixels, 1)
    # Python's integers, because the square of a sum exceeds 64 bits
    totals = [int(total) for total in sums.sum(0)]
    of_squares = [int(total) for total in squares.sum(0)]
    mean = np.array([total / (255 * count) for total in totals])
    variances = [
        (square * count - total * total) / (255 * count) ** 2
        for total, square in zip(totals, of_squares, strict=True)
    ]
    return mean, np.sqrt(np.array(variances))
