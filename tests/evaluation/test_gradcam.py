"""Grad-CAM against a case computed by hand, and on the real networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.evaluation.gradcam import heat_maps, overlay
from peewit.images.preprocessing import Preprocessing
from peewit.models.registry import MODELS, build, native_size

RULE = Preprocessing(2, 2, 1, mean=(0.0,), std=(1.0,))
PREPARE = RULE.tensor


def small() -> nn.Sequential:
    """Two channels, x and 2x - 1 of each pixel x, then two dense outputs of the four pixels."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    conv, dense = network[0], network[3]
    with torch.no_grad():
        conv.weight[:] = torch.tensor([1.0, 2.0])[:, None, None, None]
        conv.bias[:] = torch.tensor([0.0, -1.0])
        # class 0: channel weights 1 and -1 (the mean of 4, 0, 0, 0 and of -1 four times);
        # class 1: 0 and 0.5
        dense.weight[0] = torch.tensor([4.0, 0, 0, 0, -1, -1, -1, -1])
        dense.weight[1] = torch.tensor([0.0, 0, 0, 0, 0, 2, 0, 0])
        dense.bias[:] = torch.tensor([100.0, 0.0])
    return network


def test_maps_equal_those_computed_by_hand() -> None:
    pixels = np.array([[0, 51], [153, 255]], np.uint8)  # 0, 0.2, 0.6, 1
    images = np.stack([pixels, pixels])[..., None]
    # after the ReLU: 0, 0.2, 0.6, 1 and 0, 0, 0.2, 1
    # class 0: 1 a - 1 b = 0, 0.2, 0.4, 0; divided by the maximum: 0, 0.5, 1, 0
    # class 1: 0.5 b = 0, 0, 0.1, 0.5; divided by the maximum: 0, 0, 0.2, 1
    first, second = heat_maps(small(), PREPARE, images, [0, 1])
    assert np.allclose(first, [[0, 0.5], [1, 0]], atol=1e-6)
    assert np.allclose(second, [[0, 0], [0.2, 1]], atol=1e-6)


def test_a_map_lies_on_the_part_that_the_network_sees() -> None:
    pixels = np.array([[0, 51], [153, 255]], np.uint8)
    wide = np.full((1, 2, 5, 1), 77, np.uint8)
    wide[0, :, 1:3, 0] = pixels
    crop = replace(RULE, fit="crop")
    found = heat_maps(small(), crop.tensor, wide, [0], crop.region(2, 5))[0]
    # as in the first test, where the picture is the whole input
    assert np.allclose(found, [[0, 0, 0.5, 0, 0], [0, 1, 0, 0, 0]], atol=1e-6)

    pad = replace(RULE, height=4, width=4, fit="pad")
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(16, 1))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[2].weight.fill_(1)
    rows = np.array([[51, 102, 153, 204], [204, 51, 51, 51]], np.uint8).reshape(1, 2, 4, 1)
    found = heat_maps(network, pad.tensor, rows, [0], pad.region(2, 4))[0]
    # the padding, 128, is above and below
    assert np.allclose(found, [[0.25, 0.5, 0.75, 1], [1, 0.25, 0.25, 0.25]], atol=1e-6)


def test_explains_the_predicted_class_by_default() -> None:
    images = np.array([[0, 51], [153, 255]], np.uint8)[None, :, :, None]
    # the bias makes class 0 the prediction
    assert np.array_equal(
        heat_maps(small(), PREPARE, images), heat_maps(small(), PREPARE, images, [0])
    )


def test_no_evidence_for_the_class_is_all_zero() -> None:
    network = small()
    with torch.no_grad():
        network[3].weight[0] = -1
    maps = heat_maps(network, PREPARE, np.full((1, 2, 2, 1), 200, np.uint8), [0])
    assert not maps.any()


def test_frozen_weights_have_heat_maps_too() -> None:
    images = np.array([[0, 51], [153, 255]], np.uint8)[None, :, :, None]
    network = small().requires_grad_(False)
    assert np.allclose(heat_maps(network, PREPARE, images, [0])[0], [[0, 0.5], [1, 0]], atol=1e-6)


def test_uses_the_features_before_pooling() -> None:
    conv, dense = small()[0], nn.Linear(2, 2)
    with torch.no_grad():
        dense.weight[:] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pooled = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), dense)
    images = np.array([[0, 51], [153, 255]], np.uint8)[None, :, :, None]
    # channel 0 alone, at all four pixels
    assert np.allclose(heat_maps(pooled, PREPARE, images, [0])[0], [[0, 0.2], [0.6, 1]], atol=1e-6)


def lite(name: str) -> bool:
    return MODELS[name].normalisation is not None


@pytest.mark.parametrize(
    ("name", "channels"),
    # pretrained networks take RGB
    [(name, count) for name in MODELS for count in (1, 3) if count == 3 or not lite(name)],
)
def test_every_network(name: str, channels: int) -> None:
    size = native_size(name)
    rule = Preprocessing(size, size, channels, (0.0,) * channels, (1.0,) * channels)
    network = build(name, (size, size, channels), classes=4, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 30, channels), np.uint8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    every = np.stack([heat_maps(network, rule.tensor, images, [label] * 3) for label in range(4)])
    assert every.shape == (4, 3, 40, 30)
    assert every.min() >= 0
    # the maximum of each map is 1 after upsampling
    assert np.allclose(every.max(axis=(2, 3))[every.max(axis=(2, 3)) > 0], 1)
    # each image has evidence for some class, at some pixels more than at others
    assert (every.max(axis=(0, 2, 3)) > 0).all()
    assert np.ptp(every, axis=(2, 3)).max() > 0.1
    # each map is independent of the other images, and the network is unchanged
    alone = heat_maps(network, rule.tensor, images[1:2], [0])
    assert np.allclose(alone[0], every[0, 1], atol=1e-4)
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_images() -> None:
    assert heat_maps(small(), PREPARE, np.empty((0, 5, 6, 1), np.uint8)).shape == (0, 5, 6)


def test_a_network_without_spatial_positions_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(PeewitError, match="heat map"):
        heat_maps(network, PREPARE, np.zeros((1, 2, 2, 1), np.uint8))


def test_overlay_is_grey_where_cold() -> None:
    image = np.array([[[0, 90, 180], [10, 20, 30]]], np.uint8)
    laid = overlay(image, np.array([[0.0, 1.0]], np.float32), strength=0.5)
    assert laid.dtype == np.uint8
    assert laid[0, 0].tolist() == [90, 90, 90]
    assert laid[0, 1].tolist() == [136, 138, 92]  # halfway between 20 and the hottest colour
