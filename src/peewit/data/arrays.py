"""Turn arrays, ``.npz`` files, lists of files and Pillow's pictures into data sets."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.folder import FolderFiles, valid_names
from peewit.data.labels import class_name, make_listing, natural, shown
from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION, Listing
from peewit.errors import PeewitError, reason_of

if TYPE_CHECKING:
    from PIL import Image

# Bytes of all arrays of an .npz file
MOST_BYTES = 1 << 34
# RuntimeError: an encrypted zip archive, NotImplementedError (which is one): a rare kind of it
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_IMAGES = ("x_{}", "{}_images", "images_{}", "{}_x")
_LABELS = ("y_{}", "{}_labels", "labels_{}", "{}_y")
_PARTS = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION}
_WHOLE = (("images", "labels"), ("x", "y"), ("data", "labels"), ("arr_0", "arr_1"))
_CLASS_NAMES = ("class_names", "label_names", "classes", "names")
_KNOWN = "x_train and y_train (with x_test and y_test), or images and labels"


def load_npz(path: Path) -> tuple[Dataset, Dataset | None, tuple[str, ...]]:
    """Return the training and test set of an ``.npz`` file, and notes.

    Known names of arrays are ``x_train``, ``y_train``, ``x_val``, ``y_val``, ``x_test``,
    ``y_test``; ``train_images``, ``train_labels``, and so on; or ``images`` and ``labels``. The
    validation images become training images. ``class_names`` is optional.

    Raises
    ------
    PeewitError
        The file is damaged, arrays are missing, or they are not labelled images.
    """
    arrays = _read(path)
    parts: dict[int, list[tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]]] = {TRAIN: [], TEST: []}
    notes = []
    for name in (*_PARTS, "test"):
        images = next((arrays[key] for key in _keys(_IMAGES, name) if key in arrays), None)
        labels = next((arrays[key] for key in _keys(_LABELS, name) if key in arrays), None)
        if images is not None and labels is not None:
            pair = to_images(images, f"{name} images of {path}"), _flat(labels)
            parts[TEST if name == "test" else TRAIN].append(pair)
            if name in _PARTS and name != "train":
                notes.append(f"the {len(labels):,} {name} images of {path} are used for training")
    if not parts[TRAIN]:
        for first, second in _WHOLE:
            if first in arrays and second in arrays:
                images = to_images(arrays[first], f"images of {path}")
                parts[TRAIN].append((images, _flat(arrays[second])))
                break
        else:
            raise PeewitError(
                f"{path} has no labelled training images",
                f"its arrays are {shown(arrays, len(arrays)) or 'none'}",
                f"name them {_KNOWN}",
            )
    given = next((arrays[key] for key in _CLASS_NAMES if key in arrays), None)
    every = np.concatenate([labels for pairs in parts.values() for _, labels in pairs])
    numbers, class_names = number_classes(every, None if given is None else given.tolist(), path)
    made: list[Dataset | None] = []
    for part, pairs in parts.items():
        count = sum(len(labels) for _, labels in pairs)
        own, numbers = numbers[:count], numbers[count:]
        title = f"{path.name} {'test' if part == TEST else 'train'}, {path}"
        if not pairs:
            made.append(None)
            continue
        images = pairs[0][0] if len(pairs) == 1 else np.concatenate([one for one, _ in pairs])
        made.append(Dataset(images, own, class_names, title))
    train, test = made
    assert train is not None, "it has just been checked"
    missing = [name for name, n in zip(class_names, train.class_counts, strict=True) if not n]
    if missing and given is None:
        raise PeewitError(
            f"the test part of {path} has classes that the training part does not have",
            shown(missing),
            "add training images of them, or remove them",
        )
    return train, test, tuple(notes)


def _keys(patterns: Sequence[str], name: str) -> list[str]:
    return [pattern.format(name) for pattern in patterns]


def _flat(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels of shape (N,), from (N, 1), or from one-hot vectors of shape (N, classes)."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        labels = np.asarray(labels.argmax(1))
    return labels


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an ``.npz`` file by their names in lower case."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MOST_BYTES:
            raise PeewitError(f"{path} is refused", f"its arrays have {size:,} bytes")
        with np.load(path, allow_pickle=False) as content:
            return {name.lower(): content[name] for name in content.files}
    except (*_DAMAGE, MemoryError) as error:
        reason = "it is damaged, or has arrays of Python objects"
        if isinstance(error, OSError) and error.strerror:
            reason = reason_of(error)
        if isinstance(error, MemoryError):
            reason = "its arrays do not fit into memory"
        raise PeewitError(f"cannot read {path}", reason) from error


def to_images(images: npt.ArrayLike, what: str = "the images") -> npt.NDArray[np.uint8]:
    """Return images as uint8, shape (N, H, W, 1 or 3).

    Parameters
    ----------
    images : array, shape (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3
        uint8, or other numbers that are either whole from 0 to 255 or fractions from 0 to 1.
    what : str
        The subject of errors.

    Raises
    ------
    PeewitError
        The shape or the values are different.

    Examples
    --------
    >>> to_images(np.ones((2, 3, 4, 4), np.float32)).shape, to_images([[[0, 255]]])[0, 0, 1]
    ((2, 4, 4, 3), array([255], dtype=uint8))
    """
    array = np.asarray(images)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, 3)
    if array.ndim != 4 or array.shape[3] not in (1, 3) or array.dtype.kind not in "buif":
        raise PeewitError(
            f"{what} are not images",
            f"they are {array.dtype} with shape {array.shape}",
            "use numbers with shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)",
        )
    if array.dtype == np.uint8 or not array.size:
        return np.ascontiguousarray(array, np.uint8)
    low, high = float(array.min()), float(array.max())
    scale = 255 if array.dtype.kind in "bf" and high <= 1 else 1
    # `not (...)`, so that NaN fails too
    if not (low >= 0 and high <= 255) or (scale == 1 and (array != np.rint(array)).any()):
        raise PeewitError(
            f"{what} have values from {low:g} to {high:g}",
            "they are neither whole numbers from 0 to 255 nor fractions from 0 to 1",
            "convert them to uint8",
        )
    return np.asarray(np.rint(array * scale), np.uint8)


def number_classes(
    labels: npt.ArrayLike, class_names: Sequence[object] | None, what: object = "the labels"
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the number of the class of each label, and the names of the classes.

    Parameters
    ----------
    labels : array, shape (N,)
        Numbers or names.
    class_names : sequence or None
        The name of each number, from 0; or the order of the names. By default, the different
        labels are the names, in natural order.
    what : object
        The subject of errors.

    Examples
    --------
    >>> number_classes([7, 10, 7], None)
    (array([0, 1, 0]), ['7', '10'])
    >>> number_classes([1, 0], ["no", "yes"])[0].tolist()
    [1, 0]
    """
    values = np.asarray(labels)
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iubUS":
        raise PeewitError(
            f"{what}: the labels are neither numbers nor names",
            f"they are {values.dtype} with shape {values.shape}",
            "pass one whole number or name per image",
        )
    different, inverse = np.unique(values, return_inverse=True)
    given = None if class_names is None else [_word(name) for name in class_names]
    if given is not None and values.dtype.kind in "iub":
        if len(different) and not (different[0] >= 0 and different[-1] < len(given)):
            raise PeewitError(
                f"{what}: the labels do not match the class names",
                f"they go from {different[0]} to {different[-1]} for {len(given)} names",
                "number the classes from 0",
            )
        return values.astype(np.int64), given
    words = [_word(value) for value in different.tolist()]
    names = sorted(words, key=natural) if given is None else given
    number = {name: label for label, name in enumerate(names)}
    unknown = [word for word in words if word not in number]
    if unknown:
        raise PeewitError(
            f"{what}: the labels do not match the class names", f"{shown(unknown)} is not one"
        )
    return np.array([number[word] for word in words], np.int64)[inverse], names


def _word(value: object) -> str:
    return class_name(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def listing_of_files(paths: Sequence[str | os.PathLike[str]], labels: Sequence[object]) -> Listing:
    """Return the listing of picture files anywhere on disk.

    Parameters
    ----------
    paths : sequence of path, length N
        Different files; the names of the pictures are relative to the folder that contains all.
    labels : sequence, length N
        Numbers or names.

    Raises
    ------
    PeewitError
        A file is missing or listed twice, or the labels do not match.
    """
    files = [os.path.abspath(path) for path in paths]  # noqa: PTH100  (1,000,000 of them)
    _check_labels(files, labels, "paths")
    if len(set(files)) < len(files):
        raise PeewitError("a path is listed twice", "", "pass each file once")
    folder = Path(os.path.commonpath([os.path.dirname(file) for file in files]))  # noqa: PTH120
    names = [Path(file).relative_to(folder).as_posix() for file in files]
    try:
        states = [os.stat(file) for file in files]  # noqa: PTH116
    except OSError as error:
        raise PeewitError(f"cannot read {error.filename}", reason_of(error)) from error
    stamps = [(state.st_size, state.st_mtime_ns) for state in states]
    return make_listing(
        place=folder,
        names=valid_names(names),
        classes=[_word(label) for label in labels],
        parts=np.full(len(files), UNKNOWN, np.uint8),
        files=FolderFiles(folder, names),
        stamps=np.array(stamps, np.int64),
    )


@dataclass(frozen=True)
class PillowFiles:
    """Pictures of Pillow as encoded pictures.

    Parameters
    ----------
    pictures : sequence of PIL.Image.Image
    """

    pictures: Sequence[Image.Image]

    sequential: ClassVar[bool] = False

    def read(self, number: int) -> bytes:
        """Return a picture as PNG, or as TIFF if it has a mode that PNG does not have."""
        from PIL import ImageOps

        picture = ImageOps.exif_transpose(self.pictures[number])
        kind = "TIFF" if picture.mode in ("CMYK", "YCbCr", "LAB", "F") else "PNG"
        buffer = io.BytesIO()
        picture.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {}))
        return buffer.getvalue()


def listing_of_pictures(pictures: Sequence[Image.Image], labels: Sequence[object]) -> Listing:
    """Return the listing of pictures that Pillow has opened or made, of any sizes.

    Raises
    ------
    PeewitError
        The labels do not match.
    """
    _check_labels(pictures, labels, "pictures")
    sums = [zlib.crc32(picture.tobytes()) for picture in pictures]
    sizes = [picture.width * picture.height for picture in pictures]
    return make_listing(
        place=Path("pictures in memory"),
        names=[str(number) for number in range(len(pictures))],
        classes=[_word(label) for label in labels],
        parts=np.full(len(pictures), UNKNOWN, np.uint8),
        files=PillowFiles(list(pictures)),
        stamps=np.array([sizes, sums], np.int64).T,
    )


def _check_labels(things: Sequence[object], labels: Sequence[object], what: str) -> None:
    if len(things) != len(labels) or not len(things):
        raise PeewitError(
            f"the labels do not match the {what}",
            f"there are {len(labels)} labels for {len(things)} {what}",
            "pass one label for each",
        )
