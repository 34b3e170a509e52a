"""Decode the files of CIFAR-10 and CIFAR-100, in the python (pickles) and the binary layout.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009);
https://www.cs.toronto.edu/~kriz/cifar.html describes both layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from peewit.data.cifar import layouts
from peewit.data.cifar.archive import (
    BadArchiveError,
    TooMuchError,
    cannot_read,
    check_file,
    members,
)
from peewit.data.cifar.foreign import check_single_file, has_pictures, names_in, unknown_content
from peewit.data.cifar.layouts import PIXELS, SIDE, Layout
from peewit.data.cifar.unpickle import UnreadableFileError, loads


@dataclass(frozen=True)
class Decoded:
    """The content of an archive: the training images, then the test images."""

    layout: Layout
    images: npt.NDArray[np.uint8]
    """Shape (N, 32, 32, 3)."""
    labels: npt.NDArray[np.uint8]
    """Shape (N, kinds of labels), in the order of ``class_names``."""
    class_names: Mapping[str, tuple[str, ...]]
    """The kinds of labels ("fine", "coarse") and the names of their classes."""


def contents(path: Path, seen: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the files in an archive or a folder of extracted files.

    Parameters
    ----------
    path : Path
    seen : list of str
        Gets the names of the files in an archive that do not belong to a data set.

    Raises
    ------
    BadArchiveError
        See `peewit.data.cifar.archive.members`.
    """
    wanted = {file: layout.limit(file) for layout in layouts.LAYOUTS for file in layout.files}
    if not path.is_dir():
        check_file(path)
        check_single_file(path)
        try:
            yield from members(path, wanted, seen)
        except TooMuchError:
            if has_pictures(seen):
                raise unknown_content(path, seen) from None
            raise
        return
    for name, limit in wanted.items():
        file = path / name
        try:
            if not file.is_file():
                continue
            size = file.stat().st_size
            if size > limit:
                raise BadArchiveError(
                    f"{file} is refused",
                    f"it has {size:,} bytes, but the format allows at most {limit:,}",
                )
            content = file.read_bytes()
        except OSError as error:
            raise cannot_read(file, error) from error
        yield name, content


def _prefetch(files: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Decompress the next file while this one is being decoded (zlib releases the GIL)."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, files, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, files, None)
            yield item


def decode(path: Path, on_file: Callable[[str, bytes], None] | None = None) -> Decoded:
    """Decode and check a whole archive or folder.

    Parameters
    ----------
    path : Path
        A ``.tar.gz``, or a folder of extracted files.
    on_file : callable, optional
        Called with the name and the content of each file, in the order of reading.

    Returns
    -------
    Decoded
        All images, labels and class names.

    Raises
    ------
    BadArchiveError
        A file is missing or damaged, or its contents have the wrong number, shape or range; the
        message names the file.
    """
    layout: Layout | None = None
    images = labels = np.empty(0, np.uint8)
    names: dict[str, tuple[str, ...]] = {}
    found: set[str] = set()
    seen: list[str] = []
    for file, content in _prefetch(contents(path, seen)):
        if on_file is not None:
            on_file(file, content)
        if layout is None:
            layout = next(known for known in layouts.LAYOUTS if file in known.files)
            images = np.empty((layout.images, SIDE, SIDE, 3), np.uint8)
            labels = np.empty((layout.images, len(layout.classes)), np.uint8)
        elif file not in layout.files:
            raise BadArchiveError(
                f"{path} is refused", f"{found.pop()} and {file} belong to different data sets"
            )
        found.add(file)
        try:
            if file in layout.batches:
                rows = _rows(layout, file)
                planes, labels[rows] = _batch(layout, file, content)
                # (n, channel, row, column) to (n, row, column, channel): copying one channel at a
                # time is faster than one transposed copy
                for channel in range(3):
                    images[rows, ..., channel] = planes.reshape(-1, 3, SIDE, SIDE)[:, channel]
            else:
                names |= _class_names(layout, file, content)
        except UnreadableFileError as error:
            raise BadArchiveError(
                f"{file} in {path} is refused", str(error), "download it again"
            ) from error
    if layout is None:
        raise unknown_content(path, names_in(path) if path.is_dir() else seen)
    missing = [file for file in layout.files if file not in found]
    if missing:
        raise BadArchiveError(
            f"{path} is incomplete", f"it lacks {', '.join(missing)}", "download it again"
        )
    names = {kind: names[kind] for kind in layout.classes}
    return Decoded(layout, images, labels, names)


def _rows(layout: Layout, file: str) -> slice:
    """Return where the images of a file belong among all images."""
    names = list(layout.batches)
    start = sum(layout.batches[name] for name in names[: names.index(file)])
    return slice(start, start + layout.batches[file])


def _batch(
    layout: Layout, file: str, content: bytes
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the pixels, shape (n, 3072), and labels, shape (n, kinds of labels), of a file."""
    count = layout.batches[file]
    if layout.form == "binary":
        width = PIXELS + len(layout.classes)
        if len(content) != count * width:
            raise UnreadableFileError(f"it has {len(content):,} bytes instead of {count * width:,}")
        records = np.frombuffer(content, np.uint8).reshape(count, width)
        labels, pixels = records[:, : len(layout.classes)], records[:, len(layout.classes) :]
    else:
        batch = loads(content)
        pixels = _pixels(batch.get("data"), count)
        columns = []
        for kind in layout.classes:
            key = "labels" if len(layout.classes) == 1 else f"{kind}_labels"
            columns.append(_labels(batch.get(key), key, count))
        labels = np.stack(columns, axis=1)
    for column, (kind, classes) in zip(labels.T, layout.classes.items(), strict=True):
        if column.max() >= classes:
            raise UnreadableFileError(
                f"it has the {kind} label {column.max()}, but labels go from 0 to {classes - 1}"
            )
    return pixels, labels


def _pixels(value: object, count: int) -> npt.NDArray[np.uint8]:
    if not isinstance(value, np.ndarray):
        raise UnreadableFileError("it contains no images")
    if value.shape != (count, PIXELS):
        raise UnreadableFileError(
            f"its images have shape {value.shape} instead of {(count, PIXELS)}"
        )
    return value


def _labels(value: object, key: str, count: int) -> npt.NDArray[np.uint8]:
    if not isinstance(value, list) or not all(type(label) is int for label in value):
        raise UnreadableFileError(f"it contains no {key}")
    if len(value) != count:
        raise UnreadableFileError(f"it contains {len(value):,} labels for {count:,} images")
    outside = [label for label in value if not 0 <= label < 256]
    if outside:
        raise UnreadableFileError(f"it has the label {outside[0]}, which is not a class")
    return np.array(value, np.uint8)


def _class_names(layout: Layout, file: str, content: bytes) -> dict[str, tuple[str, ...]]:
    """Return the class names in a file, for each kind of labels."""
    found: dict[str, object] = {}
    if layout.form == "binary":
        kind = file.removesuffix("_label_names.txt") if len(layout.classes) > 1 else "fine"
        found[kind] = [line for line in content.decode("latin-1").split("\n") if line.strip()]
    else:
        meta = loads(content)
        for kind in layout.classes:
            key = "label_names" if len(layout.classes) == 1 else f"{kind}_label_names"
            found[kind] = meta.get(key)
    names = {}
    for kind, values in found.items():
        if not isinstance(values, list) or len(values) != layout.classes[kind]:
            raise UnreadableFileError(f"it does not name {layout.classes[kind]} classes")
        names[kind] = tuple(
            (name.decode("latin-1") if isinstance(name, bytes) else str(name)).strip()
            for name in values
        )
    return names
