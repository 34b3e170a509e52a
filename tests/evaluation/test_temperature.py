"""Temperature scaling: a known temperature is found, and folding it changes no prediction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

from made_runs import lively
from peewit.evaluation.inference import softmax
from peewit.evaluation.metrics import evaluate
from peewit.evaluation.temperature import FEWEST, calibrate, fit_temperature, fold, head
from peewit.models.registry import MODELS, build


def drawn(
    count: int, classes: int, temperature: float, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Draw labels from random logits; return the logits times ``temperature``, and the labels."""
    numbers = np.random.default_rng(seed)
    logits = 3 * numbers.normal(size=(count, classes))
    logits += 50 * numbers.normal(size=(count, 1))  # does not change the probabilities
    cumulative = softmax(logits.astype(np.float32)).cumsum(axis=1)
    labels = (cumulative > numbers.random((count, 1))).argmax(axis=1)
    return (temperature * logits).astype(np.float32), labels


def cross_entropy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    return F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)).item()


@pytest.mark.parametrize("temperature", [1e-6, 0.4, 1.0, 2.5, 1e6])
@pytest.mark.parametrize("classes", [2, 10])
def test_a_known_temperature_is_found(temperature: float, classes: int) -> None:
    logits, labels = drawn(20_000, classes, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_is_better() -> None:
    logits, labels = drawn(300, 5, 0.5)
    best = fit_temperature(logits, labels)
    assert best is not None

    def loss(temperature: float) -> float:
        one_more = F.log_softmax(torch.from_numpy(logits / np.float64(temperature)), 1).mean()
        known = 300 * cross_entropy(logits / np.float64(temperature), labels)
        return known - one_more.item()

    assert loss(best) < min(loss(best * 0.999), loss(best * 1.001))
    assert loss(best) < min(loss(best * 0.5), loss(best * 2))


def test_calibration_holds_on_other_images() -> None:
    logits, labels = drawn(1000, 10, 0.4)
    found = calibrate(logits, labels)
    assert found is not None
    assert found.images == 1000
    assert found.error_before > 0.2
    assert found.error_after < 0.03
    others, truth = drawn(5000, 10, 0.4, seed=1)
    names = list("abcdefghij")
    assert evaluate(others, truth, names).calibration_error > 0.2
    assert evaluate(others / found.temperature, truth, names).calibration_error < 0.03


def test_all_correct_does_not_mean_certainty() -> None:
    labels = np.arange(99) % 3
    logits = np.eye(3, dtype=np.float32)[labels]
    temperature = fit_temperature(logits, labels)
    assert temperature is not None
    wrong = 1 - softmax(logits / np.float32(temperature)).max(axis=1)
    # as if one of 100 predictions were random, with a probability of 2/3 to be wrong
    assert wrong == pytest.approx(np.full(99, 2 / 300), rel=1e-3)


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((60, 3), np.float32),
        -np.eye(3, dtype=np.float32)[np.arange(60) % 3],
        np.full((60, 3), np.nan, np.float32),
        np.zeros((0, 3), np.float32),
    ],
    ids=["constant", "always wrong", "not finite", "no images"],
)
def test_no_temperature_for_networks_no_better_than_chance(
    logits: npt.NDArray[np.float32],
) -> None:
    labels = np.arange(len(logits)) % 3
    assert fit_temperature(logits, labels) is None
    assert calibrate(logits, labels) is None


def test_too_few_images_are_not_used() -> None:
    logits, labels = drawn(FEWEST, 3, 0.5)
    assert calibrate(logits, labels) is not None
    assert calibrate(logits[1:], labels[1:]) is None


@pytest.mark.parametrize("name", MODELS)
def test_folding_divides_the_logits_and_changes_no_prediction(name: str) -> None:
    model = lively(build(name, (32, 32, 3), 10, seed=0)).eval()
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(x)
        others = {key: value.clone() for key, value in model.state_dict().items()}
        fold(model, 0.37)
        after = model(x)
    assert torch.allclose(after, before / 0.37, rtol=1e-4, atol=1e-5)
    assert torch.equal(after.argmax(1), before.argmax(1))
    ends = {f"head.{key}" for key in head(model).state_dict()}
    changed = [
        key for key, value in model.state_dict().items() if not torch.equal(value, others[key])
    ]
    assert {f"head.{key.rpartition('.')[2]}" for key in changed} == ends
    assert len(changed) == len(ends)
