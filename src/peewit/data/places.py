"""Where named sources are searched for on this machine, and in which order."""

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
    "digits": "handwritten digits: 1,797 grey images of 8x8, included in scikit-learn",
}


class SourceNotAvailable(PeewitError):  # noqa: N818  (a state, not a bug)
    """A named source is not on this machine and cannot be downloaded."""


class Place(NamedTuple):
    """A path at which a source may be found."""

    owner: str
    """Who uses this path: --data, PEEWIT_HOME, Keras, torchvision or Peewit."""
    path: Path
    found: bool
    """Whether the path exists: a file, or a folder that is not empty."""


def where(name: str, data: str | Path | None = None) -> list[Place]:
    """Return the places where a named source is searched for, in order.

    Raises
    ------
    UsageError
        The source is unknown or is not stored in files of its own.
    """
    if name == "digits":
        raise UsageError("digits has no files of its own", "it comes with scikit-learn")
    if name not in SOURCES:
        raise unknown_source(name)
    return [
        Place(owner, path, _exists_and_is_not_empty(path)) for owner, path in _places(name, data)
    ]


def home() -> Path:
    """Return the folder for downloads and caches: PEEWIT_HOME, or the user's cache folder."""
    chosen = os.environ.get("PEEWIT_HOME")
    if chosen:
        return expanded(Path(chosen))
    import platformdirs

    return platformdirs.user_cache_path("peewit", appauthor=False)


def resolve(path: Path, name: str | None) -> Path:
    """Return the path of the data: ``path`` itself, or an archive or folder in it.

    Parameters
    ----------
    path : Path
        An archive, a folder of extracted files, or a folder that contains either.
    name : str or None
        The source to look for in a folder; None for any.

    Raises
    ------
    BadArchiveError
        The path does not exist.
    """
    path = expanded(path)
    if not exists(path):
        raise BadArchiveError(f"cannot find {path}", "", "check the path")
    if path.is_dir() and not any(_has_batches(path, layout) for layout in layouts.LAYOUTS):
        for layout in layouts.LAYOUTS:
            if name in (None, layout.name):
                for inner in _usual_names(layout):
                    if exists(path / inner):
                        return _descend(path / inner)
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
                    yield owner, _descend(folder / inner)


def _usual_names(layout: Layout) -> Iterator[str]:
    yield layout.archive
    yield layout.folder
    if layout.form == "python":
        # Keras 2, Keras 3 and the newest Keras name the archive after the folder
        yield f"{layout.folder}.tar.gz"
        yield f"{layout.folder}-target.tar.gz"
        yield f"{layout.folder}_archive"
        yield f"{layout.folder}-target"


def _descend(path: Path) -> Path:
    """Return the folder with the files, which newer Keras nests in one of the same name."""
    for layout in layouts.LAYOUTS:
        inner = path / layout.folder
        if not _has_batches(path, layout) and _has_batches(inner, layout):
            return inner
    return path


def _has_batches(folder: Path, layout: Layout) -> bool:
    files = (folder / file for file in layout.batches)
    return any(exists(file) and file.is_file() for file in files)


def _exists_and_is_not_empty(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else exists(path)
    except OSError:  # no permission: reading it will report that
        return True


def exists(path: Path) -> bool:
    """Return whether a path exists; False if that cannot be determined."""
    try:
        return path.exists()
    except OSError:  # no permission for the folder, or an invalid file name
        return False


def unknown_source(source: str) -> UsageError:
    """Return the error for an unknown source."""
    *most, last = SOURCES
    return UsageError(
        f"there is no source {source or repr(source)}",
        f"known are {', '.join(most)} and {last}",
        "give one of these, or the path of an archive or a folder",
    )


def expanded(path: Path) -> Path:
    """Replace ``~`` by the home directory, if there is one."""
    try:
        return path.expanduser()
    except RuntimeError:  # there is no home directory
        return path
