"""A short version of ``benchmarks/faults.py``: a kill, and a failing operation on files."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

import faults
import pytest

from peewit.runs.run import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    faults.write_pictures(folder / "pictures")
    return folder


@pytest.fixture(scope="module")
def reference(work: Path) -> Run:
    training = faults.Training(work, work / "pictures", "fine-tuning")
    assert training.finish() == ""
    return Run.open(training.run)


def test_a_killed_training_ends_as_if_nothing_had_happened(work: Path, reference: Run) -> None:
    training = faults.Training(work, work / "pictures", "fine-tuning")
    process = training.start()
    while process.poll() is None and not (training.run / "checkpoint.safetensors").is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert training.phase() == "training"
    assert training.finish() == ""
    assert training.problems(reference) == ""


def test_a_full_disk_ends_in_a_sentence_and_loses_nothing(work: Path, reference: Run) -> None:
    training = faults.Training(work, work / "pictures", "fine-tuning")
    # the last operations are those of the results
    last = faults.operations(faults.Training(work, work / "pictures", "fine-tuning"))
    assert faults.fail_at(last // 2, training, reference)["wrong"] == ""


def test_differences_are_noticed(work: Path, reference: Run) -> None:
    training = faults.Training(work, work / "pictures", "head")
    assert training.problems(reference) != ""  # it has not begun
    shutil.copytree(reference.path, training.run)
    assert training.problems(reference) == ""
    (training.run / ".weights.part").touch()
    assert ".weights.part" in training.problems(reference)
    assert faults.failed_badly(1, "Traceback (most recent call last):\n") != ""
    assert faults.failed_badly(1, "note: nothing\n") != ""
    assert faults.failed_badly(1, "peewit: the disk is full\n") == ""
