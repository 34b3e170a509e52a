"""Near-duplicates: copies are found whatever was done to them, different pictures never are."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from peewit.data import near_duplicates as module
from peewit.data.near_duplicates import linked, near_duplicates, pairs, thumbnails

Bytes = npt.NDArray[np.uint8]
COUNT = 12


@pytest.fixture(scope="module")
def scenes() -> Bytes:
    """Return different pictures with coarse and fine structure, uint8 (12, 64, 64, 3)."""
    random = np.random.default_rng(0)
    scenes = []
    for _ in range(COUNT):
        scene = np.zeros((64, 64, 3))
        for side in (4, 8, 16, 32):
            noise = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
            scene += np.asarray(noise.resize((64, 64), Image.Resampling.BICUBIC)) / 4
        scenes.append(scene.clip(0, 255).astype(np.uint8))
    return np.stack(scenes)


def _jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": _jpeg,
    "smaller": lambda picture: picture.resize((32, 32)).resize((64, 64)),
    "cut": lambda picture: picture.crop((2, 1, 62, 61)).resize((64, 64)),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_grouped_with_its_original_only(scenes: Bytes, kind: str) -> None:
    copies = [np.asarray(COPIES[kind](Image.fromarray(scene))) for scene in scenes]

    found = near_duplicates(np.concatenate([scenes, np.stack(copies)]))

    assert found.tolist() == [*range(COUNT), *range(COUNT)]


def test_objects_on_the_same_background_are_not_grouped() -> None:
    pictures: list[Bytes] = []
    for colour in ("green", "orange", "black"):
        picture = Image.new("RGB", (64, 64), (214, 214, 220))
        ImageDraw.Draw(picture).ellipse((22, 22, 44, 44), fill=colour)
        ImageDraw.Draw(picture).rectangle((28, 28, 34, 40 - 4 * len(pictures)), fill="white")
        pictures.append(np.asarray(picture))

    assert near_duplicates(np.stack(pictures)).tolist() == [0, 1, 2]


def test_uniform_and_tiny_images_must_be_identical() -> None:
    uniform = np.stack([np.full((40, 40, 1), value, np.uint8) for value in (0, 1, 255, 1)])
    tiny = np.random.default_rng(0).integers(0, 200, (1, 8, 8, 3), np.uint8)

    assert near_duplicates(uniform).tolist() == [0, 1, 2, 1]
    assert near_duplicates(np.concatenate([tiny, tiny + 1, tiny])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_few_images(scenes: Bytes, count: int) -> None:
    assert near_duplicates(scenes[:count]).tolist() == list(range(count))


def test_copies_are_found_among_many_pictures(
    scenes: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CELL", 4)
    darker = (scenes * 0.7).astype(np.uint8)

    found = near_duplicates(np.concatenate([scenes, darker[:, :, ::-1]]))

    assert found.tolist() == [*range(COUNT), *range(COUNT)]


def test_a_cell_may_be_empty(scenes: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELL", 4)
    alike = np.concatenate([scenes[:1]] * 30)
    alike[np.arange(30), 0, 0] = np.arange(30)[:, None]  # each is different, their thumbnails not

    assert near_duplicates(alike).tolist() == [0] * 30


def test_a_long_chain_of_similar_pictures_is_cut() -> None:
    chain = module.Pairs(np.arange(99), np.arange(1, 100), np.full(99, 0.96, np.float32))
    identical = chain._replace(similarity=np.ones(99, np.float32))

    assert len(set(linked(100, chain).tolist())) == 100
    assert set(linked(100, identical).tolist()) == {0}


def test_a_pair_is_reported_once_and_in_order(scenes: Bytes) -> None:
    found = pairs(thumbnails(np.concatenate([scenes, scenes[3:4]])))

    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(3, COUNT)]
    assert found.similarity.tolist() == [1]
