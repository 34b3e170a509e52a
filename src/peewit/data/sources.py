"""From a name or a path to data sets, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from peewit.data.cifar.archive import BadArchiveError
from peewit.data.dataset import Dataset
from peewit.data.places import (
    SOURCES,
    Place,
    SourceNotAvailable,
    exists,
    expanded,
    home,
    resolve,
    unknown_source,
    where,
)
from peewit.errors import UsageError

if TYPE_CHECKING:  # imported where used: they take time that `peewit --help` does not have
    from peewit.data.cifar.cache import Loaded
    from peewit.data.download.fetch import Fetched
    from peewit.data.download.rate import Progress

__all__ = ["SOURCES", "Place", "SourceNotAvailable", "Splits", "fetch", "load", "moved", "where"]


class Splits(NamedTuple):
    """A source's training set, its test set where it has one, and sentences for the user."""

    train: Dataset
    test: Dataset | None
    notes: tuple[str, ...] = ()


def load(
    source: str,
    *,
    data: str | Path | None = None,
    coarse: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Splits:
    """Load a source by name, or what lies at a path.

    Parameters
    ----------
    source : str
        ``cifar10``, ``cifar100``, ``digits``, or the path of a ``.tar.gz`` of CIFAR-10 or CIFAR-100
        (python or binary layout) or of the folder with its extracted files.
    data : str or Path, optional
        Where the named source lies; without it, the usual places are searched in the order that
        `where` gives, and then it is downloaded.
    coarse : bool, optional
        CIFAR-100 with its 20 coarse labels instead of its 100 fine ones.
    progress : callable, optional
        Called a few times a second during a download. Without it a notebook shows how far it is,
        and everything else nothing.

    Returns
    -------
    Splits
        Images as uint8, mapped from a cache where one can be kept.

    Raises
    ------
    UsageError
        No such source.
    SourceNotAvailable
        It is nowhere here, and no mirror gave it.
    PeewitError
        What lies at the path is not sound.

    Examples
    --------
    >>> load("digits").train.image_shape
    (8, 8, 1)
    >>> load("cifar11")
    Traceback (most recent call last):
    peewit.errors.UsageError: there is no source cifar11: known are cifar10, cifar100 and digits; \
give one of these, or the path of an archive or a folder
    """
    if source == "digits":
        if data is not None or coarse:
            raise UsageError(
                "digits takes neither a path nor coarse labels", "it has just one form"
            )
        from peewit.data import digits

        return Splits(*digits.load())
    if source not in SOURCES:
        if data is not None or not source:
            raise unknown_source(source)
        return _from_path(Path(source), None, coarse)
    if coarse and source != "cifar100":
        raise UsageError(f"{source} has no coarse labels", "only cifar100 has")
    if data is not None:
        return _from_path(Path(data), source, coarse)
    fetched, loaded = _search(source, progress)
    return _splits(fetched.path, loaded, coarse, fetched.notes)


def moved(source: Mapping[str, Any], data: str | Path | None) -> dict[str, Any]:
    """Return the arguments of `load` for what ``source`` loads, lying at ``data`` now.

    Parameters
    ----------
    source : mapping
        Arguments of `load`, as a run keeps them.
    data : str or Path or None
        None where it has not moved.

    Examples
    --------
    >>> moved({"source": "cifar10", "data": None, "coarse": False}, "new.tar.gz")["source"]
    'cifar10'
    >>> place = moved({"source": "/old/data.tar.gz", "data": None, "coarse": False}, "new.tar.gz")
    >>> Path(place["source"]).name, place["data"]
    ('new.tar.gz', None)
    """
    if data is None:
        return dict(source)
    # in full: as it is, it might be taken for a name
    place = str(expanded(Path(data)).absolute())
    if source.get("source") in SOURCES:
        return {**source, "data": place}
    return {**source, "source": place, "data": None}


def fetch(name: str, *, progress: Callable[[Progress], None] | None = None) -> Fetched:
    """Make sure that a named source is on this machine, downloading it if it is not.

    Returns
    -------
    Fetched
        Where it is, whether it was downloaded now, and what was met on the way.

    Raises
    ------
    UsageError
        The source has no name that is known, or is not kept in files.
    SourceNotAvailable
        It is nowhere here, and no mirror gave it.
    """
    fetched, loaded = _search(name, progress)
    return fetched._replace(notes=(*fetched.notes, *_unpublished(fetched.path, loaded)))


def load_path(path: Path, name: str | None) -> Loaded:
    """Read the archive or folder at a path, which must be of ``name`` where one is given.

    Raises
    ------
    BadArchiveError
        It is missing, not sound, or of another source.
    """
    from peewit.data.cifar import cache

    loaded = cache.load(path, home() / "decoded")
    layout = loaded.decoded.layout
    if name is not None and layout.name != name:
        raise BadArchiveError(
            f"{path} is not {name}", f"it holds {layout.title}", f"use {layout.name} as the source"
        )
    return loaded


def _from_path(path: Path, name: str | None, coarse: bool) -> Splits:
    if name is None and not exists(expanded(path)) and _looks_like_a_name(str(path)):
        raise unknown_source(str(path))
    path = resolve(path, name)
    loaded = load_path(path, name)
    if coarse and loaded.decoded.layout.name != "cifar100":
        raise UsageError(f"{path} has no coarse labels", "only cifar100 has")
    return _splits(path, loaded, coarse, ())


def _search(name: str, progress: Callable[[Progress], None] | None) -> tuple[Fetched, Loaded]:
    """Find a named source, or download it; what lies about broken is left for the next place."""
    from peewit.data.download.fetch import Fetched, fetch_archive

    notes: list[str] = []
    broken: list[str] = []
    for place in where(name):
        if place.found:
            try:
                loaded = load_path(place.path, name)
            except BadArchiveError as error:
                notes.append(f"{error} (looked elsewhere)")
                broken.append(f"{error.what}: {error.why}")
            else:
                return Fetched(place.path, False, tuple(notes)), loaded
    try:
        fetched = fetch_archive(name, home(), progress=progress or _in_notebook())
    except SourceNotAvailable as error:
        raise SourceNotAvailable(error.what, ", ".join([*broken, error.why]), error.todo) from error
    fetched = fetched._replace(notes=(*notes, *fetched.notes))
    return fetched, load_path(fetched.path, name)


def _in_notebook() -> Callable[[Progress], None] | None:
    """Return what shows a download in a notebook, or None elsewhere."""
    from peewit.system.terminal import NotebookOutput, console_err

    return NotebookOutput().show if console_err().is_jupyter else None


def _splits(path: Path, loaded: Loaded, coarse: bool, notes: tuple[str, ...]) -> Splits:
    layout, decoded = loaded.decoded.layout, loaded.decoded
    kind = "coarse" if coarse else "fine"
    labels = decoded.labels[:, list(layout.classes).index(kind)].astype(np.int64)
    names = decoded.class_names[kind]
    cut = layout.training_images
    train, test = (
        Dataset(decoded.images[rows], labels[rows], names, f"{layout.name} {part}, {path}")
        for part, rows in (("train", slice(cut)), ("test", slice(cut, None)))
    )
    return Splits(train, test, (*notes, *loaded.notes, *_unpublished(path, loaded)))


def _unpublished(path: Path, loaded: Loaded) -> list[str]:
    """Return what is to be said of a sound archive that is not the published one."""
    if loaded.published is not False:
        return []
    return [
        f"{path} is sound, but its checksum is not the published one: it is not the original"
        f" {loaded.decoded.layout.title}, and accuracies on it compare only with others on it"
    ]


def _looks_like_a_name(source: str) -> bool:
    return not any(mark in source for mark in "/\\.~")
