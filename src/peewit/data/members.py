"""Read the pictures in an archive: any of them at random, or one after the other."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.labels import text
from peewit.errors import PeewitError, reason_of

# Bytes of the pictures of a compressed tar archive that are kept in memory. If all of them fit, it
# is decompressed only once, in whatever order they are read.
KEPT = 256 << 20
# First bytes of compressed files, and what opens them
OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
# Errors of the standard library's decompressors for damaged data; BadGzipFile is an OSError
DAMAGE = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, struct.error)
_LOCAL = struct.Struct("<4s22xHH")  # of a zip archive: signature, lengths of name and extra field


class Member(NamedTuple):
    """Where a file is in an archive.

    Parameters
    ----------
    offset : int
        Of its content in a tar archive, after decompression, or of its header in a zip archive.
    stored : int
        Bytes in the archive.
    size : int
        Bytes of the file.
    deflated : bool
    crc : int
        CRC-32 of the file; -1 in a tar archive, which has none.
    """

    offset: int
    stored: int
    size: int
    deflated: bool
    crc: int


def decompressor(file: BinaryIO, start: bytes) -> Any:
    """Return the decompressed stream of a file that begins with ``start``; None if it is plain."""
    for magic, opener in OPENERS.items():
        if start.startswith(magic):
            return opener(file)
    return None


@dataclass
class MemberFiles:
    """The pictures of a zip archive or of an uncompressed tar archive.

    Parameters
    ----------
    path : Path
    names : sequence of str
    members : int64 array, shape (N, 5)
        A `Member` for each.
    version : (int, int)
        Size and modification time of the archive when it was listed.
    zipped : bool
        Whether it is a zip archive.
    """

    path: Path
    names: Sequence[str]
    members: npt.NDArray[np.int64]
    version: tuple[int, int]
    zipped: bool
    _file: BinaryIO | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    sequential: ClassVar[bool] = False

    def read(self, number: int) -> bytes:
        """Return the content of a picture; raise PeewitError if it cannot be read."""
        member = Member(*self.members[number].tolist())
        try:
            return self._content(member)
        except DAMAGE as error:
            raise _cannot_read(self, number, error) from error

    def _content(self, member: Member) -> bytes:
        offset = member.offset
        if self.zipped:
            signature, name, extra = _LOCAL.unpack(self._bytes(offset, _LOCAL.size))
            if signature != b"PK\3\4":
                raise ValueError("it is damaged")
            offset += _LOCAL.size + name + extra
        content = self._bytes(offset, member.stored)
        if member.deflated:
            # not more than was declared, and a bomb was not listed
            content = zlib.decompressobj(-15).decompress(content, member.size + 1)
        if len(content) != member.size or member.crc not in (-1, zlib.crc32(content)):
            raise ValueError("it is damaged")
        return content

    def _bytes(self, offset: int, count: int) -> bytes:
        with self._lock:
            if self._file is None:
                self._file = opened(self.path, self.version)
            if not hasattr(os, "pread"):
                self._file.seek(offset)
                return self._file.read(count)
        # any number of threads at a time
        return os.pread(self._file.fileno(), count, offset)


@dataclass
class StreamFiles:
    """The pictures of a compressed tar archive, which can only be read from first to last.

    They may be read in any order and by several threads, but to go back further than the pictures
    that are kept in memory means to decompress the archive again from its beginning.

    Parameters
    ----------
    path : Path
    names : sequence of str
    members : int64 array, shape (N, 5)
        A `Member` for each.
    version : (int, int)
        Size and modification time of the archive when it was listed.
    """

    path: Path
    names: Sequence[str]
    members: npt.NDArray[np.int64]
    version: tuple[int, int]
    _stream: Any = None
    _done: int = 0
    _recent: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    _held: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._order = np.argsort(self.members[:, 0], kind="stable").tolist()
        self._rank = np.argsort(self._order).tolist()

    @property
    def sequential(self) -> bool:
        """Whether it pays to read the pictures in the order of their numbers."""
        return int(self.members[:, 2].sum()) > KEPT

    def read(self, number: int) -> bytes:
        """Return the content of a picture; raise PeewitError if it cannot be read."""
        with self._lock:
            try:
                return self._read(number)
            except DAMAGE as error:
                self._stream = None
                raise _cannot_read(self, number, error) from error

    def _read(self, number: int) -> bytes:
        if number in self._recent:
            return self._recent[number]
        rank = self._rank[number]
        if self._stream is None or rank < self._done:
            file = opened(self.path, self.version)
            start = file.read(8)
            file.seek(0)
            self._stream, self._done = decompressor(file, start), 0
        while True:
            current = self._order[self._done]
            member = Member(*self.members[current].tolist())
            self._stream.seek(member.offset)
            content: bytes = self._stream.read(member.size)
            if len(content) != member.size:
                raise EOFError
            self._done += 1
            # what is read on the way may be wanted by another thread
            if current not in self._recent:
                self._recent[current] = content
                self._held += len(content)
            while self._held > KEPT:
                _, old = self._recent.popitem(last=False)
                self._held -= len(old)
            if current == number:
                return content


def opened(path: Path, version: tuple[int, int]) -> BinaryIO:
    """Open an archive, unless it has changed since it was listed."""
    file = path.open("rb")
    state = os.fstat(file.fileno())
    if (state.st_size, state.st_mtime_ns) != version:
        file.close()
        raise ValueError("the archive has changed since it was listed")
    return file


def _cannot_read(files: MemberFiles | StreamFiles, number: int, error: Exception) -> PeewitError:
    reason = reason_of(error) if isinstance(error, OSError) and error.strerror else str(error)
    if not isinstance(error, OSError | ValueError) or not reason:
        reason = "it is damaged"
    return PeewitError(f"cannot read {text(files.names[number])} in {files.path}", reason)
