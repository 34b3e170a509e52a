"""Missing and invalid fields of a run folder are reported by name when the run is opened."""

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

MISSING = object()
TEMPERATURE = {"temperature": 0.5, "images": 60, "error_before": 0.2, "error_after": 0.1}
INVALID = [
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
    ("also_in_training", {"images": 3, "indices": [1], "accuracy_without": "all"}),
    ("also_in_training", {"images": 3, "indices": 1, "accuracy_without": None}),
    ("temperature_scaling", {"temperature": 1.0}),
]
REQUIRED = [
    *("accuracy", "accuracy_interval", "loss", "images", "split", "top3"),
    *("calibration_error", "classes", "confusion"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "one").path


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def put(file: Path, name: str, value: object) -> None:
    def change(content: dict[str, Any]) -> None:
        *above, last = name.split(".")
        for part in above:
            content = content[part]
        if value is MISSING:
            del content[last]
        else:
            content[last] = value

    edit(file, change)


def check_refused(file: Path, name: str, value: object) -> None:
    """Check that the field ``name`` with ``value`` is refused, and named in the error."""
    put(file, name, value)
    problem = "missing" if value is MISSING else "not valid"
    sentence = rf"cannot read .*{re.escape(file.name)}: {re.escape(name)} is {problem}; "
    with pytest.raises(PeewitError, match=sentence):
        Run.open(file.parent)


@pytest.mark.parametrize(("name", "value"), [*((name, MISSING) for name in REQUIRED), *INVALID])
def test_missing_and_invalid_metrics_are_named(folder: Path, name: str, value: object) -> None:
    check_refused(folder / runfolder.METRICS, name, value)


@pytest.mark.parametrize("field", ["name", "images", "predicted", "precision", "recall", "f1"])
def test_incomplete_scores_of_a_class_are_refused(folder: Path, field: str) -> None:
    edit(folder / runfolder.METRICS, lambda metrics: metrics["classes"][1].pop(field))
    with pytest.raises(PeewitError, match=r"metrics\.json: classes is not valid"):
        Run.open(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", MISSING),
        ("dataset", []),
        ("environment", MISSING),
        ("environment", [[1, 2]]),
        ("dataset.origin", 3),
        ("dataset.images", None),
        ("dataset.images", {"training": "many"}),
        ("dataset.images", {"training": True}),
        ("dataset.fingerprints", None),
        ("dataset.fingerprints", {"test": 3}),
    ],
)
def test_missing_and_invalid_facts_are_named(folder: Path, name: str, value: object) -> None:
    check_refused(folder / runfolder.FACTS, name, value)


def test_optional_fields_may_be_missing(folder: Path) -> None:
    metrics = {"gflops": 10, "flops": 5e9, "temperature_scaling": TEMPERATURE, "fingerprint": "a"}
    edit(folder / runfolder.METRICS, lambda content: content.update(metrics))
    images = {"training": 9, "validation": 1, "test": 0}
    put(folder / runfolder.FACTS, "dataset.images", images)
    put(folder / runfolder.FACTS, "dataset.fingerprints", {"training": "a", "test": ""})
    assert Run.open(folder).dataset["images"] == images
    # As in older and imported runs
    for name in (*metrics, "reliability"):
        put(folder / runfolder.METRICS, name, MISSING)
    put(folder / runfolder.FACTS, "dataset", {})
    assert Run.open(folder).dataset == {}


def test_one_broken_run_does_not_hide_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(make_run(folder.parent / "two").path / runfolder.FACTS, "dataset.images", None)
    assert main(["runs", str(folder.parent)]) == 0
    output = capsys.readouterr()
    assert str(folder) in output.out
    assert "dataset.images" in output.err
