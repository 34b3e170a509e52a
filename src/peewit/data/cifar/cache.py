"""Keep decoded images between starts, as memory-mapped arrays.

Decoding an archive takes much longer than mapping what it came to. An entry is a folder named after
the path of its source and the source's size and times, so that another archive in the same place is
another entry. It is checked whole (CRC-32) each time, so a damaged one is noticed and made again.
"""

from __future__ import annotations

import hashlib
import json
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
from peewit.data.cifar.layouts import file_checksum, find_layout
from peewit.errors import reason_of

FORMAT = 1
# Entries kept in all: one is 184 MB
KEPT = 4
# A folder that a killed process left behind is swept after this many seconds
_ABANDONED = 3600


class Loaded(NamedTuple):
    """What an archive or a folder holds, and what is to be said of it."""

    decoded: Decoded
    published: bool | None
    """Whether every byte is the published one; None where no checksum is published."""
    notes: tuple[str, ...]


def load(source: Path, folder: Path) -> Loaded:
    """Read an archive or a folder of extracted files, through the cache.

    Parameters
    ----------
    source : Path
        A ``.tar.gz`` or a folder.
    folder : Path
        Where the entries of the cache are; it is made if needed. Where it cannot be used, all
        works without, with a note.

    Returns
    -------
    Loaded
        Images mapped from the cache, or in memory where there is none.

    Raises
    ------
    BadArchiveError
        The source is missing, damaged or not what it should be.
    """
    source = source.absolute()
    place, version = _keys(source)
    entry = folder / f"{place}-{version}"
    known = _open(entry)
    if known is not None:
        return known
    decoded, published = _decode(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _store(entry, source, decoded, published)
        _prune(folder, entry)
    except OSError as error:
        found = _open(entry)
        if found is not None:  # another process was faster by a hair
            return found
        reason = reason_of(error)
        note = f"decoded images cannot be kept in {folder} ({reason}); the next start decodes again"
        return Loaded(decoded, published, (note,))
    # the mapped copy, so that the one in memory can go
    return _open(entry) or Loaded(decoded, published, ())


def _keys(source: Path) -> tuple[str, str]:
    """Short hashes of where the source is, and of which version of it is there."""
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
    return _short(place), _short(json.dumps([FORMAT, states]))


def _state(stat: os.stat_result) -> tuple[int, int, int]:
    # the change time catches what is copied over with its old modification time
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _decode(source: Path) -> tuple[Decoded, bool | None]:
    """Decode, and compare checksums meanwhile (hashing works without the GIL)."""
    if source.is_dir():
        sums: dict[str, str] = {}

        def watch(name: str, content: bytes) -> None:
            sums[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()

        decoded = decode(source, watch)
        published = decoded.layout.file_md5
        return decoded, (sums == dict(published) if published else None)
    with ThreadPoolExecutor(1) as pool:
        # the python archives have a published sha256, the binary ones (rare) a md5
        sha256 = pool.submit(file_checksum, source, "sha256")
        decoded = decode(source)
        algorithm, expected = decoded.layout.checksum
        if algorithm == "sha256":
            return decoded, sha256.result() == expected
        return decoded, file_checksum(source, algorithm) == expected


def _store(entry: Path, source: Path, decoded: Decoded, published: bool | None) -> None:
    """Write an entry, whole or not at all."""
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=entry.parent))
    try:
        sums = {}
        for name, array in (("images", decoded.images), ("labels", decoded.labels)):
            np.save(building / f"{name}.npy", array, allow_pickle=False)
            sums[name] = zlib.crc32(array.data)
        about = {
            "source": str(source),
            "name": decoded.layout.name,
            "form": decoded.layout.form,
            "class_names": decoded.class_names,
            "published": published,
            "crc32": sums,
        }
        (building / "about.json").write_text(json.dumps(about), encoding="utf-8")
        if entry.exists() and _open(entry) is None:
            shutil.rmtree(entry, ignore_errors=True)
        if not entry.exists():  # else another process has made it meanwhile
            building.rename(entry)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _open(entry: Path) -> Loaded | None:
    """Map an entry, or None where there is none or it is damaged."""
    try:
        about: dict[str, Any] = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        layout = find_layout(about["name"], about["form"])
        images, labels = _map(entry / "images.npy"), _map(entry / "labels.npy")
        sums = {"images": zlib.crc32(images.data), "labels": zlib.crc32(labels.data)}
        names = {kind: tuple(about["class_names"][kind]) for kind in layout.classes}
        if sums != about["crc32"] or len(images) != layout.images:
            return None
        decoded = Decoded(layout, images, labels, names)
        # prune() keeps the entries that were used last
        with suppress(OSError):
            os.utime(entry)
        return Loaded(decoded, about["published"], ())
    except (OSError, ValueError, EOFError, KeyError, TypeError, StopIteration):
        return None


def _map(path: Path) -> npt.NDArray[np.uint8]:
    array: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8 or not array.flags.c_contiguous:
        raise ValueError("not what was written")
    return array


def _prune(folder: Path, entry: Path) -> None:
    """Remove other versions of the same source, the least used entries, and abandoned work."""
    place = entry.name.split("-")[0]
    others: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        if path == entry or not path.is_dir():
            continue
        used = path.stat().st_mtime
        if path.name.startswith(".building-"):
            if time.time() - used > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(f"{place}-"):
            shutil.rmtree(path, ignore_errors=True)
        elif (path / "about.json").is_file():
            others.append((used, path))
    for _, path in sorted(others, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
