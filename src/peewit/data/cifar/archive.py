"""Read chosen files from a ``.tar.gz``, in memory, believing nothing that it says.

Nothing is ever written to disk, so no member can leave its folder; names that try are refused all
the same. The archive gets only the bytes that were allowed to it: an archive that unfolds to more
than its format can need (a bomb) is refused before the memory is spent.
"""

from __future__ import annotations

import io
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from peewit.errors import PeewitError, reason_of

# Headers, padding and the small files beside the wanted ones (readme.html is 88 bytes).
SLACK = 2 << 20
MAX_MEMBERS = 1000
# The published archives have 170 MB, and 270 MB when unfolded.
MAX_SIZE = 1 << 30
_CHUNK = 1 << 20
_AGAIN = "get it again"
MAGIC = b"\x1f\x8b"  # how gzip begins


class BadArchiveError(PeewitError):
    """An archive or a folder of extracted files that does not hold what it should."""


def members(path: Path, wanted: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Give the wanted files of an archive, in the archive's order.

    Parameters
    ----------
    path : Path
        A gzip-compressed tar.
    wanted : mapping of str to int
        File names (without folders), and the largest size in bytes that each can have.

    Yields
    ------
    tuple of str and bytes
        File name and content.

    Raises
    ------
    BadArchiveError
        It is cut, damaged, no archive at all, a bomb, or has members with names or kinds that
        have no place in a data set (absolute, ``..``, links, devices).
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            yield from _members(path, file, wanted)
    except OSError as error:
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: OSError) -> BadArchiveError:
    """Return the sentence for a failed read."""
    return BadArchiveError(f"cannot read {path}", reason_of(error))


def check_file(path: Path) -> None:
    """See that this is a file, of a size that can be read, before anything opens it.

    Raises
    ------
    BadArchiveError
        It is missing, a device or a pipe (which would be read for ever), or much too large.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from error
    if not stat.S_ISREG(state.st_mode):
        raise BadArchiveError(f"cannot read {path}", "it is not a file")
    if state.st_size > MAX_SIZE:
        raise BadArchiveError(
            f"{path} is refused", f"it has {state.st_size:,} bytes, more than this data can have"
        )


def _members(path: Path, file: BinaryIO, wanted: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    reader = _Gunzip(path, file)
    reader.allow(SLACK)
    seen: set[str] = set()
    try:
        # "r|": tarfile only ever reads forward, through our reader
        with tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as tar:
            for number, member in enumerate(tar):
                if number == MAX_MEMBERS:
                    raise BadArchiveError(f"{path} is refused", f"more than {number} files in it")
                _check_kind(path, member)
                name = PurePosixPath(member.name).name
                if not member.isfile() or name not in wanted:
                    reader.allow(SLACK)
                    continue
                if not 0 <= member.size <= wanted[name]:
                    raise BadArchiveError(
                        f"{path} is refused",
                        f"{member.name} in it has {member.size:,} bytes, where the format has at"
                        f" most {wanted[name]:,}",
                    )
                if name in seen:
                    raise BadArchiveError(f"{path} is refused", f"it holds {name} twice")
                seen.add(name)
                reader.allow(member.size + SLACK)
                content = tar.extractfile(member)
                assert content is not None  # isfile() said so
                yield name, content.read(member.size)
        reader.finish()
    except (tarfile.TarError, ValueError, RecursionError) as error:  # of damaged extended headers
        raise BadArchiveError(
            f"cannot read {path}", f"it is not a sound tar archive ({error})", _AGAIN
        ) from error


def _check_kind(path: Path, member: tarfile.TarInfo) -> None:
    """Refuse members that have no place in a data set."""
    posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    leaves = ".." in posix.parts or ".." in windows.parts
    fault = ""
    if leaves or posix.is_absolute() or windows.drive or windows.root:
        fault = "would leave its folder"
    elif member.issym() or member.islnk():
        fault = "is a link"
    elif member.isdev():
        fault = "is a device"
    elif member.issparse():
        fault = "is a sparse file"
    if fault:
        raise BadArchiveError(
            f"{path} is refused", f"its member {member.name!r} {fault}", "do not trust it"
        )


class _Gunzip(io.BufferedIOBase):
    """A stream of decompressed bytes that stops where the allowance stops.

    zlib itself checks the trailer (length and CRC-32) at the end of the stream.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.inflate = zlib.decompressobj(wbits=31)
        self.waiting = b""  # compressed bytes of the next member
        self.allowance = 0
        self.given = 0
        start = file.read(512)
        file.seek(0)
        check_start(path, start)

    def allow(self, count: int) -> None:
        """Allow ``count`` bytes from here on (what was allowed before and not read is void)."""
        # tarfile reads up to a chunk ahead of what it gives
        self.allowance = self.given + count + _CHUNK

    def read(self, size: int | None = -1, /) -> bytes:
        """Give ``size`` bytes, fewer only at the end."""
        assert size is not None
        assert size >= 0, "reading without a limit is what this class is against"
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self._some(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        self.given += size - missing
        if self.given > self.allowance:
            raise BadArchiveError(
                f"{self.path} is refused", "it unfolds to more than this data can be"
            )
        return b"".join(parts)

    def _some(self, limit: int) -> bytes:
        while not self.inflate.eof or self._next_member():
            compressed = self.waiting or self.inflate.unconsumed_tail or self.file.read(_CHUNK)
            self.waiting = b""
            if not compressed:
                raise BadArchiveError(f"cannot read {self.path}", "it is cut off", _AGAIN)
            try:
                part = self.inflate.decompress(compressed, limit)
            except zlib.error as error:
                raise BadArchiveError(
                    f"cannot read {self.path}", "it is damaged", _AGAIN
                ) from error
            if part:
                return part
        return b""

    def _next_member(self) -> bool:
        """Begin with the next member, where one follows: parallel programs write several."""
        rest = self.inflate.unused_data or self.file.read(_CHUNK)
        if rest[:2] != MAGIC:
            return False  # as gzip, which takes no notice of what stands behind the last one
        self.inflate, self.waiting = zlib.decompressobj(wbits=31), rest
        return True

    def finish(self) -> None:
        """Read to the end, where the checksum is."""
        self.allow(SLACK)
        while self.read(_CHUNK):
            pass


def check_start(path: Path, start: bytes) -> None:
    """Say what a file is instead of a gzip archive, from its first bytes.

    Raises
    ------
    BadArchiveError
        It is empty, a web page, or something else.
    """
    if start[:2] == MAGIC:
        return
    todo = _AGAIN
    if not start:
        what = "it is empty"
    elif looks_like_a_page(start):
        what = "it is a web page, not an archive (a server's error page saved under that name?)"
    elif start[257:262] == b"ustar":  # some browsers do that
        what = "it is a tar that something unzipped already"
        todo = "extract it and give the folder"
    else:
        what = "it is not a .tar.gz archive"
    raise BadArchiveError(f"cannot read {path}", what, todo)


def looks_like_a_page(start: bytes) -> bool:
    """Whether these first bytes are those of an HTML page.

    >>> looks_like_a_page(b"\\n<!DOCTYPE html><title>503"), looks_like_a_page(b"\\x1f\\x8b\\x08")
    (True, False)
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<body"))
