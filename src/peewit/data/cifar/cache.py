"""Cache decoded images on disk, as memory-mapped arrays.

Mapping them is much faster than decoding the archive again. An entry is a folder whose name is a
hash of the source's path, size and times, so a changed archive at the same path gets a new entry.
It contains the arrays as plain bytes, without a header that would have to be parsed, and
``about.json``. Each load checks the CRC-32 of both, so a damaged entry is detected and replaced.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.cifar import layouts
from peewit.data.cifar.archive import cannot_read, check_file
from peewit.data.cifar.decoding import Decoded, decode
from peewit.data.cifar.layouts import SIDE, file_checksum, find_layout
from peewit.errors import reason_of

FORMAT = 2
# Maximum number of entries, 184 MB each
KEPT = 4
# Seconds after which the folder of a killed process is removed
_ABANDONED_AFTER = 3600
_ABOUT = "about.json"
_BUILDING = ".building-"
_MAX_ABOUT = 1 << 16  # bytes; that of CIFAR-100 has 2,000 and the path of the source
_CHUNK = 1 << 20


class Loaded(NamedTuple):
    """The decoded content of an archive or a folder, and notes for the user."""

    decoded: Decoded
    published: bool | None
    """Whether the checksums are the published ones; None if none are published."""
    notes: tuple[str, ...]


def load(source: Path, folder: Path) -> Loaded:
    """Load an archive or a folder of extracted files, through the cache.

    Parameters
    ----------
    source : Path
        A ``.tar.gz`` or a folder.
    folder : Path
        Folder of the cache, created if needed. If it cannot be written to, the images are loaded
        without a cache, with a note.

    Returns
    -------
    Loaded
        Images mapped from the cache, or in memory if there is no cache.

    Raises
    ------
    BadArchiveError
        The source is missing, damaged, or not CIFAR-10 or CIFAR-100.
    """
    source = source.absolute()
    place, version = _keys(source)
    entry = folder / f"{place}-{version}"
    cached = _open(entry)
    if cached is not None:
        return cached
    notes: tuple[str, ...] = ()
    if os.path.lexists(entry):
        notes = (f"the cached images in {entry} are damaged or unreadable: decoding them again",)
    decoded, published = _decode(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _store(entry, source, decoded, published)
        _prune(folder, entry)
    except OSError as error:
        cached = _open(entry)
        if cached is None:  # or else another process wrote it first
            uncached = (
                f"cannot cache the decoded images in {folder} ({reason_of(error)}):"
                " the next start decodes them again"
            )
            return Loaded(decoded, published, (*notes, uncached))
    # the mapped copy, so that the one in memory can be freed
    mapped = _open(entry) or Loaded(decoded, published, ())
    return mapped._replace(notes=notes)


def _keys(source: Path) -> tuple[str, str]:
    """Return short hashes of the source's path and of its version (size and times)."""
    place = os.path.normcase(os.path.realpath(source))
    try:
        if source.is_dir():
            names = {name for layout in layouts.LAYOUTS for name in layout.files}
            files = [source / name for name in sorted(names) if (source / name).is_file()]
        else:
            check_file(source)
            files = [source]
        states = [(file.name, _state(file.stat())) for file in files]
    except OSError as error:
        raise cannot_read(source, error) from error
    return _short_hash(place), _short_hash(json.dumps([FORMAT, states]))


def _state(stat: os.stat_result) -> tuple[int, int, int]:
    # the change time detects a file that was replaced with its old modification time
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _decode(source: Path) -> tuple[Decoded, bool | None]:
    """Decode, and compare checksums in parallel (hashing releases the GIL)."""
    if source.is_dir():
        sums: dict[str, str] = {}

        def add_checksum(name: str, content: bytes) -> None:
            sums[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()

        decoded = decode(source, add_checksum)
        published = decoded.layout.file_md5
        return decoded, (sums == dict(published) if published else None)
    with ThreadPoolExecutor(1) as pool:
        # a sha256 is published for the python archives, a md5 for the (rare) binary ones
        sha256 = pool.submit(file_checksum, source, "sha256")
        decoded = decode(source)
        algorithm, expected = decoded.layout.checksum
        if algorithm == "sha256":
            return decoded, sha256.result() == expected
        return decoded, file_checksum(source, algorithm) == expected


def _store(entry: Path, source: Path, decoded: Decoded, published: bool | None) -> None:
    """Write an entry atomically, and replace it if it is damaged."""
    building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=entry.parent))
    old = building.with_name(f"{building.name}-old")
    try:
        sums = {}
        for name, array in (("images", decoded.images), ("labels", decoded.labels)):
            (building / name).write_bytes(array.data)
            sums[name] = zlib.crc32(array.data)
        about = {
            "source": str(source),
            "name": decoded.layout.name,
            "form": decoded.layout.form,
            "class_names": decoded.class_names,
            "published": published,
            "crc32": sums,
        }
        content = json.dumps({"about": about, "crc32": _json_checksum(about)})
        (building / _ABOUT).write_text(content, encoding="utf-8")
        if _open(entry) is None:  # or else another process has written it
            # moved rather than removed, because it may be anything: a file, or a link
            if os.path.lexists(entry):
                entry.rename(old)
            building.rename(entry)
    finally:
        _remove(building)
        _remove(old)


def _json_checksum(value: object) -> int:
    return zlib.crc32(json.dumps(value).encode())


def _open(entry: Path) -> Loaded | None:
    """Map an entry. Return None if it does not exist, is damaged or cannot be read."""
    try:
        file = entry / _ABOUT
        # reading a pipe would wait forever
        if not file.is_file() or file.stat().st_size > _MAX_ABOUT:
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
        about: dict[str, Any] = content["about"]
        if content["crc32"] != _json_checksum(about):
            return None
        layout = find_layout(about["name"], about["form"])
        shape = (layout.images, SIDE, SIDE, 3)
        images = _map(entry / "images", shape, about["crc32"]["images"])
        labels = _map(
            entry / "labels", (layout.images, len(layout.classes)), about["crc32"]["labels"]
        )
        names = {kind: tuple(about["class_names"][kind]) for kind in layout.classes}
        # _prune() keeps the most recently used entries
        with suppress(OSError):
            os.utime(entry)
        return Loaded(Decoded(layout, images, labels, names), about["published"], ())
    except (OSError, ValueError, LookupError, TypeError, StopIteration, RecursionError):
        return None


def _map(path: Path, shape: tuple[int, ...], checksum: int) -> npt.NDArray[np.uint8]:
    """Map an array if it has the size and the checksum that it was written with."""
    if path.stat().st_size != math.prod(shape):  # 0 for a pipe, which must not be opened
        raise ValueError("another size")
    found = 0
    # read, not mapped: a disk error is then an exception, and not the end of the process
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            found = zlib.crc32(part, found)
    if found != checksum:
        raise ValueError("another checksum")
    return np.memmap(path, np.uint8, "r", shape=shape)


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, if possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _prune(folder: Path, entry: Path) -> None:
    """Remove old versions of this source, the least recently used entries, and dead folders."""
    place = entry.name.split("-")[0]
    others: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        if path == entry or not path.is_dir():
            continue
        used = path.stat().st_mtime
        if path.name.startswith(_BUILDING):
            if time.time() - used > _ABANDONED_AFTER:
                shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(f"{place}-"):
            shutil.rmtree(path, ignore_errors=True)
        elif (path / _ABOUT).is_file():
            others.append((used, path))
    for _, path in sorted(others, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
