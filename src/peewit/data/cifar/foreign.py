"""Say what a file or folder is that is not a CIFAR archive, and what to do instead.

Only names and first bytes are read, and only a limited number of them, so that it is fast.
"""

from __future__ import annotations

import itertools
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from peewit.data.cifar import layouts
from peewit.data.cifar.archive import MAGIC, BadArchiveError, cannot_read
from peewit.data.cifar.layouts import Layout

_PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
_PARTIAL = frozenset((".part", ".crdownload", ".download", ".partial"))
# Names and levels of folders that are looked at
_NAMES = 1000
_SHOWN = 60  # characters of a name
_LEVELS = 4
# Central directories above this size are not read: zipfile holds them in memory
_MAX_ZIP = 100_000_000


def check_single_file(path: Path) -> None:
    """Raise if a file is one of the files of a data set, or an archive with no more than pictures.

    Raises
    ------
    BadArchiveError
        With the reason, and what to use instead.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise cannot_read(path, error) from error
    if start[:2] == MAGIC:
        return
    layout = _layout_with(path.name)
    # "train" and "test" may be anything; pickles begin with one of these two bytes
    if layout is not None and (layout.form == "binary" or start[:1] in (b"\x80", b"(")):
        raise _one_of_several(path, layout)
    names: list[str] = []
    try:
        if start[:2] == b"PK" and path.stat().st_size <= _MAX_ZIP:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()[:_NAMES]
        elif start[257:262] == b"ustar":
            with tarfile.open(path, "r:") as tar:
                names = [member.name for member in itertools.islice(tar, _NAMES)]
    except (OSError, zipfile.BadZipFile, tarfile.TarError, ValueError, RecursionError):
        return  # whatever is wrong with it, what it is will be said
    if names and not any(_layout_with(PurePosixPath(name).name) for name in names):
        raise unknown_content(path, names)


def has_pictures(names: Iterable[str]) -> bool:
    """Return whether one of the names is that of a picture."""
    return any(PurePosixPath(name).suffix.lower() in _PICTURES for name in names)


def names_in(folder: Path) -> list[str]:
    """Return the relative paths of the first files in a folder, without following links."""
    return list(itertools.islice(_walk(folder, "", _LEVELS), _NAMES))


def _walk(folder: Path, prefix: str, levels: int) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(itertools.islice(found, _NAMES), key=lambda entry: entry.name)
    except OSError:  # what cannot be read is not named
        return
    yield from (prefix + entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    for entry in entries:
        if levels > 1 and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", levels - 1)


def unknown_content(path: Path, names: Iterable[str]) -> BadArchiveError:
    """Return the error for an archive or a folder without the files of CIFAR, by its names."""
    what = f"{path} does not contain CIFAR-10 or CIFAR-100"
    found = [PurePosixPath(name) for name in names]
    for name in found:
        layout = _layout_with(name.name)
        # "train" and "test" may be anything, but not next to the file of the class names
        if layout is not None and path.is_dir() and name.parent / layout.names_files[0] in found:
            return BadArchiveError(
                f"{path} does not directly contain CIFAR-10 or CIFAR-100",
                f"there are files of {layout.title} further down",
                f"use {path / name.parent}",
            )
    for name in found:
        if name.suffix.lower() in _PARTIAL:
            return BadArchiveError(
                what,
                f"it has an incomplete download, {_shown(name)}",
                "finish or repeat that download",
            )
        if name.suffix.lower() == ".mat":
            return BadArchiveError(
                what,
                f"it has MATLAB files ({_shown(name)}), which cannot be read",
                "use the python or the binary version",
            )
        if name.name.lower().endswith((".tar.gz", ".tgz")):
            todo = f"use {path / name}" if path.is_dir() else "extract it and use that archive"
            return BadArchiveError(what, f"it has another archive, {_shown(name)}", todo)
    for name in found:
        if name.suffix.lower() in _PICTURES:
            return BadArchiveError(
                what,
                f"it has pictures ({_shown(name)})",
                f"use {path} as the source, without the name of another",
            )
    why = (
        f"it has neither pictures nor their files ({', '.join(layouts.LAYOUTS[0].files[:2])}, ...)"
    )
    return BadArchiveError(what, why if found else f"it is empty: {why}")


def _shown(name: PurePosixPath) -> str:
    """Return the name of an untrusted file for a message: short, and without control characters."""
    text = str(name)
    text = text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}"
    return text if text.isprintable() else ascii(text)


def _one_of_several(path: Path, layout: Layout) -> BadArchiveError:
    """Return the error for a single file of a data set."""
    others = [file for file in layout.files if not (path.parent / file).is_file()]
    why = f"it is only one of the {len(layout.files)} files of {layout.title}"
    if not others:
        return BadArchiveError(f"cannot read {path}", why, f"use its folder, {path.parent}")
    return BadArchiveError(
        f"cannot read {path}",
        f"{why}, and its folder lacks {', '.join(others)}",
        "put all of them into one folder and use that folder",
    )


def _layout_with(file: str) -> Layout | None:
    return next((layout for layout in layouts.LAYOUTS if file in layout.files), None)
