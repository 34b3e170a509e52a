"""Bound the work of a picture's decoder before and while it runs.

The declared size bounds the memory for the pixels, but not the work to get them: a JPEG of 1 MB can
have 70,000 scans, each of which visits every pixel, and a TIFF can have one tile per pixel, each of
which costs Pillow 700 bytes. Pillow decodes such files; nothing stops a decoder that has started.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# Progressive JPEGs usually have about 10. libtiff has the same limit for JPEGs in TIFF files.
MOST_SCANS = 100
# Strips or tiles, 70 MB and 3 s in Pillow. A picture of the longest side allowed has 30,000 strips
# of one row, three times as many if the colours are separate.
MOST_TILES = 100_000
# pixels in one tile, which is decoded as a whole even if the picture is smaller
LARGEST_TILE = 4096 * 4096
# entries in a directory of TIFF or EXIF tags; cameras write up to a few hundred
MOST_TAGS = 4096
# Pillow parses containers in Python, with one or more reads per chunk, segment or block. Comments
# of a GIF are copied once per block.
MOST_READS_TO_OPEN = 10_000
# a PNG of 300 MB in chunks of 8 kB takes 150,000
MOST_READS = 1_000_000
# JPEGs with more scans than allowed anywhere in the file (a video may follow) are parsed as a whole
LARGEST_PARSED = 256 * 1024**2
MOST_MARKERS = 100_000

_BLOCK = 1024**2
_COUNTED = 128 * 1024  # bytes at once: they and the comparison stay in the cache of a core
_SCAN = b"\xff\xda"
_SCAN_PAIR = np.frombuffer(_SCAN, np.uint16)[0]
# any JPEG marker, except the restart markers between the compressed data of one scan
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_TIFF = re.compile(rb"MM\0[*+]|II[*+]\0|MM\*\0|II\0\*")
# bytes of a value of each TIFF type
_VALUE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_VALUE |= {16: 8, 17: 8, 18: 8}
_BYTES = (1, 2, 6, 7)  # the types whose values Pillow keeps as bytes
_TILE_WIDTH, _TILE_LENGTH = 322, 323


class TooMuchWork(Exception):  # noqa: N818  (it reads as a finding, which it is)
    """Decoding the file would take too long or too much memory; the message says why."""


class MeteredStream:
    """A binary stream that can be read a limited number of times.

    Parameters
    ----------
    stream : binary stream
    reads : int
        Number of reads left.
    """

    def __init__(self, stream: BinaryIO, reads: int = MOST_READS_TO_OPEN) -> None:
        self._stream, self.reads = stream, reads

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes, or raise TooMuchWork."""
        self.reads -= 1
        if self.reads < 0:
            raise TooMuchWork("it consists of too many parts")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_work(stream: BinaryIO) -> None:
    """Raise TooMuchWork if a file's structure demands too much of its decoder.

    Parameters
    ----------
    stream : seekable binary stream
        The file. Its position is at the start afterwards.
    """
    stream.seek(0)
    start = stream.read(16)
    if start.startswith(b"\xff\xd8"):
        _check_scans(stream)
    elif _TIFF.match(start):
        check_tags(stream)
    elif start[4:8] == b"ftyp":
        # Pillow parses the EXIF data of AVIF and HEIC files as soon as it opens them
        stream.seek(0)
        content = stream.read(LARGEST_PARSED)
        for number, found in enumerate(_TIFF.finditer(content)):
            if number == 100:
                raise TooMuchWork("it consists of too many parts")
            check_tags(io.BytesIO(content[found.start() :]))
    stream.seek(0)


def check_tags(stream: BinaryIO) -> None:
    """Raise TooMuchWork if a TIFF file or EXIF data has too many tags, values or tiles.

    Pillow copies the values of all tags; 5,000 tags that share a value of 64 kB take 350 MB.
    """
    length, total, tile = stream.seek(0, io.SEEK_END), 0, {_TILE_WIDTH: 1, _TILE_LENGTH: 1}
    for tag in _tags(stream):
        if tag.kind not in _BYTES and tag.values > MOST_TILES:
            raise TooMuchWork(f"it has {tag.values:,} tiles, strips or values of one tag")
        if tag.number in tile:
            tile[tag.number] = tag.value
        total += min(tag.size, max(0, length - tag.offset))
    # 4 times: small values may be shared
    if total > 4 * length + _BLOCK:
        raise TooMuchWork("the values of its tags overlap")
    if tile[_TILE_WIDTH] * tile[_TILE_LENGTH] > LARGEST_TILE:
        raise TooMuchWork(f"it has tiles of {tile[_TILE_WIDTH]:,} x {tile[_TILE_LENGTH]:,} pixels")


class _Tag(NamedTuple):
    """An entry of a TIFF directory."""

    number: int
    kind: int  # TIFF type
    values: int  # how many
    size: int  # bytes outside of the directory, at offset
    offset: int
    value: int  # the value, if it is one integer in the directory


def _tags(stream: BinaryIO) -> Iterator[_Tag]:
    """Yield the tags of the first directory, as far as they can be read."""
    stream.seek(0)
    header = stream.read(16)
    order = "<" if header.startswith(b"II") else ">"
    big = header[2:3] == b"+"  # BigTIFF, recognised as in Pillow
    word, entry = ("Q", "HHQ8s") if big else ("L", "HHL4s")
    step, room = struct.calcsize("<" + entry), 8 if big else 4
    try:
        (place,) = struct.unpack_from(order + word, header, 8 if big else 4)
        stream.seek(place)
        (tags,) = struct.unpack(order + ("Q" if big else "H"), stream.read(8 if big else 2))
        if tags > MOST_TAGS:
            raise TooMuchWork(f"it has {tags:,} tags")
        directory = stream.read(tags * step)
    except (struct.error, OverflowError, OSError, ValueError):  # Pillow reports the damage
        return
    for at in range(0, len(directory) - step + 1, step):
        number, kind, count, content = struct.unpack_from(order + entry, directory, at)
        size = count * _VALUE.get(kind, 0)
        if size <= room:
            integer = order + {3: "H", 4: "L", 16: "Q"}.get(kind, "B")
            yield _Tag(number, kind, count, 0, 0, struct.unpack_from(integer, content)[0])
        else:
            yield _Tag(number, kind, count, size, struct.unpack(order + word, content)[0], 0)


def _check_scans(stream: BinaryIO) -> None:
    # counting is fast, but also counts in previews and in what follows the picture
    stream.seek(0)
    count, last = 0, b""
    while block := stream.read(_COUNTED):
        count += _count_scans(last + block)
        last = block[-1:]
    if count > MOST_SCANS and scans(stream) > MOST_SCANS:
        raise TooMuchWork(f"it has more than {MOST_SCANS} progressive scans")


def _count_scans(block: bytes) -> int:
    """Return ``block.count(_SCAN)``, seven times as fast, and without the GIL.

    With ``count``, it was a tenth of the time to decode a photograph at an eighth of its size.
    """
    pairs = (np.frombuffer(block, np.uint16, (len(block) - at) // 2, at) for at in (0, 1))
    return sum(int(np.count_nonzero(found == _SCAN_PAIR)) for found in pairs)


def scans(stream: BinaryIO) -> int:
    """Return the number of scans of the picture in a JPEG file, at most ``MOST_SCANS + 1``.

    Raises
    ------
    TooMuchWork
        It has too many markers.
    """
    stream.seek(0)
    content = stream.read(LARGEST_PARSED)
    count, place = 0, 2
    for _ in range(MOST_MARKERS):
        found = _MARKER.search(content, place)
        if not found or found[1] == b"\xd9" or count > MOST_SCANS:  # the end of the picture
            return count
        place = found.end()
        if found[1] in b"\xd8\x01":  # markers without content
            continue
        count += found[1] == b"\xda"
        place += int.from_bytes(content[place : place + 2], "big")
    raise TooMuchWork("it consists of too many parts")
