"""List the pictures of a folder whose subfolders are the classes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path, PurePath
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.class_folders import TABLES, Pictures, Tree, arrange, check_depth, is_meant
from peewit.data.labels import make_listing, text
from peewit.data.listing import Listing
from peewit.errors import PeewitError, reason_of
from peewit.system.cpu import usable_cores

States = npt.NDArray[np.int64]
# First bytes of pictures without a suffix: PNG, JPEG, GIF, BMP, TIFF (both byte orders)
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_STATE = attrgetter("st_mode", "st_size", "st_mtime_ns")
_KIND = 0o170000  # the bits of `st_mode` that `stat.S_IFMT` returns
_DIR_FD = os.stat in os.supports_dir_fd
# Files whose states are asked for at once; listing a folder on Windows returns all of them
_PART = 8192 if _DIR_FD else sys.maxsize
# For a folder with so many pictures, another process asks for the states of this share of them:
# half of the time of a call is in Python, where threads wait for each other. It starts in 20 ms.
_MANY, _SHARE = 20_000, 0.6
_STAT = """
import array, functools, itertools, operator, os, sys
ask = functools.partial(os.stat, dir_fd=os.open(sys.argv[1], os.O_RDONLY))
wanted = operator.attrgetter("st_mode", "st_size", "st_mtime_ns")
names = sys.stdin.buffer.read().split(b"\\0")
states = array.array("q", itertools.chain.from_iterable(map(wanted, map(ask, names))))
states.tofile(sys.stdout.buffer)
"""


@dataclass(frozen=True)
class FolderFiles:
    """The picture files below a folder.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        Their paths relative to it.
    """

    folder: Path
    names: Sequence[str]

    sequential: ClassVar[bool] = False

    def read(self, number: int) -> bytes:
        """Return the content of a file; raise PeewitError if it cannot be read."""
        path = self.folder / self.names[number]
        try:
            return path.read_bytes()
        except OSError as error:
            raise PeewitError(f"cannot read {text(str(path))}", reason_of(error)) from error


def list_folder(folder: Path) -> Listing | None:
    """List the pictures of a folder of class folders; see `peewit.data.class_folders`.

    Files with the suffix of a picture are included whatever they contain, files without a suffix
    if they begin as a picture does. Symbolic links are followed.

    Returns
    -------
    Listing or None
        None if there are no pictures at all.

    Raises
    ------
    PeewitError
        A folder cannot be read, or the folders are not arranged by class.
    """
    tree = scan(folder)
    return list_tree(folder, tree) if len(tree) else None


def list_tree(folder: Path, tree: Tree) -> Listing:
    """Return the listing of a folder that has been scanned."""
    found = arrange(folder, tree, archive=False)
    return make_listing(
        place=folder,
        names=valid_names(found.paths),
        classes=found.classes,
        parts=found.parts,
        files=FolderFiles(folder, found.paths),
        stamps=found.stamps,
        notes=found.notes,
    )


def valid_names(paths: Sequence[str]) -> Sequence[str]:
    """Return paths as valid Unicode: the same list, unless one of them is not."""
    try:
        "\0".join(paths).encode()
    except UnicodeEncodeError:
        return [text(path) for path in paths]
    return paths


def scan(folder: Path) -> Tree:
    """Return the folders and pictures below a folder.

    Raises
    ------
    PeewitError
        A folder cannot be read.
    """
    from peewit.images.reader import SUFFIXES  # Pillow, which `peewit --help` does without

    try:
        with ThreadPoolExecutor(1) as pool:
            scanner = _Scanner(folder, Tree(), SUFFIXES, pool)
            scanner.visit(scanner.open(os.fspath(folder), "", ()))
    except OSError as error:
        where = text(str(error.filename or folder))
        raise PeewitError(
            f"cannot read {where}", reason_of(error), "check its permissions"
        ) from error
    return scanner.tree


class _Opened(NamedTuple):
    """A folder whose files are listed.

    Parameters
    ----------
    path, relative : str
    above : tuple of (int, int), or None
        Device and inode of the folder and of those that it is in; None if it is in itself.
    pictures : list of str
        Files with the suffix of a picture, in order. Almost all files are.
    others : list of str
        Other files, and folders.
    elsewhere : Future or None
        What another process returns for the first of ``pictures``.
    """

    path: str
    relative: str
    above: tuple[tuple[int, int], ...] | None
    pictures: list[str]
    others: list[str]
    elsewhere: Future[States | None] | None


@dataclass
class _Scanner:
    place: Path
    tree: Tree
    suffixes: frozenset[str]
    pool: ThreadPoolExecutor

    def open(self, path: str, relative: str, above: tuple[tuple[int, int], ...]) -> _Opened:
        """List a folder, and begin to ask for the sizes and times of its pictures."""
        state = os.stat(path)  # noqa: PTH116  (Path.stat takes 3 times as long)
        identity = state.st_dev, state.st_ino
        check_depth(self.place, f"{relative}/" if relative else "")
        if state.st_ino and identity in above:
            return _Opened(path, relative, None, [], [], None)
        names = sorted(os.listdir(path))  # noqa: PTH208  (a million Paths would take seconds)
        suffixes = self.suffixes
        pictures = [
            name for name in names if name[name.rfind(".") :].lower() in suffixes and name[0] != "."
        ]
        others = [] if len(pictures) == len(names) else sorted({*names}.difference(pictures))
        elsewhere = None
        if len(pictures) >= _MANY and _DIR_FD and usable_cores() > 1:
            first = pictures[: round(_SHARE * len(pictures))]
            elsewhere = self.pool.submit(_states_elsewhere, path, first)
        return _Opened(path, relative, (*above, identity), pictures, others, elsewhere)

    def visit(self, folder: _Opened) -> None:
        """Add a folder and those in it to the tree."""
        if folder.above is None:
            self.tree.left_out.add("link", "to a folder that it is in", folder.relative)
            return
        found = self.tree.add(folder.relative)
        unusual = list(folder.others)
        for names, states in self.states(folder):
            if states is None:
                unusual += names
            else:
                found.names += names
                found.stamps.frombytes(states.tobytes())
        folders = self.sort_out(folder, sorted(unusual), found) if unusual else []
        inside = f"{folder.relative}/" if folder.relative else ""
        ahead: _Opened | None = None
        for name in folders:
            # listed while another process looks at files of the one before
            opened = self.open(f"{folder.path}{os.sep}{name}", inside + name, folder.above)
            if ahead is not None:
                self.visit(ahead)
            ahead = opened
        if ahead is not None:
            self.visit(ahead)

    def states(self, folder: _Opened) -> Iterator[tuple[list[str], States | None]]:
        """Yield parts of a folder's pictures, in order, and what `_states` returns for each."""
        pictures, count = folder.pictures, 0
        if folder.elsewhere is not None:
            count = round(_SHARE * len(pictures))

        def looked_at(first: int, end: int) -> list[tuple[list[str], States | None]]:
            parts = (pictures[at : min(at + _PART, end)] for at in range(first, end, _PART))
            return [(part, _states(folder.path, part)) for part in parts]

        rest = looked_at(count, len(pictures))
        found = None if folder.elsewhere is None else folder.elsewhere.result()
        first = looked_at(0, count) if found is None else [(pictures[:count], found)]
        yield from (*first, *rest)

    def sort_out(self, folder: _Opened, names: list[str], found: Pictures) -> list[str]:
        """Look at files one by one: add the pictures; return the folders."""
        folders, added = [], len(found.names)
        start = f"{folder.relative}/" if folder.relative else ""
        for name in names:
            if not is_meant(name):
                continue
            path = f"{folder.path}{os.sep}{name}"
            state = _state(path)
            if state is not None and stat.S_ISDIR(state.st_mode):
                folders.append(name)
            elif self.is_picture(path, state, start + name) and state is not None:
                found.names.append(name)
                found.stamps.extend((state.st_size, state.st_mtime_ns))
        if added < len(found.names):
            found.sort()
        return folders

    def is_picture(self, path: str, state: os.stat_result | None, relative: str) -> bool:
        """Return whether an unusual file is a picture; if not, count it."""
        suffix = PurePath(path).suffix.lower()
        if state is None:
            self.tree.left_out.add("link", "to a missing file", relative)
        elif not stat.S_ISREG(state.st_mode):  # reading a pipe or a device might never end
            self.tree.left_out.add("special file", "", relative)
        elif suffix in self.suffixes or (not suffix and _begins_as_a_picture(path)):
            return True
        else:
            if suffix in TABLES:
                self.tree.tables.append(relative)
            self.tree.left_out.add("file", "without the suffix of a picture", relative)
        return False


def _states(path: str, names: Sequence[str]) -> States | None:
    """Return sizes and times, (n, 2), of files of a folder; None if one is not a regular file."""
    try:
        with _stat_in(path) as ask:
            # a loop in C: twice as fast as one in Python
            values = chain.from_iterable(map(_STATE, map(ask, names)))
            return _regular(np.fromiter(values, np.int64, 3 * len(names)).reshape(-1, 3))
    except (OSError, KeyError):  # a link to a missing file, or a file that has just been removed
        return None


def _states_elsewhere(path: str, names: Sequence[str]) -> States | None:
    """Return what `_states` returns, from another process; None if that did not work."""
    try:
        done = subprocess.run(  # noqa: S603  (this interpreter, without a shell)
            [sys.executable, "-I", "-S", "-c", _STAT, path],
            input=os.fsencode("\0".join(names)),
            capture_output=True,
            check=True,
        )
        return _regular(np.frombuffer(done.stdout, np.int64).reshape(len(names), 3))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _regular(states: States) -> States | None:
    """Return the sizes and times, (n, 2), if all are regular files."""
    regular = (states[:, 0] & _KIND) == stat.S_IFREG
    return np.ascontiguousarray(states[:, 1:]) if regular.all() else None


@contextmanager
def _stat_in(path: str) -> Iterator[Callable[[str], os.stat_result]]:
    """Provide a function that returns the state of a file of a folder."""
    if _DIR_FD:
        folder = os.open(path, os.O_RDONLY)
        try:
            yield partial(os.stat, dir_fd=folder)
        finally:
            os.close(folder)
    else:  # Windows, where a file's state comes with its name
        with os.scandir(path) as entries:
            found = {entry.name: entry for entry in entries}
        yield lambda name: found[name].stat()


def _state(path: str) -> os.stat_result | None:
    """Return the state of a file; None if it is a link that leads nowhere."""
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        if not os.path.islink(path):  # noqa: PTH114
            raise
        return None


def _begins_as_a_picture(path: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (a str from scandir)
            return begins_as_a_picture(file.read(12))
    except OSError:
        return False


def begins_as_a_picture(start: bytes) -> bool:
    """Return whether the first 12 bytes are those of a picture.

    >>> begins_as_a_picture(b"\\x89PNG\\r\\n"), begins_as_a_picture(b"# Read me")
    (True, False)
    """
    return (
        start.startswith(_MAGIC)
        or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1"))
    )
