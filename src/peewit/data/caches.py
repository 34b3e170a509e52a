"""The caches on disk, of decoded images and of features: their entries, limit and removal."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from peewit.data.packing.entry import BUILDING, INVALID, read_about, remove
from peewit.data.places import home
from peewit.errors import UsageError

# Environment variable with the limit of the cache of pictures, in GB
LIMIT = "PEEWIT_CACHE_GB"
DEFAULT_LIMIT = 10e9  # bytes, or half of what is free
# Bytes of the disk that the cache leaves free
RESERVE = 500e6
# Seconds for which an unfinished entry is kept for a process that continues it, and for which it is
# certainly being built
_ABANDONED_AFTER = 7 * 86_400
_BUSY = 3_600

# Names of entries: whatever else a user puts there is left alone
_NAME = re.compile(rf"[0-9a-f]+-[0-9a-f]+(-[0-9a-f]+)?(-facts)?$|{re.escape(BUILDING)}")

FEATURES = ".features"
COMPLETE, UNFINISHED, DAMAGED = "complete", "unfinished", "damaged"


@dataclass(frozen=True)
class Cached:
    """An entry of a cache.

    Parameters
    ----------
    path : Path
        Its folder, or its file.
    content : str
        "pictures" of a folder, table or archive, an "archive" of CIFAR, or "features" of pictures.
    source : str
        Where they come from; empty if that is not known.
    size : str
        "64 x 64 pixels, crop", for example; empty if that is not known.
    pictures : int
        0 if that is not known.
    bytes : int
    used : float
        When it was used last, in seconds since the epoch.
    state : str
        "complete", "unfinished" or "damaged".
    """

    path: Path
    content: str
    source: str
    size: str
    pictures: int
    bytes: int
    used: float
    state: str


def folder_of_pictures() -> Path:
    """Return the folder of the cache of pictures, which need not exist."""
    return home() / "packed"


def folder_of_archives() -> Path:
    """Return the folder of the cache of CIFAR archives, which need not exist."""
    return home() / "decoded"


def folder_of_features() -> Path:
    """Return the folder of the features of pictures by pretrained networks, which need not exist.

    A file ``NAME.features`` has those of all pictures by one network and engine.
    """
    return home() / "features"


def entries() -> list[Cached]:
    """Return all entries, the most recently used first."""
    places = {"pictures": folder_of_pictures(), "archive": folder_of_archives()}
    found = [one for content, folder in places.items() for one in _entries(folder, content)]
    for file in folder_of_features().glob(f"*{FEATURES}"):
        with suppress(OSError):  # another process may remove it now
            facts = file.stat()
            name, size = file.name.removesuffix(FEATURES), facts.st_size
            found.append(
                Cached(file, "features", name, "features", 0, size, facts.st_mtime, COMPLETE)
            )
    return sorted(found, key=lambda one: one.used, reverse=True)


def _entries(folder: Path, content: str) -> Iterator[Cached]:
    try:
        paths = [path for path in folder.iterdir() if _NAME.match(path.name) and path.is_dir()]
    except OSError:  # nothing has been cached yet
        return
    for path in paths:
        count, used = 0, 0.0
        for part in (path, *path.glob("*")):
            with suppress(OSError):  # another process may remove it now
                found = part.stat()
                count += found.st_size if part != path else 0
                used = max(used, found.st_mtime)
        about: dict[str, object] = {}
        state = UNFINISHED
        if not path.name.startswith(BUILDING):
            state = COMPLETE
            try:
                about = read_about(path)
            except INVALID:
                state = DAMAGED
        size = ""
        if "fit" in about:
            size = f"{about['height']} x {about['width']} pixels, {about['fit']}"
            if not about["pixels"]:
                size = f"only facts of {size}"
        pictures = about.get("pictures", 0)
        yield Cached(
            path=path,
            content=content,
            source=str(about.get("source", "")),
            size=size,
            pictures=pictures if isinstance(pictures, int) else 0,
            bytes=count,
            used=used,
            state=state,
        )


def clean(*, older_than: float | None = None, everything: bool = False) -> list[Cached]:
    """Remove entries of the caches.

    Damaged entries, those whose source no longer exists, and those that a process left unfinished
    are always removed.

    Parameters
    ----------
    older_than : float, optional
        Also remove entries that have not been used for so many days.
    everything : bool, optional
        Remove all entries.

    Returns
    -------
    list of Cached
        The removed entries.
    """
    removed = []
    now = time.time()
    for entry in entries():
        age = now - entry.used
        if entry.content == "features":
            useless = False
        elif entry.state == UNFINISHED:
            useless = age > _BUSY
        else:
            useless = entry.state == DAMAGED or not os.path.lexists(entry.source)
        old = older_than is not None and age > 86_400 * older_than
        if useless or old or everything:
            if entry.content == "features":
                with suppress(OSError):  # Windows does not remove a file that is in use
                    entry.path.unlink()
            else:
                remove(entry.path)
            if not entry.path.exists():
                removed.append(entry)
    return removed


def limit() -> float:
    """Return the limit of the cache of pictures in bytes, as the user has set it or by default.

    Raises
    ------
    UsageError
        The environment variable is not a number.
    """
    chosen = os.environ.get(LIMIT)
    if chosen:
        try:
            gigabytes = float(chosen)
        except ValueError:
            gigabytes = -1
        if not 0 <= gigabytes < float("inf"):
            raise UsageError(
                f"{LIMIT} is {chosen}", "it is not a number of gigabytes", "set it to 10, or to 0"
            )
        return 1e9 * gigabytes
    used = sum(one.bytes for one in _entries(folder_of_pictures(), "pictures"))
    return min(DEFAULT_LIMIT, (_free() + used) / 2)


def _free() -> float:
    """Return the bytes that are free on the disk of the cache."""
    folder = folder_of_pictures()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def make_room(need: float, keep: str) -> str:
    """Remove the least recently used pictures until ``need`` bytes fit.

    Nothing is removed if they would not fit even then.

    Parameters
    ----------
    need : float
        Bytes of the new entry.
    keep : str
        Entries whose names contain this are not removed: the new one, and earlier versions of it.

    Returns
    -------
    str
        Why they do not fit; empty if they do.

    Raises
    ------
    OSError
        The disk cannot be asked how much is free.
    """
    most = limit()
    if need > most:
        return (
            f"the decoded pictures need {_size(need)}, more than the limit of the cache, "
            f"{_size(most)} ({LIMIT} changes it)"
        )
    found = list(_entries(folder_of_pictures(), "pictures"))
    now = time.time()
    others = [one for one in found if keep not in one.path.name]
    removable = [one for one in others if one.state != UNFINISHED or now - one.used > _BUSY]
    own = sum(one.bytes for one in found) - sum(one.bytes for one in others)
    total, free = float(sum(one.bytes for one in others)), _free() + own
    if need + RESERVE > free + sum(one.bytes for one in removable):
        return (
            f"the decoded pictures need {_size(need)}, and the disk of the cache has only "
            f"{_size(max(free, 0))} left, of which {_size(RESERVE)} stay free"
        )
    for one in sorted(removable, key=lambda one: one.used):
        abandoned = one.state == UNFINISHED and now - one.used > _ABANDONED_AFTER
        if total + need > most or need + RESERVE > free or abandoned:
            remove(one.path)
            total, free = total - one.bytes, free + one.bytes
    return ""


def _size(count: float) -> str:
    """Return a number of bytes as text.

    >>> _size(41_472_000), _size(2.5e9), _size(0)
    ('41 MB', '2.5 GB', '0 MB')
    """
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
