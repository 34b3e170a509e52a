"""Near-duplicates: copies are found whatever was done to them, other pictures are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance, ImageOps

from peewit.data.near_duplicates import near_duplicates

Pixels = npt.NDArray[np.uint8]
SIDE = 64


def scene(number: int) -> Image.Image:
    """Return a picture of random shapes at three scales, 128 x 128."""
    random = np.random.default_rng(number)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
                (128, 128), Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        for cells in (4, 12, 32)
    ]
    mixed = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]
    return Image.fromarray(mixed.astype(np.uint8))


def pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def compressed(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda picture: picture,
    "compressed": compressed,
    "half size": lambda picture: picture.resize((64, 64)),
    "mirrored": ImageOps.mirror,
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "cropped": lambda picture: picture.crop((6, 4, 122, 120)),
    "grey": lambda picture: picture.convert("L"),
}


def of(pictures: list[Image.Image]) -> list[int]:
    return near_duplicates(np.stack([pixels(picture) for picture in pictures])).tolist()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_copies_are_found(change: Callable[[Image.Image], Image.Image]) -> None:
    originals = [scene(number) for number in range(12)]
    groups = of([*originals, *map(change, originals)])
    assert groups[:12] == list(range(12))
    assert groups[12:] == list(range(12))


def test_different_pictures_are_not_linked() -> None:
    assert of([scene(number) for number in range(60)]) == list(range(60))


def test_flat_pictures_must_be_identical() -> None:
    shades = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (10, 200, 10, 205)]
    assert of(shades) == [0, 1, 0, 3]


def test_small_pictures_must_be_identical() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 8, 8, 1), np.uint8)
    images[2], images[3] = images[0], images[1] // 2
    assert near_duplicates(images).tolist() == [0, 1, 0, 3]


def test_no_pictures() -> None:
    assert near_duplicates(np.empty((0, 32, 32, 3), np.uint8)).tolist() == []
