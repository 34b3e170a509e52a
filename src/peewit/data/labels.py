"""Check the classes of a listing, put them in order, and count what was left out of it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION, Listing, PictureFiles
from peewit.errors import PeewitError
from peewit.system.text import printable

# What folders, tables and arrays call the parts of a data set, in lower case.
PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
# Names that a sentence contains, and characters of each
NAMED = 3
SHOWN = 60


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key by which "2" comes before "10".

    >>> sorted(["10", "b", "9", "A", "a 10", "a 9"], key=natural)
    ['9', '10', 'A', 'a 9', 'a 10', 'b']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p], name


def text(name: str) -> str:
    r"""Return a file name as valid Unicode: bytes that are not UTF-8 become ``\xff``.

    >>> text("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name


def class_name(folder: str) -> str:
    """Return the class of a folder: its name, in the form that most systems use for accents.

    macOS writes "é" as two characters into archives, others as one.
    """
    return unicodedata.normalize("NFC", text(folder))


def shown(names: Iterable[str], count: int | None = None) -> str:
    """Return a few names for a sentence; ``count``: how many there are, if more than given.

    >>> shown(["a", "b"]), shown("abcde")
    ('a, b', 'a, b, c, ...')
    """
    few = list(names)
    total = len(few) if count is None else count
    cut = (printable(text(name)) for name in few[:NAMED])
    named = [name if len(name) <= SHOWN else f"{name[: SHOWN - 3]}..." for name in cut]
    return ", ".join([*named, "..."] if total > NAMED else named)


class LeftOut:
    """Counts what a listing leaves out, and why.

    Examples
    --------
    >>> left_out = LeftOut()
    >>> left_out.add("row", "without a label", "line 3")
    >>> left_out.notes()
    ['1 row without a label is left out: line 3']
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._names: dict[tuple[str, str], list[str]] = {}

    def add(self, noun: str, which: str, name: str, count: int = 1) -> None:
        """Count ``count`` of ``noun`` (in the singular), for the reason ``which``."""
        reason = noun, which
        self._counts[reason] += count
        names = self._names.setdefault(reason, [])
        if len(names) < NAMED:
            names.append(name)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def notes(self) -> list[str]:
        """Return a sentence for each reason."""
        return [
            f"{count:,} {noun}{'' if count == 1 else 's'}{which and ' '}{which} "
            f"{'is' if count == 1 else 'are'} left out: {shown(self._names[noun, which], count)}"
            for (noun, which), count in self._counts.items()
        ]


def make_listing(
    *,
    place: Path,
    names: Sequence[str],
    classes: Sequence[str],
    parts: npt.NDArray[np.uint8],
    files: PictureFiles,
    stamps: npt.NDArray[np.int64],
    columns: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
) -> Listing:
    """Return a listing, after checking its classes.

    Parameters
    ----------
    classes : sequence of str, length N
        The class of each picture.
    place, names, parts, files, stamps, columns, notes
        See `Listing`.

    Raises
    ------
    PeewitError
        There are no pictures to train with, there is only one class, or the validation or test part
        has a class that the training part does not have.
    """
    class_names = sorted(set(classes), key=natural)
    number = {name: label for label, name in enumerate(class_names)}
    labels = np.array([number[name] for name in classes], np.int64)
    counts = np.bincount(labels[np.isin(parts, [UNKNOWN, TRAIN])], minlength=len(class_names))
    if not counts.any():
        raise PeewitError(
            f"{place} has no pictures to train with",
            "all of them belong to the validation or test part",
            "add a training part",
        )
    unknown = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if unknown:
        _refuse_unknown(place, unknown, class_names)
    if len(class_names) == 1:
        raise PeewitError(
            f"{place} has one class, {shown(class_names)}",
            "a classifier needs at least two",
            "add pictures of another class",
        )
    single = [name for name, count in zip(class_names, counts, strict=True) if count == 1]
    remarks = list(notes)
    if single:
        what = "1 class has" if len(single) == 1 else f"{len(single)} classes have"
        remarks.append(f"{what} only one picture: {shown(single)}")
    remarks += [
        f"the classes {shown(same)} differ only in upper and lower case; they are kept apart"
        for same in _alike(class_names)
    ]
    return Listing(
        place=place,
        names=names,
        labels=labels,
        class_names=tuple(class_names),
        files=files,
        stamps=stamps,
        parts=parts,
        columns=columns or {},
        notes=tuple(remarks),
    )


def _refuse_unknown(place: Path, unknown: list[str], class_names: list[str]) -> None:
    known = {name.casefold(): name for name in class_names if name not in unknown}
    name = unknown[0]
    other = known.get(name.casefold())
    raise PeewitError(
        f"the validation or test part of {place} has classes that the training part does not have",
        shown(unknown),
        f"rename {shown([name])} to {shown([other])}, which differs only in upper and lower case"
        if other
        else "add training pictures of them, or remove them",
    )


def _alike(class_names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ only in upper and lower case."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(name.casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
