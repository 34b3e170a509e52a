"""Tests of peewit.data.audit.outliers."""

import numpy as np
import pytest

from peewit.data.audit import outliers as tested
from peewit.data.audit.outliers import FEWEST, NEIGHBOURS, outliers


def photographs(count: int, seed: int = 0) -> np.ndarray:
    """Return smooth coloured pictures, uint8 (count, 64, 64, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(40, 215, (count, 4, 4, 3))
    smooth = np.kron(coarse, np.ones((1, 16, 16, 1))) + random.normal(0, 8, (count, 64, 64, 3))
    return smooth.clip(0, 255).astype(np.uint8)


def icon(size: int) -> np.ndarray:
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[20 : 20 + size, 20 : 20 + size] = (200, 0, 0)
    return pixels


def page(offset: int) -> np.ndarray:
    pixels = np.full((64, 64, 3), 240, np.uint8)
    pixels[offset::4, 6:58:2] = 30
    return pixels


def test_strangers_among_photographs_are_found() -> None:
    images = photographs(150)
    strangers = {3: icon(20), 70: page(2), 149: icon(30)}
    for row, pixels in strangers.items():
        images[row] = pixels
    found = outliers(images)
    assert set(strangers) <= set(found)
    assert len(found) <= 5
    assert all(found[row] > 1.2 for row in strangers)


def test_few_of_clean_pictures_are_outliers() -> None:
    assert len(outliers(photographs(300))) <= 6


@pytest.mark.parametrize("alike", [NEIGHBOURS, NEIGHBOURS + 1])
def test_pictures_with_as_many_like_them_as_neighbours_count_are_no_outliers(alike: int) -> None:
    images = photographs(150)
    images[:alike] = icon(20)
    found = set(outliers(images)) & set(range(alike))
    assert found == (set(range(alike)) if alike == NEIGHBOURS else set())


def test_a_faint_icon_in_a_photograph_is_found() -> None:
    images = photographs(150)
    images[5] = (0.85 * images[5] + 0.15 * icon(20)).astype(np.uint8)
    assert 5 in outliers(images)


def test_few_and_equal_pictures_have_no_outliers() -> None:
    images = photographs(FEWEST - 1)
    images[0] = icon(20)
    assert outliers(images) == {}
    assert outliers(np.zeros((80, 64, 64, 3), np.uint8)) == {}


def test_a_sample_stands_for_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(150)
    images[[3, 70]] = icon(20), page(2)
    monkeypatch.setattr(tested, "REFERENCES", 60)
    assert {3, 70} <= set(outliers(images))
