"""Estimated statistics of batch normalisation are those of all images, and cost nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peewit.kernels import library
from peewit.models import batch_norm
from peewit.models.registry import build

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 4, 4, 2), np.uint8)


def prepared(images: Any) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


def test_the_statistics_are_those_of_all_images() -> None:
    norm = nn.BatchNorm2d(2, momentum=0.01)
    calls = list[int]()
    used = batch_norm.estimate(norm, prepared, IMAGES, 32, lambda: calls.append(1))
    assert (used, len(calls)) == (150, 3)  # three batches of 50: at least 64 would be one too small
    x = prepared(IMAGES).double()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean.double(), x.mean((0, 2, 3)), rtol=1e-6, atol=0)
    # within a batch the variance is the unbiased one
    torch.testing.assert_close(norm.running_var.double(), x.var((0, 2, 3)), rtol=2e-3, atol=0)
    assert (norm.momentum, norm.training, int(norm.num_batches_tracked or 0)) == (0.01, False, 0)


def test_batches_that_differ_count_as_one_set() -> None:
    norm = nn.BatchNorm2d(1)
    images = np.zeros((128, 1, 1, 1), np.uint8)
    images[64:] = 200  # each batch by itself has a variance of 0
    batch_norm.estimate(norm, prepared, images, 64)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert (norm.running_mean.item(), norm.running_var.item()) == (100, 10_000)


def test_many_images_are_represented_by_some() -> None:
    norm, seen = nn.BatchNorm2d(1), list[Any]()

    def watched(images: Any) -> torch.Tensor:
        seen.append(images)
        return prepared(images)

    images = np.arange(5_000).astype(np.uint16).reshape(-1, 1, 1, 1)
    assert batch_norm.estimate(norm, watched, images, 500) == batch_norm.IMAGES
    assert [len(batch) for batch in seen] == [500] * 4
    assert (seen[0][0], seen[-1][-1]) == (0, 4_999)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["tutorial", "fast-xs"])
def test_only_the_statistics_change(
    compiled: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(library, "load", lambda: None)
    model = build(name, (22, 22, 3), 3, 0)
    images = np.random.default_rng(1).integers(0, 256, (70, 22, 22, 3), np.uint8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    batch_norm.estimate(model, lambda part: prepared(part) / 255, images)
    once = {key: value.clone() for key, value in model.state_dict().items()}
    batch_norm.estimate(model, lambda part: prepared(part) / 255, images)
    assert torch.equal(torch.get_rng_state(), random)
    for key, value in model.state_dict().items():
        assert torch.equal(value, once[key]), key  # whatever the statistics were
        if "running" not in key:
            assert torch.equal(value, before[key]), key
        else:
            assert not torch.equal(value, before[key]), key


def test_a_stop_leaves_the_statistics_as_they_were() -> None:
    norm, batches = nn.BatchNorm2d(2, momentum=0.01), list[int]()

    def stop_at_the_second() -> None:
        batches.append(1)
        if len(batches) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch_norm.estimate(norm, prepared, IMAGES, 64, stop_at_the_second)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert (norm.running_mean.tolist(), norm.running_var.tolist()) == ([0, 0], [1, 1])
    assert norm.momentum == 0.01


def test_a_network_without_batch_normalisation_needs_nothing() -> None:
    assert not batch_norm.few_steps(nn.Linear(2, 2))
    assert not batch_norm.few_steps(nn.BatchNorm2d(2, track_running_stats=False))
    fast = build("fast-xs", (8, 8, 1), 2, 0)
    assert batch_norm.few_steps(fast)
    for module in fast.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(32)
    assert not batch_norm.few_steps(fast)
