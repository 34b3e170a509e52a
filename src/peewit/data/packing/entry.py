"""Entries of the cache: folders with the decoded pictures of a listing.

The name of an entry is made of hashes of the listing's place, of how its pictures are decoded, and
of their names and stamps, so pictures that have changed get a new entry. It contains

- ``pixels``: those of all pictures in the order of the listing, as plain bytes; zeros for a picture
  that could not be decoded. Not if the pictures are decoded while they are used.
- ``facts``: a row of `facts_type` for each picture.
- ``chunks``: for each chunk the CRC-32 of its facts, as uint32.
- ``failures``: for each unreadable picture a line of JSON: its number, why, and whether its file
  could not even be read.
- ``names`` (JSON) and ``stamps`` (int64): which pictures these are, so that those that have not
  changed need not be decoded again for a new entry.
- ``about.json``: written last.

While it is built it is in a folder whose name begins with ``.building-``. Its chunks are written
one after another, so a process that was killed loses the last one at most.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from peewit.data.listing import Listing
from peewit.data.packing.decoding import Chunk, Failure, chunk_length
from peewit.data.packing.pixels import PackedFile
from peewit.data.pictures import Pictures
from peewit.data.store import Facts, facts_type

FORMAT = 2
# Another version of these may return other pixels, or read what could not be read before.
DECODERS = ("pillow", "simplejpeg", "pillow-heif")
ABOUT = "about.json"
BUILDING = ".building-"
_MAX_ABOUT = 1 << 16  # bytes
# Files whose checksums are in ``about.json``; the hashes of the pixels are in ``facts``
_CHECKED = ("facts", "chunks", "failures")
RECORD = 4  # bytes of a chunk in ``chunks``
# What the content of a folder may lead to if it is damaged or was not written by Peewit
INVALID = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Key:
    """What identifies an entry.

    Parameters
    ----------
    place, spec, content : str
        Hashes: of the path, of how the pictures are decoded, and of their names and stamps.
    pixels : bool
        Whether the entry has pixels, or only facts.
    """

    place: str
    spec: str
    content: str
    pixels: bool

    @property
    def name(self) -> str:
        """The name of the folder."""
        return f"{self.prefix}{self.content}{'' if self.pixels else '-facts'}"

    @property
    def prefix(self) -> str:
        """The beginning of the names of all versions of this entry."""
        return f"{self.place}-{self.spec}-"


@dataclass(frozen=True)
class Entry:
    """A finished entry.

    Parameters
    ----------
    path : Path
    facts : structured array, shape (N,)
    failures : dict of int to Failure
    """

    path: Path
    facts: Facts
    failures: dict[int, Failure]

    def images(self, pictures: Pictures) -> PackedFile:
        """Return the pixels; raise OSError or ValueError if their file is damaged."""
        return PackedFile(self.path / "pixels", pictures.shape, self.facts, pictures.decode)


def key_of(pictures: Pictures, *, pixels: bool) -> Key:
    """Return what identifies the entry of these pictures."""
    listing = pictures.listing
    place = os.path.normcase(os.path.realpath(listing.place))
    return Key(
        _short_hash(place.encode("utf-8", "surrogateescape")),
        _short_hash(json.dumps(_spec(pictures)).encode()),
        _content(listing),
        pixels,
    )


def _spec(pictures: Pictures) -> list[Any]:
    shape = (pictures.height, pictures.width, pictures.channels)
    return [FORMAT, *shape, pictures.fit, *map(_version, DECODERS)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _content(listing: Listing) -> str:
    # not only escaped bytes: a table may contain any surrogate
    names = "\0".join(listing.names).encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(f"{len(listing)} ".encode() + names)
    digest.update(np.ascontiguousarray(listing.stamps).data)
    return digest.hexdigest()[:16]


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def open_entry(folder: Path, pictures: Pictures, count: int | None = None) -> Entry | None:
    """Open a finished entry, with ``count`` pictures if not with all of ``pictures``.

    Return None if there is none, or if it is damaged.
    """
    count = len(pictures) if count is None else count
    try:
        about = read_about(folder)
        facts = np.fromfile(folder / "facts", facts_type(pictures.channels))
        chunks = (folder / "chunks").read_bytes()
        failures = (folder / "failures").read_bytes()
        contents: list[bytes | memoryview] = [facts.view(np.uint8).data, chunks, failures]
        sums = {name: zlib.crc32(part) for name, part in zip(_CHECKED, contents, strict=True)}
        if len(facts) != count or sums != about["crc32"]:
            return None
        entry = Entry(folder, facts, _failures(failures))
        with suppress(OSError):
            os.utime(folder)  # the least recently used entries are removed first
        return entry
    except INVALID:
        return None


def read_about(folder: Path) -> dict[str, Any]:
    """Return the content of ``about.json``; raise one of ``INVALID`` if it is damaged."""
    file = folder / ABOUT
    # reading a pipe would wait forever
    if not file.is_file() or file.stat().st_size > _MAX_ABOUT:
        raise ValueError("no such file")
    content = json.loads(file.read_text(encoding="utf-8"))
    about: dict[str, Any] = content["about"]
    if content["crc32"] != _json_checksum(about):
        raise ValueError("another checksum")
    return about


def _json_checksum(value: object) -> int:
    return zlib.crc32(json.dumps(value).encode())


def _failures(content: bytes) -> dict[int, Failure]:
    found = {}
    # without a last line that was cut short
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        row, what, why, todo, unread = json.loads(line)
        found[int(row)] = Failure(str(what), str(why), str(todo), bool(unread))
    return found


def unfinished(path: Path, pictures: Pictures, key: Key) -> tuple[Facts, dict[int, Failure]]:
    """Return the facts and failures of the complete chunks of an entry that is being built.

    Parameters
    ----------
    path : Path
        The folder in which it is being built, which need not exist.
    pictures : Pictures
    key : Key

    Returns
    -------
    structured array, shape (n,), and dict of int to Failure
        n is 0 if there are none.
    """
    kind = facts_type(pictures.channels)
    size, length = math.prod(pictures.shape[1:]), chunk_length(pictures.shape[1:])
    try:
        chunks = np.fromfile(path / "chunks", np.uint32)
        facts = np.fromfile(path / "facts", kind)
        stored = (path / "pixels").stat().st_size // size if key.pixels else len(pictures)
        failures = _failures((path / "failures").read_bytes())
    except INVALID:
        return np.empty(0, kind), {}
    done = 0
    for checksum in chunks.tolist():
        end = min(done + length, len(pictures))
        part = facts[done:end]
        unreadable = set((np.flatnonzero(~part["readable"]) + done).tolist())
        complete = done < end <= min(len(facts), stored) and unreadable <= failures.keys()
        if not complete or zlib.crc32(part.view(np.uint8).data) != checksum:
            break
        done = end
    return facts[:done], {row: found for row, found in failures.items() if row < done}


class Builder:
    """An entry that is being built, perhaps continued from where a killed process was.

    Only one process may build an entry at a time.

    Parameters
    ----------
    folder : Path
        Of the cache; it must exist.
    key : Key
    pictures : Pictures

    Attributes
    ----------
    facts : structured array, shape (n,)
        Those of the pictures that an earlier process has decoded.
    failures : dict of int to Failure

    Raises
    ------
    OSError
        The folder cannot be written to.
    """

    def __init__(self, folder: Path, key: Key, pictures: Pictures) -> None:
        self.path = folder / f"{BUILDING}{key.name}"
        self._entry, self._pictures, self._key = folder / key.name, pictures, key
        self.path.mkdir(exist_ok=True)
        self.facts, self.failures = unfinished(self.path, pictures, key)
        done = len(self.facts)
        chunks = -(-done // chunk_length(pictures.shape[1:]))
        # whatever a killed process wrote after the last complete chunk is cut off
        lengths = {"facts": done * self.facts.dtype.itemsize, "chunks": chunks * RECORD}
        if key.pixels:
            lengths["pixels"] = done * math.prod(pictures.shape[1:])
        self._files = {name: (self.path / name).open("ab", buffering=0) for name in lengths}
        for name, length in lengths.items():
            self._files[name].truncate(length)
        (self.path / "failures").write_text(
            "".join(_line(row, failure) for row, failure in self.failures.items()),
            encoding="utf-8",
        )

    def write(self, chunk: Chunk) -> None:
        """Add the next chunk; raise OSError if it cannot be written."""
        if self._key.pixels:
            _write_all(self._files["pixels"], chunk.pixels.reshape(-1).data)
        facts = chunk.facts.view(np.uint8)
        _write_all(self._files["facts"], facts.data)
        with (self.path / "failures").open("a", encoding="utf-8") as file:
            file.write("".join(_line(row, failure) for row, failure in chunk.failures.items()))
        # last: it says that the others are complete
        record = np.array([zlib.crc32(facts.data)], np.uint32)
        _write_all(self._files["chunks"], record.view(np.uint8).data)

    def finish(self) -> None:
        """Complete the entry, and put it in its place; raise OSError if that fails."""
        self.close()
        listing = self._pictures.listing
        # escaped, because a name may not be valid Unicode
        (self.path / "names").write_text(json.dumps(list(listing.names)), encoding="ascii")
        np.ascontiguousarray(listing.stamps).tofile(self.path / "stamps")
        height, width, channels = self._pictures.shape[1:]
        about = {
            "source": str(Path(listing.place).absolute()),
            "pictures": len(listing),
            "height": height,
            "width": width,
            "channels": channels,
            "fit": self._pictures.fit,
            "pixels": self._key.pixels,
            "crc32": {name: zlib.crc32((self.path / name).read_bytes()) for name in _CHECKED},
        }
        content = json.dumps({"about": about, "crc32": _json_checksum(about)})
        (self.path / ABOUT).write_text(content, encoding="utf-8")
        if os.path.lexists(self._entry):  # damaged, or with files that can be read by now
            remove(self._entry)
        self.path.rename(self._entry)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def remove(path: Path) -> None:
    """Remove a folder, a file or a link, if possible."""
    if path.is_dir() and not path.is_symlink():
        # renamed first, so that what is left if this process is killed is not taken for an entry
        moved = path.with_name(f"{BUILDING}{path.name}-removed")
        with suppress(OSError):
            path = path.rename(moved)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _write_all(file: Any, content: memoryview) -> None:
    # an unbuffered file may write less than asked, for example before a full disk is an error
    while content:
        content = content[file.write(content) :]


def _line(row: int, failure: Failure) -> str:
    return json.dumps([row, *failure]) + "\n"
