"""The filters make the patches of any images uncorrelated."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from peewit.models.whitening import whitening_filters


def correlated(count: int, channels: int, size: int) -> torch.Tensor:
    noise = torch.randn(count, channels, size + 2, size + 2, generator=torch.manual_seed(0))
    smooth = F.avg_pool2d(noise, 3, stride=1)
    return smooth + smooth.mean(1, keepdim=True)


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 8)])
def test_responses_are_uncorrelated_with_equal_variance(channels: int, size: int) -> None:
    images = correlated(50, channels, size) * 10
    filters = whitening_filters(images)
    assert filters.shape == (8 * channels, channels, 2, 2)
    half = 4 * channels
    assert torch.equal(filters[:half], -filters[half:])
    responses = F.conv2d(images, filters[:half]).transpose(0, 1).flatten(1).double()
    moment = responses @ responses.T / responses.shape[1]
    assert torch.allclose(moment, torch.eye(half, dtype=torch.float64), atol=0.02)


def test_filters_are_in_descending_order_of_variance() -> None:
    images = correlated(50, 3, 16)
    norms = whitening_filters(images)[:12].flatten(1).norm(dim=1)
    assert (norms.diff() > 0).all()


def test_filters_of_uniform_images_are_finite() -> None:
    for value in (0.0, 1.0):
        assert torch.isfinite(whitening_filters(torch.full((3, 3, 8, 8), value))).all()


def test_batches_do_not_change_the_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    images = correlated(50, 1, 8)
    whole = whitening_filters(images)
    monkeypatch.setattr("peewit.models.whitening._BATCH", 7)
    assert torch.allclose(whitening_filters(images), whole, rtol=1e-4, atol=1e-5)
