from __future__ import annotations

import re

import pytest

from peewit.models.registry import build
from peewit.models.summary import summarise
from peewit.models.table import WIDTH, Summary, size


@pytest.fixture(scope="module")
def tutorial() -> Summary:
    return summarise(build("tutorial", (32, 32, 3), 10, seed=0), (32, 32, 3))


def test_the_table_is_aligned_and_whole(tutorial: Summary) -> None:
    lines = tutorial.table().splitlines()
    head, rule, rows = lines[0], lines[1], lines[2:15]
    assert {len(line) for line in [head, rule, *rows]} == {len(rule)}
    assert " ".join(rows[0].split()) == "conv2d (Conv2D) 30 x 30 x 64 1,792 1,555,200 230.4 kB"
    assert rows[4].split()[:2] == ["batch_normalization_1", "(BatchNormalization)"]
    assert "..." not in tutorial.table()
    assert all(line == line.rstrip() for line in lines)


def test_the_totals_are_under_the_table(tutorial: Summary) -> None:
    text = tutorial.table()
    assert re.search(r"Parameters +159,018\n +trained +158,506\n +not trained +512\n", text)
    assert "15,283,648 to predict one 32 x 32 x 3 image" in text
    assert "636.1 kB for the weights" in text


def test_the_explanation_has_each_layers_own_numbers(tutorial: Summary) -> None:
    text = re.sub(r"\s+", " ", tutorial.explain())
    for expected in (
        "3 x 3 x 3 x 64 + 64 = 1,792: kernel height x kernel width x input channels x output "
        "channels + a bias for each output channel",
        "3 x 3 x 64 x 128 + 128 = 73,856",
        "3 x 3 x 128 x 64 + 64 = 73,792",
        "4 x 128 = 512: each channel has scale (gamma), shift (beta), moving mean, moving variance",
        "Trained: scale and shift, 2 x 64 = 128",
        "Not trained: moving mean and moving variance, 2 x 64 = 128: they are measured",
        "moving = 0.99 x moving + 0.01 x batch",
        "(32 - 3) + 1 = 30 each way",
        "30 / 2 = 15 each way",
        "13 / 2, rounded down, = 6 each way",
        "2 x 2 x 64 = 256",
        "256 x 32 + 32 = 8,224: inputs x outputs + a bias for each output",
        "32 x 10 + 10 = 330",
        "1,792 + 256 + 73,856 + 512 + 73,792 + 256 + 8,224 + 330 = 159,018",
        "2 x (64 + 128 + 64) = 512",
        "159,018 - 512 = 158,506",
        "a random 50% of the values",
        "3 x 3 x 64 x 128 = 73,728 at each of 13 x 13 places = 12,460,032",
    ):
        assert expected in text


def test_every_layer_is_explained_in_lines_that_fit(tutorial: Summary) -> None:
    table, text = tutorial.table(), tutorial.explain()
    assert text.startswith(table)
    explanation = text[len(table) :]
    for row in tutorial.rows:
        assert f"\n{row.name} ({row.kind}): " in explanation
        assert "arameters: " in row.explanation[0]
    assert max(map(len, explanation.splitlines())) <= WIDTH


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 999_949, 999_951, 5 * 10**9, 10**13)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "5.0 GB",
        "10,000.0 GB",
    ]
