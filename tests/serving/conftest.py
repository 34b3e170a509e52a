"""A trained run, its application in this process, and its server in a subprocess."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from peewit.data.dataset import Dataset
from peewit.runs.run import Run
from peewit.serving.app import create_app
from peewit.trainer import train
from peewit.training.recipe import Recipe


@pytest.fixture(scope="session")
def served(tiny: Dataset, tiny_test: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two epochs on ``tiny``."""
    out = tmp_path_factory.mktemp("serving") / "run"
    return train(tiny, Recipe(epochs=2, batch_size=10), test=tiny_test, out=out)


@pytest.fixture(scope="module")
def client(served: Run) -> Iterator[TestClient]:
    """A client of the application, without a socket."""
    with TestClient(create_app(served), "http://127.0.0.1", raise_server_exceptions=False) as made:
        yield made


def picture(shade: int = 200, size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    """Return a picture file of uniform grey."""
    stream = io.BytesIO()
    height, width = size
    Image.fromarray(np.full((height, width, 3), shade, np.uint8)).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Return ``encode(shade, (height, width), kind)``, which makes picture files."""
    return picture


class Server:
    """``peewit serve`` in a subprocess."""

    def __init__(self, run: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "peewit", "serve", str(run), "--port", str(port)]
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.process.communicate()[1]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def stop(self) -> int:
        """Terminate it and return its exit code; its stderr is in ``stderr``."""
        self.process.terminate()
        self.stderr = self.process.communicate(timeout=120)[1]
        return self.process.returncode


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Server]]:
    """Return a function that starts servers; stop them after the tests."""
    started: list[Server] = []

    def make(run: Path, port: int = 0) -> Server:
        started.append(Server(run, port))
        return started[-1]

    yield make
    for server in started:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser; skip the test without one."""
    found = os.environ.get("PEEWIT_CHROMIUM") or shutil.which("chromium")
    if not found:
        pytest.skip("needs a browser: install chromium, or set PEEWIT_CHROMIUM to its path")
    return found
