from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.models.keras_weights import keras_weights, load_keras_weights
from peewit.models.registry import build


def test_names_and_shapes_are_those_of_keras() -> None:
    found = [
        (name, array.shape) for name, array in keras_weights(build("tutorial", (32, 32, 3), 10, 0))
    ]
    assert [name for name, _ in found[:8]] == [
        "conv2d/kernel:0",
        "conv2d/bias:0",
        "batch_normalization/gamma:0",
        "batch_normalization/beta:0",
        "batch_normalization/moving_mean:0",
        "batch_normalization/moving_variance:0",
        "conv2d_1/kernel:0",
        "conv2d_1/bias:0",
    ]
    assert found[6] == ("conv2d_1/kernel:0", (3, 3, 64, 128))
    assert found[-4:] == [
        ("dense/kernel:0", (256, 32)),
        ("dense/bias:0", (32,)),
        ("dense_1/kernel:0", (32, 10)),
        ("dense_1/bias:0", (10,)),
    ]


def test_a_round_trip_changes_nothing() -> None:
    one, two = (build("tutorial", (24, 32, 1), 5, seed) for seed in (1, 2))
    arrays = [array for _, array in keras_weights(one)]
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in arrays)
    load_keras_weights(two, arrays)
    x = torch.rand(2, 1, 24, 32)
    assert torch.equal(one.eval()(x), two.eval()(x))
    assert two.stages[1].conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_layout() -> None:
    layer = nn.Conv2d(2, 3, (4, 5))
    kernel = dict(keras_weights(layer))["conv2d/kernel:0"]
    assert kernel.shape == (4, 5, 2, 3)
    assert kernel[1, 2, 0, 2] == layer.weight[2, 0, 1, 2].item()
    kernel[:] = 0  # a copy: the layer is unchanged
    assert layer.weight.abs().max() > 0


def test_layers_without_bias_or_scale() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2, affine=False))
    assert [name for name, _ in keras_weights(model)] == [
        "conv2d/kernel:0",
        "batch_normalization/moving_mean:0",
        "batch_normalization/moving_variance:0",
    ]


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(fault: str) -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    before = [array.copy() for _, array in keras_weights(model)]
    arrays = [np.zeros_like(array) for array in before]
    if fault == "missing":
        arrays.pop()
        why = "21 arrays, .* 22"
    else:
        arrays[-1] = np.zeros(11, np.float32)
        why = r"dense_1/bias:0 .*\(11,\), not \(10,\)"
    with pytest.raises(PeewitError, match=why):
        load_keras_weights(model, arrays)
    for (_, after), array in zip(keras_weights(model), before, strict=True):
        np.testing.assert_array_equal(after, array)
