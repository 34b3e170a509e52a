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
SCORES = {"name": "a", "images": 1, "predicted": 1, "precision": 1, "recall": 1, "f1": 1}
HUGE = 10**400
# a value, and where the error is if it is within the value
INVALID = [
    ("accuracy", "much", ""),
    ("accuracy", True, ""),
    ("accuracy", 39.8, ""),
    ("accuracy_interval", [0.1], ""),
    ("accuracy_interval", [0.1, "0.2"], "[1]"),
    ("loss", HUGE, ""),
    ("loss", -1, ""),
    ("images", 4.0, ""),
    ("images", -1, ""),
    ("images", HUGE, ""),
    ("split", 1, ""),
    ("split", "training", ""),
    ("top3", None, ""),
    ("calibration_error", {}, ""),
    ("classes", [SCORES, SCORES, SCORES | {"f1": None}], "[2].f1"),
    ("confusion", [[1, 2, "3"]] * 3, "[0][2]"),
    ("confusion", 4, ""),
    ("reliability", [4], "[0]"),
    ("fingerprint", 3, ""),
    ("flops", "many", ""),
    ("gflops", [], ""),
    ("share_of_best", "all", ""),
    ("single_view_accuracy", None, ""),
    (
        "also_in_training",
        {"images": 3, "indices": [1], "accuracy_without": "all"},
        ".accuracy_without",
    ),
    ("also_in_training", {"images": 3, "indices": 1, "accuracy_without": None}, ".indices"),
    ("temperature_scaling", TEMPERATURE | {"images": 0.5}, ".images"),
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


def check_refused(file: Path, name: str, value: object, within: str = "") -> None:
    """Check that the field ``name`` with ``value`` is refused, and named in the error."""
    put(file, name, value)
    problem = "is missing; " if value is MISSING else r"is not valid \(.*\); "
    sentence = rf"cannot read .*{re.escape(file.name)}: {re.escape(name + within)} {problem}"
    with pytest.raises(PeewitError, match=sentence):
        Run.open(file.parent)


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_metrics_are_named(folder: Path, name: str) -> None:
    check_refused(folder / runfolder.METRICS, name, MISSING)


@pytest.mark.parametrize(("name", "value", "within"), INVALID)
def test_invalid_metrics_are_named(folder: Path, name: str, value: object, within: str) -> None:
    check_refused(folder / runfolder.METRICS, name, value, within)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("loss", float("nan"), "it is not valid JSON"),
        ("loss", float("inf"), "it is not valid JSON"),
        ("classes", [], "classes has 0 of 3 classes"),
        ("confusion", [[1, 2, 3]] * 2, "confusion has 2 of 3 classes"),
        ("confusion", [[1, 2, 3], [1, 2], [1, 2, 3]], "confusion has 2 of 3 classes"),
        ("reliability", [{"images": 4}], r"reliability\[0\].confidence is missing"),
        ("temperature_scaling", {"temperature": 1.0}, "temperature_scaling.images is missing"),
    ],
)
def test_numbers_that_are_not_finite_and_wrong_lengths_are_refused(
    folder: Path, name: str, value: object, sentence: str
) -> None:
    put(folder / runfolder.METRICS, name, value)
    with pytest.raises(PeewitError, match=rf"metrics\.json: {sentence}"):
        Run.open(folder)


@pytest.mark.parametrize("field", ["name", "images", "predicted", "precision", "recall", "f1"])
def test_incomplete_scores_of_a_class_are_refused(folder: Path, field: str) -> None:
    edit(folder / runfolder.METRICS, lambda metrics: metrics["classes"][1].pop(field))
    with pytest.raises(PeewitError, match=rf"metrics\.json: classes\[1\].{field} is missing"):
        Run.open(folder)


@pytest.mark.parametrize(
    ("name", "value", "within"),
    [
        ("finished", "yes", ""),
        ("class_names", MISSING, ""),
        ("class_names", ["cat"], ""),
        ("class_names", ["cat", 3, "dog"], "[1]"),
        ("preprocessing", MISSING, ""),
        ("preprocessing.height", 22.5, ""),
        ("preprocessing.height", HUGE, ""),
        ("preprocessing.width", 0, ""),
        ("preprocessing.channels", 2, ""),
        ("preprocessing.mean", [HUGE] * 3, "[0]"),
        ("preprocessing.std", ["1", 1, 1], "[0]"),
        ("source", "cifar10", ""),
        ("source", {"source": "a\0b"}, ".source"),
        ("source", {"source": "digits", "coarse": 1}, ".coarse"),
        ("dataset", MISSING, ""),
        ("dataset", [], ""),
        ("environment", MISSING, ""),
        ("environment", [[1, 2]], ""),
        ("environment", {"date": [1]}, "[...]"),
        ("unsure_below", "low", ""),
        ("unsure_below", HUGE, ""),
        ("imported", 3, ""),
        ("dataset.origin", 3, ""),
        ("dataset.images", None, ""),
        ("dataset.images", {"training": "many"}, "[...]"),
        ("dataset.images", {"training": True}, "[...]"),
        ("dataset.images", {"training": -1}, "[...]"),
        ("dataset.fingerprints", None, ""),
        ("dataset.fingerprints", {"test": 3}, "[...]"),
    ],
)
def test_missing_and_invalid_facts_are_named(
    folder: Path, name: str, value: object, within: str
) -> None:
    check_refused(folder / runfolder.FACTS, name, value, within)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("epoch", "1.5"),
        ("epoch", "-1"),
        ("epoch", "9" * 5000),
        ("seconds", "nan"),
        ("seconds", "1e300"),
        ("accuracy", "2"),
        ("validation_loss", ""),
        ("flops", "many"),
    ],
)
def test_invalid_rows_of_the_history_are_named(folder: Path, column: str, value: str) -> None:
    file = folder / runfolder.HISTORY
    header, row = file.read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True)) | {column: value}
    file.write_text(f"{header}\n{','.join(cells.values())}\n")
    with pytest.raises(PeewitError, match=rf"history\.csv: row 1: {column} is "):
        Run.open(folder)


def test_a_history_of_millions_of_rows_is_refused_by_its_size(folder: Path) -> None:
    with (folder / runfolder.HISTORY).open("ab") as file:
        file.truncate(10**9)  # sparse: it takes no room on the disk
    with pytest.raises(PeewitError, match=r"history\.csv: it is larger than 16,000 kB"):
        Run.open(folder)


def test_the_loss_of_a_diverged_network_may_be_no_number(folder: Path) -> None:
    row = Run.open(folder).history[0] | {"validation_loss": float("nan")}
    runfolder.write_history(folder, [row])
    assert str(Run.open(folder).history[0]["validation_loss"]) == "nan"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"name": "\\ud800"}', "it is not valid JSON"),
        (b'{"name": "\xff"}', "it is not valid JSON"),
        (b'{"a": 1' + b"0" * 9000 + b"}", "it is not valid JSON"),
        (b'{"a": {"b": 1, "b": 2}}', "b is given twice"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "it is not valid JSON"),
    ],
)
def test_json_that_python_accepts_is_refused(folder: Path, content: bytes, sentence: str) -> None:
    (folder / runfolder.METRICS).write_bytes(content)
    with pytest.raises(PeewitError, match=rf"metrics\.json: {sentence}"):
        Run.open(folder)


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
