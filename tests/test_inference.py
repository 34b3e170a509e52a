"""Batches are a question of memory only, and the caller's gradients are left alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from peewit.inference import logits_in_batches
from peewit.preprocessing import Preprocessing

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
