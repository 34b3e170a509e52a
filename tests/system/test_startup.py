"""The moment from which a budget's minutes count."""

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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_a_process_knows_when_it_began() -> None:
    code = "import time; time.sleep(0.3); from peewit import startup; print(startup.process_age())"
    before = time.monotonic()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 0.29 <= float(output.stdout) <= time.monotonic() - before + 0.02


@pytest.mark.parametrize("text", ["", "1 (x) S", "1 (x) S " + "a " * 30, "1 (x) S " + "0 " * 30])
def test_nonsense_counts_as_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert age(tmp_path / "stat", text, monkeypatch) == 0.0


def test_without_the_file_nothing_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_STAT", tmp_path / "none")
    assert startup.process_age() == 0.0
