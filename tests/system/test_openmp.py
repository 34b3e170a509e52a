"""OpenMP's settings: before PyTorch is imported, and never over the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peewit.system import cpu, openmp


@pytest.fixture
def without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that PyTorch has not been imported, on four cores; return the folder of quotas."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(openmp, "own_cores", lambda: 4)
    monkeypatch.setattr(cpu, "CGROUPS", tmp_path)
    monkeypatch.setattr(cpu, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": openmp.SPINS, "KMP_BLOCKTIME": openmp.MILLISECONDS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": openmp.MILLISECONDS}),
        ({"KMP_BLOCKTIME": "7"}, {"GOMP_SPINCOUNT": openmp.SPINS, "KMP_BLOCKTIME": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_decides(
    without_torch: Path, before: dict[str, str], after: dict[str, str]
) -> None:
    environment = dict(before)
    openmp.prepare(environment)
    assert environment == after


def test_there_are_no_more_threads_than_the_quota_allows(without_torch: Path) -> None:
    environment: dict[str, str] = {}
    (without_torch / "cpu.max").write_text("800000 100000")
    openmp.prepare(environment)
    assert "OMP_NUM_THREADS" not in environment
    (without_torch / "cpu.max").write_text("200000 100000")
    openmp.prepare(environment)
    assert environment["OMP_NUM_THREADS"] == "2"
    environment["OMP_NUM_THREADS"] = "3"
    openmp.prepare(environment)
    assert environment["OMP_NUM_THREADS"] == "3"


def test_nothing_is_changed_once_pytorch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    environment: dict[str, str] = {}
    openmp.prepare(environment)
    assert not environment


@pytest.mark.skipif(sys.platform != "linux", reason="another runtime, which shows other variables")
def test_the_runtime_that_pytorch_loads_has_the_settings() -> None:
    ours = {"GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    process = subprocess.run(
        [sys.executable, "-c", "import peewit.system.openmp, torch"],
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = process.stderr.replace(" ", "")
    assert f"GOMP_SPINCOUNT='{openmp.SPINS}'" in shown or "KMP_BLOCKTIME='1" in shown
