"""Check what lies on the disk against what was published, file by file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from peewit.data.cifar import decoding as cifar
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.layouts import Layout, file_checksum
from peewit.data.places import resolve, where
from peewit.errors import PeewitError


@dataclass(frozen=True)
class Check:
    """One comparison with a published checksum."""

    file: str
    algorithm: str
    found: str
    published: str
    """Empty where none is published."""

    @property
    def same(self) -> bool | None:
        """Whether the two are equal; None where none is published."""
        return self.found == self.published if self.published else None


@dataclass(frozen=True)
class Verification:
    """What was found out about an archive or folder that is sound."""

    path: Path
    layout: Layout
    archive: Check | None
    """None for a folder of extracted files."""
    files: tuple[Check, ...]

    @property
    def published(self) -> bool | None:
        """Whether every file is the published one; None where no checksum can tell."""
        answers = [check.same for check in self.files]
        if None not in answers:
            return all(answers)
        return None if self.archive is None else self.archive.same

    def __str__(self) -> str:
        """All of it in sentences, one a line."""
        title, form = self.layout.title, self.layout.form
        lines = [f"{self.path} is sound: {self.layout.images:,} images of {title}, {form} layout"]
        words = {True: "as published", False: "not as published", None: "nothing published"}
        checks = ((self.archive,) if self.archive else ()) + self.files
        width = max(len(check.file) for check in checks)
        for check in checks:
            state = words[check.same]
            lines.append(f"{check.file:<{width}}  {check.algorithm} {check.found}  {state}")
        verdict = {
            True: f"it is the published {title}",
            False: f"it is not the published {title}, so accuracies compare only with others on it",
            None: "no checksum of these files is published, so there is nothing to compare with",
        }
        return "\n".join([*lines, verdict[self.published]])


def verify(name: str, data: str | Path | None = None) -> Verification:
    """Check every file of a source: its soundness, its checksum, and the archive's checksum.

    Parameters
    ----------
    name : str
        ``cifar10`` or ``cifar100``.
    data : str or Path, optional
        What to check; without it, the first thing found in the usual places.

    Returns
    -------
    Verification
        It is sound; whether it is the published data is in there.

    Raises
    ------
    BadArchiveError
        It is not sound; the file at fault is named.
    PeewitError
        Nothing was found to check.
    """
    places = where(name, data)
    if data is not None:
        path = resolve(Path(data), name)
    else:
        found = [place.path for place in places if place.found]
        if not found:
            raise PeewitError(
                f"there is no {name} to check",
                "none of the usual places has it",
                f"download it with: peewit data fetch {name}",
            )
        path = found[0]
    sums: dict[str, str] = {}

    def watch(file: str, content: bytes) -> None:
        sums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()

    layout = cifar.decode(path, watch).layout
    if layout.name != name:
        raise BadArchiveError(
            f"{path} is not {name}", f"it holds {layout.title}", f"use {layout.name} as the source"
        )
    archive = None
    if path.is_file():
        algorithm, expected = layout.checksum
        archive = Check(path.name, algorithm, file_checksum(path, algorithm), expected)
    files = tuple(
        Check(file, "md5", sums[file], layout.file_md5.get(file, "")) for file in layout.files
    )
    return Verification(path, layout, archive, files)
