"""Tiny archives in the published forms, and an environment without data and network."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peewit.data.cifar import layouts
from peewit.data.cifar.layouts import Layout

REAL = layouts.LAYOUTS
IMAGES = 20  # in each batch of the tiny layouts
NAMES = {
    10: ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    20: [f"group {number}" for number in range(20)],
    100: [f"kind {number}" for number in range(100)],
}


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data in the usual places, mirrors that refuse the connection, tiny layouts."""
    monkeypatch.setenv("PEEWIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    closed = "http://127.0.0.1:9/"
    monkeypatch.setattr(layouts, "MIRRORS", {"cifar10": (closed,), "cifar100": (closed,)})
    tiny = tuple(
        replace(layout, batches=dict.fromkeys(layout.batches, IMAGES), size=None) for layout in REAL
    )
    monkeypatch.setattr(layouts, "LAYOUTS", tiny)


@pytest.fixture
def full_size(empty_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real layouts, for the real archive."""
    monkeypatch.setattr(layouts, "LAYOUTS", REAL)


@pytest.fixture
def form() -> Callable[..., Layout]:
    """Return a function that finds a (tiny) layout by name and form."""
    return layouts.find_layout


@pytest.fixture
def make_files() -> Callable[..., dict[str, bytes]]:
    return files_of


@pytest.fixture
def make_archive() -> Callable[..., Path]:
    return write_archive


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """A valid tiny archive in the python layout."""
    layout = layouts.find_layout("cifar10")
    return write_archive(tmp_path / "brought.tar.gz", files_of(layout), layout.folder)


def pixels_of(layout: Layout) -> dict[str, np.ndarray]:
    """Return the pixels of each batch, shape (n, 3072), always the same."""
    random = np.random.default_rng(0)
    return {
        file: random.integers(0, 256, (count, 3072), dtype=np.uint8)
        for file, count in layout.batches.items()
    }


def files_of(layout: Layout, protocol: int = 2) -> dict[str, bytes]:
    """Return the files of a tiny data set. Image i of a batch has label i modulo the classes."""
    files: dict[str, bytes] = {}
    single = len(layout.classes) == 1
    for file, pixels in pixels_of(layout).items():
        columns = [[i % count for i in range(len(pixels))] for count in layout.classes.values()]
        if layout.form == "binary":
            labels = np.array(columns, np.uint8).T
            files[file] = np.hstack([labels, pixels]).tobytes()
        else:
            keys = [b"labels"] if single else [f"{kind}_labels".encode() for kind in layout.classes]
            batch: dict[bytes, object] = {b"batch_label": file.encode(), b"data": pixels}
            batch |= dict(zip(keys, columns, strict=True))
            batch[b"filenames"] = [f"{i}.png".encode() for i in range(len(pixels))]
            files[file] = pickle.dumps(batch, protocol=protocol)
    if layout.form == "binary":
        for file, count in zip(layout.names_files, layout.classes.values(), strict=True):
            files[file] = "\n".join([*NAMES[count], ""]).encode()
    else:
        meta: dict[bytes, object] = {b"num_vis": 3072}
        for kind, count in layout.classes.items():
            key = b"label_names" if single else f"{kind}_label_names".encode()
            meta[key] = [name.encode() for name in NAMES[count]]
        files[layout.names_files[0]] = pickle.dumps(meta, protocol=protocol)
    return files


def write_archive(path: Path, files: dict[str, bytes], folder: str) -> Path:
    """Write a .tar.gz with ``files`` in ``folder``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue(), 1, mtime=0))
    return path
