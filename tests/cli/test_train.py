"""Which recipe `peewit train` uses if none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peewit import trainer
from peewit.__main__ import main
from peewit.training.recipe import Recipe


class Stopped(Exception):  # noqa: N818
    """Raised in place of the training."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Keep the recipe of each training instead of training."""
    found: list[Recipe] = []

    def keep(dataset: Any, recipe: Recipe, **options: Any) -> None:
        found.append(recipe)
        raise Stopped

    monkeypatch.setattr(trainer, "train", keep)
    monkeypatch.setenv("PEEWIT_DEBUG", "1")
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pets"


def train(*words: str | Path) -> None:
    with pytest.raises(Stopped):
        main(["train", *map(str, words)])


def test_pictures_train_for_five_minutes(
    asked: list[Recipe], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(pictures)
    assert (asked[0].name, asked[0].model, asked[0].minutes) == ("auto", "auto", 5)
    assert "5 minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        (["--epochs", "3"], Recipe.preset("auto", epochs=3)),
        (["--minutes", "2"], Recipe.preset("auto", minutes=2.0)),
        (["--until-accuracy", "0.9"], Recipe.preset("auto", until_accuracy=0.9)),
        (["--recipe", "tutorial"], Recipe()),
        (["--optimizer", "adam"], Recipe.preset("auto", minutes=5.0, optimizer="adam")),
        (["--recipe", "fast", "--epochs", "3"], Recipe.preset("fast", epochs=3)),
        (
            ["--model", "efficientnet-lite1"],
            Recipe.preset("pretrained", minutes=5.0, model="efficientnet-lite1"),
        ),
    ],
)
def test_pictures_with_options(
    asked: list[Recipe],
    pictures: Path,
    words: list[str],
    recipe: Recipe,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(pictures, *words)
    assert asked == [recipe]
    assert ("5 minutes" in capsys.readouterr().err) == (recipe.minutes == 5)


def test_named_sources_keep_the_tutorial(asked: list[Recipe]) -> None:
    train("digits", "--image-size", "24")
    assert asked == [Recipe(image_size=24)]
