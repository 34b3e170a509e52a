"""Raw logs are appended line by line and survive a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import rawlog


def test_rows_are_read_in_order(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    assert rawlog.read(log) == rawlog.read(None) == []
    rawlog.append(log, {"a": 1})
    rawlog.append(log, {"a": 2})
    assert rawlog.read(log) == [{"a": 1}, {"a": 2}]


def test_a_truncated_line_is_skipped_and_corrupts_no_other(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"a": 1}\n{"a": 2, "b"')
    assert rawlog.read(log) == [{"a": 1}]
    rawlog.append(log, {"a": 3})
    assert rawlog.read(log) == [{"a": 1}, {"a": 3}]


def test_spread() -> None:
    assert rawlog.spread([5.0]) == (5.0, 0.0, 1)
    assert rawlog.spread(x for x in (1.0, 3.0)) == (2.0, pytest.approx(2**0.5), 2)


def test_the_newest_log_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rawlog, "RESULTS", tmp_path)
    assert rawlog.newest("frontier") is None
    for day in ("2026-11-24", "2027-01-02", "2026-12-31"):
        (tmp_path / f"frontier-{day}.jsonl").touch()
    newest = rawlog.newest("frontier")
    assert newest is not None
    assert newest.name == "frontier-2027-01-02.jsonl"


def test_machine_contains_no_local_paths() -> None:
    found = rawlog.machine()
    assert "command" not in found
    assert {"date", "processor", "torch", "peewit", "cores"} <= found.keys()
