"""Plans of corrections: written by an audit, edited by a person, carried out into a new folder."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from peewit.data.audit.findings import PARTS, Audit
from peewit.data.listing import Listing
from peewit.errors import PeewitError, UsageError, reason_of
from peewit.system.files import cannot_read, cannot_write
from peewit.system.tables import file_cell, text_cell, write_csv

HEADER = ("file", "label", "finding", "detail", "action")
# Bytes of the largest plan: a million findings
LARGEST = 200_000_000


@dataclass(frozen=True)
class Changes:
    """What is done with the pictures that a plan names, by file name.

    Parameters
    ----------
    removed : set of str
    labels : mapping of str to str
        The new class of each relabelled picture.
    names : mapping of str to str
        The new name, without a folder, of each renamed picture.
    """

    removed: set[str]
    labels: Mapping[str, str]
    names: Mapping[str, str]


def write_plan(audit: Audit, path: Path) -> None:
    """Write a CSV file with the proposed correction for each finding.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    listing = audit.listing
    write_csv(
        path,
        HEADER,
        (
            (
                file_cell(str(listing.names[finding.row])),
                text_cell(listing.class_names[listing.labels[finding.row]]),
                finding.kind,
                text_cell(finding.detail),
                text_cell(finding.action),
            )
            for finding in audit.findings
        ),
    )


def read_plan(path: Path, listing: Listing) -> Changes:
    """Read a plan, and check every line of it.

    Raises
    ------
    PeewitError
        It cannot be read, or a line names an unknown file or action, or contradicts another one.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise PeewitError(f"cannot read {path}", "it is too large for a plan")
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise cannot_read(path, error) from error
    except UnicodeDecodeError as error:
        raise PeewitError(f"cannot read {path}", "it is not UTF-8 text") from error
    rows = csv.DictReader(content.splitlines())
    if not {"file", "action"} <= {*(rows.fieldnames or ())}:
        raise PeewitError(
            f"{path} is not a plan",
            "its first line does not name the columns file and action",
            "make one: peewit data check SOURCE --fix-list PLAN.csv",
        )
    known = {str(name) for name in listing.names}
    removed: set[str] = set()
    labels: dict[str, str] = {}
    names: dict[str, str] = {}
    for row in rows:
        where = f"line {rows.line_num} of {path}"
        name = row["file"] if row["file"] in known else (row["file"] or "").removeprefix("./")
        if name not in known:
            raise PeewitError(f"{where} names {name!r}", "the source has no such picture")
        action, _, value = (row["action"] or "").lstrip("'").strip().partition(" ")
        value = value.strip()
        if action == "remove" and not value:
            removed.add(name)
        elif action == "relabel" and is_file_name(value):
            _note_once(labels, name, value, where)
        elif action == "rename" and is_file_name(value):
            _note_once(names, name, value, where)
        elif action != "keep" or value:
            raise PeewitError(
                f"{where} has the action {row['action']!r}",
                "it must be keep, remove, relabel CLASS or rename NAME, with a plain name",
            )
    return Changes(removed, labels, names)


def _note_once(values: dict[str, str], name: str, value: str, where: str) -> None:
    if values.setdefault(name, value) != value:
        raise PeewitError(
            f"{where} contradicts an earlier line",
            f"{name} cannot be both {values[name]} and {value}",
        )


def is_file_name(value: str) -> bool:
    """Return whether ``value`` can be the name of a file or folder on every system.

    >>> [is_file_name(value) for value in ("a cat", "", "..", "a/b", "a:b", ".hidden")]
    [True, False, False, False, False, False]
    """
    return (
        0 < len(value) <= 200
        and value.isprintable()
        and not set(value) & set('/\\:*?"<>|')
        and not value.startswith(".")
        and not value.endswith((".", " "))
    )


def apply_plan(changes: Changes, listing: Listing, out: Path) -> int:
    """Copy the pictures of a source, corrected, into a new folder of class folders.

    It has the parts of the source. Names that are taken get a number.

    Parameters
    ----------
    changes : Changes
    listing : Listing
        The source, which is not changed.
    out : Path
        The new folder. It appears when all pictures are in it.

    Returns
    -------
    int
        How many pictures were written.

    Raises
    ------
    UsageError
        ``out`` exists.
    PeewitError
        A picture cannot be read or written; ``out`` is not there then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is taken", "it exists", "name a new folder")
    written, taken = 0, set()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        for row, name in enumerate(map(str, listing.names)):
            if name in changes.removed:
                continue
            label = changes.labels.get(name, listing.class_names[listing.labels[row]])
            path = PurePosixPath(
                PARTS[listing.parts[row]],
                label if is_file_name(label) else label.replace("/", "_"),
                changes.names.get(name, PurePosixPath(name).name),
            )
            stem, number = path.stem, 2
            while str(path).casefold() in taken:
                path, number = path.with_name(f"{stem}-{number}{path.suffix}"), number + 1
            taken.add(str(path).casefold())
            target = partial / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(listing.files.read(row))
            written += 1
        partial.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise PeewitError(f"cannot write {out}", reason_of(error), "nothing was written") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written
