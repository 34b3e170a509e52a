"""The setup built from a resolved recipe and data, and the refusal of unsuitable ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError, UsageError
from peewit.training.build import build_setup, check_data, describe_data
from peewit.training.recipe import Recipe


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def note(notes: list[str]) -> Callable[[str], None]:
    return notes.append


def test_held_out_images_are_stratified(
    tiny: Dataset, tiny_test: Dataset, note: Callable[[str], None], notes: list[str]
) -> None:
    job = build_setup(tiny, tiny_test, Recipe(validation_fraction=0.2), note)
    assert (len(job.training), len(job.validation)) == (48, 12)
    assert job.validation.class_counts.tolist() == [4, 4, 4]
    images = [bytes(image) for image in (*job.training.images, *job.validation.images)]
    assert sorted(images) == sorted(bytes(image) for image in tiny.images)
    assert notes == []
    again = build_setup(tiny, tiny_test, Recipe(validation_fraction=0.2), note)
    assert again.validation.fingerprint == job.validation.fingerprint
    other = build_setup(tiny, tiny_test, Recipe(validation_fraction=0.2, seed=1), note)
    assert other.validation.fingerprint != job.validation.fingerprint


def test_missing_test_set_is_noted(
    tiny: Dataset, note: Callable[[str], None], notes: list[str]
) -> None:
    build_setup(tiny, None, Recipe(), note)
    (said,) = notes
    assert "no test set" in said


def test_validation_on_the_test_set_keeps_all_training_images(
    tiny: Dataset, tiny_test: Dataset, note: Callable[[str], None], notes: list[str]
) -> None:
    job = build_setup(tiny, tiny_test, Recipe(validate_on="test"), note)
    assert job.training is tiny
    assert job.validation is tiny_test
    assert "as the tutorial does" in notes[0]
    assert "biases the test accuracy" in notes[0]


def test_tutorial_preprocessing_only_divides_by_255(
    tiny: Dataset, note: Callable[[str], None]
) -> None:
    rule = build_setup(tiny, None, Recipe(), note).preprocessing
    assert (rule.height, rule.width, rule.channels) == (32, 32, 3)
    assert (set(rule.mean), set(rule.std)) == ({0.0}, {1.0})


def test_too_small_images_are_enlarged_and_grey_ones_stay_grey(
    tiny_grey: Dataset, note: Callable[[str], None], notes: list[str]
) -> None:
    rule = build_setup(tiny_grey, None, Recipe(), note).preprocessing
    assert (rule.height, rule.width, rule.channels) == (32, 32, 1)
    assert "images of 8 x 8 pixels are enlarged to 32 x 32" in notes[-1]
    assert "at least 22" in notes[-1]
    rule = build_setup(tiny_grey, None, Recipe(image_size=24), note).preprocessing
    assert (rule.height, rule.width) == (24, 24)


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        (lambda data: replace(data, class_names=["a", "b", "c"]), "they differ in class names"),
        (lambda data: replace(data, images=data.images[..., :1]), "they differ in .*channels"),
        (lambda data: data.take(np.arange(0)), "the test set has no images; omit it"),
    ],
)
def test_mismatched_test_set_is_refused(
    tiny: Dataset,
    test: Callable[[Dataset], Dataset],
    sentence: str,
) -> None:
    with pytest.raises(PeewitError, match=sentence):
        check_data(tiny, test(tiny), Recipe())


def test_unsuitable_recipe_is_refused(tiny: Dataset, note: Callable[[str], None]) -> None:
    with pytest.raises(UsageError, match="batch_size is 55: there are only 54 training images"):
        build_setup(tiny, None, Recipe(batch_size=55), note)
    with pytest.raises(UsageError, match="cannot validate on the test set: there is none"):
        check_data(tiny, None, Recipe(validate_on="test"))
    with pytest.raises(PeewitError, match="one part would be empty"):
        build_setup(tiny.take(np.arange(3)), None, Recipe(), note)
    with pytest.raises(UsageError, match="1 class"):
        build_setup(Dataset(tiny.images, tiny.labels * 0, ["one"]), None, Recipe(), note)


def test_description_identifies_the_data(
    tiny: Dataset, tiny_test: Dataset, note: Callable[[str], None]
) -> None:
    facts = describe_data(tiny, tiny_test, build_setup(tiny, tiny_test, Recipe(), note))
    assert facts == {
        "origin": "60 made-up pictures",
        "images": {"training": 54, "validation": 6, "test": 30},
        "fingerprints": {"training": tiny.fingerprint, "test": tiny_test.fingerprint},
    }
    alone = describe_data(tiny, None, build_setup(tiny, None, Recipe(), note))
    assert (alone["images"]["test"], alone["fingerprints"]["test"]) == (0, "")


@pytest.mark.parametrize(
    ("labels", "names", "sentence"),
    [
        ([0, 0, 0], ["cat", "dog"], "'cat'"),
        ([0, 1], ["cat", "dog", "cow"], "2 training images .* 3 classes"),
    ],
)
def test_unlearnable_data_is_refused(labels: list[int], names: list[str], sentence: str) -> None:
    data = Dataset(np.zeros((len(labels), 8, 8, 3), np.uint8), np.array(labels), names)
    with pytest.raises(PeewitError, match=sentence):
        check_data(data, None, Recipe())
