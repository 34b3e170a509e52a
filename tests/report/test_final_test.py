"""The final test: calibrated, one look at each image, and a second one at those that are unsure."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peewit.data.dataset import Dataset
from peewit.evaluation.inference import logits_in_batches, second_looks, softmax, unsure_below
from peewit.evaluation.temperature import FEWEST, calibrate, head
from peewit.images.preprocessing import Preprocessing
from peewit.report.final_test import answer
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
        validation=data(60, 1),
        recipe=Recipe(**changes),
    )


def single(of: Job, images: Dataset) -> np.ndarray:
    return np.concatenate(list(logits_in_batches(of.model, of.preprocessing, images.images)))


def learn(of: Job) -> None:
    """Let the model tell the validation images apart a little."""
    x = torch.tensor(of.validation.images).flatten(1) / 255
    wanted = torch.nn.functional.one_hot(torch.tensor(of.validation.labels), 3).float()
    weights = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), wanted).solution.T
    last = head(of.model)
    with torch.no_grad():
        last.weight.copy_(weights[:, :-1])
        last.bias.copy_(weights[:, -1])


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


def test_what_is_calibrated_is_judged_and_chosen_by_the_calibrated_logits() -> None:
    plain, calibrated = job(tta=True, flip="random"), job(tta=True, flip="random", calibrate=True)
    learn(plain)
    calibrated.model.load_state_dict(plain.model.state_dict())
    held = single(plain, plain.validation)
    answers = answer(calibrated, TEST, lambda: False)
    assert answers is not None
    assert answers.calibration == calibrate(held, plain.validation.labels)
    assert answers.calibration is not None
    temperature = answers.calibration.temperature
    # the model itself was changed, so that others give the same answers
    assert np.array_equal(answers.single, single(calibrated, TEST))
    expected = single(plain, TEST) / temperature
    np.testing.assert_allclose(answers.single, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(answers.single.argmax(1), single(plain, TEST).argmax(1))
    below = unsure_below(single(calibrated, calibrated.validation))
    assert answers.unsure_below == pytest.approx(below, rel=1e-5)
    chosen = softmax(answers.single).max(1) < answers.unsure_below
    assert np.array_equal((answers.logits != answers.single).any(1), chosen)
    assert 0 < chosen.sum() < len(TEST)


def test_validation_images_that_are_judged_are_looked_at_once() -> None:
    calibrated, looks = job(calibrate=True), []
    learn(calibrated)
    answers = answer(calibrated, calibrated.validation, lambda: bool(looks.append(1)))
    assert answers is not None
    assert len(looks) == 1
    again = single(calibrated, calibrated.validation)
    np.testing.assert_allclose(answers.logits, again, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "images", "reason"),
    [
        ({"validate_on": "test"}, 60, "calibrating on the test set would make the test too hop"),
        ({}, FEWEST - 1, f"{FEWEST - 1} held-out images are too few to calibrate by, it takes"),
        ({}, 1, "1 held-out image is too few to calibrate by"),
        ({}, 60, "the network has learned too little"),
    ],
)
def test_what_cannot_be_calibrated_is_left_as_it_is(
    changes: dict[str, Any], images: int, reason: str
) -> None:
    of = dataclasses.replace(job(calibrate=True, **changes), validation=data(images, 1))
    if images == 60 and not changes:
        # the least likely class of each image is the right one
        labels = single(of, of.validation).argmin(1)
        of = dataclasses.replace(of, validation=dataclasses.replace(of.validation, labels=labels))
    before, told = single(of, TEST), []
    answers = answer(of, TEST, lambda: False, note=told.append)
    assert answers is not None
    assert answers.calibration is None
    assert np.array_equal(answers.logits, before)
    assert len(told) == 1
    assert told[0].startswith("the confidence is left as it was trained: ")
    assert reason in told[0]
