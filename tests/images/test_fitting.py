from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from PIL import Image

from peewit.images.fitting import FITS, PADDING, Fit, crop_region, fit_picture, pad_region, region
from peewit.images.preprocessing import Preprocessing

SIDES = (1, 2, 3, 9, 32, 47, 50, 300)
TARGETS = ((32, 32), (24, 40), (6, 5), (1, 1), (1, 6))


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("fit", FITS)
def test_a_picture_of_the_target_size_is_unchanged(fit: Fit, target: tuple[int, int]) -> None:
    assert region(fit, *target, *target) == (0, 0, *target)
    picture = Image.effect_noise(target[::-1], 90)
    assert fit_picture(picture, *target, fit).tobytes() == picture.tobytes()


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_crop_is_centred_and_as_large_as_possible(target: tuple[int, int]) -> None:
    for height, width in product(SIDES, SIDES):
        top, left, kept_height, kept_width = crop_region(height, width, *target)
        assert kept_height == height or kept_width == width
        for size, kept, first in ((height, kept_height, top), (width, kept_width, left)):
            assert 1 <= kept <= size
            assert 0 <= size - kept - 2 * first <= 1
        if min(kept_height, kept_width) >= 9:
            ratio = kept_width / kept_height / (target[1] / target[0])
            assert ratio == pytest.approx(1, abs=1 / 6)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_padding_is_equal_on_both_sides(target: tuple[int, int]) -> None:
    for height, width in product(SIDES, SIDES):
        top, left, framed_height, framed_width = pad_region(height, width, *target)
        assert framed_height == height or framed_width == width
        assert (framed_height, framed_width) == (height - 2 * top, width - 2 * left)
        assert top <= 0
        assert left <= 0
        # the padding that would make the aspect ratio exact, to two pixels
        missing = max(height, width * target[0] / target[1]) - framed_height
        assert 0 <= missing < 3


def test_sizes_are_rounded_down_as_keras_does() -> None:
    # keras.layers.Resizing(24, 40) keeps int(33 * 40 / 24) = 55 of 57 columns; and pads 47 rows to
    # int(90 * 24 / 40) = 54, of which int(7 / 2) = 3 are above
    assert crop_region(33, 57, 24, 40) == (0, 1, 33, 55)
    assert pad_region(47, 90, 24, 40) == (-3, 0, 53, 90)


def test_each_fit_of_a_wide_picture() -> None:
    stripes = np.zeros((2, 6), np.uint8)
    stripes[:, 2:4] = 255
    expected = {
        "crop": [[255, 255], [255, 255]],
        "pad": [[PADDING] * 6] * 2 + [[0, 0, 255, 255, 0, 0]] * 2 + [[PADDING] * 6] * 2,
    }
    for fit, pixels in expected.items():
        size = len(pixels)
        picture = fit_picture(Image.fromarray(stripes), size, size, fit)  # type: ignore[arg-type]
        assert np.asarray(picture).tolist() == pixels
    stretched = np.asarray(fit_picture(Image.fromarray(stripes), 2, 3, "stretch"))
    assert stretched[:, 1].min() > stretched[:, [0, 2]].max()


@pytest.mark.parametrize("fit", FITS)
def test_a_fitted_picture_is_that_of_the_preprocessing(fit: Fit) -> None:
    random = np.random.default_rng(0)
    for size in ((60, 90), (90, 61), (3, 50), (50, 3), (7, 7)):
        pixels = random.integers(0, 256, (*size, 3), np.uint8)
        found = np.asarray(fit_picture(Image.fromarray(pixels), 24, 40, fit))
        rule = Preprocessing(24, 40, 3, (0, 0, 0), (1, 1, 1), fit)
        # Pillow rounds to whole numbers twice, after each direction
        np.testing.assert_allclose(found, 255 * rule.reference(pixels[None])[0], rtol=0, atol=1.5)


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1)])
def test_padding_a_thin_picture_needs_no_frame_in_memory(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = []
    new = Image.new

    def recorded(mode: str, size: tuple[int, int], *rest: object) -> Image.Image:
        frames.append(size[0] * size[1])
        return new(mode, size, *rest)  # type: ignore[arg-type]

    picture = Image.fromarray(np.zeros(size, np.uint8))
    monkeypatch.setattr(Image, "new", recorded)
    fit_picture(picture, 32, 32, "pad")
    assert all(pixels <= 32 * 30_000 for pixels in frames)
    pixels = np.zeros((1, *size, 1), np.uint8)
    rule = Preprocessing(32, 32, 1, (0,), (1,), "pad")
    np.testing.assert_allclose(rule.tensor(pixels).numpy()[0, 0], rule.array(pixels)[0, ..., 0])
