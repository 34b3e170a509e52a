"""The start of the process, from which a time budget counts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from peewit.system import startup


def age(stat: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> float:
    stat.write_text(text, encoding="utf-8")
    monkeypatch.setattr(startup, "_STAT", stat)
    return startup.process_age()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux reports it")
def test_the_age_of_a_process() -> None:
    code = (
        "import time; time.sleep(0.3);"
        "from peewit.system.startup import process_age; print(process_age())"
    )
    before = time.monotonic()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 0.29 <= float(output.stdout) <= time.monotonic() - before + 0.02


@pytest.mark.parametrize("text", ["", "1 (x) S", "1 (x) S " + "a " * 30, "1 (x) S " + "0 " * 30])
def test_a_malformed_file_counts_as_0(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert age(tmp_path / "stat", text, monkeypatch) == 0.0


def test_a_missing_file_counts_as_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_STAT", tmp_path / "none")
    assert startup.process_age() == 0.0
