"""Load data sets by the name of a source or by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from peewit.data.cifar.archive import BadArchiveError
from peewit.data.dataset import Dataset
from peewit.data.formats import is_npz, listing_of
from peewit.data.grouping import groups_of
from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION, Listing
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
from peewit.data.store import select
from peewit.errors import UsageError

if TYPE_CHECKING:  # imported where they are used, so that `peewit --help` starts fast
    from peewit.data.cifar.cache import Loaded
    from peewit.data.download.fetch import Fetched
    from peewit.data.download.rate import Progress

__all__ = ["SOURCES", "Place", "SourceNotAvailable", "Splits", "fetch", "load", "moved", "where"]


class Splits(NamedTuple):
    """The training set of a source, its test set if it has one, and notes for the user."""

    train: Dataset
    test: Dataset | None
    notes: tuple[str, ...] = ()


def load(
    source: str,
    *,
    data: str | Path | None = None,
    coarse: bool = False,
    group: str | None = None,
    strict: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Splits:
    """Load a source by name or by path.

    Parameters
    ----------
    source : str
        ``cifar10``, ``cifar100``, ``digits``; the path of a folder, a table or an archive of
        labelled pictures (see `peewit.data.listing_of`), or of an ``.npz`` file; or that of a
        ``.tar.gz`` of CIFAR-10 or CIFAR-100 or of the folder with its extracted files.
    data : str or Path, optional
        Path of the named source. By default, the usual places are searched (see `where`), and if
        none has it, it is downloaded.
    coarse : bool, optional
        Use the 20 coarse labels of CIFAR-100 instead of the 100 fine ones.
    group : str, optional
        Pictures in files: the column of the table, or the regular expression on the name of each
        picture, that says which pictures belong together, such as those of one person. A split
        keeps them on one side.
    strict : bool, optional
        Whether a picture that cannot be read ends the training, instead of being left out.
    progress : callable, optional
        Called a few times per second during a download. By default, progress is shown only in
        notebooks.

    Returns
    -------
    Splits
        uint8 images, memory-mapped from a cache if it can be written.

    Raises
    ------
    UsageError
        The source is unknown, or an argument does not apply to it.
    SourceNotAvailable
        The source is not on this machine, and no mirror could be used.
    PeewitError
        The data at the path is damaged or not a known data set.

    Examples
    --------
    >>> load("digits").train.image_shape
    (8, 8, 1)
    >>> load("cifar11")
    Traceback (most recent call last):
    peewit.errors.UsageError: there is no source cifar11: known are cifar10, cifar100 and digits; \
give one of these, or the path of an archive or a folder
    """
    if group is not None and source in SOURCES:
        raise UsageError(f"{source} cannot be grouped", "only pictures in files have names")
    if source == "digits":
        if data is not None or coarse:
            raise UsageError(
                "digits has neither a path nor coarse labels", "it comes with scikit-learn"
            )
        from peewit.data import digits

        return Splits(*digits.load())
    if source not in SOURCES:
        if data is not None or not source:
            raise unknown_source(source)
        return _from_path(Path(source), None, coarse, group, strict)
    if coarse and source != "cifar100":
        raise UsageError(f"{source} has no coarse labels", "only cifar100 has them")
    if data is not None:
        return _from_path(Path(data), source, coarse)
    fetched, loaded = _search(source, progress)
    return _splits(fetched.path, loaded, coarse, fetched.notes)


def moved(source: Mapping[str, Any], data: str | Path | None) -> dict[str, Any]:
    """Return the arguments of `load` for the same data at another path.

    Parameters
    ----------
    source : mapping
        Arguments of `load`, as stored in a run.
    data : str or Path or None
        The new path; None if the data has not moved.

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
    # absolute: a relative path could be mistaken for the name of a source
    place = str(expanded(Path(data)).absolute())
    if source.get("source") in SOURCES:
        return {**source, "data": place}
    return {**source, "source": place, "data": None}


def fetch(name: str, *, progress: Callable[[Progress], None] | None = None) -> Fetched:
    """Download a named source, unless it is on this machine.

    Returns
    -------
    Fetched
        Its path, whether it was downloaded now, and notes for the user.

    Raises
    ------
    UsageError
        The source is unknown or is not stored in files of its own.
    SourceNotAvailable
        It is not on this machine, and no mirror could be used.
    """
    fetched, loaded = _search(name, progress)
    return fetched._replace(notes=(*fetched.notes, *_unpublished(fetched.path, loaded)))


def load_path(path: Path, name: str | None) -> Loaded:
    """Load the archive or folder at a path, which must be the source ``name`` if given.

    Raises
    ------
    BadArchiveError
        It is missing, damaged, or another source.
    """
    from peewit.data.cifar import cache

    loaded = cache.load(path, home() / "decoded")
    layout = loaded.decoded.layout
    if name is not None and layout.name != name:
        raise BadArchiveError(
            f"{path} is not {name}",
            f"it contains {layout.title}",
            f"use {layout.name} as the source",
        )
    return loaded


def _from_path(
    path: Path, name: str | None, coarse: bool, group: str | None = None, strict: bool = False
) -> Splits:
    if name is None and not exists(expanded(path)) and _looks_like_a_name(str(path)):
        raise unknown_source(str(path))
    path = resolve(path, name)
    if name is None and not coarse:
        if is_npz(path) and group is None:
            from peewit.data.arrays import load_npz

            return Splits(*load_npz(path))
        listing = None if is_npz(path) else listing_of(path)
        if listing is not None:
            return _pictures(listing, group, strict)
    if group is not None:
        raise UsageError(f"{path} cannot be grouped", "only pictures in files have names")
    loaded = load_path(path, name)
    if coarse and loaded.decoded.layout.name != "cifar100":
        raise UsageError(f"{path} has no coarse labels", "only cifar100 has them")
    return _splits(path, loaded, coarse, ())


def _search(name: str, progress: Callable[[Progress], None] | None) -> tuple[Fetched, Loaded]:
    """Find or download a named source. Damaged copies are skipped with a note."""
    from peewit.data.download.fetch import Fetched, fetch_archive

    notes: list[str] = []
    damaged: list[str] = []
    for place in where(name):
        if place.found:
            try:
                loaded = load_path(place.path, name)
            except BadArchiveError as error:
                notes.append(f"{error} (skipped)")
                damaged.append(f"{error.what}: {error.why}")
            else:
                return Fetched(place.path, False, tuple(notes)), loaded
    try:
        fetched = fetch_archive(name, home(), progress=progress or _in_notebook())
    except SourceNotAvailable as error:
        raise SourceNotAvailable(
            error.what, ", ".join([*damaged, error.why]), error.todo
        ) from error
    fetched = fetched._replace(notes=(*notes, *fetched.notes))
    return fetched, load_path(fetched.path, name)


def _in_notebook() -> Callable[[Progress], None] | None:
    """Return a progress display if this is a notebook, or else None."""
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


def _pictures(listing: Listing, group: str | None, strict: bool) -> Splits:
    """Return the parts of a listing, whose pictures are decoded when they are needed."""
    from peewit.data.pictures import Pictures  # Pillow, which `peewit --help` does without

    groups, notes = None, list(listing.notes)
    if group is not None:
        groups, sentence = groups_of(listing, group)
        notes.append(sentence)

    def part(wanted: list[int], title: str) -> Dataset | None:
        rows = np.flatnonzero(np.isin(listing.parts, wanted))
        if not len(rows):
            return None
        names = listing.names
        if len(rows) < len(listing):
            names = [names[row] for row in rows.tolist()]
        validation = listing.parts[rows] == VALIDATION
        return Dataset(
            select(Pictures(listing=listing, strict=strict), rows),
            listing.labels[rows],
            listing.class_names,
            f"{listing.place.name} {title}, {listing.place}",
            names,
            None if groups is None else groups[rows],
            validation if validation.any() else None,
        )

    train = part([UNKNOWN, TRAIN, VALIDATION], "train")
    assert train is not None, "make_listing has refused this"
    return Splits(train, part([TEST], "test"), tuple(notes))


def _unpublished(path: Path, loaded: Loaded) -> list[str]:
    """Return a note if the data is valid but not the published archive."""
    if loaded.published is not False:
        return []
    return [
        f"{path} is valid, but its checksum is not the published one: it is not the original"
        f" {loaded.decoded.layout.title}, so accuracies are comparable only with other results on"
        " this copy"
    ]


def _looks_like_a_name(source: str) -> bool:
    return not any(mark in source for mark in "/\\.~")
