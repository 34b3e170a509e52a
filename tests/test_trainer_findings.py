"""What a training on files records about its pictures, and shows again at its end."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

import peewit
from made_pictures import folder_of_pictures
from peewit.__main__ import main
from peewit.report import write_report
from peewit.runs import folder as runfolder

OPTIONS = ["--model", "fast-xs", "--epochs", "1", "--image-size", "16", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return pictures with two unreadable files, a copy in two parts, and one with two labels."""
    here = tmp_path / "pictures"
    folder_of_pictures(here / "train", 20, (24, 24))
    folder_of_pictures(here / "test", 8, (24, 24), seed=1)
    first, second = sorted(one for one in (here / "train").iterdir())[:2]
    pictures = sorted(first.iterdir())
    shutil.copy(pictures[0], here / "test" / first.name / f"leak{pictures[0].suffix}")
    shutil.copy(pictures[1], second / f"contradiction{pictures[1].suffix}")
    (first / "broken.jpg").write_bytes(b"no picture")
    (here / "test" / first.name / "cut.jpg").write_bytes(b"no picture either")
    return here


def test_findings_are_recorded_and_unreadable_files_named_at_the_end(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(folder), "--out", str(out), *OPTIONS]) == 0
    said = capsys.readouterr().err.splitlines()
    assert all(name in said[-1] for name in ("broken.jpg", "cut.jpg"))

    run = peewit.Run.open(out)
    kinds = {one["kind"]: one for one in run.findings["kinds"]}
    assert set(kinds) == {"unreadable", "identical in two parts", "identical with two labels"}
    assert kinds["unreadable"]["pictures"] == 2
    assert kinds["identical in two parts"]["pictures"] == 2
    (pair,) = kinds["identical with two labels"]["sets"]
    assert len(pair) == 2
    assert any("contradiction" in name for name in pair)
    with (out / runfolder.SPLIT).open() as file:
        parts = {row["name"]: row["part"] for row in csv.DictReader(file)}
    left_out = {name for name, part in parts.items() if part == "left out"}
    assert left_out == {one for names in kinds["unreadable"]["sets"] for one in names}

    page = (out / runfolder.REPORT).read_text(encoding="utf-8")
    assert all(name in page for name in ("broken.jpg", "cut.jpg", *pair))
    assert page.count(f'<span class="file">{pair[0]}</span>') == 1  # below its picture


def test_a_report_without_data_or_without_findings_has_no_pictures_of_them(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert main(["train", str(folder), "--out", str(out), *OPTIONS]) == 0
    shutil.rmtree(folder)
    page = write_report(peewit.Run.open(out)).read_text(encoding="utf-8")
    assert "broken.jpg" in page
    assert '<span class="file">' not in page

    # as written by an older version
    facts = json.loads((out / runfolder.FACTS).read_text(encoding="utf-8"))
    del facts["findings"]
    (out / runfolder.FACTS).write_text(json.dumps(facts), encoding="utf-8")
    run = peewit.Run.open(out)
    assert run.findings == {}
    assert "broken.jpg" not in write_report(run).read_text(encoding="utf-8")
