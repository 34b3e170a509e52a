"""The positions of the lines and bars of the charts."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.report.charts import (
    LABEL_DISTANCE,
    Series,
    interval_chart,
    line_chart,
    nice_ticks,
    reliability_chart,
)


@pytest.mark.parametrize("count", [2, 5, 6])
def test_ticks_enclose_the_values_and_are_round(count: int) -> None:
    random = np.random.default_rng(0)
    for low, span in random.uniform((0, 1e-6), (100, 1000), (300, 2)):
        ticks = nice_ticks(low, low + span, count)
        assert ticks[0] <= low + 1e-6 * span
        assert ticks[-1] >= low + span - 1e-6 * span
        steps = np.diff(ticks)
        assert np.allclose(steps, steps[0])
        assert f"{steps[0]:.0e}"[0] in "125"
        assert 2 <= len(ticks) <= count + 2


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_ticks_of_a_single_value(value: float) -> None:
    ticks = nice_ticks(value, value)
    assert ticks[0] <= value <= ticks[-1]
    assert ticks[0] < ticks[-1]


def series(*values: float, name: str = "one") -> Series:
    return Series(name, list(enumerate(values, 1)), "s", "f")


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    chart = line_chart("Accuracy", [series(0.2, 0.4, 0.9)], percent=True)
    (line,) = chart.lines
    across, down = zip(*line.points, strict=True)
    assert list(across) == sorted(across)
    assert list(down) == sorted(down, reverse=True)
    assert across[0] == chart.left
    assert across[-1] == chart.right
    assert line.label == "one 90.0%"
    assert [tick.text for tick in chart.x_ticks] == ["1", "2", "3"]
    assert chart.description == "Accuracy from epoch 1 to 3: one from 20.0% to 90.0%"


def test_a_value_is_drawn_at_its_tick() -> None:
    chart = line_chart("Loss", [series(0.0, 0.25, 1.0)], percent=False)
    places = {tick.text: tick.place for tick in chart.y_ticks}
    (line,) = chart.lines
    assert line.points[0][1] == pytest.approx(places["0"])
    assert line.points[2][1] == pytest.approx(places["1"])
    share = (line.points[1][1] - places["0"]) / (places["1"] - places["0"])
    assert share == pytest.approx(0.25)


def test_labels_of_equal_lines_do_not_overlap() -> None:
    chart = line_chart("Loss", [series(1.0, 0.5), series(2.0, 0.5), series(3.0, 0.5)], False)
    heights = sorted(line.label_y for line in chart.lines)
    assert np.diff(heights).min() >= LABEL_DISTANCE


def test_values_that_are_not_finite_are_skipped() -> None:
    nan, inf = float("nan"), float("inf")
    chart = line_chart("Loss", [series(1.0, nan, 0.5, inf), series(nan, name="two")], percent=False)
    (line,) = chart.lines
    assert len(line.points) == 2
    assert "two" not in chart.description


def test_a_chart_without_epochs_says_so() -> None:
    chart = line_chart("Loss", [series()], percent=False)
    assert chart.lines == ()
    assert "no finished epoch" in chart.description


def test_a_single_epoch_is_centred() -> None:
    chart = line_chart("Loss", [series(0.5)], percent=False)
    assert chart.lines[0].points[0][0] == (chart.left + chart.right) / 2


def test_close_ticks_have_different_labels() -> None:
    chart = line_chart("Accuracy", [series(0.9001, 0.9009)], percent=True)
    labels = [tick.text for tick in chart.y_ticks]
    assert len(set(labels)) == len(labels)


def test_a_reliability_bar_is_as_high_as_its_accuracy() -> None:
    overconfident = {"images": 10, "accuracy": 0.25, "confidence": 0.4}
    empty = {"images": 0, "accuracy": 0.0, "confidence": 0.0}
    underconfident = {"images": 40, "accuracy": 1.0, "confidence": 0.9}
    chart = reliability_chart([overconfident, empty, underconfident])
    first, second = chart.bars
    bottom = chart.top + chart.side
    assert first.overconfident
    assert not second.overconfident
    assert first.common_height == pytest.approx(0.25 * chart.side)
    assert first.gap_height == pytest.approx(0.15 * chart.side)
    assert second.common_height + second.gap_height == pytest.approx(chart.side)
    for bar in chart.bars:
        assert bar.common_y + bar.common_height == pytest.approx(bottom)
        assert bar.gap_y + bar.gap_height == pytest.approx(bar.common_y)
        assert bar.images_y + bar.images_height == pytest.approx(bottom + chart.below)
        assert bar.gap_y >= chart.top - 1e-9
    assert second.images_height == 4 * first.images_height == pytest.approx(chart.below)
    assert second.x - first.x == pytest.approx(2 * chart.side / 3)
    assert first.text == "10 images: mean confidence 40.0%, accuracy 25.0%"


def test_intervals_contain_their_value() -> None:
    chart = interval_chart([("a", 0.5, 0.4, 0.6), ("b", 0.9, 0.88, 0.92)])
    for one in chart.intervals:
        assert 0 < one.low < one.middle < one.high < chart.width
    first, second = chart.intervals
    assert first.high < second.low
    assert second.y - first.y == chart.row
    assert second.text == "90.00% (88.00% to 92.00%)"
