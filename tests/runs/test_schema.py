"""What is missing or of another kind in a run's folder is said when it is opened, by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from made_runs import make_run
from peewit.__main__ import main
from peewit.errors import PeewitError
from peewit.runs import folder as runfolder
from peewit.runs.run import Run

GONE = object()
TEMPERATURE = {"temperature": 0.5, "images": 60, "error_before": 0.2, "error_after": 0.1}
WRONG = [
    ("accuracy", "much"),
    ("accuracy", True),
    ("accuracy_interval", [0.1]),
    ("accuracy_interval", [0.1, "0.2"]),
    ("loss", float("nan")),
    ("images", 4.0),
    ("images", -1),
    ("split", 1),
    ("top3", None),
    ("calibration_error", {}),
    ("classes", []),
    ("classes", [{"name": "cat"}] * 3),
    ("confusion", [[1, 2, 3]] * 2),
    ("confusion", [[1, 2]] * 3),
    ("confusion", 4),
    ("reliability", [{"images": 4, "confidence": 1.0}]),
    ("reliability", [4]),
    ("fingerprint", 3),
    ("flops", "many"),
    ("gflops", []),
    ("share_of_best", "all"),
    ("single_view_accuracy", None),
    ("temperature_scaling", {"temperature": 1.0}),
]
NEEDED = [
    *("accuracy", "accuracy_interval", "loss", "images", "split", "top3"),
    *("calibration_error", "classes", "confusion"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "one").path


def change(file: Path, work: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    work(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def put(file: Path, name: str, value: object) -> None:
    def work(content: dict[str, Any]) -> None:
        *above, last = name.split(".")
        for part in above:
            content = content[part]
        if value is GONE:
            del content[last]
        else:
            content[last] = value

    change(file, work)


def check_refused(file: Path, name: str, value: object) -> None:
    """Put a value into a file of a run, which must then be refused by its name."""
    put(file, name, value)
    verb = "lacks" if value is GONE else "misstates"
    sentence = rf"cannot read .*{re.escape(file.name)}: it {verb} {name}; replace"
    with pytest.raises(PeewitError, match=sentence):
        Run.open(file.parent)


@pytest.mark.parametrize(("name", "value"), [*((name, GONE) for name in NEEDED), *WRONG])
def test_a_number_of_the_test_that_is_missing_or_of_another_kind_is_named(
    folder: Path, name: str, value: object
) -> None:
    check_refused(folder / runfolder.METRICS, name, value)


@pytest.mark.parametrize("field", ["name", "images", "predicted", "precision", "recall", "f1"])
def test_a_class_without_one_of_its_numbers_is_refused(folder: Path, field: str) -> None:
    change(folder / runfolder.METRICS, lambda metrics: metrics["classes"][1].pop(field))
    with pytest.raises(PeewitError, match=r"metrics\.json: it misstates classes"):
        Run.open(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", GONE),
        ("dataset", []),
        ("environment", GONE),
        ("environment", [[1, 2]]),
        ("dataset.origin", 3),
        ("dataset.images", None),
        ("dataset.images", {"training": "many"}),
        ("dataset.images", {"training": True}),
        ("dataset.fingerprints", None),
        ("dataset.fingerprints", {"test": 3}),
    ],
)
def test_facts_that_are_missing_or_of_another_kind_are_named(
    folder: Path, name: str, value: object
) -> None:
    check_refused(folder / runfolder.FACTS, name, value)


def test_what_only_some_runs_have_is_not_asked_for(folder: Path) -> None:
    metrics = {"gflops": 10, "flops": 5e9, "temperature_scaling": TEMPERATURE, "fingerprint": "a"}
    change(folder / runfolder.METRICS, lambda content: content.update(metrics))
    images = {"training": 9, "validation": 1, "test": 0}
    put(folder / runfolder.FACTS, "dataset.images", images)
    put(folder / runfolder.FACTS, "dataset.fingerprints", {"training": "a", "test": ""})
    assert Run.open(folder).dataset["images"] == images
    # as older and imported runs are
    for name in (*metrics, "reliability"):
        put(folder / runfolder.METRICS, name, GONE)
    put(folder / runfolder.FACTS, "dataset", {})
    assert Run.open(folder).dataset == {}


def test_one_spoilt_run_does_not_hide_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(make_run(folder.parent / "two").path / runfolder.FACTS, "dataset.images", None)
    assert main(["runs", str(folder.parent)]) == 0
    said = capsys.readouterr()
    assert str(folder) in said.out
    assert "it misstates dataset.images" in said.err
