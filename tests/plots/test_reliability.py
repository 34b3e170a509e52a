"""The reliability diagram as a PNG file."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from peewit.evaluation.reliability import ConfidenceBin
from peewit.plots import save_reliability
from peewit.plots.style import ACCENT, GOOD, WARNING

BINS = (
    ConfidenceBin(0, 0.0, 0.0),
    ConfidenceBin(10, 0.4, 0.25),  # overconfident
    ConfidenceBin(0, 0.0, 0.0),
    ConfidenceBin(40, 0.8, 1.0),  # underconfident
)


def test_overconfidence_is_red_and_underconfidence_green(
    tmp_path: Path, figures: list[Figure]
) -> None:
    save_reliability(tmp_path / "a.png", BINS)
    above, below = figures[0].axes
    bars = [
        (
            to_hex(bar.get_facecolor()),
            bar.get_x() + bar.get_width() / 2,
            bar.get_y(),
            bar.get_height(),
        )
        for bar in above.patches
    ]
    expected = [
        (ACCENT, 0.375, 0.0, 0.25),
        (ACCENT, 0.875, 0.0, 0.8),
        (WARNING, 0.375, 0.25, 0.15),
        (GOOD, 0.875, 0.8, 0.2),
    ]
    for found, wanted in zip(bars, expected, strict=True):
        assert found[0] == wanted[0]
        assert found[1:] == pytest.approx(wanted[1:])
    assert [bar.get_height() for bar in below.patches] == [10, 40]
    assert (above.get_xlim(), above.get_ylim()) == ((0, 1), (0, 1))
    assert (above.get_ylabel(), below.get_ylabel()) == ("accuracy", "images")
    (diagonal,) = above.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]


def test_empty_bins_are_not_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    save_reliability(tmp_path / "a.png", [ConfidenceBin(0, 0.0, 0.0)] * 15)
    assert not figures[0].axes[0].patches


def test_the_same_bins_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_reliability(tmp_path / name, BINS, "Title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (690, 780)
