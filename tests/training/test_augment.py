"""Augmentation depends only on seed, epoch and index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from peewit.training.augment import Augment

COUNT, SIZE = 40, 8
IMAGES = np.random.default_rng(0).integers(1, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
ALL = np.arange(COUNT)


def augment(**changes: Any) -> Augment:
    return Augment(IMAGES, **{"seed": 0, **changes})


def test_no_augmentation_changes_nothing() -> None:
    assert np.array_equal(augment().batch(ALL[::2], 3), IMAGES[::2])


def test_alternating_flip_mirrors_every_other_epoch() -> None:
    batches = [augment(flip="alternating").batch(ALL, epoch) for epoch in range(4)]
    mirrored = IMAGES[:, :, ::-1]
    first = [np.array_equal(*pair) for pair in zip(batches[0], mirrored, strict=True)]
    assert 10 < sum(first) < 30
    for epoch, batch in enumerate(batches):
        for image, plain, other, begins in zip(batch, IMAGES, mirrored, first, strict=True):
            assert np.array_equal(image, other if begins ^ bool(epoch % 2) else plain)


def test_random_flips_differ_between_epochs() -> None:
    worker = augment(flip="random")
    flipped = np.array(
        [(worker.batch(ALL, epoch) == IMAGES[:, :, ::-1]).all((1, 2, 3)) for epoch in range(50)]
    )
    assert 0.45 < flipped.mean() < 0.55
    assert (flipped.mean(0) > 0.2).all()
    assert (flipped.mean(1) > 0.2).all()


def test_translation_is_bounded_and_reflects_at_the_edge() -> None:
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    seen = set()
    worker = augment(translate=2)
    for epoch in range(5):
        for index, image in enumerate(worker.batch(ALL, epoch)):
            (place,) = (
                (top, left)
                for top in range(5)
                for left in range(5)
                if np.array_equal(padded[index, top : top + SIZE, left : left + SIZE], image)
            )
            seen.add(place)
    assert len(seen) == 25


def test_cutout_square_may_cross_the_edge() -> None:
    worker = augment(cutout=4, fill=(0, 0, 0))
    areas = set()
    for epoch in range(5):
        batch = worker.batch(ALL, epoch)
        gone = (batch == 0).all(3)
        assert np.array_equal(batch[~gone], IMAGES[~gone])
        for one in gone:
            rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
            areas.add((len(rows), len(columns)))
            assert one.sum() == len(rows) * len(columns)  # a rectangle
    assert max(areas) == (4, 4)
    assert min(min(area) for area in areas) == 2


@pytest.mark.parametrize("flip", ["alternating", "random"])
def test_augmentation_depends_only_on_seed_epoch_and_index(flip: str) -> None:
    settings: dict[str, Any] = {"flip": flip, "translate": 3, "cutout": 2}
    whole = augment(**settings).batch(ALL, 5)
    other = augment(**settings)
    other.batch(ALL[:7], 0)
    assert np.array_equal(other.batch(ALL[::-1], 5)[::-1], whole)
    assert np.array_equal(other.batch(ALL[3:4], 5)[0], whole[3])
    assert not np.array_equal(other.batch(ALL, 6), whole)
    assert not np.array_equal(augment(**settings, seed=1).batch(ALL, 5), whole)
    assert whole.dtype == np.uint8


def test_random_values_of_an_epoch_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = Augment._draw
    monkeypatch.setattr(
        Augment, "_draw", lambda self, epoch: drawn.append(epoch) or draw(self, epoch)
    )
    worker = augment(flip="random")
    assert drawn == []
    for epoch in (0, 0, 7, 7):
        worker.batch(ALL, epoch)
    assert drawn == [0, 7]


def test_memory_maps_and_single_grey_pixels_are_accepted(tmp_path: Any) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = Augment(np.load(tmp_path / "images.npy", mmap_mode="r"), 0, translate=1)
    assert np.array_equal(mapped.batch(ALL, 1), augment(translate=1).batch(ALL, 1))
    dot = Augment(np.full((1, 1, 1, 1), 7, np.uint8), 0, flip="random", translate=2)
    assert dot.batch(np.array([0]), 0).tolist() == [[[[7]]]]
