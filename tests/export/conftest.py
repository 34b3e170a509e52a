from __future__ import annotations

from pathlib import Path

import pytest

from made_runs import make_run
from peewit.runs.run import Run


@pytest.fixture(scope="session", params=["tutorial", "fast", "grey", "half"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of each kind of network."""
    path = tmp_path_factory.mktemp("runs") / "run"
    if request.param == "grey":
        return make_run(path, "fast-xs", size=16, channels=1)
    if request.param == "half":
        return make_run(path, "fast-xs/2", size=32)
    return make_run(path, "tutorial" if request.param == "tutorial" else "fast-xs")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder for exported files."""
    folder = tmp_path / "exported"
    folder.mkdir()
    return folder
