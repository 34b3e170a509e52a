from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

from peewit.errors import PeewitError
from peewit.images.preprocessing import Preprocessing

RGB = Preprocessing(32, 32, 3, (0, 0, 0), (1, 1, 1))


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_the_tutorials_preprocessing_is_a_division_by_255_rounded_as_by_numpy() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = Preprocessing(16, 16, 1, (0,), (1,)).tensor(images)
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x.numpy()[0, 0], (images[0, :, :, 0] / 255).astype(np.float32))


def test_the_result_is_nchw_in_channels_last_memory() -> None:
    images = pixels(2, 32, 32, 3)
    x = RGB.tensor(images)
    assert x.shape == (2, 3, 32, 32)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x[1, 2, 5, 7].item() == pytest.approx(images[1, 5, 7, 2] / 255)


def test_mean_and_std_are_applied_per_channel() -> None:
    rule = Preprocessing(2, 2, 3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2))
    images = pixels(4, 2, 2, 3)
    expected = (images / 255 - np.array(rule.mean)) / np.array(rule.std)
    x = rule.tensor(images).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_images_are_not_modified_and_may_be_read_only() -> None:
    images = pixels(2, 32, 32, 3)
    images.flags.writeable = False
    before = images.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RGB.tensor(images)
        RGB.tensor(images[::-1, ::2, ::2])  # strided, and resized
    np.testing.assert_array_equal(images, before)


def test_grey_becomes_three_equal_channels() -> None:
    x = RGB.tensor(pixels(2, 32, 32, 1))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])


def test_rgb_becomes_grey_by_luma_and_grey_stays_grey() -> None:
    rule = Preprocessing(1, 4, 1, (0,), (1,))
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]], np.uint8)
    x = rule.tensor(colours.reshape(1, 1, 4, 3)).flatten().tolist()
    assert x == pytest.approx([0.299, 0.587, 0.114, 90 / 255], abs=1e-6)


def test_resizing_neither_crops_nor_aliases() -> None:
    # at a quarter of the size these stripes are half white and half black, so all grey; without
    # antialiasing, from the middle pixels alone, they would be black
    stripes = np.tile(np.array([255, 0, 0, 255], np.uint8), 32)
    x = Preprocessing(32, 32, 1, (0,), (1,)).tensor(np.tile(stripes, (1, 128, 1))[..., None])
    assert x.shape == (1, 1, 32, 32)
    assert x.sub(0.5).abs().max() < 0.15
    # a black left and a white right half stay in place for any shape
    halves = np.zeros((1, 10, 50, 3), np.uint8)
    halves[:, :, 25:] = 255
    x = RGB.tensor(halves)
    assert x.shape == (1, 3, 32, 32)
    assert x[..., :12].max() == 0
    assert x[..., 20:].min().item() == pytest.approx(1)


def test_enlarging_stays_within_the_range() -> None:
    x = RGB.tensor(pixels(3, 8, 8, 1))
    assert x.shape == (3, 3, 32, 32)
    assert x.min() >= -1e-6
    assert x.max() <= 1 + 1e-6


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (0, 8, 8, 1), (0, 9, 9, 3)])
def test_an_empty_batch(shape: tuple[int, ...]) -> None:
    assert RGB.tensor(np.zeros(shape, np.uint8)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 4), "u1"),
    ],
)
def test_other_arrays_are_refused(images: np.ndarray) -> None:
    with pytest.raises(PeewitError, match="cannot prepare these images"):
        RGB.tensor(images)


def test_it_can_be_stored_as_json() -> None:
    rule = Preprocessing(22, 40, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Preprocessing.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"height": 0}, "at least 1"),
        ({"channels": 2}, "neither 1 nor 3"),
        ({"mean": [0.0]}, "one value per channel"),
        ({"std": [1.0, 1.0, 0.0]}, "not positive"),
        ({"mean": [0.0, 0.0, float("nan")]}, "not finite"),
        ({"mean": ["a", "b", "c"]}, "not a preprocessing"),
        ({"mean": 3}, "not a preprocessing"),
        ({"height": None}, "not a preprocessing"),
        ({"surprise": 1}, "not a preprocessing"),
    ],
)
def test_invalid_values_are_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(PeewitError, match=why):
        Preprocessing.from_dict(RGB.to_dict() | change)


def test_a_missing_field_is_refused() -> None:
    values = RGB.to_dict()
    del values["std"]
    with pytest.raises(PeewitError, match="std"):
        Preprocessing.from_dict(values)


def test_large_images_are_resized_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(5, 40, 50, 3)
    whole, sizes = RGB.tensor(images), []
    interpolate = torch.nn.functional.interpolate

    def recorded(x: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        sizes.append(len(x))
        return interpolate(x, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "interpolate", recorded)
    monkeypatch.setattr("peewit.images.preprocessing._RESIZED_AT_ONCE", 2 * 40 * 50 * 3)
    parts = RGB.tensor(images)
    assert sizes == [2, 2, 1]
    assert torch.allclose(parts, whole, atol=1e-6)
    assert parts.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr("peewit.images.preprocessing._RESIZED_AT_ONCE", 1)
    assert torch.allclose(RGB.tensor(images), whole, atol=1e-6)
