"""The final test: calibration, single views, and test-time augmentation of uncertain images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peewit.data.dataset import Dataset
from peewit.evaluation.inference import (
    augment_uncertain,
    confidence_threshold,
    forward_of,
    logits_in_batches,
    softmax,
)
from peewit.evaluation.metrics import wilson_interval
from peewit.evaluation.temperature import FEWEST, calibrate, head
from peewit.images.preprocessing import Preprocessing
from peewit.report.final_test import FinalLogits, final_logits, without_copies
from peewit.training.callbacks import Callback, CallbackList, StopTraining
from peewit.training.loop import TrainSetup
from peewit.training.recipe import Recipe


def data(count: int, seed: int) -> Dataset:
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    return Dataset(images, numbers.integers(0, 3, count), ["a", "b", "c"])


TEST = data(40, 2)


class Watch(Callback):
    """Stores the notes, and stops when ``stop`` returns True."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self.stop, self.notes = stop, list[str]()

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def should_stop(self) -> bool:
        return self.stop()


def run_test(setup: TrainSetup, images: Dataset, watch: Watch | None = None) -> FinalLogits:
    return final_logits(setup, images, CallbackList([watch or Watch()]))


def job(**changes: Any) -> TrainSetup:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return TrainSetup(
        model=model,
        optimizer=torch.optim.SGD(model.parameters()),
        preprocessing=Preprocessing(4, 4, 1, (0.0,), (1.0,)),
        training=data(10, 0),
        validation=data(60, 1),
        recipe=Recipe(**changes),
    )


def single(of: TrainSetup, images: Dataset) -> np.ndarray:
    return np.concatenate(list(logits_in_batches(of.model, of.preprocessing.tensor, images.images)))


def learn(of: TrainSetup) -> None:
    """Train the model on the validation images for a few steps."""
    x = torch.tensor(of.validation.images).flatten(1) / 255
    wanted = torch.nn.functional.one_hot(torch.tensor(of.validation.labels), 3).float()
    weights = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), wanted).solution.T
    last = head(of.model)
    with torch.no_grad():
        last.weight.copy_(weights[:, :-1])
        last.bias.copy_(weights[:, -1])


def test_without_augmentation_each_image_has_one_view() -> None:
    plain = job()
    result = run_test(plain, TEST)
    assert result.threshold == 0.0
    assert np.array_equal(result.logits, single(plain, TEST))


@pytest.mark.parametrize("flip", ["none", "alternating"])
def test_threshold_comes_from_the_validation_images(flip: str) -> None:
    augmented = job(tta=True, flip=flip)
    result = run_test(augmented, TEST)
    below = confidence_threshold(single(augmented, augmented.validation))
    assert result.threshold == below
    assert np.array_equal(result.single, single(augmented, TEST))
    rule = augmented.preprocessing
    expected = augment_uncertain(
        forward_of(augmented.model),
        lambda chosen: rule.array(TEST.images[chosen]),
        *(result.single, below),
        mirror=flip != "none",
    )
    assert np.array_equal(result.logits, expected)
    assert 0 < (result.logits != result.single).any(1).sum() < len(TEST)


def test_mirror_images_are_used_only_if_training_used_them() -> None:
    with_mirror, without = (run_test(job(tta=True, flip=flip), TEST) for flip in ("random", "none"))
    assert not np.array_equal(with_mirror.logits, without.logits)


def test_augmentation_without_time_is_skipped() -> None:
    asked: list[float] = []

    def fits(seconds: float) -> bool:
        asked.append(seconds)
        return False

    result = final_logits(job(tta=True), TEST, CallbackList(), fits)
    assert result.threshold == 0.0
    assert np.array_equal(result.logits, result.single)
    assert len(asked) == 1
    assert asked[0] >= 0


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_stop_writes_nothing(looks: int) -> None:
    # the test images, the validation images and test-time augmentation have one batch each
    stops = iter([False] * looks + [True])
    with pytest.raises(StopTraining):
        run_test(job(tta=True), TEST, Watch(lambda: next(stops)))


def test_augmentation_uses_calibrated_logits() -> None:
    plain, calibrated = job(tta=True, flip="random"), job(tta=True, flip="random", calibrate=True)
    learn(plain)
    calibrated.model.load_state_dict(plain.model.state_dict())
    held = single(plain, plain.validation)
    result = run_test(calibrated, TEST)
    assert result.calibration == calibrate(held, plain.validation.labels)
    assert result.calibration is not None
    temperature = result.calibration.temperature
    # the model itself has changed, so that exports return the same logits
    assert np.array_equal(result.single, single(calibrated, TEST))
    expected = single(plain, TEST) / temperature
    np.testing.assert_allclose(result.single, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(result.single.argmax(1), single(plain, TEST).argmax(1))
    below = confidence_threshold(single(calibrated, calibrated.validation))
    assert result.threshold == pytest.approx(below, rel=1e-5)
    chosen = softmax(result.single).max(1) < result.threshold
    assert np.array_equal((result.logits != result.single).any(1), chosen)
    assert 0 < chosen.sum() < len(TEST)


def test_validation_images_that_are_the_final_test_are_predicted_once() -> None:
    calibrated, looks = job(calibrate=True), []
    learn(calibrated)
    result = run_test(calibrated, calibrated.validation, Watch(lambda: bool(looks.append(1))))
    assert len(looks) == 1
    again = single(calibrated, calibrated.validation)
    np.testing.assert_allclose(result.logits, again, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "images", "reason"),
    [
        ({"validate_on": "test"}, 60, "calibration on the test set"),
        ({}, FEWEST - 1, f"only {FEWEST - 1} held-out images"),
        ({}, 1, "only 1 held-out image"),
        ({}, 60, "no better than chance"),
    ],
)
def test_no_calibration_without_suitable_images(
    changes: dict[str, Any], images: int, reason: str
) -> None:
    of = dataclasses.replace(job(calibrate=True, **changes), validation=data(images, 1))
    if images == 60 and not changes:
        # the least probable class of each image is the correct one
        labels = single(of, of.validation).argmin(1)
        of = dataclasses.replace(of, validation=dataclasses.replace(of.validation, labels=labels))
    before, watch = single(of, TEST), Watch()
    result = run_test(of, TEST, watch)
    assert result.calibration is None
    assert np.array_equal(result.logits, before)
    (note,) = watch.notes
    assert "not calibrated" in note
    assert reason in note


def test_the_accuracy_without_copies_of_training_images() -> None:
    notes: list[str] = []
    logits = np.eye(3, dtype=np.float32)[TEST.labels]
    logits[:4] = np.roll(logits[:4], 1, axis=1)  # the first four are wrong
    copies = list(range(2, 40, 2))  # 19, of which 18 are right
    found = without_copies(logits, TEST, "test", copies, notes.append)["also_in_training"]
    assert found.pop("interval_without") == list(wilson_interval(18, 21))
    assert found == {"images": 19, "indices": copies, "accuracy_without": 18 / 21}
    assert notes == [
        "19 of 40 test images are also training images; without them, the accuracy is 85.7% "
        "(95% interval 65.4% to 95.0%)"
    ]
    everything = without_copies(logits, TEST, "test", range(40), notes.append)
    assert everything["also_in_training"] == {
        "images": 40,
        "indices": list(range(20)),
        "accuracy_without": None,
    }
    assert notes[1].startswith("all test images are also training images, so the accuracy does not")
    assert without_copies(logits, TEST, "test", [], notes.append) == {}
    assert len(notes) == 2


@pytest.mark.parametrize("flip", ["none", "alternating"])
@pytest.mark.parametrize("tta", [False, True])
def test_held_out_logits_are_computed_like_those_of_the_test(tta: bool, flip: str) -> None:
    setup = job(tta=tta, flip=flip)
    result = run_test(setup, TEST)
    held_out = single(setup, setup.validation)
    assert result.held_out is not None
    assert np.array_equal(result.held_out, held_out) != tta
    again = run_test(setup, setup.validation)
    assert again.held_out is again.logits
    assert np.array_equal(result.held_out, again.logits)


def test_the_test_set_gives_no_held_out_logits() -> None:
    for tta in (False, True):
        assert run_test(job(tta=tta, validate_on="test"), TEST).held_out is None
