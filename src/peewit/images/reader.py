"""Decode picture files from untrusted sources.

Only common formats are accepted: Pillow supports many more, and some of their decoders start other
programs (EPS starts Ghostscript). The declared size is checked before anything is decoded, so that
a small file cannot exhaust memory.
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
# 50 megapixels are 150 MB of RGB; most phone cameras have 12 to 50 megapixels
PIXEL_LIMIT = 50_000_000
# Resizing needs memory in proportion to the longer side alone: a file of a few kB that declares
# 50,000,000 x 1 pixels would take gigabytes. Phone panoramas have up to 20,000 pixels.
LONGEST_SIDE = 30_000

# Decoding and resizing takes up to 16 bytes per pixel, 800 MB for 50 megapixels, so pictures with
# more pixels than this are processed one at a time
LARGE = 4_000_000
# pixels composited over white at once
BAND = 1_000_000
_ONE_LARGE = threading.Semaphore()

# What Pillow's decoders raise for damaged files: the first three in a test with 170,000 damaged
# files; the others can occur while parsing, depending on the version of Pillow
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
    """A figure drawn by Peewit, which notebooks display.

    Parameters
    ----------
    content : bytes
        The PNG file.
    """

    content: bytes = field(repr=False)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the file and its display size, as IPython expects them."""
        with Image.open(io.BytesIO(self.content)) as picture:
            width, height = picture.size
        # drawn at 150 dots per inch; browsers assume 96
        return self.content, {"width": width * 96 // 150, "height": height * 96 // 150}


class _SharedWarningFilter:
    """Ignore warnings, which concern odd metadata, in all threads that decode pictures.

    ``catch_warnings`` changes global state, and restores it wrongly if threads leave it in another
    order than they entered it. So the first thread enters it, and the last one leaves it.
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


_WARNING_FILTER = _SharedWarningFilter()


def _ignored_warnings() -> AbstractContextManager[object]:
    if getattr(sys.flags, "context_aware_warnings", False):  # per-thread filters, Python 3.14
        return warnings.catch_warnings(action="ignore")
    return _WARNING_FILTER


class NotAPicture(PeewitError):  # noqa: N818  (it reads as a finding, which it is)
    """The file is not a picture in a supported format."""


class TooManyPixels(PeewitError):  # noqa: N818
    """The picture is too large to decode."""


def read_picture(
    source: str | Path | bytes, name: str = "", *, limit: int = PIXEL_LIMIT
) -> npt.NDArray[np.uint8]:
    """Decode a picture in any supported format to 8-bit grey or RGB.

    The EXIF orientation is applied, transparency becomes white, 16 bits per channel are scaled to
    8, and the first frame of an animation is used. Colour profiles are not applied.

    Parameters
    ----------
    source : str, Path or bytes
        The file, or its content.
    name : str, optional
        Name of the picture in errors; by default the path.
    limit : int
        Pictures that declare more pixels than this are refused before they are decoded.

    Returns
    -------
    uint8 array, shape (H, W, 1) for grey and (H, W, 3) for RGB

    Raises
    ------
    NotAPicture
        The file is not a picture in a supported format.
    TooManyPixels
        The picture exceeds ``limit``, ``LONGEST_SIDE`` or the available memory.
    PeewitError
        The file cannot be read, is empty, or is damaged.
    """
    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    try:
        with _ignored_warnings():
            return _read(source, name, limit)
    except Image.DecompressionBombError as error:
        raise _too_large(name, "it declares more pixels than Pillow decodes") from error
    except MemoryError as error:
        raise _too_large(name, "it does not fit into memory") from error
    except _DAMAGE as error:
        raise PeewitError(
            f"cannot read {name}",
            "the picture is damaged or incomplete",
            "save it again as PNG or JPEG, or choose another one",
        ) from error


def each_in_turn(work: Callable[[int], T], limit: int = PIXEL_LIMIT) -> T:
    """Return ``work(n)``, which reads and resizes a picture of at most ``n`` pixels.

    If several threads call it, only one at a time works on a large picture.
    """
    try:
        return work(min(LARGE, limit))
    except TooManyPixels:  # raised before anything is decoded
        with _ONE_LARGE:
            return work(limit)


def _read(source: str | Path | bytes, name: str, limit: int) -> npt.NDArray[np.uint8]:
    with _open(source, name) as stream:
        if not stream.read(1):
            raise PeewitError(f"cannot read {name}", "it is empty", "choose another picture")
        try:
            picture: Image.Image = Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise NotAPicture(
                f"cannot read {name}",
                "it is not a whole picture in a supported format",
                "use PNG, JPEG, WebP, GIF, BMP, TIFF or PPM",
            ) from error
        width, height = picture.size
        if width * height > limit or max(width, height) > LONGEST_SIDE:
            raise _too_large(name, f"it declares {width:,} x {height:,} pixels")
        # before any conversion, which would discard the orientation
        ImageOps.exif_transpose(picture, in_place=True)
        return _pixels(picture, name)


def _open(source: str | Path | bytes, name: str) -> BinaryIO:
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
        if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises without permission)
            raise PeewitError(
                f"cannot read {name}", "it is a folder", "name a picture in it"
            ) from error
        reason = reason_of(error)
        raise PeewitError(
            f"cannot read {name}", reason, "check the file and its permissions"
        ) from error


def _pixels(picture: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Convert a picture of any mode to uint8 (H, W, 1) or (H, W, 3)."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _high_bit_depth_grey(picture, name)
    if picture.has_transparency_data:
        grey = picture.mode in ("1", "L", "LA", "La")
        return _over_white(picture, "LA" if grey else "RGBA")
    grey = picture.mode in ("1", "L")
    direct = picture.mode in ("L", "RGB")  # a conversion takes 10 % of the time of a small picture
    pixels = np.array(picture if direct else picture.convert("L" if grey else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def _over_white(picture: Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    """Composite a picture, converted to ``mode`` ("LA" or "RGBA"), over white: (H, W, 1 or 3)."""
    width, height = picture.size
    composite = np.empty((height, width, len(mode) - 1), np.uint8)
    # in bands, because a large picture at once would take gigabytes
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        part = picture.crop((0, top, width, min(top + rows, height)))
        wide = np.asarray(part.convert(mode)).astype(np.uint16)
        colour, alpha = wide[:, :, :-1], wide[:, :, -1:]
        # at most 65,152, which fits into 16 bits
        composite[top : top + rows] = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    return composite


def _high_bit_depth_grey(picture: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Scale 16-bit grey (0 to 65535) or float grey (0 to 1) to 8 bits: (H, W, 1)."""
    values = np.asarray(picture).astype(np.float32)
    if picture.mode == "F":
        top, full = 1.0, "0 to 1"
    else:
        # mode "I" has 32 bits, but Pillow also uses it for 16-bit PNG and PGM files
        top, full = 65535.0, "0 to 65,535"
    low, high = float(values.min()), float(values.max())
    # `not (...)`, so that NaN fails too
    if not (low >= 0 and high <= top):
        raise PeewitError(
            f"cannot read {name}",
            f"its pixels range from {low:g} to {high:g}, outside {full}",
            "save it with 8 bits per channel",
        )
    # rounded, not truncated: 65535 / 257 is 255
    return np.asarray(np.rint(values * (255 / top)), dtype=np.uint8)[:, :, None]


def _too_large(name: str, why: str) -> TooManyPixels:
    return TooManyPixels(f"cannot read {name}", why, "reduce its size first")
