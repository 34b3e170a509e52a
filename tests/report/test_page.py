"""The page of a run: it says all, escapes all, loads nothing, and can be read by everybody."""

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


def loads_nothing(page: Any) -> None:
    """Check that the page needs no network, and that its policy forbids it whatever comes."""
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


def for_everybody(page: Any) -> None:
    """Check what a screen reader, a keyboard and a phone need."""
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
    # what scrolls can be reached by the keyboard, and has a name
    scrolled = [one for one in page.all("div") if one.get("class") == "scroll"]
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in scrolled)
    assert all(one.get("scope") for one in page.all("th"))
    ids = [one["id"] for _, one in page.tags if one.get("id")]
    assert len(set(ids)) == len(ids)
    targets = [one["href"].removeprefix("#") for one in page.all("a")]
    assert set(targets) <= set(ids)


def test_it_has_every_section_and_can_be_read_by_everybody(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog", "größe"], noise=2.0)
    path = write_report(run, evidence)
    page = read(path)
    assert path == run.path / "report.html"
    loads_nothing(page)
    for_everybody(page)
    assert [one["id"] for one in page.all("section")] == SECTIONS
    assert [one["href"] for one in page.all("a")] == [f"#{name}" for name in SECTIONS]
    assert page.headings[0] == (1, "run")
    metrics = run.metrics
    low, high = metrics["accuracy_interval"]
    for words in (
        f"{metrics['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%} (95 % interval)",
        "The network is tutorial",
        "learning rate of 0.001",
        "größe",
        "20 s",
        f"peewit train cifar10 --recipe {run.path / 'recipe.yaml'}",
        "peewit x",
        "2026-01-02 03:04",
    ):
        assert words in page.text, words


def test_the_pictures_are_files_too(make: Any) -> None:
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


def test_the_same_run_gives_the_same_page(make: Any, tmp_path: Path) -> None:
    run, evidence = make(["cat", "dog", "bird"], noise=2.0)
    first = write_report(run, evidence, out=tmp_path / "a.html").read_bytes()
    assert write_report(run, evidence, out=tmp_path / "b.html").read_bytes() == first


def test_elsewhere_nothing_else_is_written(make: Any, tmp_path: Path) -> None:
    run, evidence = make(["cat", "dog"])
    before = sorted(run.path.iterdir())
    assert write_report(run, evidence, out=tmp_path / "a.html") == tmp_path / "a.html"
    assert sorted(run.path.iterdir()) == before


def test_the_pictures_are_the_data_s_own(make: Any, read: Any, tmp_path: Path) -> None:
    run, evidence = make(["cat", "dog", "bird"], noise=2.0)
    page = read(write_report(run, evidence, out=tmp_path / "a.html"))
    shown = []
    for image in page.all("img"):
        kind, _, content = image["src"].partition(",")
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        if kind == "data:image/png;base64" and picture.size == (22, 22):
            shown.append(np.asarray(picture))
    wrong = np.flatnonzero(evidence.predicted != evidence.judged.labels)
    surest = max(wrong, key=lambda index: evidence.probabilities[index].max())
    assert any(np.array_equal(one, evidence.judged.images[surest]) for one in shown)
    everything = evidence.judged.images
    assert all((one == everything).all(axis=(1, 2, 3)).any() for one in shown)


@pytest.mark.parametrize("classes", [2, 3, 30])
def test_names_from_outside_are_text(make: Any, read: Any, tmp_path: Path, classes: int) -> None:
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
        loads_nothing(page)
        assert "<script" not in path.read_text(encoding="utf-8").lower()
        assert folder in page.text
        assert SCRIPT in page.text
        assert "{{7*7}} &amp;" in page.text
        assert "--data ''\"'\"'; rm -rf ~' --coarse" in page.text


def test_a_hundred_classes_have_a_picture_of_their_matrix(make: Any, read: Any) -> None:
    run, evidence = make([f"class {number}" for number in range(100)], pictures=200, noise=2.0)
    page = read(write_report(run, evidence, out=run.path.parent / "a.html"))
    for_everybody(page)
    (matrix,) = (one for one in page.all("img") if one.get("class") == "matrix")
    with Image.open(io.BytesIO(base64.b64decode(matrix["src"].partition(",")[2]))) as picture:
        assert picture.size == (100, 100)
    assert not [one for one in page.all("table") if one.get("class") == "confusion"]
    assert "Most frequent confusions" in page.text
    assert (run.path.parent / "a.html").stat().st_size < 1_000_000


def test_two_classes_have_no_top_3(make: Any, read: Any) -> None:
    run, evidence = make(["no", "yes"])
    page = read(write_report(run, evidence, out=run.path.parent / "a.html"))
    assert "Top 3" not in page.text
    cells = [one for one in page.all("td") if re.fullmatch(r"c\d+", one.get("class") or "")]
    assert len(cells) == 4


@pytest.mark.parametrize("noise", [0.0, 100.0])
def test_one_picture(make: Any, read: Any, noise: float) -> None:
    run, evidence = make(["no", "yes", "perhaps"], pictures=1, noise=noise)
    page = read(write_report(run, evidence))
    right = evidence.predicted[0] == 0
    assert right == (noise == 0.0)
    assert ("It made no mistake." in page.text) == right
    assert ("It confused nothing." in page.text) == right
    assert ("The only one, in 1 pictures." in page.text) == (not right)
    for_everybody(page)


def test_grey_pictures(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog"], channels=1, noise=3.0)
    page = read(write_report(run, evidence))
    assert "It reads grey pictures of 22 x 22 pixels" in page.text
    assert (run.path / "filters.png").is_file()


def test_large_pictures_are_made_small(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog"], pictures=4, size=500)
    path = write_report(run, evidence, out=run.path.parent / "a.html")
    for image in read(path).all("img"):
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as picture:
            assert max(picture.size) <= 192


def test_without_the_data_it_has_the_pictures_that_the_training_left(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog", "bird"], noise=2.0)
    write_report(run, evidence)
    page = read(write_report(run, None, missing="the archive is gone"))
    loads_nothing(page)
    for_everybody(page)
    kept = {one["alt"]: one["src"] for one in page.all("img") if one.get("class") == "file"}
    for name, alt in (
        ("uncertain.png", "The least confident answers"),
        ("heatmaps.png", "Heat maps over pictures"),
        ("samples.png", "Some of the training pictures"),
    ):
        content = base64.b64encode((run.path / name).read_bytes()).decode()
        assert kept[alt] == f"data:image/png;base64,{content}"
    # this one is not there: only the training itself draws it
    assert "Left out: the archive is gone." in page.text
    assert f"{run.metrics['accuracy']:.1%}" in page.text
    assert [one["id"] for one in page.all("section")] == SECTIONS


def test_without_anything_it_says_so(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    page = read(write_report(run))
    assert page.text.count("Left out: the pictures were not at hand.") == 4
    assert "made after the training" not in page.text


def test_numbers_that_an_older_run_lacks_are_computed(make: Any, read: Any) -> None:
    run, evidence = make(["cat", "dog"], noise=2.0)
    del run.metrics["reliability"]
    with_data = read(write_report(run, evidence, out=run.path / "a.html"))
    assert "mean confidence" in with_data.text
    without = read(write_report(run, out=run.path / "b.html"))
    assert "mean confidence" not in without.text


def test_how_it_was_calibrated_is_said(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    assert "temperature" not in read(write_report(run)).text
    found = {"temperature": 0.5, "images": 70, "error_before": 0.2, "error_after": 0.02}
    runfolder.write_metrics(run.path, run.metrics | {"temperature_scaling": found})
    assert "20.0% before and is 2.0% now" in read(write_report(Run.open(run.path))).text


def test_what_was_chosen_on_the_test_set_is_said(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    runfolder.write_recipe(run.path, run.recipe.replace(validate_on="test"))
    assert "makes this accuracy too hopeful" in read(write_report(Run.open(run.path))).text


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_unfinished_run(make: Any, read: Any, epochs: int) -> None:
    run, _ = make(["cat", "dog"])
    runfolder.write_finished(run.path, False)
    runfolder.write_history(run.path, run.history[:epochs])
    if not epochs:
        (run.path / runfolder.WEIGHTS).unlink()
    page = read(write_report(Run.open(run.path)))
    for_everybody(page)
    assert f"This run is interrupted after {epochs} of 2 epochs" in page.text
    assert ("no epoch has ended yet" in page.text) == (not epochs)
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
    assert "Left out" not in page.text


def test_an_imported_run(make: Any, read: Any) -> None:
    run, _ = make(["cat", "dog"])
    facts = runfolder.read_json(run.path / "run.json")
    facts |= {"finished": False, "imported": {"file": "model.h5"}, "source": {}}
    runfolder.write_facts(run.path, facts)
    (run.path / runfolder.HISTORY).unlink()
    (run.path / runfolder.METRICS).unlink()
    page = read(write_report(Run.open(run.path)))
    for_everybody(page)
    assert "This run was imported, and has not been tested yet" in page.text
    # nobody knows how it was trained, so nothing is claimed of that
    assert "epoch" not in page.text.partition("The whole recipe")[0]
    there = [one["id"] for one in page.all("section")]
    assert there == ["recipe", "filters", "data", "environment"]


def test_a_network_without_heat_maps(make: Any, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PeewitError("there is no heat map", "no layer keeps places apart")

    monkeypatch.setattr(write, "explain", fail)
    run, evidence = make(["cat", "dog"])
    page = read(write_report(run, evidence))
    assert "Left out: there is no heat map: no layer keeps places apart." in page.text
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
def test_a_report_that_fails_after_the_training_is_only_a_note(
    make: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(write, "render", fail)
    run, evidence = make(["cat", "dog"])
    notes: list[str] = []
    report.after_training(run, evidence, notes.append)
    assert notes == [f"there is no report ({reason}); everything else is there, see {run.path}"]
    assert not (run.path / "report.html").exists()
    assert Run.open(run.path).status == "finished"


def test_where_it_cannot_be_written_that_is_said(make: Any, tmp_path: Path) -> None:
    run, _ = make(["cat", "dog"])
    with pytest.raises(PeewitError, match=r"cannot write .*a\.html: no such file or directory"):
        write_report(run, out=tmp_path / "missing" / "a.html")


def test_gathering_asks_for_the_data_that_the_run_knows(make: Any, archive: Path) -> None:
    run, _ = make([*"abcdefghij"])
    with pytest.raises(PeewitError, match="does not say how its data is loaded"):
        report.gather(_changed(run, source={}))
    here = {"source": "cifar10", "data": str(archive), "coarse": False}
    with pytest.raises(PeewitError, match="the test images are not those that the run knows"):
        report.gather(_changed(run, source=here, dataset={"fingerprints": {"test": "0" * 64}}))
    with pytest.raises(PeewitError, match="cannot be told from the others"):
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
