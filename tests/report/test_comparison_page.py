"""The page that compares several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peewit.errors import PeewitError
from peewit.report import write_comparison
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training.recipe import Recipe

SCRIPT = "<script>alert('1')</script>"


def test_the_page_has_the_results_and_the_differences(make: Any, read: Any, tmp_path: Path) -> None:
    one = make(["cat", "dog"], noise=2.0, folder="one").run
    two = make(["cat", "dog"], noise=3.0, folder="two").run
    runfolder.write_recipe(two.path, two.recipe.replace(lr=0.0625))
    two = Run.open(two.path)
    path = write_comparison([one, two], tmp_path / "a.html")
    page = read(path)
    for run in (one, two):
        low, high = run.metrics["accuracy_interval"]
        assert f"{run.metrics['accuracy']:.2%}" in page.text
        assert f"{low:.2%} to {high:.2%}" in page.text
    for words in ("Comparison of 2 runs", "lr 0.001 0.0625", "Recall of each class"):
        assert words in page.text, words
    assert all(not value.startswith("http") for _, value in page.values() if value)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert set(levels) == {1, 2, 3}
    assert path.read_bytes() == write_comparison([one, two], tmp_path / "b.html").read_bytes()


def test_external_names_are_escaped(make: Any, read: Any, tmp_path: Path) -> None:
    names = [SCRIPT, '" onload="x']
    folder = "<img src=x onerror=alert(2)>"
    runs = [make(names, folder=f"{folder}{number}").run for number in range(2)]
    path = write_comparison(runs, tmp_path / "a.html")
    page = read(path)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert not page.all("img")
    assert f"{folder}0" in page.text
    assert SCRIPT in page.text
    assert not any(name.startswith("on") for name, _ in page.values())


def test_runs_of_different_classes_and_unfinished_runs(
    make: Any, read: Any, tmp_path: Path
) -> None:
    one, two = make(["cat", "dog"], folder="one").run, make(["a", "b", "c"], folder="two").run
    runfolder.write_finished(two.path, False)
    page = read(write_comparison([one, Run.open(two.path)], tmp_path / "a.html"))
    assert "Recall of each class" not in page.text
    assert "interrupted" in page.text


def test_epochs_are_shown_with_the_limit_of_the_recipe(
    make: Any, read: Any, tmp_path: Path
) -> None:
    one, two = (make(["cat", "dog"], folder=name).run for name in ("one", "two"))
    two.history[-1]["images"] = 138  # of 60 training images
    runfolder.write_history(two.path, two.history)
    runfolder.write_recipe(two.path, Recipe.preset("fast", minutes=5))
    page = read(write_comparison([one, Run.open(two.path)], tmp_path / "a.html"))
    assert "2/2" in page.text
    assert "2.3 in 5 min" in page.text


def test_folders_with_the_same_name_are_shown_by_their_paths(
    make: Any, read: Any, tmp_path: Path
) -> None:
    runs = []
    for parent in ("x", "y"):
        (tmp_path / parent).mkdir()
        runs.append(make(["cat", "dog"], folder=f"{parent}/run").run)
    page = read(write_comparison(runs, tmp_path / "a.html"))
    for run in runs:
        assert str(run.path) in page.text


def test_each_of_many_runs_has_its_own_line_style(make: Any, tmp_path: Path, read: Any) -> None:
    runs = [make(["cat", "dog"], folder=f"run{number}").run for number in range(9)]
    page = read(write_comparison(runs, tmp_path / "a.html"))
    bold = [one["class"] for one in page.all("polyline") if "thin" not in (one["class"] or "")]
    assert len(bold) == 18  # in two charts
    assert len(set(bold)) == 9


def test_a_page_that_cannot_be_written_is_an_error(make: Any, tmp_path: Path) -> None:
    runs = [make(["cat", "dog"], folder=name).run for name in ("a", "b")]
    with pytest.raises(PeewitError, match="cannot write"):
        write_comparison(runs, tmp_path / "missing" / "a.html")
