from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from peewit.plots import save_compared_curves, save_curves
from peewit.plots.style import SERIES


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "loss": 2 / epoch,
            "accuracy": 1 - 0.8 / epoch,
            "validation_loss": 2.2 / epoch,
            "validation_accuracy": 0.95 - 0.8 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def labels(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


def ticks(figure: Figure) -> list[float]:
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    return [tick for tick in axes.get_xticks() if low <= tick <= high]


def test_training_and_validation_are_drawn_with_their_last_values(
    tmp_path: Path, figures: list[Figure]
) -> None:
    save_curves(tmp_path / "a.png", history(10), "A title")
    (figure,) = figures
    assert [axes.get_title("left") for axes in figure.axes] == ["Accuracy", "Loss"]
    assert sorted(labels(figure, 0)) == ["training 92.0%", "validation 87.0%"]
    assert sorted(labels(figure, 1)) == ["training 0.200", "validation 0.220"]
    lines = figure.axes[0].lines
    assert list(lines[0].get_ydata()) == [row["accuracy"] for row in history(10)]
    assert list(lines[1].get_ydata()) == [row["validation_accuracy"] for row in history(10)]
    assert list(lines[1].get_xdata()) == list(range(1, 11))
    assert ticks(figure) == list(range(1, 11))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1350, 540)


@pytest.mark.parametrize("epochs", [1, 2, 3, 37, 1000])
def test_ticks_are_whole_epochs(tmp_path: Path, figures: list[Figure], epochs: int) -> None:
    save_curves(tmp_path / "a.png", history(epochs))
    found = ticks(figures[0])
    assert 1 <= len(found) <= 11
    assert all(tick == int(tick) and 1 <= tick <= epochs for tick in found)


def test_labels_of_equal_values_do_not_overlap(tmp_path: Path, figures: list[Figure]) -> None:
    rows = [{**row, "validation_accuracy": row["accuracy"]} for row in history(5)]
    save_curves(tmp_path / "a.png", rows)
    first, second = (text.get_window_extent() for text in figures[0].axes[0].texts)
    assert not first.overlaps(second)


def test_labels_stay_inside_the_picture(tmp_path: Path, figures: list[Figure]) -> None:
    save_curves(tmp_path / "a.png", history(5))
    whole = figures[0].bbox
    for axes in figures[0].axes:
        for text in axes.texts:
            extent = text.get_window_extent()
            assert whole.x0 <= extent.x0 < extent.x1 <= whole.x1


def test_a_plot_without_epochs_says_so(tmp_path: Path, figures: list[Figure]) -> None:
    save_curves(tmp_path / "a.png", [])
    assert labels(figures[0], 0) == ["no finished epoch yet"]


def test_values_that_are_missing_or_not_finite_are_skipped(
    tmp_path: Path, figures: list[Figure]
) -> None:
    rows = history(3)
    rows[2]["loss"] = float("nan")
    for row in rows:
        del row["validation_loss"]
    save_curves(tmp_path / "a.png", rows)
    (line,) = figures[0].axes[1].lines
    assert list(line.get_xdata()) == [1, 2]


def test_the_same_history_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_curves(tmp_path / name, history(4), "Title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_matplotlib_settings_of_the_user_do_not_change(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    matplotlib.rcParams["font.size"] = 31
    save_curves(tmp_path / "a.png", history(2))
    assert matplotlib.rcParams["font.size"] == 31
    matplotlib.rcParams.update({"font.size": before["font.size"]})
    assert dict(matplotlib.rcParams) == before


def runs(*epochs: int) -> Any:
    return [
        SimpleNamespace(path=Path(f"runs/number {n}"), history=history(count))
        for n, count in enumerate(epochs)
    ]


def test_each_compared_run_has_a_line_and_a_name(tmp_path: Path, figures: list[Figure]) -> None:
    save_compared_curves(tmp_path / "a.png", runs(3, 10, 1, 0))
    (figure,) = figures
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"number {n}" for n in range(4)]
    handles = [line.get_color() for line in legend.get_lines()]
    assert handles == list(SERIES[:4])
    for axes in figure.axes:
        bold = [line for line in axes.lines if line.get_alpha() is None]
        assert [len(line.get_xdata()) for line in bold] == [3, 10, 1]
        # A run without epochs must not shrink the plot
        assert axes.get_window_extent().width > 400
        assert axes.get_xlim() == (1, 10)


def test_more_runs_than_colours_have_different_line_styles(
    tmp_path: Path, figures: list[Figure]
) -> None:
    save_compared_curves(tmp_path / "a.png", runs(*[2] * 20))
    lines = figures[0].legends[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_the_legend_names_curves_that_hide_each_other(
    tmp_path: Path, figures: list[Figure]
) -> None:
    save_compared_curves(tmp_path / "a.png", runs(3, 2, 3, 0, 0))
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "number 0",
        "number 1",
        "number 2 (same curves as number 0)",
        "number 3",
        "number 4",
    ]
