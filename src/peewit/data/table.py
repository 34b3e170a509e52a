"""List the pictures of a CSV table, and what CSV and Parquet tables have in common."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from peewit.data.folder import FolderFiles, valid_names
from peewit.data.labels import PARTS, LeftOut, class_name, make_listing, shown, text
from peewit.data.listing import UNKNOWN, Listing
from peewit.errors import PeewitError, reason_of

# Usual names of columns, the preferred ones first; case, spaces and hyphens do not matter
PICTURES = (
    "file_name",
    "filename",
    "path",
    "file",
    "filepath",
    "file_path",
    "image_path",
    "img_path",
    "image_file",
    "image_name",
    "image",
    "img",
    "picture",
    "photo",
    "image_id",
    "id",
)
LABELS = (
    "label",
    "class",
    "category",
    "target",
    "fine_label",
    "labels",
    "class_name",
    "label_name",
    "category_name",
    "classes",
    "y",
    "species",
    "diagnosis",
    "dx",
    "breed",
)
SPLITS = ("split", "subset", "partition", "part", "set", "usage")
# What metadata.csv is called in a folder of pictures
METADATA = ("metadata.csv", "metadata.tsv")
# Bytes of a CSV file; 1,000,000 rows have about 50 MB
MOST_BYTES = 1 << 30
_RENAME = "rename the right column to"


@dataclass
class Rows:
    """The rows of a table, or of several with the same columns.

    Parameters
    ----------
    columns : dict of str to list of str
        Text; "" where there is none.
    where : list of str
        What each row is called in messages, such as "line 3".
    parts : list of int
        The part of each row.
    """

    columns: dict[str, list[str]] = field(default_factory=dict)
    where: list[str] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)


def column(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return the first usual name that a column has.

    >>> column(["Image Path", "Class"], ["path", "image_path"])
    'Image Path'
    """
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def no_column(place: Path, what: str, names: Sequence[str], usual: Sequence[str]) -> PeewitError:
    """Return the error for a table without a certain column."""
    found = ", ".join(text(name) for name in list(names)[:10]) or "none"
    return PeewitError(
        f"{place} has no column for the {what}",
        f"its columns are {found}{', ...' if len(names) > 10 else ''}",
        f"{_RENAME} {usual[0]}",
    )


def split_parts(columns: Mapping[str, Sequence[str]]) -> tuple[str, list[int]] | None:
    """Return the column with the part of each row, and the parts; None if there is none."""
    name = column(list(columns), SPLITS)
    if name is None:
        return None
    values = [value.strip().lower() for value in columns[name]]
    if not all(value in PARTS or not value for value in set(values)):
        return None  # something else, such as the number of a fold
    return name, [PARTS.get(value, UNKNOWN) for value in values]


def list_csv(path: Path) -> Listing:
    """List the pictures that a CSV table names, by paths relative to its folder.

    Commas, semicolons and tabs are recognised as separators, UTF-8 and UTF-16 as encodings.

    Raises
    ------
    PeewitError
        It cannot be read, columns are missing, no picture exists, or a path leaves the folder.
    """
    columns, lines = read_csv(path)
    where = [f"line {line}" for line in lines]
    return _listing(path, path.parent, Rows(columns, where, [UNKNOWN] * len(lines)))


def list_metadata(folder: Path) -> Listing | None:
    """List the pictures of a folder with a ``metadata.csv``, or with one in each of its parts.

    Returns
    -------
    Listing or None
        None if there is none, or if it has no labels and so only describes the pictures of class
        folders.
    """
    tables = []
    for name in ("", *sorted(_folders(folder))):
        found = next(
            (folder / name / file for file in METADATA if (folder / name / file).is_file()), None
        )
        if found is not None and (not name or name.lower() in PARTS):
            tables.append((name, found))
    rows = Rows()
    for name, path in tables:
        columns, lines = read_csv(path)
        file, label = _columns(columns)
        if file is None or label is None:
            return None
        if name:
            columns[file] = [f"{name}/{value}" if value else "" for value in columns[file]]
        total = len(rows.where)
        for key in {**rows.columns, **columns}:
            values = rows.columns.setdefault(key, [""] * total)
            values += columns.get(key, [""] * len(lines))
        prefix = f"{name}/{path.name}" if name else path.name
        rows.where += [f"{prefix} line {line}" for line in lines]
        rows.parts += [PARTS.get(name.lower(), UNKNOWN)] * len(lines)
    return _listing(folder, folder, rows) if tables else None


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir()]


def read_csv(path: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Return the columns of a CSV file, and the line of each row.

    A first row that names a picture is not a header: it is the first picture.

    Raises
    ------
    PeewitError
        It cannot be read, or it is not a table.
    """
    from peewit.images.reader import SUFFIXES  # Pillow, which `peewit --help` does without

    try:
        if path.stat().st_size > MOST_BYTES:
            raise PeewitError(f"{path} is refused", f"it has more than {MOST_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise PeewitError(f"cannot read {path}", reason_of(error)) from error
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        decoded = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise PeewitError(
            f"cannot read {path}", "it is not UTF-8 text", "save it as UTF-8"
        ) from error
    first = next((line for line in decoded.splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=first.count)
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    reader = csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                names = [cell.strip() for cell in cells]
                pictures = [PurePosixPath(name).suffix.lower() in SUFFIXES for name in names]
                header = not any(pictures)
                if not header:
                    others = iter(["label", *(f"column {n}" for n in range(2, len(names)))])
                    at = pictures.index(True)
                    names = ["path" if n == at else next(others) for n in range(len(names))]
                if len(set(names)) < len(names):
                    raise PeewitError(
                        f"cannot read {path}", "two of its columns have the same name"
                    )
                columns = {name: [] for name in names}
                if header:
                    continue
            if len(cells) != len(columns):
                raise PeewitError(
                    f"cannot read {path}",
                    f"line {reader.line_num} has {len(cells)} cells, but there are"
                    f" {len(columns)} columns",
                    "correct it",
                )
            for values, cell in zip(columns.values(), cells, strict=True):
                values.append(cell.strip())
            lines.append(reader.line_num)
    except csv.Error as error:
        raise PeewitError(f"cannot read {path}", f"line {reader.line_num}: {error}") from error
    if not lines:
        raise PeewitError(f"{path} has no rows")
    return columns, lines


def _columns(columns: Mapping[str, Sequence[str]]) -> tuple[str | None, str | None]:
    """Return the columns of the paths and of the labels."""
    names = list(columns)
    file = column(names, PICTURES)
    label = column([name for name in names if name != file], LABELS)
    if file is not None and label is None and len(names) == 2 and split_parts(columns) is None:
        (label,) = (name for name in names if name != file)
    return file, label


def _listing(place: Path, folder: Path, rows: Rows) -> Listing:
    file, label = _columns(rows.columns)
    if file is None:
        raise no_column(place, "paths of the pictures", list(rows.columns), PICTURES)
    if label is None:
        if len(rows.columns) != 2 or split_parts(rows.columns) is None:
            raise no_column(place, "labels", list(rows.columns), LABELS)
        # only a list of which picture belongs to which part: the folders are the classes
        label = "label"
        paths = [PurePosixPath(value.replace("\\", "/")) for value in rows.columns[file]]
        rows.columns[label] = [path.parts[0] if len(path.parts) > 1 else "" for path in paths]
    return list_rows(place, folder, rows, file, label)


def list_rows(place: Path, folder: Path, rows: Rows, file: str, label: str) -> Listing:
    """Return the listing of a table with the paths of pictures.

    Parameters
    ----------
    place : Path
        The table, or the folder of several.
    folder : Path
        The paths are relative to it, and must not leave it.
    rows : Rows
    file, label : str
        The columns of the paths and of the labels.
    """
    columns = rows.columns
    split = split_parts(columns)
    parts = split[1] if split else rows.parts
    left_out = LeftOut()
    labels = [class_name(value) for value in columns[label]]
    contradicted, repeated = _repeated(columns[file], labels)
    kept: list[int] = []
    paths: list[str] = []
    stamps: list[int] = []
    missing = ""
    for row, (value, name) in enumerate(zip(columns[file], labels, strict=True)):
        if not value:
            left_out.add("row", "without a path", rows.where[row])
        elif not name:
            left_out.add("row", "without a label", rows.where[row])
        elif value in contradicted:
            left_out.add("row", "with a picture that has another label elsewhere", rows.where[row])
        elif row in repeated:
            left_out.add("row", "that repeats another", rows.where[row])
        else:
            path = _inside(place, folder, value, rows.where[row])
            state = _state(f"{folder}{os.sep}{path}")
            if state is None:
                missing = missing or path
                left_out.add("row", "whose picture does not exist", f"{value} ({rows.where[row]})")
            else:
                kept.append(row)
                paths.append(path)
                stamps += (state.st_size, state.st_mtime_ns)
    if not kept:
        raise PeewitError(
            f"{place} has no usable rows",
            f"there is no {text(str(folder / missing))}"
            if missing
            else "; ".join(left_out.notes()) or "it is empty",
            "put the table into the folder to which its paths are relative" if missing else "",
        )
    rest = {
        name: [values[row] for row in kept]
        for name, values in columns.items()
        if name not in (file, label, split[0] if split else None)
    }
    return make_listing(
        place=place,
        names=valid_names(paths),
        classes=[labels[row] for row in kept],
        parts=np.array([parts[row] for row in kept], np.uint8),
        files=FolderFiles(folder, paths),
        stamps=np.array(stamps, np.int64).reshape(-1, 2),
        columns=rest,
        notes=left_out.notes(),
    )


def _repeated(paths: Sequence[str], labels: Sequence[str]) -> tuple[set[str], set[int]]:
    """Return the paths with several labels, and the rows that repeat a path with its label."""
    first: dict[str, str] = {}
    contradicted: set[str] = set()
    repeated: set[int] = set()
    for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
        if not label:
            continue
        if path in first:
            (contradicted.add(path) if first[path] != label else repeated.add(row))
        first.setdefault(path, label)
    return contradicted, repeated


def _inside(place: Path, folder: Path, value: str, where: str) -> str:
    """Return a path relative to the folder of the table; refuse one that leaves it."""
    path = value.replace("\\", "/")
    top = folder.absolute().as_posix().rstrip("/") + "/"
    path = posixpath.normpath(path.removeprefix(top) if path.startswith(top) else path)
    if path.startswith(("/", "../")) or path == ".." or re.match("[A-Za-z]:/", path):
        raise PeewitError(
            f"{place} is refused",
            f"the path {shown([value])} ({where}) leaves the folder of the table",
            "put the table into a folder that contains all of its pictures",
        )
    return path


def _state(path: str) -> os.stat_result | None:
    """Return the state of a regular file; None if there is none, or it cannot be reached."""
    try:
        state = os.stat(path)  # noqa: PTH116  (Path.stat takes 3 times as long)
    except (OSError, ValueError):  # ValueError: a NUL character
        return None
    return state if stat.S_ISREG(state.st_mode) else None
