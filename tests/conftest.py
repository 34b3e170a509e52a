"""Shared fixtures: isolation from the user's files and the network, real data, small data."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from made_data import brightness
from peewit.data.dataset import Dataset
from peewit.system.cpu import usable_cores

# a package for the process of a notebook, not for this one
collect_ignore = ["tensorflow_stand_in"]

# environment variables with the paths of real data; tests that need it are skipped without it
ARCHIVE = "PEEWIT_TEST_ARCHIVE"
TRACE = "PEEWIT_TRACE"
KERAS_H5 = "PEEWIT_KERAS_H5"
LITE = "PEEWIT_LITE"


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test with its own home, cache and working directory, and without a network.

    Returns the home folder. The working directory is an empty folder next to it.
    """
    place = tmp_path_factory.mktemp("isolated")
    home, desk = place / "home", place / "desk"
    home.mkdir()
    desk.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "WIN_PD_OVERRIDE_LOCAL_APPDATA"):
        monkeypatch.setenv(name, str(home))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name.removeprefix("XDG_").lower()))
    for name in ("PEEWIT_HOME", "KERAS_HOME", "PEEWIT_DEBUG", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    # all threads, whatever else this machine runs: some tests compare weights bit for bit
    monkeypatch.setenv("OMP_NUM_THREADS", str(usable_cores()))
    # subprocesses get a proxy that does not exist; loopback stays reachable
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost,::1")
    lookup = socket.getaddrinfo

    def only_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", "::1", None):
            raise socket.gaierror(socket.EAI_NONAME, f"a test tried to resolve {host}")
        return lookup(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", only_loopback)
    monkeypatch.chdir(desk)
    return home


def _given(variable: str, what: str) -> Path:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"needs {what}: set {variable} to its path")
    if not Path(path).is_file():
        pytest.fail(f"{variable} is {path}, which is not a file")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def archive() -> Path:
    """Return the CIFAR-10 archive (python layout) at PEEWIT_TEST_ARCHIVE; skip without it."""
    return _given(ARCHIVE, "a CIFAR-10 archive")


@pytest.fixture(scope="session")
def trace() -> Path:
    """Return the trace of training steps in TensorFlow 2.4.4 at PEEWIT_TRACE; skip without it."""
    return _given(TRACE, "a TensorFlow trace")


@pytest.fixture(scope="session")
def lite_outputs() -> Path:
    """Return the outputs of EfficientNet-Lite's published networks at PEEWIT_LITE, or skip."""
    return _given(LITE, "outputs of EfficientNet-Lite")


@pytest.fixture(scope="session")
def keras_h5() -> Path:
    """Return the tutorial's model saved by TensorFlow 2.4.4 at PEEWIT_KERAS_H5; skip without it."""
    return _given(KERAS_H5, "the tutorial's model saved by TensorFlow 2.4.4")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """Fail instead of skipping if PEEWIT_REQUIRE_DATA is set, as in CI, which has all the data."""
    report = (yield).get_result()
    if report.skipped and os.environ.get("PEEWIT_REQUIRE_DATA"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but CI must not skip: {report.longrepr}"


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    """Return 60 RGB images of 32 x 32 in three classes that are easy to distinguish."""
    return brightness(60, 32, seed=0)


@pytest.fixture(scope="session")
def tiny_test() -> Dataset:
    """Return 30 more images like those of ``tiny``."""
    return brightness(30, 32, seed=1)


@pytest.fixture(scope="session")
def tiny_grey() -> Dataset:
    """Return 60 grey images of 8 x 8 in three classes that are easy to distinguish."""
    return brightness(60, 8, 1, seed=2)
