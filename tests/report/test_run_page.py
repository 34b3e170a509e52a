"""The page of a run: complete, escaped, self-contained and accessible."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peewit import report
from peewit.errors import PeewitError
from peewit.report import write, write_report
from peewit.runs import folder as runfolder
from peewit.runs.comparison import VALIDATED_ON_TEST_SET
from peewit.runs.run import Run

SCRIPT = "<script>alert('1')</script>"
SECTIONS = [
    "recipe",
    "curves",
    "confusion",
    "classes",
    "mistakes",
    "uncertain",
    "reliability",
    "heat",
    "filters",
    "cost",
    "data",
    "environment",
    "again",
]


def check_self_contained(page: Any) -> None:
    """Check that the page loads nothing, and that its content security policy forbids it."""
    for name, value in page.values():
        if name in ("src", "href"):
            assert value.startswith(("data:image/", "#")), (name, value[:80])
        assert not name.startswith("on"), name
        assert name not in ("srcset", "action", "style"), name
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "foreignobject",
    }
    assert "@import" not in page.style
    assert "url(" not in page.style
    policy = next(
        one["content"]
        for one in page.all("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    )
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert parts == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def check_accessible(page: Any) -> None:
    """Check what screen readers, keyboards and phones need."""
    assert page.all("html")[0]["lang"] == "en"
    assert any(one.get("name") == "viewport" for one in page.all("meta"))
    assert all(one["alt"].strip() for one in page.all("img"))
    charts = [one for one in page.all("svg") if one.get("aria-hidden") != "true"]
    assert all(one["role"] == "img" and one["aria-label"].strip() for one in charts)
    levels = [level for level, _ in page.headings]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert all(text.strip() for _, text in page.headings)
    # Scrollable regions can be reached with the keyboard, and have a name
    scrolled = [one for one in page.all("div") if one.get("class") == "scroll"]
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in scrolled)
    assert all(one.get("scope") for one in page.all("th"))
    ids = [one["id"] for _, one in page.tags if one.get("id")]
    assert len(set(ids)) == len(ids)
    targets = [one["href"].removeprefix("#") for one in page.all("a")]
    assert set(targets) <= set(ids)


def test_the_page_has_every_section_and_is_accessible(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog", "größe"], noise=2.0)
    path = write_report(run, evidence)
    page = read(path)
    assert path == run.path / "report.html"
    check_self_contained(page)
    check_accessible(page)
    assert [one["id"] for one in page.all("section")] == SECTIONS
    assert [one["href"] for one in page.all("a")] == [f"#{name}" for name in SECTIONS]
    assert page.headings[0] == (1, "run")
    metrics = run.metrics
    low, high = metrics["accuracy_interval"]
    for words in (
        f"{metrics['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%} (95% confidence interval)",
        "The model is tutorial",
        "learning rate 0.001",
        "größe",
        "20 s",
        f"peewit train cifar10 --recipe {run.path / 'recipe.yaml'}",
        "peewit x",
        "2026-01-02 03:04",
    ):
        assert words in page.text, words


def test_the_pictures_are_also_saved_as_files(make: Any) -> None:
    run, evidence = make(["cat", "dog", "bird"], noise=2.0)
    write_report(run, evidence)
    made = {path.name for path in run.path.glob("*.png")}
    assert made == {
        "uncertain.png",
        "reliability.png",
        "samples.png",
        "filters.png",
        "heatmaps.png",
    }
    for name in made:
        with Image.open(run.path / name) as picture:
            picture.verify()


def test_the_same_run_has_the_same_page(make: Any, tmp_path: Path) -> None:
    run, evidence = make(["cat", "dog", "bird"], noise=2.0)
    first = write_report(run, evidence, out=tmp_path / "a.html").read_bytes()
    assert write_report(run, evidence, out=tmp_path / "b.html").read_bytes() == first


def test_with_another_output_file_nothing_else_is_written(make: Any, tmp_path: Path) -> None:
    run, evidence = make(["cat", "dog"])
    before = sorted(run.path.iterdir())
    assert write_report(run, evidence, out=tmp_path / "a.html") == tmp_path / "a.html"
    assert sorted(run.path.iterdir()) == before


def test_small_images_are_embedded_unchanged(make: Any, read: Any, tmp_path: Path) -> None:
    run, evidence = make(["cat", "dog", "bird"], noise=2.0)
    page = read(write_report(run, evidence, out=tmp_path / "a.html"))
    shown = []
    for image in page.all("img"):
        kind, _, content = image["src"].partition(",")
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        if kind == "data:image/png;base64" and picture.size == (22, 22):
            shown.append(np.asarray(picture))
    wrong = np.flatnonzero(evidence.predicted != evidence.judged.labels)
    most_confident = max(wrong, key=lambda index: evidence.probabilities[index].max())
    assert any(np.array_equal(one, evidence.judged.images[most_confident]) for one in shown)
    everything = evidence.judged.images
    assert all((one == everything).all(axis=(1, 2, 3)).any() for one in shown)


@pytest.mark.parametrize("classes", [2, 3, 30])
def test_external_names_are_escaped(make: Any, read: Any, tmp_path: Path, classes: int) -> None:
    names = [f"{SCRIPT}{number}" for number in range(classes - 1)] + ['" onload="x\' {{7*7}} &amp;']
    folder = "<img src=x onerror=alert(2)>"
    run, evidence = make(names, noise=3.0, folder=folder)
    facts = json.loads((run.path / "run.json").read_text())
    facts["environment"]["command"] = SCRIPT
    facts["environment"][SCRIPT] = SCRIPT
    facts["dataset"]["origin"] = SCRIPT
    facts["source"] = {"source": SCRIPT, "data": "'; rm -rf ~", "coarse": True}
    (run.path / "run.json").write_text(json.dumps(facts))
    run = Run.open(run.path)
    for given, missing in ((evidence, ""), (None, SCRIPT)):
        path = write_report(run, given, missing=missing, out=tmp_path / "a.html")
        page = read(path)
        check_self_contained(page)
        assert "<script" not in path.read_text(encoding="utf-8").lower()
        assert folder in page.text
        assert SCRIPT in page.text
        assert "{{7*7}} &amp;" in page.text
        assert "--data ''\"'\"'; rm -rf ~' --coarse" in page.text


def test_the_confusion_matrix_of_a_hundred_classes_is_a_picture(make: Any, read: Any) -> None:
    run, evidence = make([f"class {number}" for number in range(100)], pictures=200, noise=2.0)
    page = read(write_report(run, evidence, out=run.path.parent / "a.html"))
    check_accessible(page)
    (matrix,) = (one for one in page.all("img") if one.get("class") == "matrix")
    with Image.open(io.BytesIO(base64.b64decode(matrix["src"].partition(",")[2]))) as picture:
        assert picture.size == (100, 100)
    assert not [one for one in page.all("table") if one.get("class") == "confusion"]
    assert "Most frequent confusions" in page.text
    assert (run.path.parent / "a.html").stat().st_size < 1_000_000


def test_two_classes_have_no_top_3_accuracy(make: Any, read: Any) -> None:
    run, evidence = make(["no", "yes"])
    page = read(write_report(run, evidence, out=run.path.parent / "a.html"))
    assert "Top-3" not in page.text
    cells = [one for one in page.all("td") if re.fullmatch(r"c\d+", one.get("class") or "")]
    assert len(cells) == 4


@pytest.mark.parametrize("noise", [0.0, 100.0])
def test_a_single_test_image(make: Any, read: Any, noise: float) -> None:
    run, evidence = make(["no", "yes", "perhaps"], pictures=1, noise=noise)
    page = read(write_report(run, evidence))
    right = evidence.predicted[0] == 0
    assert right == (noise == 0.0)
    assert ("There are no mistakes." in page.text) == right
    assert ("No confusions." in page.text) == right
    assert ("The only mistake in 1 image." in page.text) == (not right)
    check_accessible(page)


def test_grey_images(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog"], channels=1, noise=3.0)
    page = read(write_report(run, evidence))
    assert "grey images of 22 x 22 pixels" in page.text
    assert (run.path / "filters.png").is_file()


@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_embedded_as_thumbnails(make: Any, read: Any, channels: int) -> None:
    run, evidence = make(["cat", "dog"], pictures=4, size=500, channels=channels)
    path = write_report(run, evidence, out=run.path.parent / "a.html")
    for image in read(path).all("img"):
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as picture:
            assert max(picture.size) <= 192


def test_without_the_data_the_page_shows_the_picture_files_of_the_run(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog", "bird"], noise=2.0)
    write_report(run, evidence)
    page = read(write_report(run, None, missing="the archive is gone"))
    check_self_contained(page)
    check_accessible(page)
    kept = {one["alt"]: one["src"] for one in page.all("img") if one.get("class") == "file"}
    for name, alt in (
        ("uncertain.png", "The least confident predictions"),
        ("heatmaps.png", "Heat maps over images"),
        ("samples.png", "Training images"),
    ):
        content = base64.b64encode((run.path / name).read_bytes()).decode()
        assert kept[alt] == f"data:image/png;base64,{content}"
    # mistakes.png is missing: only the training itself draws it
    assert "Not available: the archive is gone." in page.text
    assert f"{run.metrics['accuracy']:.1%}" in page.text
    assert [one["id"] for one in page.all("section")] == SECTIONS


def test_missing_pictures_are_reported(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    page = read(write_report(run))
    assert page.text.count("Not available: the images were not loaded.") == 4
    assert "saved at the end of the training" not in page.text


def test_metrics_missing_in_an_older_run_are_computed(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog"], noise=2.0)
    del run.metrics["reliability"]
    with_data = read(write_report(run, evidence, out=run.path / "a.html"))
    assert "The mean confidence is" in with_data.text
    without = read(write_report(run, out=run.path / "b.html"))
    assert "The mean confidence is" not in without.text


def test_the_calibration_is_described(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    assert "temperature" not in read(write_report(run)).text
    found = {"temperature": 0.5, "images": 70, "error_before": 0.2, "error_after": 0.02}
    runfolder.write_metrics(run.path, run.metrics | {"temperature_scaling": found})
    assert "from 20.0% to 2.0%" in read(write_report(Run.open(run.path))).text


def test_validation_on_the_test_set_shows_a_warning(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    runfolder.write_recipe(run.path, run.recipe.replace(validate_on="test"))
    text = read(write_report(Run.open(run.path))).text
    assert f"Caution: {VALIDATED_ON_TEST_SET}." in text
    assert "optimistic" in text


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_unfinished_run(make: Any, read: Any, epochs: int) -> None:
    run, _ = make(["cat", "dog"])
    runfolder.write_finished(run.path, False)
    runfolder.write_history(run.path, run.history[:epochs])
    if not epochs:
        (run.path / runfolder.WEIGHTS).unlink()
    page = read(write_report(Run.open(run.path)))
    check_accessible(page)
    assert f"This run is interrupted after {epochs} of 2 epochs" in page.text
    assert ("no finished epoch" in page.text) == (not epochs)
    there = [one["id"] for one in page.all("section")]
    assert there == [
        name
        for name, known in (
            ("recipe", True),
            ("curves", True),
            ("filters", epochs),
            ("cost", epochs),
            ("data", True),
            ("environment", True),
            ("again", True),
        )
        if known
    ]
    assert "Not available" not in page.text


def test_an_imported_run(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    facts = runfolder.read_json(run.path / "run.json")
    facts |= {"finished": False, "imported": {"file": "model.h5"}, "source": {}}
    runfolder.write_facts(run.path, facts)
    (run.path / runfolder.HISTORY).unlink()
    (run.path / runfolder.METRICS).unlink()
    page = read(write_report(Run.open(run.path)))
    check_accessible(page)
    assert "This run was imported and has not been tested yet" in page.text
    # How it was trained is not known, so the page says nothing about it
    assert "epoch" not in page.text
    there = [one["id"] for one in page.all("section")]
    assert there == ["recipe", "filters", "data", "environment"]


def test_a_model_without_heat_maps(make: Any, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PeewitError("there is no heat map", "no layer keeps places apart")

    monkeypatch.setattr(write, "explain", fail)
    run, evidence = make(["cat", "dog"])
    page = read(write_report(run, evidence))
    assert "Not available: there is no heat map: no layer keeps places apart." in page.text
    assert not (run.path / "heatmaps.png").exists()
    assert (run.path / "filters.png").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PeewitError("the disk is full"), "the disk is full"),
        (ValueError("a bug"), "ValueError: a bug"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_report_failure_after_training_is_only_a_note(
    make: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(write, "render", fail)
    run, evidence = make(["cat", "dog"])
    notes: list[str] = []
    report.after_training(run, evidence, notes.append)
    (sentence,) = notes
    assert f"({reason})" in sentence
    assert str(run.path) in sentence
    assert not (run.path / "report.html").exists()
    assert Run.open(run.path).status == "finished"


def test_a_page_that_cannot_be_written_is_an_error(make: Any, tmp_path: Path) -> None:
    run, _ = make(["cat", "dog"])
    with pytest.raises(PeewitError, match=r"cannot write .*a\.html: no such file or directory"):
        write_report(run, out=tmp_path / "missing" / "a.html")


def test_gather_refuses_data_other_than_that_of_the_run(make: Any, archive: Path) -> None:
    run, _ = make([*"abcdefghij"])
    with pytest.raises(PeewitError, match="does not record where its data came from"):
        report.gather(_changed(run, source={}))
    here = {"source": "cifar10", "data": str(archive), "coarse": False}
    with pytest.raises(PeewitError, match="the test images are not those"):
        report.gather(_changed(run, source=here, dataset={"fingerprints": {"test": "0" * 64}}))
    with pytest.raises(PeewitError, match="images of the final test cannot be identified"):
        report.gather(_changed(run, source=here, dataset={}))
    unfinished = _changed(run, source=here, finished=False)
    with pytest.raises(PeewitError, match="has not been tested yet"):
        report.gather(unfinished)


def _changed(run: Run, **changes: Any) -> Run:
    copy = run.path.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run.path, copy)
    runfolder.write_facts(copy, runfolder.read_json(copy / "run.json") | changes)
    return Run.open(copy)
