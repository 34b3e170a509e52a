"""``peewit data check`` and ``peewit data apply``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from peewit.__main__ import main


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of two pictures; one picture is in both."""
    random = Image.effect_noise((64, 64), 90)
    for name, picture in (
        ("cat/a.png", Image.effect_noise((64, 64), 90)),
        ("cat/<b>&.png", random),
        ("dog/c.png", random),
        ("dog/d.png", Image.effect_noise((64, 64), 90)),
    ):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return tmp_path / "pets"


def test_json(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(pets), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == 4
    assert report["counts"] == {"identical with two labels": 2}
    assert [one["file"] for one in report["findings"]] == ["cat/<b>&.png", "dog/c.png"]
    assert report["findings"][0]["others"] == ["dog/c.png"]


def test_strict(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(pets), "--strict"]) == 1
    output = capsys.readouterr()
    assert "identical with two labels" in output.out
    assert not output.err
    (pets / "dog/c.png").unlink()
    assert main(["data", "check", str(pets), "--strict"]) == 0
    assert "nothing was found" in capsys.readouterr().out


def test_page_tables_and_plan(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plan = tmp_path / "out", tmp_path / "plan.csv"
    assert main(["data", "check", str(pets), "--out", str(out), "--fix-list", str(plan)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "check.html")
    page = (out / "check.html").read_text(encoding="utf-8")
    assert "cat/&lt;b&gt;&amp;.png" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "<script" not in page
    with (out / "classes.csv").open() as file:
        assert list(csv.reader(file)) == [["class", "all"], ["cat", "2"], ["dog", "2"]]
    assert (out / "findings.csv").read_text() == plan.read_text()
    corrected = tmp_path / "corrected"
    assert main(["data", "apply", str(plan), str(pets), str(corrected)]) == 0
    assert sorted(path.name for path in corrected.rglob("*.png")) == ["a.png", "d.png"]


def test_only_sources_of_files_can_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(tmp_path / "no")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_predictions_of_a_run_that_has_none(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(pets), "--run", str(tmp_path)]) == 1
    assert "has no predictions.csv" in capsys.readouterr().err
