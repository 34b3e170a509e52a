"""Find the classes and the parts of a data set among the folders of a source.

The source may be a folder on disk or an archive. These rules are the same for both:

- A folder ``train``, with any of ``val``, ``valid``, ``validation`` and ``test`` beside it, in
  upper or lower case, makes these the parts of the data set if there are class folders in them.
- The class of a picture is the first folder below the source, or below its part. Folders inside
  class folders only arrange its pictures.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.labels import PARTS, LeftOut, class_name, shown, text
from peewit.data.listing import TRAIN, UNKNOWN
from peewit.errors import PeewitError
from peewit.system.text import printable

# Written by operating systems and other programs, not by the user, as all names that begin with "."
_NOT_MEANT = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin"}
    | {"system volume information", "lost+found"}
)
TABLES = (".csv", ".tsv", ".parquet")
# Folders within each other; more are refused, before Python's recursion limit is reached
DEEPEST = 100


@dataclass
class Pictures:
    """The pictures in one folder: a name and two numbers (see `Listing.stamps`) for each."""

    names: list[str] = field(default_factory=list)
    stamps: array[int] = field(default_factory=lambda: array("q"))

    def sort(self) -> None:
        """Put the pictures in the order of their names."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        self.names = [self.names[row] for row in order]
        rows = np.array(self.stamps, np.int64).reshape(-1, 2)[order]
        self.stamps = array("q", rows.tobytes())


@dataclass
class Tree:
    """The folders of a source and the pictures directly in each.

    Parameters
    ----------
    folders : dict of str to Pictures
        Keys are paths relative to the source, with slashes; "" is the source itself.
    tables : list of str
        Paths of files that may be tables with labels.
    left_out : LeftOut
    """

    folders: dict[str, Pictures] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def __len__(self) -> int:
        return sum(len(pictures.names) for pictures in self.folders.values())

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        """The names of the folders directly in each folder, in order."""
        children: dict[str, list[str]] = {path: [] for path in self.folders}
        for path in sorted(self.folders):
            if path:
                parent, _, name = path.rpartition("/")
                children[parent].append(name)
        return children

    def add(self, folder: str) -> Pictures:
        """Return the pictures directly in a folder, which is added if it is new."""
        found = self.folders.get(folder)
        if found is None:
            if folder:
                self.add(folder.rpartition("/")[0])
            found = self.folders[folder] = Pictures()
        return found

    def inside(self, folder: str) -> list[str]:
        """Return the names of the folders directly in a folder, in order."""
        return self._children[folder]

    def below(self, folder: str) -> Iterator[str]:
        """Yield the paths of a folder and of all folders in it that have pictures, in order."""
        if self.folders[folder].names:
            yield folder
        for name in self._children[folder]:
            yield from self.below(f"{folder}/{name}" if folder else name)


class Arranged(NamedTuple):
    """The pictures of the class folders of a source.

    Parameters
    ----------
    paths : list of str, length N
        Relative to the source, as the file system or the archive writes them.
    classes : list of str, length N
        The class of each picture.
    parts : uint8 array, shape (N,)
    stamps : int64 array, shape (N, 2)
    notes : list of str
        What was left out.
    """

    paths: list[str]
    classes: list[str]
    parts: npt.NDArray[np.uint8]
    stamps: npt.NDArray[np.int64]
    notes: list[str]


def is_meant(name: str) -> bool:
    """Return whether a file or a folder was put there by the user, judging by its name.

    >>> [is_meant(name) for name in ("a.jpg", "._a.jpg", "__MACOSX", "Thumbs.db", ".git")]
    [True, False, False, False, False]
    """
    return not name.startswith(".") and name.lower() not in _NOT_MEANT


def check_depth(place: Path, relative: str) -> None:
    """Refuse a path with an absurd number of folders within each other."""
    if relative.count("/") > DEEPEST:
        raise PeewitError(
            f"{place} is refused", f"it has more than {DEEPEST} folders in each other"
        )


def arrange(place: Path, tree: Tree, *, archive: bool) -> Arranged:
    """Find the class of each picture, and its part.

    Parameters
    ----------
    place : Path
        For error messages.
    tree : Tree
    archive : bool
        Whether it is an archive. A folder around everything in it, as most archives have, does not
        count; on disk, that folder is the one to give.

    Raises
    ------
    PeewitError
        The folders are not arranged by class; the message says what was found instead.
    """
    return _Arrangement(place, tree, archive).arranged()


class _Arrangement:
    def __init__(self, place: Path, tree: Tree, archive: bool) -> None:
        self.place, self.tree, self.archive = place, tree, archive

    def arranged(self) -> Arranged:
        base = self.base()
        roots = self.roots(base)
        paths: list[str] = []
        classes: list[str] = []
        stamps = array("q")
        parts: list[npt.NDArray[np.uint8]] = []
        empty: list[str] = []
        deeper: set[str] = set()
        direct = False
        for root, part in roots.items():
            start = f"{root}/" if root else ""
            self.leave_out_loose(root)
            for name in self.tree.inside(root):
                folder = start + name
                found = list(self.tree.below(folder))
                if not found:
                    empty.append(folder)
                direct = direct or folder in found
                deeper.update(path for path in found if path != folder)
                label = class_name(name)
                for path in found:
                    pictures = self.tree.folders[path]
                    paths += [f"{path}/{file}" for file in pictures.names]
                    stamps += pictures.stamps
                    classes += [label] * len(pictures.names)
                    parts.append(np.full(len(pictures.names), part, np.uint8))
        self.check(base, set(classes))
        for folder in empty:
            self.tree.left_out.add("empty class folder", "", folder)
        notes = self.tree.left_out.notes()
        if deeper and not direct:
            notes.append(
                f"the classes are the folders directly in {self.shown(base)}, such as "
                f"{shown(sorted(set(classes))[:1])}; the {len(deeper):,} folders inside them"
                " are not classes"
            )
        return Arranged(
            paths,
            classes,
            np.concatenate(parts),
            np.array(stamps, np.int64).reshape(-1, 2),
            notes,
        )

    def base(self) -> str:
        """Return the folder in which the class folders or the parts are."""
        base = ""
        while True:
            inside = [name for name in self.tree.inside(base) if self.has_pictures(base, name)]
            if len(inside) != 1 or inside[0].lower() in PARTS or self.tree.folders[base].names:
                return base
            inner = f"{base}/{inside[0]}" if base else inside[0]
            if self.tree.folders[inner].names:
                return base
            if not self.archive:
                raise PeewitError(
                    f"{self.place} contains only the folder {shown([inner])}",
                    f"{'its folders' if len(self.tree.inside(inner)) > 1 else 'its content'}"
                    f" ({shown(self.tree.inside(inner))}) may be the classes",
                    f"use {self.shown(inner)}",
                )
            base = inner

    def roots(self, base: str) -> dict[str, int]:
        """Return the folders with class folders, and the part that each is."""
        start = f"{base}/" if base else ""
        inside = [name for name in self.tree.inside(base) if self.has_pictures(base, name)]
        parts = {
            start + name: PARTS[name.lower()]
            for name in inside
            if name.lower() in PARTS
            and any(path != start + name for path in self.tree.below(start + name))
        }
        others = [name for name in inside if start + name not in parts]
        if not parts:
            if inside and all(name.lower() in PARTS for name in inside):
                raise PeewitError(
                    f"{self.shown(base)} has no class folders",
                    f"the pictures are directly in {shown(inside)}",
                    "put those of each class into a folder of its own" + self.table(),
                )
            self.check_deeper_parts(base, inside)
            return {base: UNKNOWN}
        if TRAIN not in parts.values():
            raise PeewitError(
                f"{self.shown(base)} has a folder {shown(sorted(parts))} but no folder train",
                f"beside it are {shown(others)}" if others else "there is nothing else in it",
                "move the class folders with the training pictures into a folder train",
            )
        for name in others:
            count = sum(
                len(self.tree.folders[path].names) for path in self.tree.below(start + name)
            )
            which = "in no class folder" if name.lower() in PARTS else "in a folder beside train"
            self.tree.left_out.add("picture", which, start + name, count)
        return parts

    def check_deeper_parts(self, base: str, inside: list[str]) -> None:
        """Refuse parts that are one folder further down."""
        for name in inside:
            folder = f"{base}/{name}" if base else name
            parts = [
                part
                for part in self.tree.inside(folder)
                if part.lower() in PARTS and self.has_pictures(folder, part)
            ]
            if any(PARTS[part.lower()] == TRAIN for part in parts):
                raise PeewitError(
                    f"{self.shown(base)} has the folders {shown(inside)}",
                    f"in {shown([name])} are {shown(parts)}",
                    f"use {self.shown(folder)} if it is a data set, or move the class folders into"
                    " train and test",
                )

    def leave_out_loose(self, root: str) -> None:
        """Count the pictures beside class folders."""
        loose = self.tree.folders[root].names if root in self.tree.folders else []
        if loose:
            self.tree.left_out.add("picture", "in no class folder", loose[0], len(loose))

    def check(self, base: str, classes: set[str]) -> None:
        """Refuse a source whose class folders are missing, or that is itself a class folder."""
        if len(classes) > 1:
            return
        loose = len(self.tree.folders[base].names)
        found = f"{loose:,} picture{'' if loose == 1 else 's'}"
        if classes:
            if loose:
                raise PeewitError(
                    f"{self.shown(base)} has one class folder, {shown(classes)}",
                    f"and {found} in no class folder",
                    "move them into another class folder",
                )
            return  # `make_listing` says what to do with one class
        parent = self.place.parent
        siblings = [] if self.archive else _folders_in(parent)
        raise PeewitError(
            f"{self.shown(base)} has no class folders",
            f"it has {found} directly in it",
            f"use {parent}, if {shown(siblings)} are the classes"
            if len(siblings) > 1
            else "put those of each class into a folder of its own" + self.table(),
        )

    def has_pictures(self, base: str, name: str) -> bool:
        return any(True for _ in self.tree.below(f"{base}/{name}" if base else name))

    def table(self) -> str:
        """Return the end of a sentence that points to a table beside the pictures."""
        if not self.tree.tables:
            return ""
        table = self.tree.tables[0]
        where = (
            f"extract it and use {shown([table])}" if self.archive else f"use {self.place / table}"
        )
        return f", or, if it has their labels, {where}"

    def shown(self, folder: str) -> str:
        """Return the path of a folder of the source for people."""
        return printable(text(f"{self.place}/{folder}" if folder else str(self.place)))


def _folders_in(folder: Path) -> list[str]:
    try:
        return sorted(
            path.name for path in folder.iterdir() if path.is_dir() and is_meant(path.name)
        )
    except OSError:
        return []
