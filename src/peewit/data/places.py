"""Where data may lie on this machine, and in which order it is looked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from peewit.data.cifar import layouts
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.layouts import Layout
from peewit.errors import PeewitError, UsageError

SOURCES: dict[str, str] = {
    "cifar10": "CIFAR-10: 60,000 photographs of 32x32 in 10 classes",
    "cifar100": "CIFAR-100: 60,000 photographs of 32x32 in 100 classes (20 with coarse labels)",
    "digits": "handwritten digits: 1,797 grey images of 8x8, shipped inside scikit-learn",
}


class SourceNotAvailable(PeewitError):  # noqa: N818  (it reads as a state, and is no bug)
    """A named source is nowhere on this machine and cannot be downloaded."""


class Place(NamedTuple):
    """Somewhere the data may lie."""

    owner: str
    """Whose place it is: --data, PEEWIT_HOME, Keras, torchvision or Peewit."""
    path: Path
    found: bool
    """Whether there is something at that path: a file, or a folder that is not empty."""


def where(name: str, data: str | Path | None = None) -> list[Place]:
    """List the places where a named source is looked for, in order.

    Raises
    ------
    UsageError
        The source has no name that is known, or is not kept in files.
    """
    if name == "digits":
        raise UsageError("digits lies in no file of its own", "it ships inside scikit-learn")
    if name not in SOURCES:
        raise unknown_source(name)
    return [Place(owner, path, _holds_something(path)) for owner, path in _places(name, data)]


def home() -> Path:
    """The folder for downloads and the cache: PEEWIT_HOME, or the user's cache directory."""
    given = os.environ.get("PEEWIT_HOME")
    if given:
        return expanded(Path(given))
    import platformdirs

    return platformdirs.user_cache_path("peewit", appauthor=False)


def resolve(path: Path, name: str | None) -> Path:
    """Find the data at a path that the user gave: there, or inside, under a usual name.

    Raises
    ------
    BadArchiveError
        There is nothing at that path.
    """
    path = expanded(path)
    if not exists(path):
        raise BadArchiveError(f"cannot find {path}", "", "check the path")
    if path.is_dir() and not any(_holds(path, layout) for layout in layouts.LAYOUTS):
        for layout in layouts.LAYOUTS:
            if name in (None, layout.name):
                for inner in _usual_names(layout):
                    if exists(path / inner):
                        return _unfolded(path / inner)
    return path


def _places(name: str, data: str | Path | None) -> Iterator[tuple[str, Path]]:
    if data is not None:
        yield "--data", expanded(Path(data))
        return
    own = home()
    keras = expanded(Path(os.environ.get("KERAS_HOME") or "~/.keras")) / "datasets"
    folders = [("Keras", keras), ("torchvision", Path("data"))]
    if os.environ.get("PEEWIT_HOME"):
        folders.insert(0, ("PEEWIT_HOME", own))
    else:
        folders.append(("Peewit", own))
    for owner, folder in folders:
        for layout in layouts.LAYOUTS:
            if layout.name == name:
                for inner in _usual_names(layout):
                    yield owner, _unfolded(folder / inner)


def _usual_names(layout: Layout) -> Iterator[str]:
    yield layout.archive
    yield layout.folder
    if layout.form == "python":
        # Keras 2, Keras 3 and newest Keras name the archive after the folder
        yield f"{layout.folder}.tar.gz"
        yield f"{layout.folder}-target.tar.gz"
        yield f"{layout.folder}_archive"
        yield f"{layout.folder}-target"


def _unfolded(path: Path) -> Path:
    """The folder with the files, where newer Keras extracts it into a folder of the same name."""
    for layout in layouts.LAYOUTS:
        inner = path / layout.folder
        if not _holds(path, layout) and _holds(inner, layout):
            return inner
    return path


def _holds(folder: Path, layout: Layout) -> bool:
    files = (folder / file for file in layout.batches)
    return any(exists(file) and file.is_file() for file in files)


def _holds_something(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else exists(path)
    except OSError:  # it may not be looked into: reading it will say so
        return True


def exists(path: Path) -> bool:
    """Whether there is something at a path, as far as one may look."""
    try:
        return path.exists()
    except OSError:  # a folder that may not be looked into, or a name that no file can have
        return False


def unknown_source(source: str) -> UsageError:
    """Return the sentence for a name that is none."""
    *most, last = SOURCES
    return UsageError(
        f"there is no source {source or repr(source)}",
        f"known are {', '.join(most)} and {last}",
        "give one of these, or the path of an archive or a folder",
    )


def expanded(path: Path) -> Path:
    """Put the home directory in place of ``~``."""
    try:
        return path.expanduser()
    except RuntimeError:  # no home directory is known
        return path
