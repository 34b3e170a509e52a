from __future__ import annotations

import pytest
import torch
from torch import nn

from peewit.models.registry import build


def test_parameters_are_those_of_the_tutorial() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    counts = [
        sum(parameter.numel() for parameter in module.parameters())
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]
    # batch normalisation has as many moving statistics again, which are buffers here
    assert counts == [1792, 256 / 2, 73856, 512 / 2, 73792, 256 / 2, 8224, 330]


@pytest.mark.parametrize(
    ("shape", "features"),
    [((22, 22, 1), 64), ((32, 32, 3), 256), ((28, 28, 1), 64), ((64, 48, 3), 6 * 4 * 64)],
)
def test_other_sizes_and_channels(shape: tuple[int, int, int], features: int) -> None:
    model = build("tutorial", shape, 7, seed=0)
    assert model.hidden.in_features == features
    assert model(torch.rand(2, shape[2], shape[0], shape[1])).shape == (2, 7)


def test_dropout_works_in_training_only() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    x = torch.rand(2, 3, 32, 32)
    assert model.dropout.p == 0.5
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_every_parameter_has_a_gradient() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    model(torch.rand(8, 3, 32, 32)).logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
