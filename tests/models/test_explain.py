from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from peewit.models.explain import account


def account_of(module: nn.Module, height: int, width: int, channels: int) -> tuple[int, str]:
    out = module(torch.zeros(1, channels, height, width)).shape
    result = account(module, (height, width, channels), (*out[2:], out[1]))
    return result.multiply_adds, "\n".join(result.sentences)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(4, 6, 3), "(10 - 3) + 1 = 8 down and (13 - 3) + 1 = 11 across"),
        (nn.Conv2d(4, 6, 5, padding=2), "(10 + 2 x 2 - 5) + 1 = 10 down"),
        (
            nn.Conv2d(4, 6, 3, stride=2),
            "(10 - 3) / 2, rounded down, + 1 = 4 down and (13 - 3) / 2 +",
        ),
        (nn.Conv2d(4, 6, 3, dilation=2), "(10 - 5) + 1 = 6 down"),
        (nn.Conv2d(4, 6, 2, stride=2), "10 / 2 = 5 down and 13 / 2, rounded down, = 6 across"),
        (nn.Conv2d(4, 6, (1, 5)), "(10 - 1) + 1 = 10 down and (13 - 5) + 1 = 9 across"),
        (nn.Conv2d(4, 6, 3, padding="same"), '10 x 13 x 6: padding is "same"'),
        (nn.MaxPool2d(2), "10 / 2 = 5 down and 13 / 2, rounded down, = 6 across"),
        (nn.MaxPool2d(2, ceil_mode=True), "13 / 2, rounded up, = 7 across"),
        (nn.MaxPool2d(3, stride=2, padding=1), "(10 + 2 x 1 - 3) / 2, rounded down, + 1 = 5 down"),
        (nn.AvgPool2d(5), "10 / 5 = 2 down"),
    ],
)
def test_output_shapes_are_worked_out(module: nn.Module, expected: str) -> None:
    assert expected in account_of(module, 10, 13, 4)[1]


@pytest.mark.parametrize(
    "settings", [(3, 2, 1, False), (2, 2, 0, True), (2, 2, 0, False), (3, 1, 1, False)]
)
@pytest.mark.parametrize("size", range(7, 13))
def test_the_arithmetic_leads_to_the_shape(size: int, settings: tuple[int, int, int, bool]) -> None:
    kernel, stride, padding, ceil = settings
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    text = account_of(pool, size, size, 1)[1]
    found = re.search(r"x 1: (.+?)(, rounded (up|down),)?( \+ 1)? = (\d+) each way", text)
    assert found, text
    formula, _, rounded, one, result = found.groups()
    value = eval(formula.replace("x", "*"))
    assert rounded or value == int(value)
    value = math.ceil(value) if rounded == "up" else math.floor(value)
    assert value + bool(one) == int(result)


def test_multiply_adds() -> None:
    assert account_of(nn.Conv2d(4, 6, 3), 10, 13, 4)[0] == 8 * 11 * 9 * 4 * 6
    assert account_of(nn.Conv2d(4, 6, 3, groups=2), 10, 13, 4)[0] == 8 * 11 * 9 * 2 * 6
    assert account_of(nn.BatchNorm2d(4), 10, 13, 4)[0] == 10 * 13 * 4
    assert account_of(nn.MaxPool2d(2), 10, 13, 4)[0] == 0
    assert account(nn.Linear(5, 7), (3, 5), (3, 7)).multiply_adds == 3 * 35


def test_layers_without_biases_say_so_by_their_sums() -> None:
    text = account_of(nn.Conv2d(4, 6, 3, bias=False), 10, 13, 4)[1]
    assert "Parameters: 3 x 3 x 4 x 6 = 216: " in text
    assert "bias" not in text
    text = account(nn.Linear(5, 7, bias=False), (5,), (7,)).sentences[0]
    assert text == "Parameters: 5 x 7 = 35: inputs x outputs."


def test_batch_normalisation_has_what_it_has() -> None:
    plain = account_of(nn.BatchNorm2d(4, affine=False), 10, 13, 4)[1]
    assert "2 x 4 = 8: each channel has moving mean, moving variance." in plain
    assert "Trained" not in plain
    average = account_of(nn.BatchNorm2d(4, momentum=None).eval(), 10, 13, 4)[1]
    assert "the mean over all batches" in average


def test_other_layers() -> None:
    assert (
        "averages 10 x 13 x 4 down to 1 x 1 x 4"
        in account_of(nn.AdaptiveAvgPool2d(1), 10, 13, 4)[1]
    )
    assert "by a fixed rule" in account_of(nn.Upsample(scale_factor=2), 10, 13, 4)[1]
    assert "not explained" in account_of(nn.PReLU(4), 10, 13, 4)[1]
    assert "multiplies the others by 1.25;" in account(nn.Dropout(0.2), (5,), (5,)).sentences[0]
    assert "100%" in account(nn.Dropout(1.0), (5,), (5,)).sentences[0]
