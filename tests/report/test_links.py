"""Mistakes are named after their files, and linked if a browser can open them."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import pytest

from peewit.report import write_report
from peewit.report.links import link, pictures_folder
from peewit.report.prediction_tables import write_prediction_tables
from peewit.runs.run import Run

Make = Callable[..., Any]
HOSTILE = 'dog/"><script>alert(1)</script> #?%.jpg'


def target(page: Path, url: str) -> Path:
    """Return the file that a browser opens."""
    return Path(unquote(urlsplit(urljoin(page.absolute().as_uri(), url)).path))


@pytest.mark.parametrize("name", ["cat/a.jpg", "a b/ü#?%:.jpg", "x:y.jpg", "-1.jpg"])
def test_link_leads_to_the_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir(parents=True)
    file.touch()
    page = tmp_path / "runs/a/report.html"
    url = link(tmp_path / "data", name, page)
    assert target(page, url) == file
    assert not urlsplit(url).scheme


def test_no_link_without_a_file(tmp_path: Path) -> None:
    assert link(tmp_path, "gone.jpg", tmp_path / "report.html") == ""
    assert link(None, "a.jpg", tmp_path / "report.html") == ""


def test_folder_of_the_pictures(tmp_path: Path) -> None:
    for name in ("a.zip", "a.csv"):
        (tmp_path / name).touch()
    assert pictures_folder({"source": str(tmp_path)}) == tmp_path
    assert pictures_folder({"source": str(tmp_path / "a.csv")}) == tmp_path
    assert pictures_folder({"source": str(tmp_path / "a.zip")}) is None
    assert pictures_folder({"source": "cifar10", "data": str(tmp_path)}) is None
    assert pictures_folder({}) is None


def with_names(make: Make, source: Any, names: list[str]) -> tuple[Run, Any]:
    tested = make(["cat", "dog"], pictures=len(names))
    judged = dataclasses.replace(tested.evidence.judged, names=names)
    logits = np.full((len(names), 2), 1.0, np.float32)
    logits[:, 0] = 2  # every second picture is a mistake
    evidence = dataclasses.replace(tested.evidence, judged=judged, logits=logits)
    run = dataclasses.replace(tested.run, source={"source": str(source), "data": None})
    return run, evidence


def test_report_names_and_links_the_files(make: Make, tmp_path: Path) -> None:
    names = ["cat/0.jpg", "dog/1.jpg", "cat/2.jpg", HOSTILE, "cat/4.jpg", "caf\udce9.jpg"]
    data = tmp_path / "data"
    for name in names[:3]:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    run, evidence = with_names(make, data, names)
    path = write_report(run, evidence)
    page = path.read_text(encoding="utf-8")
    links = [url for url in _hrefs(page) if not url.startswith(("#", "data:"))]
    found = {target(path, url) for url in links}
    assert found == {data / name for name in names[:3]}
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "caf\\udce9.jpg" in page  # not valid UTF-8


def _hrefs(page: str) -> list[str]:
    from html.parser import HTMLParser

    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name == "href")

    Links().feed(page)
    return found


def test_report_about_an_archive_names_the_files_without_links(make: Make, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/0.jpg").touch()
    (tmp_path / "data.zip").touch()
    run, evidence = with_names(make, tmp_path / "data.zip", ["cat/0.jpg", "cat/1.jpg"])
    page = write_report(run, evidence).read_text(encoding="utf-8")
    assert "cat/1.jpg" in page
    assert all(url.startswith("#") for url in _hrefs(page))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_have_every_prediction_and_the_mistakes_by_confidence(
    make: Make, tmp_path: Path
) -> None:
    names = ["a.jpg", "=b.jpg", "c.jpg", "d.jpg"]
    data = dataclasses.replace(make(["cat", "dog"], pictures=4).evidence.judged, names=names)
    share = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], np.float32)
    write_prediction_tables(tmp_path, data, share, "test")
    rows = table(tmp_path / "predictions.csv")
    assert [row["file"] for row in rows] == ["a.jpg", "./=b.jpg", "c.jpg", "d.jpg"]
    assert [row["label"] for row in rows] == ["cat", "dog", "cat", "dog"]
    assert [row["predicted"] for row in rows] == ["cat", "cat", "dog", "cat"]
    assert [row["correct"] for row in rows] == ["yes", "no", "no", "no"]
    assert {row["part"] for row in rows} == {"test"}
    assert [float(row["confidence"]) for row in rows] == pytest.approx([0.9, 0.6, 0.8, 0.7])
    mistakes = table(tmp_path / "mistakes.csv")
    assert [row["file"] for row in mistakes] == ["c.jpg", "d.jpg", "./=b.jpg"]


def test_images_without_names_are_numbered(make: Make, tmp_path: Path) -> None:
    data = make(["cat", "dog"], pictures=3).evidence.judged
    write_prediction_tables(tmp_path, data, np.full((3, 2), 0.5, np.float32), "validation")
    assert [row["file"] for row in table(tmp_path / "predictions.csv")] == ["0", "1", "2"]
