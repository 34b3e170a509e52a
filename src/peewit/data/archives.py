"""List the pictures of zip and tar archives, which are read without unpacking them to disk.

Nothing is written, so that no member can end up outside its folder; an archive with names that try
is refused all the same. So are archives that decompress to much more than they have bytes. A hard
link in a tar archive stands for the member that it names; symbolic links are left out.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from peewit.data.cifar import layouts
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.class_folders import TABLES, Tree, arrange, check_depth, is_meant
from peewit.data.folder import begins_as_a_picture, valid_names
from peewit.data.labels import make_listing, text
from peewit.data.listing import Listing
from peewit.data.members import DAMAGE, Member, MemberFiles, StreamFiles, decompressor
from peewit.errors import PeewitError, reason_of
from peewit.system.text import printable

# Bytes of one picture: 100 megapixels as uncompressed TIFF have 300 MB
LARGEST = 1 << 29
# Bytes to which a compressed tar archive may decompress, or as many times its own size as
# MOST_TIMES if that is more. Pictures hardly compress.
MOST_BYTES = 1 << 30
MOST_TIMES = 100
# Bytes in which the first picture must be found; other archives are not read any further
_BEFORE_FIRST = 64 << 20
# Ways of compression in zip archives that are rare
_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard"}
# Besides those of decompressors; NotImplementedError: a zip archive of another version
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, RecursionError, NotImplementedError)
_EXTRACT = "extract it and use the folder instead"


class _NotPicturesError(Exception):
    """An archive is CIFAR, or not an archive of pictures, whatever else it is."""


class Entry(NamedTuple):
    """A member of an archive: ``kind`` is "file", "folder", "link" or another.

    ``start`` returns its first bytes, as many as requested.
    """

    name: str
    kind: str
    member: Member
    start: Callable[[int], bytes]
    target: str = ""


def is_archive(start: bytes) -> bool:
    """Return whether a file that begins with these 512 bytes may be an archive of pictures.

    >>> is_archive(b"PK\\3\\4..."), is_archive(b"\\x1f\\x8b..."), is_archive(b"path,label")
    (True, True, False)
    """
    plain = start[:4] == b"PK\3\4" or start[257:262] == b"ustar"
    return plain or start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))


def list_archive(path: Path) -> Listing | None:
    """List the pictures of a zip or tar archive; see `peewit.data.class_folders`.

    The pictures of a large compressed tar archive are listed in its order, because they can only
    be read from first to last; those of other archives in the order of their names.

    Returns
    -------
    Listing or None
        None if it is not an archive with pictures.

    Raises
    ------
    PeewitError
        The archive is damaged, encrypted or a decompression bomb, it has names that point outside
        it, or its folders are not arranged by class.
    """
    collected = _Collected(path)
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            version = state.st_size, state.st_mtime_ns
            start = file.read(512)
            file.seek(0)
            zipped = start[:4] == b"PK\3\4"
            stream = None if zipped else decompressor(file, start)
            if zipped:
                collected.collect(_zip_entries(path, file))
            elif stream is None:
                collected.collect(tar_entries(path, file, "r:"))
            else:
                metered = _Metered(path, stream, max(MOST_BYTES, MOST_TIMES * state.st_size))
                collected.metered = metered
                collected.collect(tar_entries(path, metered, "r|"))
                metered.finish()
    except _NotPicturesError:
        return None
    except (*DAMAGE, *_DAMAGE) as error:
        if not collected.members and start[:2] == b"\x1f\x8b":
            return None  # it may be CIFAR, which is checked elsewhere
        damage = isinstance(error, OSError) and error.strerror
        reason = reason_of(cast(OSError, error)) if damage else "it is damaged or incomplete"
        if not collected.members and not zipped:
            reason += ", or not a tar archive"
        raise BadArchiveError(f"cannot read {path}", reason, "download or copy it again") from error
    if not collected.members:
        return None
    found = arrange(path, collected.tree(version), archive=True)
    paths = found.paths
    table = np.array([collected.members[name] for name in paths], np.int64).reshape(-1, 5)
    order = np.arange(len(paths))
    files: MemberFiles | StreamFiles
    if stream is not None and StreamFiles(path, paths, table, version).sequential:
        order = np.argsort(table[:, 0], kind="stable")
        paths, table = [paths[row] for row in order.tolist()], table[order]
    if stream is None:
        files = MemberFiles(path, paths, table, version, zipped)
    else:
        files = StreamFiles(path, paths, table, version)
    return make_listing(
        place=path,
        names=valid_names(paths),
        classes=[found.classes[row] for row in order.tolist()],
        parts=found.parts[order],
        files=files,
        stamps=found.stamps[order],
        notes=found.notes,
    )


class _Collected:
    """The members of an archive that are pictures, by name, and what else is in it."""

    def __init__(self, path: Path) -> None:
        from peewit.images.reader import SUFFIXES  # Pillow, which `peewit --help` does without

        self.path, self.suffixes = path, SUFFIXES
        self.members: dict[str, Member] = {}
        self.folders: set[str] = set()
        self.found = Tree()
        self.metered: _Metered | None = None

    def collect(self, entries: Iterable[Entry]) -> None:
        cifar = {name for layout in layouts.LAYOUTS for name in layout.files}
        for entry in entries:
            if entry.kind == "file" and entry.name.rpartition("/")[2] in cifar:
                raise _NotPicturesError
            name = clean_name(self.path, entry.name)
            if not name or not all(is_meant(part) for part in name.split("/")):
                continue
            member = entry.member
            if entry.kind == "folder":
                self.folders.add(name)
                continue
            if entry.kind == "link" and entry.target:
                target = self.members.get(clean_name(self.path, entry.target))
                if target is not None:
                    self.members[name] = target
                    continue
            if entry.kind != "file":
                self.found.left_out.add(entry.kind, "", name)
            elif not self.is_picture(name, entry):
                self.found.left_out.add("file", "without the suffix of a picture", name)
            elif member.size > LARGEST:
                self.found.left_out.add("picture", f"of more than {LARGEST:,} bytes", name)
            else:
                if name in self.members:
                    which = "that another of the same name replaces"
                    self.found.left_out.add("member", which, name)
                self.members[name] = member
                if self.metered is not None:
                    self.metered.found()

    def is_picture(self, name: str, entry: Entry) -> bool:
        _, dot, suffix = name.rpartition("/")[2].rpartition(".")
        suffix = f".{suffix.lower()}" if dot else ""
        if suffix in TABLES:
            self.found.tables.append(name)
        return suffix in self.suffixes or (not suffix and begins_as_a_picture(entry.start(12)))

    def tree(self, version: tuple[int, int]) -> Tree:
        """Return the folders. ``version``: size and time of the archive."""
        self.found.add("")
        for folder in sorted(self.folders):
            self.found.add(folder)
        for name in sorted(self.members):
            folder, _, file = name.rpartition("/")
            pictures = self.found.add(folder)
            pictures.names.append(file)
            member = self.members[name]
            # without checksums, the time of the archive stands for the content of its members
            pictures.stamps.extend((member.size, version[1] if member.crc < 0 else member.crc))
        return self.found


def clean_name(path: Path, name: str) -> str:
    """Return the name of a member without "./"; refuse one that points outside the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:/", name):
        raise PeewitError(
            f"{path} is refused",
            f"its member {printable(text(name))} points outside the archive's folder",
            "do not use it",
        )
    clean = "/".join(parts)
    check_depth(path, clean)
    return clean


def _zip_entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            # some programs on Windows write backslashes
            name = info.filename.replace("\\", "/")
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            member = Member(
                info.header_offset, info.compress_size, info.file_size, deflated, info.CRC
            )
            kind = "folder" if name.endswith("/") else "file"
            if stat.S_ISLNK(info.external_attr >> 16):
                kind = "link"
            if kind == "file" and info.flag_bits & 1:
                raise PeewitError(f"cannot read {path}", "it is encrypted", _EXTRACT)
            if kind == "file" and info.compress_type not in (0, zipfile.ZIP_DEFLATED):
                how = _METHODS.get(info.compress_type, f"method {info.compress_type}")
                raise PeewitError(f"cannot read {path}", f"it is compressed with {how}", _EXTRACT)

            def start(count: int, info: zipfile.ZipInfo = info) -> bytes:
                with archive.open(info) as content:
                    return content.read(count)

            yield Entry(name, kind, member, start)


class _TarInfo(tarfile.TarInfo):
    """A header of a tar archive. tarfile takes a damaged one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            # the others mean the end: of the file, or of the archive
            if type(error).__name__ not in ("InvalidHeaderError", "TruncatedHeaderError"):
                raise
            raise ValueError("a header is damaged") from error


def tar_entries(path: Path, file: Any, mode: Any) -> Iterator[Entry]:
    """Yield the members of the open tar archive ``path``; ``mode`` is that of ``tarfile.open``."""
    with tarfile.open(fileobj=file, mode=mode, tarinfo=_TarInfo) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # or it keeps 1,000,000 of them
            kind = "folder" if info.isdir() else "file" if info.isreg() else "special file"
            if info.issym() or info.islnk():
                kind = "link"
            if info.issparse():
                kind = "sparse file"
            member = Member(info.offset_data, info.size, info.size, False, -1)

            def start(count: int, info: tarfile.TarInfo = info) -> bytes:
                content = tar.extractfile(info)
                return content.read(count) if content else b""

            target = info.linkname if info.islnk() else ""
            yield Entry(info.name, kind, member, start, target)


class _Metered:
    """A decompressed stream that ends with an error when it becomes too long."""

    def __init__(self, path: Path, stream: Any, limit: int) -> None:
        self.path, self.stream, self.limit = path, stream, limit
        self.position = 0
        self.has_pictures = False

    def found(self) -> None:
        """Allow the whole length: there is a picture in it."""
        self.has_pictures = True

    def read(self, count: int) -> bytes:
        content: bytes = self.stream.read(count)
        self.position += len(content)
        if not self.has_pictures and self.position > _BEFORE_FIRST:
            raise _NotPicturesError
        if self.position > self.limit:
            raise PeewitError(
                f"{self.path} is refused",
                f"it decompresses to more than {self.limit:,} bytes, which pictures do not",
                _EXTRACT + ", if you trust it",
            )
        return content

    def finish(self) -> None:
        """Read to the end, so that the checksum there is compared."""
        while self.read(1 << 20):
            pass
