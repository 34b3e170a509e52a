"""What counts as on time, the order of the runs, and that no busy loop is left running."""

from __future__ import annotations

import subprocess
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import busy_machine
import pytest

Measured = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("minutes", "seconds", "kept"),
    [(1, 60, True), (1, 64.9, True), (1, 65.1, False), (1, 57.1, True), (1, 56.9, False),
     (30, 1805.1, False), (30, 1711, True)],
)  # fmt: skip
def test_on_time(minutes: float, seconds: float, kept: bool) -> None:
    assert busy_machine.on_time(minutes, seconds) is kept


def test_busy_loops_end_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def remembered(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(real(*arguments))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    with busy_machine.burning(0.0, 2):
        end = time.monotonic() + 60
        while len(started) < 2:
            assert time.monotonic() < end, "no busy loop was started"
            time.sleep(0.01)
    assert all(process.returncode is not None for process in started)


def test_busy_loops_do_not_start_early(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []  # started in a thread, where a failure would only be a warning
    monkeypatch.setattr(subprocess, "Popen", lambda *words: started.append(words))
    with busy_machine.burning(60.0, 1):
        pass
    assert not started


def test_runs_alternate_and_resume(tmp_path: Path, trainings: list[tuple[int, list[str]]]) -> None:
    options = Namespace(data="x", minutes=[1.0], runs=1, log=tmp_path / "log.jsonl")
    busy_machine.measure(options)
    assert trainings == [(0, ["--minutes", "1"])] * 2
    options.runs = 2
    busy_machine.measure(options)
    assert [seed for seed, _ in trainings] == [0, 0, 1, 1]


def test_table_shows_the_worst_case(measurement: Measured) -> None:
    rows = [
        {**measurement(1.0, seed, wall_seconds=60 + late), "late_seconds": late, "busy": True}
        for seed, late in enumerate((-1.5, 2.0, 7.25))
    ]
    assert busy_machine.table(rows).splitlines()[-1] == (
        "| 1 | from half-time on | 3 | 7.2 s | 1.5 s | 2 of 3 | 71.10 % ± 0.10 |"
    )
