"""peewit similar: the training images like a picture, on the screen, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_runs import make_run
from peewit.__main__ import main

NAMES = ("blue", "red")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, and the folder of its data: noisy pictures of two colours."""
    random = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for index in range(10):
            pixels = random.integers(0, 100, (40, 40, 3), np.uint8)
            pixels[..., 2 * (1 - number)] += 150
            Image.fromarray(pixels).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    source = str(tmp_path / "data")
    make_run(tmp_path / "run", "fast-xs", class_names=NAMES, source=source, validate_on="test")
    # the recorded parts: blue/0.png was not trained on
    rows = [f"{name}/{index}.png,training" for name in NAMES for index in range(10)]
    rows[0] = "blue/0.png,test"
    (tmp_path / "run" / "split.csv").write_text("\n".join(["name,part", *rows]) + "\n")
    return tmp_path / "run"


def test_a_training_image_is_found_and_a_test_image_is_not(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = ["data/red/3.png", "data/blue/0.png"]
    assert main(["similar", "run", *pictures, "--count", "3", "--json"]) == 0
    trained, tested = json.loads(capsys.readouterr().out)
    assert trained["image"] == pictures[0]
    assert trained["similar"][0]["name"] == "red/3.png"
    assert trained["similar"][0]["class"] == "red"
    assert trained["similar"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert len(tested["similar"]) == 3
    assert "blue/0.png" not in [one["name"] for one in tested["similar"]]


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.png").write_text("<html>")
    assert main(["similar", "run", "broken.png", "data/red/3.png"]) == 1
    output = capsys.readouterr()
    assert "broken.png" in output.err
    assert "red/3.png" in output.out


def test_the_page_shows_the_picture_and_its_neighbours(run: Path) -> None:
    assert main(["similar", "run", "data/red/3.png", "--count", "4", "--html", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 5
    assert "red/3.png" in page


def test_the_data_must_be_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "alone")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["similar", str(tmp_path / "alone"), str(tmp_path / "a.png")]) == 1
    assert "does not record" in capsys.readouterr().err
