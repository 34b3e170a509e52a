"""List and read the pictures of Parquet tables, as Hugging Face publishes data sets."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from peewit.data.class_folders import is_meant
from peewit.data.labels import PARTS, LeftOut, class_name, make_listing, shown
from peewit.data.listing import UNKNOWN, Listing
from peewit.data.table import LABELS, PICTURES, Rows, column, list_rows, no_column, split_parts
from peewit.errors import PeewitError, reason_of

MAGIC = b"PAR1"
# Row groups whose pictures are kept in memory. Hugging Face writes 100 to 1,000 pictures in each.
KEPT = 2
# Bytes of a row group, after decompression
LARGEST = 1 << 30
_MOST_FILES = 10_000


@dataclass
class ParquetFiles:
    """The pictures in the cells of Parquet files.

    A row group is read as a whole, so it pays to read pictures in the order of their numbers.

    Parameters
    ----------
    paths : sequence of Path
    names : sequence of str
    cells : int64 array, shape (N, 3)
        The file, the row group in it, and the row in that, for each picture.
    column : str
        The column of the bytes: ``image``, or ``image.bytes`` in a struct.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    cells: npt.NDArray[np.int64]
    column: str
    _groups: OrderedDict[tuple[int, int], Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    sequential: ClassVar[bool] = True

    def read(self, number: int) -> bytes:
        """Return the content of a picture; raise PeewitError if it cannot be read."""
        file, group, row = self.cells[number].tolist()
        with self._lock:
            values = self._groups.get((file, group))
            if values is None:
                values = self._groups[file, group] = self._read_group(file, group)
                while len(self._groups) > KEPT:
                    self._groups.popitem(last=False)
        with _faults(self.paths[file]):
            content = values[row].as_py()
        if isinstance(content, dict):
            content = content.get("bytes")
        if not content:
            raise PeewitError(
                f"cannot read {self.names[number]}", "there is no picture in its cell"
            )
        return bytes(content)

    def _read_group(self, file: int, group: int) -> Any:
        import pyarrow.parquet as pq

        with _faults(self.paths[file]), pq.ParquetFile(self.paths[file]) as table:
            return table.read_row_group(group, columns=[self.column]).column(0)


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files below a folder, in order."""
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        if all(is_meant(part) for part in path.relative_to(folder).parts) and path.is_file():
            found.append(path)
            if len(found) > _MOST_FILES:
                raise PeewitError(
                    f"{folder} is refused", f"it has more than {_MOST_FILES:,} tables"
                )
    return found


def list_parquet(place: Path, paths: Sequence[Path]) -> Listing:
    """List the pictures of Parquet files with the same columns.

    The pictures are in a column of bytes, or of structs with ``bytes``; or the column has their
    paths. The names of numbered classes come from the schema's metadata, and the part of a file
    from its name (``train-00000-of-00002.parquet``) or its folder.

    Parameters
    ----------
    place : Path
        The file, or the folder of the files.
    paths : sequence of Path

    Raises
    ------
    PeewitError
        pyarrow is not installed, a file is damaged, or columns are missing.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise PeewitError(
            f"cannot read {place}",
            "Parquet needs the package pyarrow",
            "install it: pip install 'peewit[parquet]'",
        ) from error
    folder = place if place.is_dir() else place.parent
    rows = Rows()
    cells: list[npt.NDArray[np.int64]] = []
    versions: list[tuple[int, int]] = []
    image = label = ""
    embedded = False
    for number, path in enumerate(paths):
        with _faults(path), pq.ParquetFile(path) as table:
            schema = table.schema_arrow
            fields = {name: schema.field(name).type for name in schema.names}
            if not number:
                image, label = _columns(place, fields)
                embedded = not _is_text(fields[image])
            if {image, label} - set(fields):
                raise PeewitError(
                    f"{path} has other columns than {paths[0].name}",
                    f"it has {shown(fields, len(fields))}",
                    "give it as a source of its own",
                )
            column_of_bytes = f"{image}.bytes" if pa.types.is_struct(fields[image]) else image
            counts = _row_groups(path, table.metadata)
            wanted = [n for n, kind in fields.items() if n == label or _is_scalar(kind)]
            wanted += [f"{image}.path"] if _has_path(fields[image]) else []
            content = table.read(columns=wanted if embedded else [*wanted, image])
            classes = _class_names(schema.metadata, label)
        total = sum(counts)
        if content.num_rows != total:
            raise PeewitError(f"cannot read {path}", "it is damaged: its row groups contradict it")
        relative = path.relative_to(folder).as_posix()
        state = path.stat()
        versions += [(state.st_size, state.st_mtime_ns)] * total
        cells.append(_cells(number, counts))
        before = len(rows.where)
        found = {
            name: _text(content.column(name), classes if name == label else None, path)
            for name in content.column_names
            if name != image or not embedded
        }
        if _has_path(fields[image]):
            inner = content.column(image).to_pylist()
            found["path"] = [str((value or {}).get("path") or "") for value in inner]
        for key in {**rows.columns, **found}:
            rows.columns.setdefault(key, [""] * before).extend(found.get(key, [""] * total))
        rows.where += [f"{relative}/{row}" for row in range(total)]
        rows.parts += [_part(relative)] * total
    if not rows.where:
        raise PeewitError(f"{place} has no rows")
    if not embedded:
        return list_rows(place, folder, rows, image, label)
    left_out = LeftOut()
    labels = [class_name(value) for value in rows.columns[label]]
    kept = np.array([bool(name) for name in labels])
    for row in np.flatnonzero(~kept).tolist():
        left_out.add("row", "without a label", rows.where[row])
    if not kept.any():
        raise PeewitError(f"{place} has no usable rows", f"all {len(kept):,} are without a label")
    split = split_parts(rows.columns)
    chosen = np.flatnonzero(kept).tolist()
    names = [_name(rows, row) for row in chosen]
    return make_listing(
        place=place,
        names=names,
        classes=[labels[row] for row in chosen],
        parts=np.array(split[1] if split else rows.parts, np.uint8)[kept],
        files=ParquetFiles(paths, names, np.concatenate(cells)[kept], column_of_bytes),
        stamps=np.array(versions, np.int64)[kept],
        columns={
            name: [values[row] for row in chosen]
            for name, values in rows.columns.items()
            if name not in (label, split[0] if split else None)
        },
        notes=left_out.notes(),
    )


def _name(rows: Rows, row: int) -> str:
    """Return what a picture is called: its cell, and the name of the file that it was."""
    path = rows.columns.get("path", [""] * (row + 1))[row]
    return f"{rows.where[row]}/{class_name(Path(path).name)}" if path else rows.where[row]


def _cells(number: int, counts: Sequence[int]) -> npt.NDArray[np.int64]:
    groups = np.repeat(np.arange(len(counts)), counts)
    inside = np.concatenate([np.arange(count) for count in counts] or [np.empty(0, np.int64)])
    return np.stack([np.full(len(groups), number), groups, inside], axis=1).astype(np.int64)


def _row_groups(path: Path, metadata: Any) -> list[int]:
    """Return the number of rows in each row group, none of which is too large for the memory."""
    counts = []
    for number in range(metadata.num_row_groups):
        # not its columns: pyarrow ends the process if their metadata is damaged
        group = metadata.row_group(number)
        if group.total_byte_size > LARGEST:
            raise PeewitError(
                f"{path} is refused",
                f"a row group has {group.total_byte_size:,} bytes",
                "write it with smaller row groups",
            )
        counts.append(group.num_rows)
    return counts


def _columns(place: Path, fields: dict[str, Any]) -> tuple[str, str]:
    """Return the columns of the pictures and of the labels."""
    pictures = [name for name, kind in fields.items() if _is_picture(kind)]
    image = column(pictures, PICTURES) or (pictures[0] if len(pictures) == 1 else None)
    texts = [name for name, kind in fields.items() if _is_text(kind)]
    image = image or column(texts, PICTURES)
    if image is None:
        raise no_column(place, "pictures", list(fields), ["image"])
    scalars = [name for name, kind in fields.items() if name != image and _is_scalar(kind)]
    label = column(scalars, LABELS) or (scalars[0] if len(scalars) == 1 else None)
    if label is None:
        raise no_column(place, "labels", list(fields), LABELS)
    return image, label


def _is_picture(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_path(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_scalar(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_scalar(kind.value_type)
    return _is_text(kind) or bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str] | None:
    """Return the names of the classes from the schema's metadata; None if it has none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _text(values: Any, classes: list[str] | None, path: Path) -> list[str]:
    """Return a column as text, with numbers of classes replaced by their names."""
    plain = values.to_pylist()
    if classes is None or not all(isinstance(value, int | None) for value in plain):
        return ["" if value is None else str(value).strip() for value in plain]
    # -1 is how Hugging Face marks a test part whose labels are not published
    known: dict[int | None, str] = {None: "", -1: "", **dict(enumerate(classes))}
    unknown = next((value for value in plain if value not in known), None)
    if unknown is not None:
        raise PeewitError(
            f"{path} has the label {unknown}", f"its schema names {len(classes)} classes, from 0"
        )
    return [known[value] for value in plain]


def _part(relative: str) -> int:
    """Return the part of a data set to which a file belongs, by its path.

    >>> _part("data/test-00000-of-00001.parquet") == PARTS["test"], _part("latest.parquet")
    (True, 0)
    """
    for name in reversed(relative.lower().split("/")):
        for word in re.split(r"[^a-z]+", name):
            if word in PARTS:
                return PARTS[word]
    return UNKNOWN


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn the errors of pyarrow for a damaged file into a sentence."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        # pyarrow raises OSError without a number for damaged files
        reason = "it is damaged, or not a Parquet file"
        if isinstance(error, OSError) and error.strerror:
            reason = reason_of(error)
        raise PeewitError(f"cannot read {path}", reason) from error
