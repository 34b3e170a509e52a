from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from peewit.models.layers import ConvReluNormPool, FlattenHWC


def test_reference_equals_the_four_operations_in_order() -> None:
    torch.manual_seed(0)
    layer = ConvReluNormPool(3, 8).train()
    with torch.no_grad():
        layer.norm.weight.copy_(torch.linspace(-1, 1, 8))  # negative scales as well
    x = torch.rand(4, 3, 13, 12)
    active = F.conv2d(x, layer.conv.weight, layer.conv.bias).relu()
    mean, variance = active.mean((0, 2, 3)), active.var((0, 2, 3), correction=0)
    shape = (1, 8, 1, 1)
    normal = (active - mean.view(shape)) / (variance.view(shape) + 1e-3).sqrt()
    expected = F.max_pool2d(normal * layer.norm.weight.view(shape), 2)
    torch.testing.assert_close(layer.reference(x), expected, atol=1e-5, rtol=0)
    count = active.numel() / 8
    torch.testing.assert_close(layer.norm.running_mean, 0.01 * mean)
    torch.testing.assert_close(layer.norm.running_var, 0.99 + 0.01 * variance * count / (count - 1))


def test_prediction_uses_the_moving_statistics_and_does_not_change_them() -> None:
    torch.manual_seed(0)
    layer = ConvReluNormPool(1, 4).eval()
    layer.norm.running_mean.uniform_()
    before = layer.norm.running_mean.clone()
    x = torch.rand(3, 1, 10, 10)
    together = layer(x)
    alone = torch.cat([layer(image[None]) for image in x])
    torch.testing.assert_close(together, alone)
    assert torch.equal(layer.norm.running_mean, before)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (22, 31)])
def test_output_shapes(size: tuple[int, int]) -> None:
    height, width = size
    expected = (2, 6, (height - 2) // 2, (width - 2) // 2)
    assert ConvReluNormPool(3, 6)(torch.rand(2, 3, *size)).shape == expected


def test_parts_are_its_layers_in_order() -> None:
    layer = ConvReluNormPool(3, 6)
    assert layer.parts() == [layer.conv, layer.norm, layer.pool]


def test_flatten_is_in_keras_order_and_a_view_in_channels_last() -> None:
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    flat = FlattenHWC()(x)
    assert flat.shape == (2, 60)
    assert flat.data_ptr() == x.data_ptr()
    assert flat[1, (2 * 5 + 4) * 3 + 1] == x[1, 1, 2, 4]
    assert isinstance(FlattenHWC(), nn.Flatten)
