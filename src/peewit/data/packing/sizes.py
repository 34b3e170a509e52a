"""Data sets with their pictures decoded at one size: from the cache, in memory, or as needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import filelock
import numpy as np
import numpy.typing as npt

from peewit.data import caches
from peewit.data.dataset import Dataset
from peewit.data.listing import Listing
from peewit.data.packing.decoding import (
    INTERVAL,
    Failure,
    Progress,
    Reuse,
    Show,
    chunk_length,
    decode_chunks,
)
from peewit.data.packing.entry import (
    BUILDING,
    RECORD,
    Builder,
    Entry,
    Key,
    key_of,
    open_entry,
    remove,
)
from peewit.data.packing.live import LivePictures
from peewit.data.packing.reuse import earlier_version, unfinished_entry
from peewit.data.pictures import Pictures, files_of
from peewit.data.store import Facts, Recorded, facts_type, select
from peewit.errors import PeewitError, reason_of
from peewit.images.fitting import Fit
from peewit.images.preprocessing import Preprocessing

Note = Callable[[str], None]
Pixels = npt.NDArray[np.uint8]
# Unreadable files that a sentence names
NAMED = 3
# Bytes of decoded pictures that are kept in memory if they cannot be cached
IN_MEMORY = 1e9


class Packed(NamedTuple):
    """The decoded pictures of a listing, and why some of them could not be decoded."""

    images: Recorded
    failures: dict[int, Failure]


# The pictures of a training set and of its test set are decoded together, and asked for one after
# the other.
_packed: WeakKeyDictionary[Listing, dict[tuple[object, ...], Packed]] = WeakKeyDictionary()


def sized_for(
    dataset: Dataset, preprocessing: Preprocessing, note: Note, show: Show | None = None
) -> Dataset:
    """Return a data set with its pictures at the input size of a network; see `at_size`."""
    size = preprocessing.height, preprocessing.width
    return at_size(dataset, *size, preprocessing.fit, note, show)


def at_size(
    dataset: Dataset, height: int, width: int, fit: Fit, note: Note, show: Show | None = None
) -> Dataset:
    """Return a data set of picture files with its pictures decoded at one size.

    They are decoded once, into the cache; or into memory, or each time they are used, if there is
    no room for them. Files that cannot be read are left out, with a note. A data set of arrays is
    returned unchanged.

    Parameters
    ----------
    dataset : Dataset
    height, width : int
    fit : {"crop", "pad", "stretch"}
    note : callable
        Called with sentences for the user.
    show : callable, optional
        Called with a `Progress` several times a second; may raise to stop.

    Raises
    ------
    PeewitError
        None of the pictures can be read; or not all, and the data set was loaded as strict.
    """
    files = files_of(dataset.images)
    if files is None:
        return dataset
    (pictures, rows) = files[0].at(height, width, fit), files[1]
    known = _packed.setdefault(pictures.listing, {})
    kind = (*pictures.shape[1:], fit)
    if kind not in known:
        known[kind] = _pack(pictures, note, show)
    packed = known[kind]
    readable = packed.images.facts["readable"][rows]
    if not readable.all():
        unreadable = [packed.failures[row].error() for row in rows[~readable].tolist()]
        if pictures.strict:
            raise unreadable[0]
        _note_unreadable(unreadable, len(rows), dataset, note)
    taken = dataset.take(np.flatnonzero(readable)) if not readable.all() else dataset
    return replace(taken, images=select(packed.images, rows[readable]))


def _note_unreadable(
    unreadable: list[PeewitError], total: int, dataset: Dataset, note: Note
) -> None:
    count = len(unreadable)
    named = "; ".join(str(error) for error in unreadable[:NAMED])
    if count == total:
        raise PeewitError(f"none of the {total:,} pictures of {dataset.origin} can be read", named)
    more = "; ..." if count > NAMED else ""
    note(f"{count:,} of {total:,} pictures cannot be read and are left out: {named}{more}")


def _pack(pictures: Pictures, note: Note, show: Show | None) -> Packed:
    folder, key = caches.folder_of_pictures(), key_of(pictures, pixels=True)
    packed = _opened(folder, key, pictures)
    if packed is not None:
        return packed
    need, reuse = math.prod(pictures.shape), None
    try:
        why = caches.make_room(need, key.prefix)
        if not why:
            return _cached(folder, key, pictures, note, show)
    except OSError as error:
        why = f"cannot cache the decoded pictures in {folder} ({reason_of(error)})"
        # what was decoded before the disk was full
        reuse = unfinished_entry(folder, key, pictures)
    if need <= IN_MEMORY:
        note(f"{why}: they are kept in memory, and decoded again at the next start")
        pixels = np.empty(pictures.shape, np.uint8)
        facts, failures = _uncached(pictures, show, reuse, pixels)
        packed = Packed(Recorded(pixels, facts), failures)
    elif pictures.listing.files.sequential:
        raise PeewitError(
            why,
            f"{pictures.listing.place} can only be read from beginning to end",
            "unpack it and use the folder, or make room",
        )
    else:
        note(f"{why}: they are decoded while they are used, which takes longer")
        packed = _live(folder, replace(key, pixels=False), pictures, note, show, reuse)
    if reuse is not None:
        remove(folder / f"{BUILDING}{key.name}")
    return packed


def _live(
    folder: Path, key: Key, pictures: Pictures, note: Note, show: Show | None, reuse: Reuse | None
) -> Packed:
    """Decode all pictures once, to know which can be read and what their statistics are."""
    packed = _opened(folder, key, pictures)
    if packed is not None:
        return packed
    try:
        return _cached(folder, key, pictures, note, show, reuse)
    except OSError:  # no more than a hundred bytes a picture, but even they do not fit
        facts, failures = _uncached(pictures, show, reuse, None)
        return Packed(Recorded(LivePictures(pictures, facts), facts), failures)


def _opened(folder: Path, key: Key, pictures: Pictures) -> Packed | None:
    """Return an entry of the cache; None if there is none that is valid and up to date."""
    entry = open_entry(folder / key.name, pictures)
    if entry is None or _can_be_read_now(entry, pictures):
        return None
    if not key.pixels:
        return Packed(Recorded(LivePictures(pictures, entry.facts), entry.facts), entry.failures)

    try:
        return Packed(Recorded(entry.images(pictures), entry.facts), entry.failures)
    except (OSError, ValueError):  # damaged
        return None


def _can_be_read_now(entry: Entry, pictures: Pictures) -> bool:
    """Return whether a file can be read now that could not be: permissions leave no stamp."""
    for row, failure in entry.failures.items():
        if failure.unread:
            try:
                pictures.listing.files.read(row)
            except PeewitError:
                continue
            return True
    return False


def _cached(
    folder: Path,
    key: Key,
    pictures: Pictures,
    note: Note,
    show: Show | None,
    reuse: Reuse | None = None,
) -> Packed:
    """Build an entry of the cache, or wait for the process that builds it; raise OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{key.name}.lock"
    lock = filelock.FileLock(file)
    _acquire(lock, folder, key, pictures, note, show)
    try:
        packed = _opened(folder, key, pictures)
        if packed is None:
            builder = Builder(folder, key, pictures)
            try:
                reuse = reuse or earlier_version(folder, key, pictures)
                for chunk in decode_chunks(pictures, len(builder.facts), show, reuse):
                    builder.write(chunk)
                builder.finish()
            finally:
                builder.close()
            packed = _opened(folder, key, pictures)
            if packed is None:
                raise OSError(f"{folder / key.name} is not what was written")
            for path in folder.glob(f"{key.prefix}*"):
                if key.content not in path.name and path.suffix != ".lock":
                    remove(path)
        # whoever waits for this file, or makes a new one, will find the entry
        file.unlink(missing_ok=True)
        return packed
    finally:
        lock.release()


def _acquire(
    lock: filelock.BaseFileLock,
    folder: Path,
    key: Key,
    pictures: Pictures,
    note: Note,
    show: Show | None,
) -> None:
    """Wait until no other process builds the entry, and show how far it is."""
    waited = False
    progress = Progress(0, len(pictures))
    while True:
        try:
            lock.acquire(timeout=INTERVAL if waited else 0)
            return
        except filelock.Timeout:
            if not waited:
                note("another process is decoding these pictures: waiting for it")
            waited = True
        try:
            chunks = (folder / f"{BUILDING}{key.name}" / "chunks").stat().st_size // RECORD
        except OSError:  # it has just finished
            continue
        progress.done = min(chunks * chunk_length(pictures.shape[1:]), len(pictures))
        if show:
            show(progress)


def _uncached(
    pictures: Pictures, show: Show | None, reuse: Reuse | None, pixels: Pixels | None
) -> tuple[Facts, dict[int, Failure]]:
    """Decode all pictures once, into ``pixels`` if given; return facts and failures."""
    facts, failures = np.empty(len(pictures), facts_type(pictures.channels)), {}
    done = 0
    for chunk in decode_chunks(pictures, 0, show, reuse):
        rows = slice(done, done + len(chunk.facts))
        facts[rows] = chunk.facts
        failures.update(chunk.failures)
        if pixels is not None:
            pixels[rows] = chunk.pixels
        done = rows.stop
    return facts, failures
