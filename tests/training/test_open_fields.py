"""What a recipe leaves open follows from its data and its length, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.training.open_fields import complete, filled, muon_rate, shift
from peewit.training.recipe import Recipe
from peewit.training.setup import make_job

FAST = Recipe.preset("fast")


def test_what_is_given_stays() -> None:
    given = FAST.replace(lr=0.5, translate=0)
    assert complete(given, 1e9, 32) == given
    assert complete(Recipe(), 1e9, 32) == Recipe()
    assert filled(given, {}) == given


def test_what_is_open_is_filled_field_by_field() -> None:
    assert complete(FAST.replace(translate=7), 250_000, 32).translate == 7
    assert complete(FAST.replace(translate=7), 250_000, 32).lr == muon_rate(1_000)
    assert complete(FAST.replace(lr=0.5), 250_000, 8).translate == 1


def test_longer_trainings_have_lower_rates() -> None:
    rates = [muon_rate(steps) for steps in (0, 1, 100, 1_000, 10_000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1] > 0


def test_larger_images_are_moved_further() -> None:
    moves = [shift(side) for side in range(1, 65)]
    assert moves == sorted(moves)
    assert (moves[0], moves[-1]) == (1, 4)


@pytest.mark.parametrize("epochs", [1, 100])
def test_a_training_is_made_by_its_own_length_and_size(epochs: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), np.uint8)
    data = Dataset(images, np.arange(100) % 2, ["a", "b"])
    recipe = FAST.replace(epochs=epochs, batch_size=10, model="fast-xs", validation_fraction=0.1)
    job = make_job(data, None, recipe, lambda sentence: None)
    assert job.augment is not None
    assert (job.recipe.translate, job.augment.translate) == (1, 1)
    assert job.recipe.lr == muon_rate(9 * epochs)
