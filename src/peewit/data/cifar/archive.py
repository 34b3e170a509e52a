"""Read selected files of an untrusted ``.tar.gz`` into memory.

Nothing is written to disk, so no member can end up outside its folder; names that try are refused
all the same. The number of decompressed bytes is limited: an archive that decompresses to more than
its format can need (a decompression bomb) is refused before the memory is allocated.
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

# Tar headers, padding, and small files that are not read (readme.html has 88 bytes).
SLACK = 2 << 20
MAX_MEMBERS = 1000
# The published archives have 170 MB, 270 MB when decompressed.
MAX_SIZE = 1 << 30
_CHUNK = 1 << 20
_DOWNLOAD_AGAIN = "download it again"
_EXTRACT = "extract it and use the folder instead"
_USE_CIFAR = "use an archive or a folder of CIFAR-10 or CIFAR-100"
# First bytes of other kinds of files: what they are, and what to do
_KINDS = {
    b"PK\x03\x04": ("it is a zip archive", _EXTRACT),
    b"BZh": ("it is compressed with bzip2", _EXTRACT),
    b"\xfd7zXZ": ("it is compressed with xz", _EXTRACT),
    b"\x28\xb5\x2f\xfd": ("it is compressed with Zstandard", _EXTRACT),
    b"7z\xbc\xaf": ("it is a 7z archive", _EXTRACT),
    b"Rar!": ("it is a rar archive", _EXTRACT),
    b"MATLAB": ("it is a MATLAB file", "use the python or the binary version"),
    b"\x89HDF": ("it is an HDF5 file", _USE_CIFAR),
    b"\x89PNG": ("it is a picture", _USE_CIFAR),
    b"\xff\xd8\xff": ("it is a picture", _USE_CIFAR),
    b"version https://git-lfs": ("it is a Git LFS pointer", "fetch the file with: git lfs pull"),
}
MAGIC = b"\x1f\x8b"  # the first bytes of a gzip file


class BadArchiveError(PeewitError):
    """An archive, or a folder of extracted files, is damaged or does not contain what it should."""


class TooMuchError(BadArchiveError):
    """An archive has more files or bytes than a CIFAR archive: a bomb, or something else."""


def members(
    path: Path, wanted: Mapping[str, int], others: list[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted files of an archive, in the archive's order.

    Parameters
    ----------
    path : Path
        A gzip-compressed tar file.
    wanted : mapping of str to int
        File names (without folders) and the maximum size of each, in bytes.
    others : list of str, optional
        Gets the names of the other files.

    Yields
    ------
    tuple of str and bytes
        File name and content.

    Raises
    ------
    BadArchiveError
        The file is truncated, damaged or not an archive, or it has members that do not belong in a
        data set (absolute names, ``..``, links, devices).
    TooMuchError
        It has more files or bytes than a CIFAR archive.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            yield from _members(path, file, wanted, [] if others is None else others)
    except OSError as error:
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: OSError) -> BadArchiveError:
    """Return the error for a failed read."""
    return BadArchiveError(f"cannot read {path}", reason_of(error))


def check_file(path: Path) -> None:
    """Check that this is a regular file of a plausible size, before opening it.

    Raises
    ------
    BadArchiveError
        It is missing, a device or a pipe (which might never end), or much too large.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from error
    if not stat.S_ISREG(state.st_mode):
        raise BadArchiveError(f"cannot read {path}", "it is not a regular file")
    if state.st_size > MAX_SIZE:
        raise BadArchiveError(
            f"{path} is refused", f"it has {state.st_size:,} bytes, more than CIFAR archives have"
        )


def _members(
    path: Path, file: BinaryIO, wanted: Mapping[str, int], others: list[str]
) -> Iterator[tuple[str, bytes]]:
    reader = _Gunzip(path, file)
    reader.allow(SLACK)
    seen: set[str] = set()
    opened = False
    try:
        # "r|": tarfile never seeks, so that it can read from our reader
        with tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK) as tar:
            opened = True
            for number, member in enumerate(tar):
                if number == MAX_MEMBERS:
                    raise TooMuchError(
                        f"{path} is refused", f"it contains more than {number} files"
                    )
                _check_kind(path, member)
                name = PurePosixPath(member.name).name
                if not member.isfile() or name not in wanted:
                    if member.isfile():
                        others.append(member.name)
                    reader.allow(SLACK)
                    continue
                if not 0 <= member.size <= wanted[name]:
                    raise BadArchiveError(
                        f"{path} is refused",
                        f"its member {member.name!r} has {member.size:,} bytes, but the format"
                        f" allows at most {wanted[name]:,}",
                    )
                if name in seen:
                    raise BadArchiveError(f"{path} is refused", f"it contains {name} twice")
                seen.add(name)
                reader.allow(member.size + SLACK)
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                yield name, content.read(member.size)
        reader.finish()
    except (tarfile.TarError, ValueError, RecursionError) as error:  # damaged extended headers
        # after the first member it is a tar archive, with damage
        start = b"" if opened else reader.start
        raise _not_tar(path, start, error) from error


def _check_kind(path: Path, member: tarfile.TarInfo) -> None:
    """Refuse members that do not belong in a data set."""
    posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    goes_up = ".." in posix.parts or ".." in windows.parts
    fault = ""
    if goes_up or posix.is_absolute() or windows.drive or windows.root:
        fault = "points outside the archive's folder"
    elif member.issym() or member.islnk():
        fault = "is a link"
    elif member.isdev():
        fault = "is a device"
    elif member.issparse():
        fault = "is a sparse file"
    if fault:
        raise BadArchiveError(
            f"{path} is refused", f"its member {member.name!r} {fault}", "do not use it"
        )


class _Gunzip(io.BufferedIOBase):
    """A stream of decompressed bytes with a limit.

    zlib checks the length and the CRC-32 at the end of the stream.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.inflate = zlib.decompressobj(wbits=31)
        self.pending = b""  # compressed bytes of the next gzip member
        self.limit = 0
        self.position = 0  # in the decompressed stream
        self.start = b""  # of it
        start = file.read(512)
        file.seek(0)
        check_start(path, start)

    def allow(self, count: int) -> None:
        """Allow ``count`` more bytes from here on; an unused earlier allowance expires."""
        # tarfile reads up to a chunk ahead
        self.limit = self.position + count + _CHUNK

    def read(self, size: int | None = -1, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        assert size is not None
        assert size >= 0, "every read must have a size"
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self._some(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        if not self.position:
            self.start = b"".join(parts)[:512]
        self.position += size - missing
        if self.position > self.limit:
            raise TooMuchError(
                f"{self.path} is refused", "it decompresses to more than CIFAR archives contain"
            )
        return b"".join(parts)

    def _some(self, limit: int) -> bytes:
        """Return between 1 and ``limit`` bytes, or none at the end."""
        while not self.inflate.eof or self._next_member():
            compressed = self.pending or self.inflate.unconsumed_tail or self.file.read(_CHUNK)
            self.pending = b""
            if not compressed:
                raise BadArchiveError(
                    f"cannot read {self.path}", "it is truncated", _DOWNLOAD_AGAIN
                )
            try:
                part = self.inflate.decompress(compressed, limit)
            except zlib.error as error:
                raise BadArchiveError(
                    f"cannot read {self.path}", "it is damaged", _DOWNLOAD_AGAIN
                ) from error
            if part:
                return part
        return b""

    def _next_member(self) -> bool:
        """Start the next gzip member, if there is one: parallel compressors write several."""
        rest = self.inflate.unused_data or self.file.read(_CHUNK)
        if rest[:2] != MAGIC:
            return False  # like gzip, which ignores trailing bytes
        self.inflate, self.pending = zlib.decompressobj(wbits=31), rest
        return True

    def finish(self) -> None:
        """Read to the end, so that zlib checks the CRC-32."""
        self.allow(SLACK)
        while self.read(_CHUNK):
            pass


def _not_tar(path: Path, start: bytes, error: Exception) -> BadArchiveError:
    """Return the error for a file that is compressed, and begins with ``start``, but is not tar."""
    what, todo = f"it is not a valid tar archive ({error})", _DOWNLOAD_AGAIN
    if looks_like_a_page(start):
        what = "it is a compressed web page, not an archive (probably the error page of a server)"
    elif start and start[257:262] != b"ustar":
        what = "it is a single compressed file, not a .tar.gz archive"
        todo = "use the whole archive, or the folder with all of its extracted files"
    return BadArchiveError(f"cannot read {path}", what, todo)


def check_start(path: Path, start: bytes) -> None:
    """Check from its first bytes that a file is a gzip archive.

    Raises
    ------
    BadArchiveError
        It is empty, a web page, another kind of archive or file, or unknown.
    """
    if start[:2] == MAGIC:
        return
    todo = _DOWNLOAD_AGAIN
    kind = next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)
    if not start:
        what = "it is empty"
    elif kind is not None:
        what, todo = kind
    elif looks_like_a_page(start):
        what = "it is a web page, not an archive (probably the error page of a server)"
    elif start[257:262] == b"ustar":  # some browsers decompress downloads
        what = "it is an uncompressed tar file"
        todo = _EXTRACT
    else:
        what = "it is not a .tar.gz archive"
    raise BadArchiveError(f"cannot read {path}", what, todo)


def looks_like_a_page(start: bytes) -> bool:
    """Return whether a file with these first bytes is an HTML page.

    >>> looks_like_a_page(b"\\n<!DOCTYPE html><title>503"), looks_like_a_page(b"\\x1f\\x8b\\x08")
    (True, False)
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<body"))
