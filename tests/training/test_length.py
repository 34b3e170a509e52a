"""What a recipe leaves open follows from the length of its training, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.training.length import AUGMENTATIONS, augmentation, filled, for_length, muon_rate
from peewit.training.recipe import Recipe
from peewit.training.setup import make_job

FAST = Recipe.preset("fast")


def test_what_is_given_stays() -> None:
    given = FAST.replace(lr=0.5, translate=0, cutout=1)
    assert for_length(given, 1e9, 100, 32) == given
    assert for_length(Recipe(), 1e9, 100, 32) == Recipe()
    assert filled(given, {}) == given


def test_what_is_open_is_filled_field_by_field() -> None:
    half = for_length(FAST.replace(cutout=1), 250_000, 50_000, 32)
    shift = augmentation(5, 32)[0]
    assert (half.lr, half.translate, half.cutout) == (muon_rate(1_000), shift, 1)


def test_longer_trainings_have_lower_rates_and_more_variety() -> None:
    rates = [muon_rate(steps) for steps in (0, 1, 100, 1_000, 10_000)]
    assert rates == sorted(rates, reverse=True)
    changes = [augmentation(epochs, 32) for epochs in (0, 0.01, 1, 5, 10, 30, 1_000)]
    assert changes == sorted(changes)
    assert changes[0] != changes[-1]
    # the first that is found counts, and there is one for any length
    assert [least for least, *_ in AUGMENTATIONS] == sorted(
        (least for least, *_ in AUGMENTATIONS), reverse=True
    )
    assert AUGMENTATIONS[-1][0] == 0


@pytest.mark.parametrize("side", [1, 2, 8, 28, 32])
def test_a_hole_leaves_most_of_a_picture(side: int) -> None:
    for epochs in (1, 100):
        translate, cutout = augmentation(epochs, side)
        assert translate >= 1
        assert 0 <= cutout <= side / 2


@pytest.mark.parametrize("epochs", [1, 100])
def test_a_training_is_made_by_its_own_length_and_size(epochs: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), np.uint8)
    data = Dataset(images, np.arange(100) % 2, ["a", "b"])
    recipe = FAST.replace(epochs=epochs, batch_size=10, model="fast-xs", validation_fraction=0.1)
    job = make_job(data, None, recipe, lambda sentence: None)
    assert job.augment is not None
    wanted = augmentation(epochs, 8)
    assert (job.recipe.translate, job.recipe.cutout) == wanted
    assert (job.augment.translate, job.augment.cutout) == wanted
    assert job.recipe.lr == muon_rate(9 * epochs)
