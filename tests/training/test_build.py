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


@pytest.mark.parametrize("validate_on", ["holdout", "test"])
def test_test_images_that_are_training_images_are_noted(
    validate_on: str,
    tiny: Dataset,
    tiny_test: Dataset,
    note: Callable[[str], None],
    notes: list[str],
) -> None:
    images = tiny_test.images.copy()
    images[[3, 20]] = tiny.images[[59, 0]]
    test = replace(tiny_test, images=images)
    job = build_setup(tiny, test, Recipe(validate_on=validate_on), note)
    assert list(job.copies) == [3, 20]
    assert notes[0] == (
        "2 of 30 test images are also training images (numbers 3, 20, counted from 0): "
        "the test accuracy is too optimistic"
    )
    assert len(notes) == (1 if validate_on == "holdout" else 2)


def test_validation_images_that_are_training_images_are_noted(
    tiny: Dataset, note: Callable[[str], None], notes: list[str]
) -> None:
    twice = np.repeat(np.arange(30), 2)
    doubled = tiny.take(twice)
    job = build_setup(doubled, None, Recipe(validation_fraction=0.2), note)
    training = {bytes(image) for image in job.training.images}
    copies = [i for i, image in enumerate(job.validation.images) if bytes(image) in training]
    assert copies
    assert list(job.copies) == copies
    assert notes[0].startswith(f"{len(copies)} of 12 validation images are also training images: ")


def test_copies_are_found_before_the_training_images_are_resized(
    tiny: Dataset, note: Callable[[str], None], notes: list[str]
) -> None:
    recipe = Recipe.preset("fast", model="fast-xs", epochs=1, image_size=24).replace(
        batch_size=16, validation_fraction=0.2, lr=0.1
    )
    job = build_setup(tiny, tiny.take([5, 6]), recipe, note)
    assert job.training.image_shape == (24, 24, 3)
    assert list(job.copies) == [0, 1]


def test_identical_training_images_with_different_labels_are_noted(
    tiny: Dataset, tiny_test: Dataset, note: Callable[[str], None], notes: list[str]
) -> None:
    images = tiny.images.copy()
    images[7] = images[3]
    build_setup(replace(tiny, images=images), tiny_test, Recipe(validation_fraction=0.2), note)
    assert notes[0] == (
        "2 training images are copies of others with another label, for example numbers 3 "
        "('dark') and 7 ('middle'), counted from 0: no classifier can get all of them right"
    )


def test_validating_on_the_test_set_keeps_all_training_images(
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


def with_counts(*counts: int) -> Dataset:
    """Return a data set with these numbers of different images per class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    # another seed for each data set, so that no image is in two of them
    random = np.random.default_rng([len(labels), *counts])
    images = random.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    return Dataset(images, labels, [f"c{number}" for number in range(len(counts))])


@pytest.mark.parametrize(
    ("counts", "tested", "sentences"),
    [
        ((20, 20), (5, 5), []),
        (
            (20, 20, 0),
            (5, 5, 5),
            ["the class 'c2' has no training images: the network cannot learn to recognise it"],
        ),
        (
            (40, 0, 1, 0),
            (5, 5, 5, 0),
            [
                "the classes 'c1', 'c3' have no training images: the network cannot learn to "
                "recognise them",
                "the class 'c2' has only one training image: the network may not recognise others",
                "the class 'c3' has no images in the final test: its accuracy is not measured",
            ],
        ),
    ],
)
def test_classes_with_hardly_any_images_are_named(
    counts: tuple[int, ...],
    tested: tuple[int, ...],
    sentences: list[str],
    note: Callable[[str], None],
    notes: list[str],
) -> None:
    build_setup(with_counts(*counts), with_counts(*tested), Recipe(batch_size=4), note)
    assert notes == sentences


def test_a_class_that_is_held_out_altogether_is_named(
    note: Callable[[str], None], notes: list[str]
) -> None:
    recipe = Recipe(batch_size=4, validation_fraction=0.6)
    build_setup(with_counts(20, 20, 1), with_counts(5, 5, 5), recipe, note)
    (sentence,) = notes
    assert "the class 'c2' has no training images left" in sentence
    assert "use a smaller validation_fraction" in sentence


def test_many_classes_are_not_all_named(note: Callable[[str], None], notes: list[str]) -> None:
    build_setup(with_counts(90, 9, *[0] * 8), None, Recipe(batch_size=4), note)
    assert "the classes 'c2', 'c3', 'c4', 'c5', 'c6' and 3 more have no training images" in notes[1]


def test_two_classes_of_the_same_name_are_refused() -> None:
    images = np.zeros((4, 8, 8, 1), np.uint8)
    with pytest.raises(PeewitError, match=r"two classes have the name '1'.* different name"):
        Dataset(images, np.arange(4) % 3, ["0", "1", 1])  # type: ignore[list-item]
