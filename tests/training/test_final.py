"""The final test: one look at each image, and a second one at those that are unsure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peewit.data.dataset import Dataset
from peewit.inference import logits_in_batches, second_looks, unsure_below
from peewit.preprocessing import Preprocessing
from peewit.training.final import answer
from peewit.training.loop import Job
from peewit.training.recipe import Recipe


def data(count: int, seed: int) -> Dataset:
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    return Dataset(images, numbers.integers(0, 3, count), ["a", "b", "c"])


TEST = data(40, 2)


def job(**changes: Any) -> Job:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return Job(
        model=model,
        optimizer=torch.optim.SGD(model.parameters()),
        preprocessing=Preprocessing(4, 4, 1, (0.0,), (1.0,)),
        training=data(10, 0),
        validation=data(20, 1),
        recipe=Recipe(**changes),
    )


def single(of: Job, images: Dataset) -> np.ndarray:
    return np.concatenate(list(logits_in_batches(of.model, of.preprocessing, images.images)))


def test_without_augmentation_one_look_is_all() -> None:
    plain = job()
    answers = answer(plain, TEST, lambda: False)
    assert answers is not None
    assert answers.unsure_below == 0.0
    assert np.array_equal(answers.logits, single(plain, TEST))


@pytest.mark.parametrize("flip", ["none", "alternating"])
def test_the_threshold_is_that_of_the_validation_images(flip: str) -> None:
    augmented = job(tta=True, flip=flip)
    answers = answer(augmented, TEST, lambda: False)
    assert answers is not None
    below = unsure_below(single(augmented, augmented.validation))
    assert answers.unsure_below == below
    assert np.array_equal(answers.single, single(augmented, TEST))
    expected = answers.single.copy()
    for chosen, better in second_looks(
        *(augmented.model, augmented.preprocessing, TEST.images, expected.copy(), below),
        mirror=flip != "none",
    ):
        expected[chosen] = better
    assert np.array_equal(answers.logits, expected)
    assert 0 < (answers.logits != answers.single).any(1).sum() < len(TEST)


def test_mirror_images_are_looked_at_only_where_training_had_them() -> None:
    with_mirror, without = (
        answer(job(tta=True, flip=flip), TEST, lambda: False) for flip in ("random", "none")
    )
    assert with_mirror is not None
    assert without is not None
    assert not np.array_equal(with_mirror.logits, without.logits)


def test_what_does_not_fit_is_left_out() -> None:
    asked: list[float] = []

    def fits(seconds: float) -> bool:
        asked.append(seconds)
        return False

    answers = answer(job(tta=True), TEST, lambda: False, fits)
    assert answers is not None
    assert answers.unsure_below == 0.0
    assert np.array_equal(answers.logits, answers.single)
    assert len(asked) == 1
    assert asked[0] >= 0


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_stop_leaves_nothing(looks: int) -> None:
    # the test, the validation images, and the second looks ask once each
    answers = iter([False] * looks + [True])
    assert answer(job(tta=True), TEST, lambda: next(answers)) is None
