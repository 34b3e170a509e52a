from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError
from peewit.plots import save_grid, save_mistakes, save_uncertain
from peewit.plots.grids import GAP, HEADING, PICTURE, _columns


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("heading", ["", "Some images"])
def test_each_pixel_is_a_sharp_square(tiny: Dataset, tmp_path: Path, heading: str) -> None:
    save_grid(tmp_path / "a.png", tiny, [5, 0], heading)
    drawn = pixels(tmp_path / "a.png")
    top = GAP + (HEADING if heading else 0)
    for column, index in enumerate((5, 0)):
        left = GAP + column * (PICTURE + GAP)
        square = drawn[top : top + PICTURE, left : left + PICTURE]
        assert (square == tiny.images[index].repeat(5, 0).repeat(5, 1)).all()


def test_grey_images(tiny_grey: Dataset, tmp_path: Path) -> None:
    save_grid(tmp_path / "a.png", tiny_grey, [3])
    square = pixels(tmp_path / "a.png")[GAP : GAP + PICTURE, GAP : GAP + PICTURE]
    assert (square == tiny_grey.images[3].repeat(20, 0).repeat(20, 1)).all()


def test_large_images_are_reduced(tmp_path: Path) -> None:
    images = np.full((2, 300, 600, 3), 77, np.uint8)
    save_grid(tmp_path / "a.png", Dataset(images, np.array([0, 0]), ["a"]), [0, 1])
    square = pixels(tmp_path / "a.png")[GAP : GAP + PICTURE // 2, GAP : GAP + PICTURE]
    assert (square == 77).all()


def test_the_same_images_give_the_same_file(tiny: Dataset, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_grid(tmp_path / name, tiny, range(7), "Heading")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"atplotlib" not in (tmp_path / "a.png").read_bytes()


def test_any_class_name_can_be_drawn(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    names = ["$\\frac{$", "猫" * 30, "a name that is far longer than its picture " * 3]
    images = np.zeros((3, 8, 8, 1), np.uint8)
    save_grid(tmp_path / "a.png", Dataset(images, np.arange(3), names), range(3))
    assert pixels(tmp_path / "a.png").shape[1] == 3 * (PICTURE + GAP) + GAP
    assert not recwarn.list


def test_the_last_row_has_few_empty_places() -> None:
    for count in range(1, 200):
        columns = _columns(count)
        assert 1 <= columns <= 10
        assert -count % columns <= 5, count


def test_the_file_is_written_completely_or_not_at_all(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match=r"cannot write .*a\.png: no such file or directory"):
        save_grid(tmp_path / "missing" / "a.png", tiny, [0])
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(IndexError):
        save_grid(tmp_path / "a.png", tiny, [1000])
    assert (tmp_path / "a.png").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def shades(levels: list[int]) -> np.ndarray:
    return np.array(levels, np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)


def test_the_most_confident_mistakes_come_first(tmp_path: Path) -> None:
    # Correct; wrong with 60 %, 99 % and 80 % confidence
    images = shades([10, 20, 30, 40])
    labels = np.array([0, 0, 1, 1])
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.99, 0.01], [0.8, 0.2]], np.float32)
    save_mistakes(tmp_path / "a.png", images, labels, shares, ["cat", "dog"], count=2)
    drawn = pixels(tmp_path / "a.png")
    middle = GAP + HEADING + PICTURE // 2
    assert drawn[middle, GAP + PICTURE // 2].tolist() == [30] * 3
    assert drawn[middle, 2 * GAP + PICTURE + PICTURE // 2].tolist() == [40] * 3
    assert not (drawn == 20).all(axis=2).any()


def test_a_picture_without_mistakes_says_so(tmp_path: Path) -> None:
    shares = np.eye(2, dtype=np.float32)
    save_mistakes(tmp_path / "a.png", shades([1, 2]), np.array([0, 1]), shares, ["cat", "dog"])
    drawn = pixels(tmp_path / "a.png")
    # A line of text: something dark on a mostly white picture
    assert drawn.min() < 100
    assert (drawn == 255).mean() > 0.9


def test_a_heading_wider_than_the_images_is_not_cut(tmp_path: Path) -> None:
    shares = np.array([[0.1, 0.9]], np.float32)
    save_mistakes(tmp_path / "a.png", shades([1]), np.array([0]), shares, ["cat", "dog"])
    drawn = pixels(tmp_path / "a.png")
    assert drawn.shape[1] > PICTURE + 2 * GAP
    assert (drawn[:, -GAP // 2 :] == 255).all()


def test_the_least_confident_predictions_come_first_correct_or_not(tmp_path: Path) -> None:
    # 90 % correct; 55 % wrong; 60 % correct; 70 % correct
    images = shades([10, 20, 30, 40])
    labels = np.array([0, 0, 1, 1])
    shares = np.array([[0.9, 0.1], [0.45, 0.55], [0.4, 0.6], [0.3, 0.7]], np.float32)
    save_uncertain(tmp_path / "a.png", images, labels, shares, ["cat", "dog"], count=2)
    drawn = pixels(tmp_path / "a.png")
    middle = GAP + HEADING + PICTURE // 2
    assert drawn[middle, GAP + PICTURE // 2].tolist() == [20] * 3
    assert drawn[middle, 2 * GAP + PICTURE + PICTURE // 2].tolist() == [30] * 3
    assert not (drawn == 40).all(axis=2).any()
    # The mistake is red, the correct prediction blue
    below = drawn[GAP + HEADING + PICTURE :].astype(int)
    left, right = np.split(below[:, : 2 * (PICTURE + GAP)], 2, axis=1)
    red, blue = (int((part[..., 0] - part[..., 2]).max()) for part in (left, right))
    assert red > 80 > blue
