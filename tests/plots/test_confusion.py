from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from peewit.evaluation.metrics import Evaluation, evaluate
from peewit.plots import save_confusion


def evaluated(classes: int, count: int = 2000) -> Evaluation:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes))
    logits[np.arange(count), labels] += 2
    return evaluate(logits, labels, [f"class {number}" for number in range(classes)])


def test_cells_show_counts_and_colours_show_shares(tmp_path: Path, figures: list[Figure]) -> None:
    result = evaluated(4)
    save_confusion(tmp_path / "a.png", result)
    axes = figures[0].axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    for (true, predicted), count in np.ndenumerate(result.confusion):
        assert cells[(predicted, true)] == str(count)
    (image,) = axes.images
    shares = result.confusion / result.confusion.sum(axis=1, keepdims=True)
    assert np.allclose(image.get_array(), shares)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [f"class {number}" for number in range(4)]
    assert axes.get_title("left") == f"Accuracy {result.accuracy:.1%} on 2,000 images"


def test_cells_of_many_classes_have_no_numbers(tmp_path: Path, figures: list[Figure]) -> None:
    save_confusion(tmp_path / "a.png", evaluated(20))
    save_confusion(tmp_path / "b.png", evaluated(21))
    assert len(figures[0].axes[0].texts) > 20
    assert len(figures[1].axes[0].texts) == 0


def test_a_hundred_class_names_do_not_overlap(tmp_path: Path, figures: list[Figure]) -> None:
    save_confusion(tmp_path / "a.png", evaluated(100))
    axes = figures[0].axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        extents = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in pairwise(extents))
        inside = axes.get_window_extent()
        assert not any(extent.overlaps(inside) for extent in extents)
    for number, label in enumerate(axes.get_xticklabels()):
        extent = label.get_window_extent()
        # Within a quarter of a cell of the middle of its column
        place = axes.transData.inverted().transform(((extent.x0 + extent.x1) / 2, 0))[0]
        assert abs(place - number) < 0.25


def test_a_class_without_images_has_an_empty_row(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    save_confusion(tmp_path / "a.png", evaluate([[1.0, 0.0, 0.0]], [0], ["a", "b", "c"]))
    assert not recwarn.list


def test_the_same_evaluation_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_confusion(tmp_path / name, evaluated(3), "Title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 600


@pytest.mark.parametrize("names", [list("0123456789"), ["a", "b"], ["a long name of a class"] * 3])
def test_nothing_touches_the_edge(names: list[str], tmp_path: Path) -> None:
    labels = np.arange(60) % len(names)
    result = evaluate(np.eye(len(names))[labels], labels, names)
    save_confusion(tmp_path / "a.png", result)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    rows, columns = np.nonzero(pixels < 200)
    margins = (
        rows.min(),
        columns.min(),
        *(np.array(pixels.shape) - 1 - (rows.max(), columns.max())),
    )
    assert min(margins) >= 8, margins
