"""Compare an archive or a folder of files with the published checksums."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.decoding import decode
from peewit.data.cifar.layouts import Layout, file_checksum
from peewit.data.places import resolve, where
from peewit.errors import PeewitError


@dataclass(frozen=True)
class Check:
    """The comparison of one file with its published checksum."""

    file: str
    algorithm: str
    found: str
    published: str
    """Empty if none is published."""

    @property
    def same(self) -> bool | None:
        """Whether the two are equal; None if none is published."""
        return self.found == self.published if self.published else None


@dataclass(frozen=True)
class Verification:
    """The result for an archive or folder that is valid."""

    path: Path
    layout: Layout
    archive: Check | None
    """None for a folder of extracted files."""
    files: tuple[Check, ...]

    @property
    def published(self) -> bool | None:
        """Whether every file is the published one; None if no checksum is published."""
        same = [check.same for check in self.files]
        if None not in same:
            return all(same)
        return None if self.archive is None else self.archive.same

    def __str__(self) -> str:
        """Return a report: a line for each file, and the verdict."""
        title, form = self.layout.title, self.layout.form
        lines = [f"{self.path} is valid: {self.layout.images:,} images of {title}, {form} layout"]
        words = {True: "as published", False: "not as published", None: "no checksum published"}
        checks = ((self.archive,) if self.archive else ()) + self.files
        width = max(len(check.file) for check in checks)
        for check in checks:
            state = words[check.same]
            lines.append(f"{check.file:<{width}}  {check.algorithm} {check.found}  {state}")
        verdict = {
            True: f"it is the published {title}",
            False: f"it is not the published {title}, so accuracies are comparable only with other "
            "results on this copy",
            None: "no checksums are published for these files, so there is nothing to compare with",
        }
        return "\n".join([*lines, verdict[self.published]])


def verify(name: str, data: str | Path | None = None) -> Verification:
    """Check that a source can be decoded, and compare its files with the published checksums.

    Parameters
    ----------
    name : str
        ``cifar10`` or ``cifar100``.
    data : str or Path, optional
        The archive or folder to check. By default, the first one found in the usual places.

    Returns
    -------
    Verification
        The comparison of each file with its published checksum.

    Raises
    ------
    BadArchiveError
        The data is damaged or incomplete (the message names the file), or of another source.
    PeewitError
        There is nothing to check.
    """
    places = where(name, data)
    if data is not None:
        path = resolve(Path(data), name)
    else:
        found = [place.path for place in places if place.found]
        if not found:
            raise PeewitError(
                f"cannot verify {name}",
                "it is in none of the usual places",
                f"download it with: peewit data fetch {name}",
            )
        path = found[0]
    sums: dict[str, str] = {}

    def add_checksum(file: str, content: bytes) -> None:
        sums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()

    layout = decode(path, add_checksum).layout
    if layout.name != name:
        raise BadArchiveError(
            f"{path} is not {name}",
            f"it contains {layout.title}",
            f"use {layout.name} as the source",
        )
    archive = None
    if path.is_file():
        algorithm, expected = layout.checksum
        archive = Check(path.name, algorithm, file_checksum(path, algorithm), expected)
    files = tuple(
        Check(file, "md5", sums[file], layout.file_md5.get(file, "")) for file in layout.files
    )
    return Verification(path, layout, archive, files)
