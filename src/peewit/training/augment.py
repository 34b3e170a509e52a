"""Augmentation of the training images: flips, random translations, crops and cutout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Flip = Literal["none", "alternating", "random"]
Images = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

# keeps the random numbers of this module independent of those of the image order
_STREAM = 1
# Of random crops, relative to that of the image, and its inverse
MOST_ASPECT = 4 / 3


class _Draw(NamedTuple):
    """The augmentation of each image in one visit."""

    mirrored: npt.NDArray[np.bool_]  # (N,)
    shift: Numbers  # (N, 2): down, right; from 0 to twice the translation
    centre: Numbers  # (N, 2): centre of the cutout square
    box: npt.NDArray[np.float64] | None  # (N, 4): top, left, bottom, right of the crop in pixels


class Augment:
    """Flips, random translations, crops and cutout that depend only on seed, visit and image index.

    So a run that is resumed in the middle of an epoch sees the same images as one that was
    never stopped.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, C)
        The training images; a memory map is fine.
    seed : int
    flip : str
        "random" mirrors each image with probability 1/2 in each visit. "alternating" does so in the
        first visit, and then mirrors each image in every other visit: two visits cover both
        orientations of all images, whereas random flips repeat the orientation of half of them
        [1]_.
    translate : int
        Largest translation in pixels in each direction; the border is filled by reflection.
    cutout : int
        Side in pixels of a filled square whose centre lies anywhere in the image [2]_.
    fill : sequence of int, optional
        The colour of that square, one value per channel; black by default.
    crop : float
        Least share of the area that a random crop keeps, which is resized to the whole image [3]_;
        its aspect ratio is up to 4:3 times that of the image, or its inverse. 1 for no crops.

    References
    ----------
    .. [1] K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498,
       section 3.6.
    .. [2] T. DeVries, G. Taylor, "Improved regularization of convolutional neural networks with
       cutout", arXiv 1708.04552.
    .. [3] C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.

    Examples
    --------
    >>> images = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    >>> augment = Augment(images, seed=0, flip="alternating")
    >>> [augment.batch(np.array([0]), visit).flatten().tolist() for visit in range(3)]
    [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]]
    """

    def __init__(
        self,
        images: Images,
        seed: int,
        *,
        flip: Flip = "none",
        translate: int = 0,
        cutout: int = 0,
        fill: Sequence[int] | None = None,
        crop: float = 1.0,
    ) -> None:
        self.images, self.seed = images, seed
        self.flip, self.translate, self.cutout, self.crop = flip, translate, cutout, crop
        self.fill = np.array(fill if fill is not None else [0] * images.shape[3], np.uint8)
        self._first: npt.NDArray[np.bool_] = (
            np.random.default_rng((seed, _STREAM)).random(len(images)) < 0.5
        )
        self._drawn: tuple[int, _Draw] | None = None

    def batch(self, indices: Numbers, visit: int) -> Images:
        """Return the images at ``indices``, augmented for a visit, uint8, (n, H, W, C)."""
        images = self.images[indices]
        if self._drawn is None or self._drawn[0] != visit:
            self._drawn = visit, self._draw(visit)
        draw, reach = self._drawn[1], self.translate
        _, height, width, _ = images.shape
        margin = ((0, 0), (reach, reach), (reach, reach), (0, 0))
        padded = np.pad(images, margin, mode="reflect") if reach else images
        out = np.empty_like(images)
        # image by image, because gathering all pixels at once takes longer
        for place, index in enumerate(indices):
            top, left = draw.shift[index]
            view = padded[place, top : top + height, left : left + width]
            if draw.box is not None:
                view = _cropped(view, draw.box[index])
            out[place] = view[:, ::-1] if draw.mirrored[index] else view
            if self.cutout:
                down, right = draw.centre[index] - self.cutout // 2
                bottom, end = down + self.cutout, right + self.cutout
                out[place, max(down, 0) : bottom, max(right, 0) : end] = self.fill
        return out

    def _draw(self, visit: int) -> _Draw:
        count, height, width, _ = self.images.shape
        random = np.random.default_rng((self.seed, _STREAM, visit))
        mirrored: npt.NDArray[np.bool_]
        if self.flip == "alternating":
            mirrored = np.logical_xor(self._first, visit % 2)
        elif self.flip == "random":
            mirrored = np.less(random.random(count), 0.5)
        else:
            mirrored = np.zeros(count, dtype=bool)
        shift = random.integers(0, 2 * self.translate + 1, (count, 2))
        centre = random.integers(0, (height, width), (count, 2))
        return _Draw(mirrored, shift, centre, self._boxes(random))

    def _boxes(self, random: np.random.Generator) -> npt.NDArray[np.float64] | None:
        """Draw a crop of each image; None without crops."""
        if self.crop >= 1:
            return None
        count, height, width, _ = self.images.shape
        area = random.uniform(self.crop, 1, count)
        stretch = np.exp(random.uniform(-1, 1, count) * np.log(MOST_ASPECT))
        # shares of the sides; a crop that would be longer than the image ends at its border
        sides = np.minimum(np.sqrt(area * np.array([1 / stretch, stretch])).T, 1)
        first = random.random((count, 2)) * (1 - sides)
        return np.concatenate((first, first + sides), 1) * [height, width, height, width]


def _cropped(image: Images, box: npt.NDArray[np.float64]) -> Images:
    """Return the part ``box`` of an image, (H, W, C), resized to its size."""
    height, width, channels = image.shape
    top, left, bottom, right = box.tolist()
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(resized).reshape(height, width, channels)
