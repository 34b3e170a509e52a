"""The tutorial's network has Keras's shapes and Keras's initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from peewit.models.registry import build
from peewit.models.tutorial import init_like_keras


def test_parameters_equal_keras() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    counts = [
        sum(parameter.numel() for parameter in module.parameters())
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]
    # without batch normalisation's moving statistics, which PyTorch stores as buffers
    assert counts == [1792, 256 / 2, 73856, 512 / 2, 73792, 256 / 2, 8224, 330]


@pytest.mark.parametrize(
    ("shape", "features"),
    [((22, 22, 1), 64), ((32, 32, 3), 256), ((28, 28, 1), 64), ((64, 48, 3), 6 * 4 * 64)],
)
def test_other_sizes_and_channels(shape: tuple[int, int, int], features: int) -> None:
    model = build("tutorial", shape, 7, seed=0)
    assert model.hidden.in_features == features
    assert model(torch.rand(2, shape[2], shape[0], shape[1])).shape == (2, 7)


def test_dropout_is_active_in_training_only() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    x = torch.rand(2, 3, 32, 32)
    assert model.dropout.p == 0.5
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_every_parameter_gets_a_gradient() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    model(torch.rand(8, 3, 32, 32)).logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def kernels(seed: int) -> list[tuple[torch.Tensor, int, int]]:
    """Return each kernel of the tutorial with its fan in and fan out, as Keras counts them."""
    found = []
    for module in build("tutorial", (32, 32, 3), 10, seed).modules():
        if isinstance(module, nn.Conv2d):
            out, inputs, height, width = module.weight.shape
            found.append((module.weight, inputs * height * width, out * height * width))
        elif isinstance(module, nn.Linear):
            found.append((module.weight, module.in_features, module.out_features))
    return [(weight.detach(), inputs, outputs) for weight, inputs, outputs in found]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kernels_are_glorot_uniform(seed: int) -> None:
    assert len(kernels(seed)) == 5
    for weight, fan_in, fan_out in kernels(seed):
        limit = math.sqrt(6 / (fan_in + fan_out))
        n, values = weight.numel(), weight.double()
        assert values.abs().max() <= limit
        # the largest of n uniform values is within 20 / n of the limit, except 1 time in e**10
        assert values.max() > limit * (1 - 20 / n)
        assert values.min() < -limit * (1 - 20 / n)
        # the moments are those of a uniform distribution, within five standard errors
        assert abs(values.mean()) < 5 * limit / math.sqrt(3 * n)
        assert abs(values.pow(2).mean() * 3 / limit**2 - 1) < 5 * math.sqrt(4 / 5 / n)
        assert abs(values.pow(4).mean() * 5 / limit**4 - 1) < 5 * math.sqrt(16 / 9 / n)


def test_the_tutorials_limits_are_those_of_keras() -> None:
    # sqrt(6 / (fan in + fan out)) with the fans computed by hand
    limits = [math.sqrt(6 / n) for n in (9 * (3 + 64), 9 * (64 + 128), 9 * (128 + 64), 288, 42)]
    for (weight, *_), limit in zip(kernels(0), limits, strict=True):
        assert limit * 0.95 < weight.abs().max() <= limit


def test_biases_are_zero_and_normalisation_starts_neutral() -> None:
    for module in build("tutorial", (32, 32, 3), 10, seed=3).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias.abs().max() == 0
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-3
            assert module.momentum == 0.01
            for values, expected in (
                (module.weight, 1),
                (module.bias, 0),
                (module.running_mean, 0),
                (module.running_var, 1),
            ):
                assert torch.equal(values, torch.full_like(values, expected))


def test_layers_without_biases_are_supported() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(2, 2))
    model[1].running_mean.fill_(7)
    init_like_keras(model, torch.Generator().manual_seed(0))
    assert model[1].running_mean.abs().max() == 0
    assert model[2].bias.abs().max() == 0
