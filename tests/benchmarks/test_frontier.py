"""The order of the runs, resuming, the table and the plot."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frontier
import pytest
import rawlog

Measured = Callable[..., dict[str, Any]]


def test_one_seed_after_the_other() -> None:
    assert frontier.plan([1, 5, 30], [3, 2, 1]) == [
        (1, 0), (5, 0), (30, 0), (1, 1), (5, 1), (1, 2),
    ]  # fmt: skip


def test_logged_runs_are_skipped(tmp_path: Path, trainings: list[tuple[int, list[str]]]) -> None:
    options = Namespace(data="x", minutes=[1.0, 2.0], seeds=[1], log=tmp_path / "log.jsonl")
    frontier.measure(options)
    assert trainings == [(0, ["--minutes", "1"]), (0, ["--minutes", "2"])]
    trainings.clear()
    options.seeds = [2, 1]
    frontier.measure(options)
    assert trainings == [(1, ["--minutes", "1"])]
    assert [(row["minutes"], row["seed"]) for row in rawlog.read(options.log)] == [
        (1.0, 0), (2.0, 0), (1.0, 1),
    ]  # fmt: skip


def test_the_number_of_seeds_must_match_the_minutes(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--seeds"):
        frontier.measure(Namespace(data="x", minutes=[1, 2, 5], seeds=[1, 1], log=tmp_path / "l"))


def test_table_shows_means_and_deviations(measurement: Measured) -> None:
    rows = [measurement(minutes, seed) for seed in range(3) for minutes in (5.0, 1.0)]
    lines = frontier.table(rows).splitlines()
    assert len(lines) == 4
    assert lines[2] == (
        "| 1 | 71.10 % ± 0.10 | 70.10 % ± 0.10 | 3 | fast-m | 3.0 | 59 s | 150 (81%) | 900 MiB |"
    )
    assert lines[3].startswith("| 5 | 75.10 % ± 0.10 |")


def test_unknown_values_are_question_marks(measurement: Measured) -> None:
    row = measurement(gflops=None, share_of_best=None, peak_memory_mib=None)
    assert "? (?)" in frontier.table([row])


def reference(epochs: int = 2, **last: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"seed": s, "epoch": e, "seconds": 60.0 * e, "accuracy": 0.4 + e / 10 + s / 10}
        for s in (0, 1)
        for e in range(1, epochs + 1)
    ]
    for row in rows:
        if row["epoch"] == epochs:
            row.update(last)
    return rows


def test_reference_points_are_means_over_the_seeds() -> None:
    line, augmented = frontier.airbench_points(reference())
    assert line == [(1.0, pytest.approx(55)), (2.0, pytest.approx(65))]
    assert augmented is None
    # the time of the test with six views is included
    _, augmented = frontier.airbench_points(reference(tta_accuracy=0.8, tta_seconds=30.0))
    assert augmented == (2.5, pytest.approx(80))
    assert frontier.airbench_points([]) == ([], None)


def test_the_plot_is_drawn_with_and_without_references(
    tmp_path: Path, measurement: Measured
) -> None:
    rows = [measurement(minutes, seed) for seed in range(2) for minutes in (1.0, 10.0)]
    frontier.plot(rows, tmp_path / "alone.png")
    tutorial = [{"seconds": 700.0, "accuracy": 0.71}, {"seconds": 720.0, "accuracy": 0.70}]
    others = reference(tta_accuracy=0.8, tta_seconds=30.0)
    frontier.plot(rows, tmp_path / "all.png", others, tutorial)
    for name in ("alone.png", "all.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
