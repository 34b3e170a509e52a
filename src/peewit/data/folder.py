"""List the pictures of a folder whose subfolders are the classes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION, Listing
from peewit.errors import PeewitError, reason_of
from peewit.images.reader import SUFFIXES

PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}


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
    names: list[str]

    def read(self, number: int) -> bytes:
        """Return the content of a file; raise PeewitError if it cannot be read."""
        path = self.folder / self.names[number]
        try:
            return path.read_bytes()
        except OSError as error:
            raise PeewitError(f"cannot read {path}", reason_of(error)) from error


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key by which "2" comes before "10"."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p], name


def list_folder(folder: Path) -> Listing:
    """List the pictures of a folder.

    Raises
    ------
    PeewitError
        There are no class folders with pictures in it.
    """
    inside = _folders(folder)
    parts = {name: PARTS[name.lower()] for name in inside if name.lower() in PARTS}
    roots = parts if TRAIN in parts.values() else {"": UNKNOWN}
    found: list[tuple[str, str, int, tuple[int, int]]] = []
    for root, part in roots.items():
        for name in _folders(folder / root):
            for file in _pictures(folder / root / name):
                relative = (Path(root) / name / file).as_posix()
                state = (folder / relative).stat()
                found.append((relative, name, part, (state.st_size, state.st_mtime_ns)))
    if not found:
        raise PeewitError(f"{folder} has no pictures in class folders")
    classes = sorted({name for _, name, _, _ in found}, key=natural)
    number = {name: label for label, name in enumerate(classes)}
    names = [relative for relative, _, _, _ in found]
    return Listing(
        place=folder,
        names=names,
        labels=np.array([number[name] for _, name, _, _ in found], np.int64),
        class_names=tuple(classes),
        files=FolderFiles(folder, names),
        stamps=np.array([stamp for _, _, _, stamp in found], np.int64),
        parts=np.array([part for _, _, part, _ in found], np.uint8),
    )


def _folders(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
    )


def _pictures(folder: Path) -> list[str]:
    found = []
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix.lower() in SUFFIXES:
                found.append((Path(path) / file).relative_to(folder).as_posix())
    return found
