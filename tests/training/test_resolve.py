"""What a recipe leaves open follows from its data and its length, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.training.build import make_job
from peewit.training.recipe import Recipe
from peewit.training.resolve import (
    FEW_EPOCHS,
    SKIP_EASY,
    bounded,
    complete,
    filled,
    muon_rate,
    shift,
)

FAST = Recipe.preset("fast")


def test_what_is_given_stays() -> None:
    given = FAST.replace(lr=0.5, translate=0, skip_easy=0.1)
    assert complete(given, 1e9, 1e5, 32) == given
    assert complete(Recipe(), 1e9, 1e5, 32) == Recipe()
    assert filled(given, {}) == given


def test_what_is_open_is_filled_field_by_field() -> None:
    assert complete(FAST.replace(translate=7), 250_000, 50_000, 32).translate == 7
    assert complete(FAST.replace(translate=7), 250_000, 50_000, 32).lr == muon_rate(1_000)
    assert complete(FAST.replace(lr=0.5), 250_000, 50_000, 16).translate == 1


def test_only_short_trainings_leave_out_what_is_easy() -> None:
    def chosen(epochs: float) -> float | None:
        return complete(FAST, epochs * 1_000, 1_000, 32).skip_easy

    assert (chosen(1.5), chosen(5)) == (SKIP_EASY, SKIP_EASY)
    assert (chosen(FEW_EPOCHS), chosen(30)) == (0.0, 0.0)
    assert complete(FAST.replace(skip_easy=0.0), 1_000, 1_000, 32).skip_easy == 0.0


def test_longer_trainings_have_lower_rates() -> None:
    rates = [muon_rate(steps) for steps in (0, 1, 100, 1_000, 10_000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1] > 0


def test_larger_images_are_moved_further() -> None:
    moves = [shift(side) for side in range(1, 65)]
    assert moves == sorted(moves)
    assert (moves[0], moves[7], moves[27], moves[31], moves[-1]) == (0, 0, 2, 2, 4)


def test_nothing_is_lost_of_small_images() -> None:
    notes: list[str] = []
    best = complete(Recipe.preset("best"), 1e6, 1e5, 32)
    assert bounded(best, 32, pytest.fail) == best
    small = bounded(best, 8, notes.append)
    assert (small.translate, small.cutout) == (2, 4)
    assert notes == [
        "translate is 2 instead of 4, for the images are small",
        "cutout is 4 instead of 12, for the images are small",
    ]
    assert bounded(small, 8, pytest.fail) == small
    tiny = bounded(best, 1, notes.append)
    assert (tiny.translate, tiny.cutout) == (0, 0)


def test_an_image_that_is_enlarged_is_moved_by_its_own_pixels() -> None:
    data = Dataset(np.zeros((40, 4, 4, 3), np.uint8), np.arange(40) % 2, ["a", "b"])
    recipe = Recipe.preset("best", epochs=1, batch_size=4, model="fast-xs", image_size=32)
    job = make_job(data, None, recipe.replace(validation_fraction=0.1), lambda sentence: None)
    assert job.augment is not None
    assert (job.augment.translate, job.augment.cutout) == (1, 2)


@pytest.mark.parametrize("epochs", [1, 100])
def test_a_training_is_made_by_its_own_length_and_size(epochs: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 1), np.uint8)
    data = Dataset(images, np.arange(100) % 2, ["a", "b"])
    recipe = FAST.replace(epochs=epochs, batch_size=10, model="fast-xs", validation_fraction=0.1)
    job = make_job(data, None, recipe, lambda sentence: None)
    assert job.augment is not None
    assert (job.recipe.translate, job.augment.translate) == (1, 1)
    assert job.recipe.lr == muon_rate(9 * epochs)
