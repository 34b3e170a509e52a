"""Decode picture files from untrusted sources.

Only common formats are accepted: Pillow supports many more, and some of their decoders start other
programs (EPS starts Ghostscript). The declared size and the structure of a file are checked before
anything is decoded, so that a small file can exhaust neither memory nor time.
"""

from __future__ import annotations

import ctypes
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging, features
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from peewit.errors import PeewitError, reason_of
from peewit.images.work import MOST_READS, MeteredStream, TooMuchWork, check_tags, check_work, scans

T = TypeVar("T")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"}
)
# the brands of files that need a decoder which is not always installed; cameras write heic
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
# 50 megapixels are 150 MB of RGB; most phone cameras have 12 to 50 megapixels
PIXEL_LIMIT = 50_000_000
# Resizing needs memory in proportion to the longer side alone: a file of a few kB that declares
# 50,000,000 x 1 pixels would take gigabytes. Phone panoramas have up to 20,000 pixels.
LONGEST_SIDE = 30_000

# Decoding and resizing takes up to this many bytes per pixel, 800 MB for 50 megapixels
BYTES_PER_PIXEL = 16
# so pictures with more pixels than this are processed one at a time
LARGE = 4_000_000
# pixels composited over white at once
BAND = 1_000_000
ONE_LARGE = threading.Semaphore()

# the largest picture of a camera; it takes 3 s at an eighth of its size
LARGEST_JPEG = 400_000_000
# bytes of the coefficients of a JPEG with several scans, as much as other pictures take at most
LARGEST_COEFFICIENTS = 800_000_000
# Formats that Pillow decodes in Python (PGM in text or with an unusual maximum, compressed BMP):
# 1.6 us per pixel, during which other threads hardly run
LARGEST_SLOW = 1_000_000

# what turns a picture upright, by its EXIF orientation
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _silence_libtiff() -> None:
    """Stop libtiff from writing to stderr: a line for each damaged row of a fax.

    Clients could fill the log of a server with them, and a server whose stderr is a pipe that
    nobody reads would block in the decoder. Pillow only turns off libtiff's warnings.
    """
    # not found where Pillow was built without libtiff, or with one that is hidden in it
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


_silence_libtiff()


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
        Pictures that declare more pixels than this are refused before they are decoded; but if
        it is more than ``LARGE``, a JPEG of up to ``LARGEST_JPEG`` pixels is decoded at a half, a
        quarter or an eighth of its size instead.

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
    with opened(source, name) as picture:
        name = name or name_of(source)
        if isinstance(picture, Jpeg) and is_too_large(picture, limit) and limit > LARGE:
            reduce(picture, scale_for(picture, LARGE))
        check_size(picture, name, limit)
        picture.load()
        # before any conversion, which would discard the orientation
        method = UPRIGHT.get(orientation(picture))
        return to_pixels(picture if method is None else picture.transpose(method), name)


@contextmanager
def opened(source: str | Path | bytes, name: str = "") -> Iterator[ImageFile]:
    """Open a picture file after checking its structure. Its pixels are not decoded yet.

    Parameters
    ----------
    source, name
        As for `read_picture`.

    Yields
    ------
    ImageFile
        A `Jpeg` if it is one.

    Raises
    ------
    PeewitError
        As for `read_picture`. What Pillow raises in the body of the ``with`` statement becomes a
        PeewitError too.
    """
    name = name or name_of(source)
    try:
        with _ignored_warnings(), _open(source, name) as stream:
            if not stream.read(1):
                raise PeewitError(f"cannot read {name}", "it is empty", "choose another picture")
            check_work(stream)
            metered = MeteredStream(stream)
            picture = _identify(metered, name)
            metered.reads = MOST_READS
            yield picture
    except Image.DecompressionBombError as error:
        raise too_large(name, "it declares more pixels than Pillow decodes") from error
    except MemoryError as error:
        raise too_large(name, "it does not fit into memory") from error
    except TooMuchWork as error:
        raise PeewitError(f"cannot read {name}", str(error), "save it again as PNG") from error
    except PeewitError:
        raise
    except Exception as error:
        # Pillow's decoders raise almost anything for damaged files, assertions included
        raise PeewitError(
            f"cannot read {name}",
            "the picture is damaged or incomplete",
            "save it again as PNG or JPEG, or choose another one",
        ) from error


def name_of(source: str | Path | bytes) -> str:
    """Return what a picture without a name is called in errors."""
    return "the picture" if isinstance(source, bytes) else str(source)


def check_size(picture: ImageFile, name: str, limit: int) -> None:
    """Raise TooManyPixels if a picture is too large to decode at its present scale."""
    width, height = picture.size
    if is_too_large(picture, limit):
        raise too_large(name, f"it declares {width:,} x {height:,} pixels")
    if picture.tile and picture.tile[0][0] in Image.DECODERS and width * height > LARGEST_SLOW:
        raise too_large(name, f"in its encoding, more than {LARGEST_SLOW:,} pixels take long")


class Jpeg(JpegImageFile):
    """A JPEG file. ``Image.open`` would refuse those of more than 179 megapixels."""

    opened = False

    def getexif(self) -> Image.Exif:
        # Pillow looks for the resolution when it opens the file, before the tags are checked
        return super().getexif() if self.opened else Image.Exif()


def _identify(stream: MeteredStream, name: str) -> ImageFile:
    start = stream.read(12)
    brand = start[8:] if start[4:8] == b"ftyp" else b""
    formats: tuple[str, ...] = FORMATS
    if brand in AVIF_BRANDS:
        if not features.check("avif"):
            raise NotAPicture(
                f"cannot read {name}",
                "AVIF needs Pillow 11.3 or later",
                "install it: pip install --upgrade pillow; or save the picture as JPEG",
            )
        formats = ("AVIF",)
    elif brand in HEIC_BRANDS:
        formats = _heic_formats(name)
    stream.seek(0)
    try:
        if start.startswith(b"\xff\xd8"):
            jpeg = Jpeg(cast(BinaryIO, stream))
            jpeg.opened = True
            return jpeg
        return Image.open(cast(BinaryIO, stream), formats=formats)
    except (UnidentifiedImageError, SyntaxError) as error:
        raise NotAPicture(
            f"cannot read {name}",
            "it is not a whole picture in a supported format",
            "use PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, AVIF or HEIC",
        ) from error


def _heic_formats(name: str) -> tuple[str, ...]:
    """Return the formats of a HEIC file for Pillow, after registering their decoder."""
    if not find_spec("pillow_heif"):
        raise NotAPicture(
            f"cannot read {name}",
            "HEIC needs the package pillow-heif",
            "install it: pip install 'peewit[heif]'; or save the picture as JPEG",
        )
    import pillow_heif

    pillow_heif.register_heif_opener()
    # a generic brand may also stand for AVIF
    return ("HEIF", "AVIF") if features.check("avif") else ("HEIF",)


def is_too_large(picture: ImageFile, limit: int) -> bool:
    """Return whether a picture has more than ``limit`` pixels, or a very long side."""
    width, height = picture.size
    return width * height > limit or max(width, height) > LONGEST_SIDE


def scale_for(picture: ImageFile, pixels: int) -> int:
    """Return the scale, 2, 4 or 8, that leaves about ``pixels`` pixels of a large JPEG."""
    width, height = picture.size
    return next((scale for scale in (2, 4) if width * height <= pixels * scale**2), 8)


def coefficients(picture: Jpeg, full_size: tuple[int, int]) -> int:
    """Return the bytes that the decoder keeps until the last scan, if there are several.

    ``full_size``: width and height of the picture before it is reduced.
    """
    width, height = full_size
    most = max((h * v for _, h, v, _ in picture.layer), default=1)
    samples = sum(h * v for _, h, v, _ in picture.layer) / max(1, most)
    return round(2 * samples * width * height)


def reduce(picture: Jpeg, scale: int) -> int:
    """Have a JPEG decoded at ``1 / scale`` of its size, rounded up, with scale 1, 2, 4 or 8.

    Returns
    -------
    int
        The scale: less for a picture a few pixels wide or high, 1 if it is too large even for that.
    """
    width, height = picture.size
    kept = coefficients(picture, picture.size)
    if width * height > LARGEST_JPEG or (
        kept > LARGEST_COEFFICIENTS and has_several_scans(picture)
    ):
        return 1
    picture.draft(None, (max(1, width // scale), max(1, height // scale)))
    return int(picture.decoderconfig[0])


def has_several_scans(picture: Jpeg) -> bool:
    """Return whether a JPEG is progressive, or has its colours one after the other."""
    return scans(cast(BinaryIO, picture.fp)) > 1


def orientation(picture: ImageFile) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none, or if the EXIF data is damaged."""
    raw = "Raw profile type exif"  # of PNG files by ImageMagick: in text, after three lines
    if "exif" not in picture.info and raw in picture.info:
        with suppress(ValueError):
            content = bytes.fromhex("".join(picture.info[raw].split("\n")[3:]))
            picture.info["exif"] = content
    if exif := picture.info.get("exif"):
        while exif.startswith(b"Exif\0\0"):  # Pillow removes all of them
            exif = exif[6:]
        check_tags(io.BytesIO(exif))
    try:
        found = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
        return found if found in UPRIGHT else 1
    except (MemoryError, TooMuchWork):
        raise
    except Exception:
        return 1


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


def to_pixels(picture: Image.Image, name: str) -> npt.NDArray[np.uint8]:
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


def too_large(name: str, why: str) -> TooManyPixels:
    return TooManyPixels(f"cannot read {name}", why, "reduce its size first")
