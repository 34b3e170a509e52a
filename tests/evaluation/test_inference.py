"""Batches are a question of memory only, and the caller's gradients are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from peewit.evaluation.inference import logits_in_batches, second_looks, softmax, unsure_below
from peewit.images.preprocessing import Preprocessing

RULE = Preprocessing(2, 2, 1, (0.0,), (1.0,))


def test_all_images_come_once_and_in_order() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), dtype=np.uint8)
    parts = list(logits_in_batches(model, RULE, images, 3))
    assert [part.shape for part in parts] == [(3, 3), (3, 3), (1, 3)]
    assert not model.training
    with torch.no_grad():
        np.testing.assert_allclose(
            np.concatenate(parts), model(RULE.tensor(images)).numpy(), rtol=1e-5
        )


def test_the_caller_keeps_its_gradients_between_batches() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    for _ in logits_in_batches(model, RULE, np.zeros((4, 2, 2, 1), np.uint8), 2):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_no_images_give_no_batches() -> None:
    assert list(logits_in_batches(nn.Flatten(), RULE, np.zeros((0, 2, 2, 1), np.uint8), 2)) == []


def views(model: nn.Module, x: torch.Tensor, mirror: bool) -> torch.Tensor:
    """Answers of all views, picture by picture, by hand."""
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    height, width = x.shape[2:]
    total = torch.zeros(len(x), 3)
    for weight, top in ((0.5, 1), (0.25, 0), (0.25, 2)):
        view = padded[:, :, top : top + height, top : top + width]
        sides = [view, view.flip(3)] if mirror else [view]
        total += weight * torch.stack([model(side) for side in sides]).mean(0)
    return total


@pytest.mark.parametrize("mirror", [True, False])
def test_the_unsure_are_looked_at_again_and_nobody_else(mirror: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    rule = Preprocessing(4, 4, 1, (0.0,), (1.0,))
    images = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 1), dtype=np.uint8)
    logits = np.concatenate(list(logits_in_batches(model, rule, images)))
    below = unsure_below(logits)
    unsure = np.flatnonzero(softmax(logits).max(1) < below)
    assert len(unsure) == 5  # a quarter
    looks = list(second_looks(model, rule, images, logits, below, 2, mirror=mirror))
    assert [len(chosen) for chosen, _ in looks] == [2, 2, 1]
    assert np.array_equal(np.concatenate([chosen for chosen, _ in looks]), unsure)
    with torch.no_grad():
        expected = views(model, rule.tensor(images[unsure]), mirror)
    better = np.concatenate([logits for _, logits in looks])
    np.testing.assert_allclose(better, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(better, logits[unsure])


def test_with_a_threshold_of_nothing_nobody_is_looked_at_again() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, logits = np.zeros((4, 2, 2, 1), np.uint8), np.zeros((4, 3), np.float32)
    assert list(second_looks(model, RULE, images, logits, 0.0)) == []
    assert unsure_below(np.zeros((0, 3), np.float32)) == 0.0
