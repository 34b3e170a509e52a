"""A source's own validation part is the one that is validated on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import peewit
from peewit.data.dataset import Dataset
from peewit.errors import PeewitError


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes in three parts, with 24, 8 and 8 pictures."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4), ("test", 4)):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 128, (24, 24, 3), np.uint8) + np.uint8(100 * number)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "pets"


def test_a_run_validates_on_the_part_of_the_source(pets: Path, tmp_path: Path) -> None:
    splits = peewit.load(str(pets))
    assert splits.train.validation is not None
    assert splits.train.validation.sum() == 8
    recipe = peewit.Recipe.preset("fast", model="fast-xs", epochs=1, image_size=16, threads=1)
    run = peewit.train(
        splits.train,
        recipe,
        test=splits.test,
        out=tmp_path / "run",
        source={"source": str(pets), "data": None, "coarse": False},
        progress=peewit.Callback(),
    )
    with (run.path / "split.csv").open() as file:
        parts = {row["name"]: row["part"] for row in csv.DictReader(file)}
    expected = {"train": "training", "val": "validation", "test": "test"}
    assert len(parts) == 40
    assert all(part == expected[name.split("/")[0]] for name, part in parts.items())


def test_it_stays_with_its_images() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    apart = np.array([False, True, False, False, True, False])
    data = Dataset(images, np.arange(6) % 2, ["a", "b"], validation=apart)
    assert data.validation_mask(0.5).tolist() == apart.tolist()
    assert data.take([4, 0]).validation_mask(0.5).tolist() == [True, False]
    # without any of them, or with nothing else, images are drawn
    assert data.take([0, 2, 3, 5]).validation_mask(0.5).sum() == 2
    with pytest.raises(PeewitError, match="do not match"):
        Dataset(images, np.arange(6) % 2, ["a", "b"], validation=apart[:3])
