"""Names in any script: drawn with the installed fonts, or replaced by numbers."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import peewit
from made_runs import make_run
from peewit.__main__ import main
from peewit.data.dataset import Dataset
from peewit.evaluation.metrics import evaluate
from peewit.plots import advice, fonts, legible, save_compared_curves, save_confusion, save_grid

# matplotlib includes STIXGeneral too, which has this character; DejaVu Sans lacks it
STIX = Path(matplotlib.get_data_path(), "fonts", "ttf", "STIXGeneral.ttf")
POSITION = "\u2316"


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    fonts._fallbacks.cache_clear()
    yield
    fonts._fallbacks.cache_clear()


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no font but the one that matplotlib includes."""
    monkeypatch.setattr(fonts, "_candidates", list)


@pytest.fixture
def one_font(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one font more, and a damaged one."""
    found = [(__file__, "Broken"), (str(STIX), "STIXGeneral")]
    monkeypatch.setattr(fonts, "_candidates", lambda: found)


def test_a_font_that_has_the_characters_is_used(one_font: None, tmp_path: Path) -> None:
    names = [f"{POSITION} x", "cat"]
    assert legible(names) == names
    assert fonts.families(names) == ["DejaVu Sans", "STIXGeneral"]
    assert fonts.families(["cat", "a\nb"]) == ["DejaVu Sans"]
    assert advice(names) == ""
    # two names of one length with other glyphs: boxes would be equal
    files = []
    for name in (POSITION, "\u2317"):
        file = tmp_path / f"{ord(name)}.png"
        save_grid(file, Dataset(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, int), [name]), [0])
        files.append(file.read_bytes())
    assert files[0] != files[1]


def test_without_a_font_the_number_is_drawn(
    no_fonts: None, tmp_path: Path, figures: list[Figure]
) -> None:
    names = ["cat", "猫", "🐈 cat", "Bär"]
    assert legible(names) == ["cat", "class 1", "class 2", "Bär"]
    logits = np.eye(4, dtype=np.float32)
    save_confusion(tmp_path / "a.png", evaluate(logits, [0, 1, 2, 3], names))
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels == ["cat", "class 1", "class 2", "Bär"]
    assert advice(names) == (
        "matplotlib cannot draw the class names 猫, 🐈 cat with the installed fonts, so the "
        "pictures show their numbers, counted from 0 (install Noto Emoji, Noto Sans CJK)"
    )
    assert "猫, 犬, 鳥 and 2 more" in advice(["猫", "犬", "鳥", "馬", "鹿", "frog"])


def test_titles_have_no_boxes(no_fonts: None) -> None:
    assert fonts.title("Training images: /data/猫/Bär") == "Training images: /data/?/Bär"


def test_runs_are_numbered_too(no_fonts: None, tmp_path: Path, figures: list[Figure]) -> None:
    runs = [make_run(tmp_path / name) for name in ("a", "猫")]
    save_compared_curves(tmp_path / "a.png", runs)
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[0] == "a"
    assert texts[1].startswith("run 1")


def test_one_note_tells_which_font_to_install(
    no_fonts: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny: Dataset
) -> None:
    runs = [str(make_run(tmp_path / name).path) for name in ("a", "猫")]
    assert main(["compare", *runs, "--out", str(tmp_path / "a.png")]) == 0
    said = capsys.readouterr().err
    assert said.count("install Noto Sans CJK)") == 1
    assert said.startswith("note: matplotlib cannot draw the run names 猫")
    named = Dataset(tiny.images, tiny.labels, ["猫", "犬", "c"])
    with pytest.warns(UserWarning, match="Noto Sans CJK"):
        peewit.show(named, [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peewit.show(tiny, [0])


def test_old_matplotlib_does_not_draw_right_to_left_text_wrongly(
    no_fonts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["قطة", "כלב", "cat"]
    monkeypatch.setattr(fonts, "SHAPES_TEXT", True)
    assert legible(names) == names
    monkeypatch.setattr(fonts, "SHAPES_TEXT", False)
    assert legible(names) == ["class 0", "class 1", "cat"]
    assert "upgrade matplotlib" in advice(names)


def test_names_are_cleaned(no_fonts: None, tmp_path: Path, figures: list[Figure]) -> None:
    assert legible([unicodedata.normalize("NFD", "Bär"), "a\tb\n", "❤\ufe0f"]) == [
        "Bär",
        "a?b?",
        "❤",
    ]
    names = ["$\\frac{a}$ \\x", "x" * 300, "_hidden"]
    save_confusion(tmp_path / "a.png", evaluate(np.eye(3, dtype=np.float32), [0, 1, 2], names))
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels == [names[0], "x" * 39 + "…", "_hidden"]


def test_unusable_fonts_are_left_out() -> None:
    fonts._candidates.cache_clear()
    found = fonts._candidates()
    assert any(family == "DejaVu Sans" for _, family in found)
    assert not any(word in family for _, family in found for word in fonts.UNUSABLE)
