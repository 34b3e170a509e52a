"""The order of the runs, and what the table compares."""

from __future__ import annotations

import json
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import busy_epochs
import child
import pytest
import rawlog


def test_conditions_alternate_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[bool, int]] = []
    load = [0]

    def burning(after: float, processes: int) -> nullcontext[None]:
        load[0] = processes
        return nullcontext()

    def run(command: list[str], environment: dict[str, str] | None) -> child.Finished:
        made.append((environment is not None, load[0]))
        return child.Finished(1.0, None, json.dumps({"images_per_second": 9.0, "weights": "ab"}))

    monkeypatch.setattr(busy_epochs, "burning", burning)
    monkeypatch.setattr(busy_epochs.child, "run", run)
    monkeypatch.setattr(busy_epochs.rawlog, "machine", dict)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    options = Namespace(data="x", models=["tutorial"], runs=1, log=tmp_path / "log.jsonl")
    busy_epochs.measure(options)
    assert made == [(False, 0), (False, 1), (True, 0), (True, 1)]
    options.runs = 2
    busy_epochs.measure(options)
    assert len(made) == len(rawlog.read(options.log)) == 8


@pytest.mark.parametrize(("weights", "equal"), [("ab", "yes"), ("cd", "NO")])
def test_the_table_compares_medians_and_weights(weights: str, equal: str) -> None:
    def row(busy: bool, speed: float, weights: str = "ab") -> dict[str, Any]:
        return {
            "model": "tutorial",
            "settings": "peewit",
            "busy": busy,
            "images_per_second": speed,
            "weights": weights,
        }

    # fewer threads beside a busy loop have other weights, but always the same
    rows = [row(False, 1200), row(False, 1000), row(False, 1300)]
    rows += [row(True, 900, "ef"), row(True, 900, "ef" if weights == "ab" else weights)]
    assert busy_epochs.table(rows).splitlines()[2:] == [
        f"| tutorial | peewit | 2 | 1,200 images/s | 900 images/s | 75% | {equal} |"
    ]
    assert len(busy_epochs.table(rows[:3]).splitlines()) == 2
