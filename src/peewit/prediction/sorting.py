"""Sort pictures into folders named after their predicted classes."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from peewit.errors import PeewitError, UsageError, reason_of
from peewit.system.files import cannot_write

LONGEST_NAME = 255  # bytes, on most file systems
LONGEST_SUFFIX = 20  # bytes of a file name that are kept at its end
# Of pictures of no class
REJECTED = "none-of-these"
# Names that Windows does not allow, with any suffix
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}


class UnreadablePicture(PeewitError):  # noqa: N818  (the state of a file)
    """A picture could be read before, but now it cannot be copied or moved."""


class Sorter:
    """Copies or moves pictures into class folders, without ever overwriting a file.

    A file appears whole or not at all. If its name is taken, it gets a number (``a-2.jpg``); but a
    file with the same name and content is not copied again, so that a command that was stopped can
    be repeated.

    Parameters
    ----------
    folder : Path
        Contains the class folders; made if it is missing.
    class_names : sequence of str
    move : bool
        Remove the original as soon as the new file is complete.

    Raises
    ------
    PeewitError
        The folder cannot be made.
    UsageError
        It is a file.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], move: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"cannot sort pictures into {folder}", "it is not a folder")
        _make(folder)
        parts = folder_names([*class_names, REJECTED])
        self._folders: dict[str | None, Path] = {
            name: folder / part for name, part in zip([*class_names, None], parts, strict=True)
        }
        self._move = move

    def put(self, picture: Path, class_name: str | None) -> Path:
        """Copy or move ``picture`` into the folder of its class; return the new path.

        The class None is that of rejected pictures.

        Raises
        ------
        UnreadablePicture
            The picture cannot be read any more.
        PeewitError
            The folder cannot be written to.
        """
        folder = self._folders[class_name]
        _make(folder)
        for target in _free_names(folder, picture.name):
            try:
                if self._is_there(picture, target):
                    return target
                if not os.path.lexists(target) and self._transfer(picture, target):
                    if self._move:
                        picture.unlink()
                    return target
            except OSError as error:
                if str(error.filename) == str(picture):
                    why = reason_of(error)
                    raise UnreadablePicture(f"cannot sort {picture}", why) from error
                raise cannot_write(target, error) from error
        raise AssertionError("there is always another number")

    def _is_there(self, picture: Path, target: Path) -> bool:
        """Return whether ``target`` is the picture itself, or the copy to be made."""
        if not target.is_file():
            return False
        same = target.samefile(picture)
        return same or (not self._move and filecmp.cmp(picture, target, shallow=False))

    def _transfer(self, picture: Path, target: Path) -> bool:
        """Create ``target`` with the content of ``picture``; return False if it exists."""
        if self._move and not picture.is_symlink():
            # on the same file system: at once, and without copying
            with suppress(OSError):
                return _linked(picture, target)
        with picture.open("rb") as content:
            handle, name = tempfile.mkstemp(prefix=".peewit-", suffix=".part", dir=target.parent)
            partial = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                    file.flush()
                    if self._move:  # before the original is removed
                        os.fsync(file.fileno())
                shutil.copystat(picture, partial)
                try:
                    return _linked(partial, target)
                except OSError:  # a file system without hard links, such as exFAT
                    return _renamed(partial, target)
            finally:
                partial.unlink(missing_ok=True)


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Return a folder name for each class that is valid, visible and unique on every system.

    >>> folder_names(["cat", "a/b", "a:b", "..", "CON", "Cat"])
    ['cat', 'a_b', 'a_b-2', '_', '_CON', 'Cat-2']
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in class_names:
        base = _safe(name)
        # a case-insensitive file system also normalises
        for candidate in _numbered(base):
            key = unicodedata.normalize("NFC", candidate).casefold()
            if key not in taken:
                taken.add(key)
                found.append(candidate)
                break
    return found


def _safe(name: str) -> str:
    characters = (
        character if character.isprintable() and character not in '/\\:*?"<>|' else "_"
        for character in name
    )
    safe = _cut("".join(characters), LONGEST_NAME - 8).strip(" ").rstrip(".")
    if not safe.strip("._"):
        return "_"
    if safe.startswith("."):  # hidden
        safe = "_" + safe[1:]
    return f"_{safe}" if safe.split(".")[0].strip().lower() in _DEVICES else safe


def _cut(name: str, most: int) -> str:
    """Return the beginning of ``name`` that takes at most ``most`` bytes."""
    encoded = os.fsencode(name)
    if len(encoded) <= most:
        return name
    return encoded[:most].decode("utf-8", "ignore")


def _numbered(stem: str, suffix: str = "") -> Iterator[str]:
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


def _free_names(folder: Path, name: str) -> Iterator[Path]:
    """Yield the paths under which a file may be put into a folder, the preferred one first."""
    yield folder / name
    stem, suffix = Path(name).stem, Path(name).suffix
    if len(os.fsencode(suffix)) > LONGEST_SUFFIX:
        stem, suffix = name, ""
    stem = _cut(stem, LONGEST_NAME - LONGEST_SUFFIX - 12)
    numbered = _numbered(stem, suffix)
    next(numbered)
    yield from (folder / one for one in numbered)


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name; return False if that is taken."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    return True


def _renamed(source: Path, target: Path) -> bool:
    """Rename a file; return False if the name is taken."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # reserves the name
    except FileExistsError:
        return False
    source.replace(target)
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PeewitError(f"cannot make the folder {folder}", reason_of(error)) from error
