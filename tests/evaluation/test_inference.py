"""Batches only affect memory, the caller's gradients stay on, and views are averaged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from peewit.evaluation.inference import (
    augment_uncertain,
    confidence_threshold,
    forward_of,
    logits_in_batches,
    softmax,
)
from peewit.images.preprocessing import Preprocessing

RULE = Preprocessing(2, 2, 1, (0.0,), (1.0,))


def test_all_images_are_returned_once_and_in_order() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), dtype=np.uint8)
    parts = list(logits_in_batches(model, RULE.tensor, images, 3))
    assert [part.shape for part in parts] == [(3, 3), (3, 3), (1, 3)]
    assert not model.training
    with torch.no_grad():
        np.testing.assert_allclose(
            np.concatenate(parts), model(RULE.tensor(images)).numpy(), rtol=1e-5
        )


def test_the_caller_keeps_its_gradients_between_batches() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    for _ in logits_in_batches(model, RULE.tensor, np.zeros((4, 2, 2, 1), np.uint8), 2):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_no_images_have_no_batches() -> None:
    assert (
        list(logits_in_batches(nn.Flatten(), RULE.tensor, np.zeros((0, 2, 2, 1), np.uint8), 2))
        == []
    )


def average_by_hand(model: nn.Module, x: torch.Tensor, mirror: bool) -> torch.Tensor:
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    height, width = x.shape[2:]
    total = torch.zeros(len(x), 3)
    for weight, top in ((0.5, 1), (0.25, 0), (0.25, 2)):
        view = padded[:, :, top : top + height, top : top + width]
        sides = [view, view.flip(3)] if mirror else [view]
        total += weight * torch.stack([model(side) for side in sides]).mean(0)
    return total


def prepared(
    rule: Preprocessing, images: npt.NDArray[np.uint8]
) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]:
    return lambda chosen: rule.array(images[chosen])


@pytest.mark.parametrize("mirror", [True, False])
def test_only_uncertain_images_get_more_views(mirror: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    rule = Preprocessing(4, 4, 1, (0.0,), (1.0,))
    images = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 1), dtype=np.uint8)
    logits = np.concatenate(list(logits_in_batches(model, rule.tensor, images)))
    threshold, before = confidence_threshold(logits), logits.copy()
    uncertain = np.flatnonzero(softmax(logits).max(1) < threshold)
    assert len(uncertain) == 5  # a quarter
    asked: list[int] = []
    better = augment_uncertain(
        *(forward_of(model), prepared(rule, images), logits, threshold),
        mirror=mirror,
        batch_size=2,
        before_batch=lambda: asked.append(1),
    )
    assert len(asked) == 3
    assert np.array_equal(logits, before)
    certain = np.setdiff1d(np.arange(21), uncertain)
    assert np.array_equal(better[certain], logits[certain])
    with torch.no_grad():
        expected = average_by_hand(model, rule.tensor(images[uncertain]), mirror)
    np.testing.assert_allclose(better[uncertain], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(better[uncertain], logits[uncertain])


def test_a_threshold_of_0_augments_nothing() -> None:
    images, logits = np.zeros((4, 2, 2, 1), np.uint8), np.zeros((4, 3), np.float32)
    found = augment_uncertain(
        *(pytest.fail, prepared(RULE, images), logits, 0.0),  # type: ignore[arg-type]
        mirror=True,
    )
    assert np.array_equal(found, logits)
    assert confidence_threshold(np.zeros((0, 3), np.float32)) == 0.0
