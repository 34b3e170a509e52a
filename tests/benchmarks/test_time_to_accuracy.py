"""Which budget counts as having reached a target, and the report."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rawlog
import time_to_accuracy as benchmark

Measured = Callable[..., dict[str, Any]]


def tutorial(number: int = 0) -> dict[str, Any]:
    return {
        "kind": "tensorflow",
        "round": number,
        "accuracy": 0.71,
        "seconds": 700.0,
        "wall_seconds": 720.0,
        "peak_memory_mib": 2700.0,
    }


def reference(epoch: int) -> dict[str, Any]:
    return {
        "seed": 0,
        "epoch": epoch,
        "seconds": 300.0 * epoch,
        "prepare_seconds": 2.0,
        "accuracy": 0.40 + 0.05 * epoch,
        "tta_accuracy": 0.4199 + 0.05 * epoch,
        "test_seconds": 8.0,
        "tta_seconds": 48.0,
        "gflops": 140.0,
        "share_of_best": 0.7,
        "peak_memory_mib": 5000.0,
    }


def test_the_mean_over_the_seeds_counts(measurement: Measured) -> None:
    rows = [measurement(minutes, seed) for minutes in (2.0, 1.0) for seed in (0, 1)]
    rows += [{**measurement(11.0), "kind": "peewit", "same": True}, tutorial()]
    measured = benchmark.budgets(rows)
    assert [(budget["minutes"], budget["count"]) for budget in measured] == [(1.0, 2), (2.0, 2)]
    assert measured[0]["accuracy"] == pytest.approx(0.7105)
    # the first seed alone does not reach it
    first = benchmark.reached(measured, "accuracy", 0.7104)
    assert first is not None
    assert first["minutes"] == 1.0
    assert benchmark.reached(measured, "accuracy", 0.9) is None


def test_report_on_the_tutorial(measurement: Measured) -> None:
    same = {**measurement(11.66), "kind": "peewit", "same": True, "round": 0}
    rows = [tutorial(), {**measurement(1.0), "kind": "peewit", "same": False, "round": 0}, same]
    text = benchmark.report(rows, [measurement(2.0)], [])
    # 720 / 59, 700 / 54, 700 / 59; the mean is the target itself
    assert "reached with --minutes 1: 71.00% (1 seeds), within noise" in text
    assert "whole command: 59.0 s, 12.2 times faster" in text
    assert "training alone: 54.0 s, 13.0 times faster" in text
    assert "Peewit's whole command vs. its training alone: 11.9 times faster" in text
    # (1 - 0.8166) / (1 - 0.71)
    assert "error 18.34% vs. 29.00%: 0.632 ± 0.000 times" in text
    assert "no measurements of airbench94 with Muon" in text


def test_report_on_the_reference_compares_like_with_like(measurement: Measured) -> None:
    epochs = [reference(epoch) for epoch in (1, 8)]
    frontier = [measurement(minutes) for minutes in (10.0, 11.0, 12.0, 13.0)]
    text = benchmark.report([], frontier, epochs)
    assert "no measurements of the tutorial in TensorFlow" in text
    one, six = text.split("airbench94 with Muon, ")[1:]
    # 80 %, single view: 11 minutes (80.0); training 654 of 2400 s, whole 659 of 2410
    assert "single view: 80.00% ± 0.00 (1 seeds) after 2400 s of training, 2410 s in total" in one
    assert "reached with --minutes 11: 80.00%" in one
    assert "whole command: 659.0 s, 0.27 times its time" in one
    # 81.99 %, test-time augmentation: 12 minutes; the test took 48 s
    assert "81.99% ± 0.00 (1 seeds) after 2400 s of training, 2450 s in total" in six
    assert "reached with --minutes 12: 82.00%" in six
    assert "rate 140 GFLOP/s, 70% of the best; peak memory 5,000 MiB" in six


def test_an_unreached_target_is_reported(measurement: Measured) -> None:
    text = benchmark.report([], [measurement(1.0)], [reference(8)])
    assert "not reached by any measured budget; the best reached 70.00%" in text


def test_rounds_resume_where_they_stopped(
    tmp_path: Path, trainings: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = []
    monkeypatch.setattr(benchmark, "_tensorflow", lambda options: run.append(1) or tutorial())
    options = Namespace(log=tmp_path / "log.jsonl", rounds=1, minutes=[0.5, 1.0], data="x")
    benchmark.measure(options)
    assert trainings == [(0, ["--minutes", m]) for m in ("0.5", "1", "11.66")]
    kept = rawlog.read(options.log)
    assert [row["kind"] for row in kept] == ["tensorflow", "peewit", "peewit", "peewit"]
    assert kept[3]["same"] is True
    # as if it had been killed before its last run
    options.log.write_text("\n".join(options.log.read_text().splitlines()[:3]) + "\n")
    trainings.clear()
    benchmark.measure(options)
    assert trainings == [(0, ["--minutes", "11.66"])]
    assert len(run) == 1
