"""The first test of an imported run is stored; if it cannot be, the evaluation still succeeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from made_runs import make_run
from peewit.__main__ import main
from peewit.data.dataset import Dataset
from peewit.data.sources import Splits
from peewit.errors import PeewitError
from peewit.export import job
from peewit.importing.keras import import_keras
from peewit.report.final_test import keep_test, write_result
from peewit.runs import folder as runfolder
from peewit.runs.run import Run

NAMES = ["dark", "middle", "bright"]
SOURCE = {"source": "cifar10", "data": None, "coarse": False}


@pytest.fixture
def imported(tmp_path: Path) -> Run:
    run = make_run(tmp_path / "run")
    job.export(run, "keras", raw=True, out=tmp_path / "net.keras")
    return import_keras(tmp_path / "net.keras", NAMES, out=tmp_path / "imported", source=SOURCE)


def test_results_are_stored_in_the_run(imported: Run, tiny: Dataset, tiny_test: Dataset) -> None:
    assert (imported.status, imported.metrics) == ("imported", {})
    logits, notes = imported.logits(tiny_test.images), list[str]()
    place = {**SOURCE, "data": "there.tar.gz"}
    run = keep_test(imported, tiny, tiny_test, logits, place, notes.append)
    assert notes == []
    assert run.status == "imported"
    assert run.metrics["images"] == len(tiny_test)
    assert run.metrics["split"] == "test"
    # the absolute path of the data
    assert run.source["data"] == str(Path("there.tar.gz").resolve())
    for name in (runfolder.CONFUSION, runfolder.MISTAKES, runfolder.REPORT):
        assert (run.path / name).stat().st_size > 0
    assert Run.open(run.path).metrics == run.metrics


def test_training_results_are_kept(tmp_path: Path, tiny_test: Dataset) -> None:
    logits = np.eye(3, dtype=np.float32)[tiny_test.labels]
    found = write_result(tmp_path, tiny_test, logits, "validation", {"gflops": 7.0})
    assert found.accuracy == 1.0
    metrics = runfolder.read_json(tmp_path / runfolder.METRICS)
    assert (metrics["accuracy"], metrics["split"], metrics["gflops"]) == (1.0, "validation", 7.0)


def test_unwritable_folder_is_only_a_note(
    imported: Run,
    tiny: Dataset,
    tiny_test: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*arguments: object) -> None:
        raise PeewitError("cannot write run.json", "the disk is full")

    monkeypatch.setattr("peewit.data.sources.load", lambda **_: Splits(tiny, tiny_test, ()))
    monkeypatch.setattr(runfolder, "write_data", full)
    assert main(["evaluate", str(imported.path)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("accuracy")
    assert "the disk is full; the result was not saved in the run" in said.err
    assert Run.open(imported.path).metrics == {}
