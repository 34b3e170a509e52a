"""Picture files of any origin -> pixels. The files are not trusted.

Only the common formats are read: Pillow knows many more, and some of their readers start other
programs (EPS starts Ghostscript). The size that a file declares is checked before anything is
decoded, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from peewit.errors import PeewitError, reason_of

T = TypeVar("T")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
# 50 megapixels are 150 MB of RGB; the cameras of most phones make 12 to 50
PIXEL_LIMIT = 50_000_000
# Resizing needs memory by the longer side, however short the other one is: a file of some kB with
# 50,000,000 x 1 pixels would take gigabytes. Panoramas of phones have up to 20,000.
LONGEST_SIDE = 30_000

# A picture takes up to 16 bytes a pixel while it is made small, one of 50 megapixels 800 MB: of
# those with more pixels than this, one at a time
LARGE = 4_000_000
# pixels that are laid over white at one time
BAND = 1_000_000
_ONE_LARGE = threading.Semaphore()

# What Pillow's readers raise when a file is damaged: 170,000 damaged files gave the first three,
# and the rest are what the structures that they parse can raise in one version or another
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Png:
    """A picture that Peewit has drawn: a notebook shows it.

    Parameters
    ----------
    content : bytes
        The PNG file.
    """

    content: bytes = field(repr=False)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the file and how large to show it: IPython asks for this."""
        with Image.open(io.BytesIO(self.content)) as picture:
            width, height = picture.size
        # drawn for paper, at 150 dots an inch; screens have 96
        return self.content, {"width": width * 96 // 150, "height": height * 96 // 150}


class _Quiet:
    """No warnings: notes on odd metadata are nothing to a person who wants the pixels.

    Several threads may read pictures. What ``catch_warnings`` changes holds for all of them, and is
    not put back right if they end in another order than they began: so the first one changes it,
    and the last one puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


def _quiet() -> AbstractContextManager[object]:
    if getattr(sys.flags, "context_aware_warnings", False):  # each thread has its own (Python 3.14)
        return warnings.catch_warnings(action="ignore")
    return _QUIET


class NotAPicture(PeewitError):  # noqa: N818  (it reads as a finding, which it is)
    """The file is of no kind that is read here."""


class TooManyPixels(PeewitError):  # noqa: N818
    """The picture is too large to be decoded."""


def read_picture(
    source: str | Path | bytes, name: str = "", *, limit: int = PIXEL_LIMIT
) -> npt.NDArray[np.uint8]:
    """Read a picture, whatever its kind, as 8-bit grey or RGB.

    Turned as its EXIF orientation says; transparency becomes white; 16 bits a channel are scaled
    to 8; of an animation the first frame is taken. Colour profiles are not applied.

    Parameters
    ----------
    source : str, Path or bytes
        The file, or its content.
    name : str, optional
        What to call it in errors; the path where there is one.
    limit : int
        Pictures that declare more pixels than this are refused before they are decoded.

    Returns
    -------
    uint8 array, shape (H, W, 1) for grey and (H, W, 3) for RGB

    Raises
    ------
    NotAPicture
        It is of no kind that is read here.
    TooManyPixels
        It is larger than ``limit`` or the memory, or a side is longer than ``LONGEST_SIDE``.
    PeewitError
        The file cannot be read, is empty, or is damaged.
    """
    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    try:
        with _quiet():
            return _read(source, name, limit)
    except Image.DecompressionBombError as error:
        raise _too_large(name, "it declares more pixels than Pillow decodes") from error
    except MemoryError as error:
        raise _too_large(name, "it does not fit in the memory") from error
    except _DAMAGE as error:
        raise PeewitError(
            f"cannot read {name}",
            "the picture is damaged or cut short",
            "save it again as PNG or JPEG, or choose another",
        ) from error


def each_in_turn(work: Callable[[int], T], limit: int = PIXEL_LIMIT) -> T:
    """Return ``work(n)``, which reads and reduces a picture of ``n`` pixels at most.

    Called by several threads, it lets only one of them at a time work at a large picture.
    """
    try:
        return work(min(LARGE, limit))
    except TooManyPixels:  # said before anything is decoded
        with _ONE_LARGE:
            return work(limit)


def _read(source: str | Path | bytes, name: str, limit: int) -> npt.NDArray[np.uint8]:
    with _opened(source, name) as stream:
        if not stream.read(1):
            raise PeewitError(f"cannot read {name}", "it is empty", "choose another picture")
        try:
            picture: Image.Image = Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise NotAPicture(
                f"cannot read {name}",
                "it is not a whole picture of a known kind",
                "give PNG, JPEG, WebP, GIF, BMP, TIFF or PPM",
            ) from error
        width, height = picture.size
        if width * height > limit or max(width, height) > LONGEST_SIDE:
            raise _too_large(name, f"it declares {width:,} x {height:,} pixels")
        # before any conversion, which would lose the orientation
        ImageOps.exif_transpose(picture, in_place=True)
        return _pixels(picture, name)


def _opened(source: str | Path | bytes, name: str) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    path = source if isinstance(source, Path) else Path(source)
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise PeewitError(
            f"cannot read {name}", "there is no such file", "check the path"
        ) from error
    except OSError as error:
        if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir fails where it may not look)
            raise PeewitError(
                f"cannot read {name}", "it is a folder", "give a picture in it"
            ) from error
        reason = reason_of(error)
        raise PeewitError(f"cannot read {name}", reason, "check the file and its rights") from error


def _pixels(picture: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, 1) or (H, W, 3) from a picture of any mode."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _deep_grey(picture, name)
    if picture.has_transparency_data:
        grey = picture.mode in ("1", "L", "LA", "La")
        return _over_white(picture, "LA" if grey else "RGBA")
    grey = picture.mode in ("1", "L")
    kept = picture.mode in ("L", "RGB")  # a copy costs a tenth of the time of a small picture
    pixels = np.array(picture if kept else picture.convert("L" if grey else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def _over_white(picture: Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    """Lay a picture, as one of ``mode`` ("LA" or "RGBA"), over white: (H, W, 1 or 3)."""
    width, height = picture.size
    laid = np.empty((height, width, len(mode) - 1), np.uint8)
    # in bands, because of a large one all of it at once would take gigabytes
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        part = picture.crop((0, top, width, min(top + rows, height)))
        wide = np.asarray(part.convert(mode)).astype(np.uint16)
        colour, alpha = wide[:, :, :-1], wide[:, :, -1:]
        # 65,152 at most
        laid[top : top + rows] = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    return laid


def _deep_grey(picture: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Scale grey of 16 bits (0 to 65535) or floats (0 to 1) to 8 bits: (H, W, 1)."""
    values = np.asarray(picture).astype(np.float32)
    if picture.mode == "F":
        top, full = 1.0, "0 to 1"
    else:
        # "I" has 32 bits, but Pillow also uses it for PNG and PGM with 16
        top, full = 65535.0, "0 to 65,535"
    low, high = float(values.min()), float(values.max())
    # written so that NaN fails too
    if not (low >= 0 and high <= top):
        raise PeewitError(
            f"cannot read {name}",
            f"its pixels run from {low:g} to {high:g}, not within {full}",
            "save it with 8 bits a channel",
        )
    # rounded, not cut: 65535 / 257 is 255
    return np.asarray(np.rint(values * (255 / top)), dtype=np.uint8)[:, :, None]


def _too_large(name: str, why: str) -> TooManyPixels:
    return TooManyPixels(f"cannot read {name}", why, "make the picture smaller first")
