from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from peewit.models.explain import explain_layer


def explained(module: nn.Module, height: int, width: int, channels: int) -> tuple[int, str]:
    """Return the multiply-adds and the sentences for an input of this size."""
    out = module(torch.zeros(1, channels, height, width)).shape
    result = explain_layer(module, (height, width, channels), (*out[2:], out[1]))
    return result.multiply_adds, "\n".join(result.sentences)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(4, 6, 3), "(10 - 3) + 1 = 8 in height and (13 - 3) + 1 = 11 in width"),
        (nn.Conv2d(4, 6, 5, padding=2), "(10 + 2 x 2 - 5) + 1 = 10 in height"),
        (
            nn.Conv2d(4, 6, 3, stride=2),
            "(10 - 3) / 2, rounded down, + 1 = 4 in height and (13 - 3) / 2 +",
        ),
        (nn.Conv2d(4, 6, 3, dilation=2), "(10 - 5) + 1 = 6 in height"),
        (
            nn.Conv2d(4, 6, 2, stride=2),
            "10 / 2 = 5 in height and 13 / 2, rounded down, = 6 in width",
        ),
        (nn.Conv2d(4, 6, (1, 5)), "(10 - 1) + 1 = 10 in height and (13 - 5) + 1 = 9 in width"),
        (nn.Conv2d(4, 6, 3, padding="same"), '10 x 13 x 6: padding is "same"'),
        (nn.MaxPool2d(2), "10 / 2 = 5 in height and 13 / 2, rounded down, = 6 in width"),
        (nn.MaxPool2d(2, ceil_mode=True), "13 / 2, rounded up, = 7 in width"),
        (
            nn.MaxPool2d(3, stride=2, padding=1),
            "(10 + 2 x 1 - 3) / 2, rounded down, + 1 = 5 in height",
        ),
        (nn.AvgPool2d(5), "10 / 5 = 2 in height"),
    ],
)
def test_output_shapes_are_explained(module: nn.Module, expected: str) -> None:
    assert expected in explained(module, 10, 13, 4)[1]


@pytest.mark.parametrize(
    "settings", [(3, 2, 1, False), (2, 2, 0, True), (2, 2, 0, False), (3, 1, 1, False)]
)
@pytest.mark.parametrize("size", range(7, 13))
def test_the_formula_evaluates_to_the_shape(
    size: int, settings: tuple[int, int, int, bool]
) -> None:
    kernel, stride, padding, ceil = settings
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    text = explained(pool, size, size, 1)[1]
    found = re.search(
        r"x 1: (.+?)(, rounded (up|down),)?( \+ 1)? = (\d+) in height and width", text
    )
    assert found, text
    formula, _, rounded, one, result = found.groups()
    value = eval(formula.replace("x", "*"))
    assert rounded or value == int(value)
    value = math.ceil(value) if rounded == "up" else math.floor(value)
    assert value + bool(one) == int(result)


def test_multiply_adds() -> None:
    assert explained(nn.Conv2d(4, 6, 3), 10, 13, 4)[0] == 8 * 11 * 9 * 4 * 6
    assert explained(nn.Conv2d(4, 6, 3, groups=2), 10, 13, 4)[0] == 8 * 11 * 9 * 2 * 6
    assert explained(nn.BatchNorm2d(4), 10, 13, 4)[0] == 10 * 13 * 4
    assert explained(nn.MaxPool2d(2), 10, 13, 4)[0] == 0
    assert explain_layer(nn.Linear(5, 7), (3, 5), (3, 7)).multiply_adds == 3 * 35


def test_layers_without_biases() -> None:
    text = explained(nn.Conv2d(4, 6, 3, bias=False), 10, 13, 4)[1]
    assert "Parameters: 3 x 3 x 4 x 6 = 216: " in text
    assert "bias" not in text
    text = explain_layer(nn.Linear(5, 7, bias=False), (5,), (7,)).sentences[0]
    assert text == "Parameters: 5 x 7 = 35: inputs x outputs."


def test_batch_normalisation_without_scale_or_with_cumulative_average() -> None:
    plain = explained(nn.BatchNorm2d(4, affine=False), 10, 13, 4)[1]
    assert "2 x 4 = 8: each channel has moving mean and moving variance." in plain
    assert not re.search(r"^Trainable", plain, re.M)
    average = explained(nn.BatchNorm2d(4, momentum=None).eval(), 10, 13, 4)[1]
    assert "the mean over all batches" in average


def test_other_layers() -> None:
    assert "averages 10 x 13 x 4 to 1 x 1 x 4" in explained(nn.AdaptiveAvgPool2d(1), 10, 13, 4)[1]
    assert "a fixed function" in explained(nn.Upsample(scale_factor=2), 10, 13, 4)[1]
    assert "not explained" in explained(nn.PReLU(4), 10, 13, 4)[1]
    assert (
        "the others are multiplied by 1.25;"
        in explain_layer(nn.Dropout(0.2), (5,), (5,)).sentences[0]
    )
    assert "100%" in explain_layer(nn.Dropout(1.0), (5,), (5,)).sentences[0]
