"""Open fields of a recipe depend only on its data, its length and the machine."""

from __future__ import annotations

import numpy as np
import pytest

from made_data import noise
from made_machine import MadeMachine, resolved
from peewit.data.dataset import Dataset
from peewit.errors import UsageError
from peewit.training.build import build_setup
from peewit.training.defaults import (
    FEW_EPOCHS,
    OPEN,
    SKIP_EASY,
    filled,
    muon_rate,
    training_images,
    translation,
    with_open_fields,
)
from peewit.training.recipe import Recipe
from peewit.training.resolve import for_small_data, resolve

FAST = Recipe.preset("fast")
XS = Recipe.preset("fast", model="fast-xs", batch_size=500)
DATA = noise(1000, 32)


def quiet(sentence: str) -> None:
    return


@pytest.mark.parametrize(
    "recipe",
    [Recipe(epochs=2), XS.replace(epochs=3), Recipe.preset("fast", minutes=1)],
    ids=["tutorial", "epochs", "minutes"],
)
def test_resolved_recipe_has_no_open_field_and_is_a_fixed_point(recipe: Recipe) -> None:
    once = resolved(recipe, noise(600, 16))
    assert None not in [getattr(once, name) for name in (*OPEN, "threads")]
    assert "auto" not in (once.model, once.class_weights)
    assert resolved(once, noise(600, 16)) == once


def test_setup_keeps_the_resolved_recipe() -> None:
    data = noise(600, 16)
    recipe = resolved(XS.replace(epochs=3), data)
    assert build_setup(data, None, recipe, quiet).recipe is recipe


def test_given_values_are_kept() -> None:
    given = FAST.replace(lr=0.5, translate=0, skip_easy=0.1, fit="pad", class_weights="none")
    assert filled(given, DATA, 1e9, pytest.fail) == given
    plain = Recipe(fit="stretch")
    assert filled(plain, DATA, 1e9, pytest.fail) == plain
    assert with_open_fields(given, {}) == given


def test_open_fields_are_filled_one_by_one() -> None:
    assert filled(FAST.replace(translate=7), DATA, 250_000, quiet).translate == 7
    assert filled(FAST.replace(translate=7), DATA, 250_000, quiet).lr == muon_rate(1_000)
    assert filled(FAST.replace(lr=0.5), noise(100, 16), 250_000, quiet).translate == 1


def test_only_short_runs_skip_easy_images() -> None:
    whole = FAST.replace(validate_on="test")

    def chosen(epochs: float) -> float | None:
        return filled(whole, DATA, epochs * len(DATA), quiet).skip_easy

    assert (chosen(1.5), chosen(5)) == (SKIP_EASY, SKIP_EASY)
    assert (chosen(FEW_EPOCHS), chosen(30)) == (0.0, 0.0)
    assert filled(whole.replace(skip_easy=0.0), DATA, 1_000, quiet).skip_easy == 0.0


def test_longer_runs_have_lower_learning_rates() -> None:
    rates = [muon_rate(steps) for steps in (0, 1, 100, 1_000, 10_000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1] > 0


def test_larger_images_are_translated_further() -> None:
    moves = [translation(side) for side in range(1, 65)]
    assert moves == sorted(moves)
    assert (moves[0], moves[7], moves[27], moves[31], moves[-1]) == (0, 0, 2, 2, 4)


def test_augmentation_of_small_images_is_bounded() -> None:
    notes: list[str] = []
    best = Recipe.preset("best")
    assert filled(best, DATA, 1e6, pytest.fail).cutout == best.cutout
    small = filled(best, noise(40, 8), 1e6, notes.append)
    assert (small.translate, small.cutout) == (2, 4)
    assert len(notes) == 2
    assert "translate is 2 instead of 4" in notes[0]
    assert "cutout is 4 instead of 12" in notes[1]
    assert filled(small, noise(40, 8), 1e6, pytest.fail) == small


def test_translation_of_enlarged_images_is_in_original_pixels() -> None:
    data = Dataset(np.zeros((40, 4, 4, 3), np.uint8), np.arange(40) % 2, ["a", "b"])
    recipe = Recipe.preset("best", epochs=1, batch_size=4, model="fast-xs", image_size=32)
    setup = build_setup(data, None, resolved(recipe, data), quiet)
    assert setup.augment is not None
    assert (setup.augment.translate, setup.augment.cutout) == (1, 2)


@pytest.mark.parametrize("epochs", [1, 100])
def test_learning_rate_and_translation_follow_from_length_and_size(epochs: int) -> None:
    data = noise(100, 16, 1, classes=2)
    recipe = FAST.replace(epochs=epochs, batch_size=9, model="fast-xs")
    setup = build_setup(data, None, resolved(recipe, data), quiet)
    assert setup.augment is not None
    assert (setup.recipe.translate, setup.augment.translate) == (1, 1)
    assert setup.recipe.lr == muon_rate(10 * epochs)


def test_the_number_of_training_images_is_that_of_the_split() -> None:
    for count, classes, fraction in ((100, 3, 0.1), (57, 4, 0.2), (23, 2, 0.03)):
        data, recipe = noise(count, 2, classes=classes), Recipe(validation_fraction=fraction)
        away = [round(fraction * n) for n in data.class_counts]
        assert training_images(recipe, data) == count - sum(away)
        if sum(away):
            assert training_images(recipe, data) == len(data.split(fraction, 0)[0])
    assert training_images(Recipe(validate_on="test"), DATA) == len(DATA)


def test_small_data_gets_more_validation_and_smaller_batches() -> None:
    notes: list[str] = []
    recipe = for_small_data(XS, noise(60, 8), notes.append)
    assert (recipe.validation_fraction, recipe.batch_size) == (0.1, 5)
    assert len(notes) == 2
    assert "10% of the images are held out" in notes[0]
    assert "5 instead of 500" in notes[1]
    assert for_small_data(recipe, noise(60, 8), pytest.fail) == recipe
    assert for_small_data(XS, noise(20_000, 1), quiet).validation_fraction == 0.05
    on_test = for_small_data(XS.replace(validate_on="test"), noise(60, 8), quiet)
    assert (on_test.validation_fraction, on_test.batch_size) == (0.02, 6)


def test_large_data_and_other_recipes_are_unchanged() -> None:
    assert for_small_data(XS, noise(50_000, 1), pytest.fail) == XS
    assert for_small_data(Recipe(), noise(60, 8), pytest.fail) == Recipe()


@pytest.mark.parametrize(
    ("factor", "precision", "told"),
    [(2.0, "float32", True), (1.0, "float32", False), (2.0, "bfloat16", False)],
)
def test_bfloat16_is_only_suggested_with_epochs(factor: float, precision: str, told: bool) -> None:
    notes: list[str] = []
    asked = XS.replace(epochs=1, precision=precision)
    recipe = resolve(asked, noise(40, 8), MadeMachine(bfloat16=factor), notes.append)
    assert recipe.precision == precision
    assert any("--precision bfloat16" in note for note in notes) is told


def test_network_by_epochs_depends_on_the_number_of_images() -> None:
    automatic = Recipe.preset("fast", model="auto", epochs=1)
    assert resolved(automatic, noise(100, 8)).model == "fast-xs"
    assert resolved(automatic.replace(epochs=1200), noise(100, 8)).model == "fast-l"


def test_threads_default_to_those_of_the_machine() -> None:
    assert resolved(Recipe(), DATA).threads == 1
    assert resolved(Recipe(threads=3), DATA).threads == 3


def test_value_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(UsageError, match="image_size"):
        resolved(Recipe(image_size=4), DATA)


def test_training_by_epochs_says_that_it_leaves_cores_to_others() -> None:
    class Busy(MadeMachine):
        threads = 4  # type: ignore[assignment]

        def free_threads(self) -> int:
            return 3

    notes: list[str] = []
    recipe = resolve(Recipe(epochs=1), DATA, Busy(), notes.append)
    assert recipe.threads == 3
    assert len(notes) == 1
    assert "--threads 4" in notes[0]
    # a number that the user gives is kept without a word
    notes.clear()
    assert resolve(Recipe(epochs=1, threads=4), DATA, Busy(), notes.append).threads == 4
    assert not notes
    # with a budget the number is adapted during the training, from all threads on
    assert resolve(Recipe.preset("fast", minutes=1), DATA, Busy(), notes.append).threads == 4
