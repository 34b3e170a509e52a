"""Decode picture files directly to the size in which they are used.

JPEGs, which are most photographs, are decoded at a half, a quarter or an eighth of their size:
libjpeg leaves out the high frequencies, which resizing would remove anyway.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from peewit.images.fitting import Fit, Region, region, resize_region
from peewit.images.reader import (
    BYTES_PER_PIXEL,
    LARGE,
    ONE_LARGE,
    PIXEL_LIMIT,
    UPRIGHT,
    Jpeg,
    check_size,
    coefficients,
    has_several_scans,
    is_too_large,
    name_of,
    opened,
    orientation,
    reduce,
    scale_for,
    to_pixels,
    too_large,
)
from peewit.images.work import LARGEST_PARSED

Pixels = npt.NDArray[np.uint8]

# A JPEG is decoded to at least this many pixels for each pixel of the result, in both directions.
# 372 photographs reduced to 32 and 64 pixels then differ from exact resizing of the whole picture
# by 0.48 and 0.31 of 255 on average, and by 1.7 at most; with 1 they differ by 1.27 and 0.95. When
# JPEGs are decoded at full size, rounding alone makes 0.26.
MARGIN = 2
# bytes of memory that each thread may use at the same time as others
MOST_SHARED = LARGE * BYTES_PER_PIXEL
# EXIF orientations of pictures that are stored on their side, and with which edges first
_SIDEWAYS, _RIGHT_TO_LEFT, _BOTTOM_UP = (5, 6, 7, 8), (2, 3, 7, 8), (3, 4, 6, 7)


@dataclass(frozen=True)
class PictureInfo:
    """What the header of a picture file says.

    Parameters
    ----------
    width, height : int
        In pixels, after turning the picture upright.
    mode : str
        Pillow's name of the pixel format, such as "RGB", "L" (grey), "P" (palette) or "CMYK".
    format : str
        Such as "JPEG".
    orientation : int
        EXIF orientation, 1 to 8; 1 if there is none.
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int


def probe(source: str | Path | bytes, name: str = "") -> PictureInfo:
    """Read the header of a picture without decoding its pixels, however many there are.

    Parameters
    ----------
    source : str, Path or bytes
        The file, or its content.
    name : str, optional
        Name of the picture in errors; by default the path.

    Raises
    ------
    PeewitError
        The file is missing, empty or not a picture, or its structure would take a decoder too
        long; see `peewit.images.reader.read_picture`.
    """
    with opened(source, name) as picture:
        # a PNG's orientation may follow its pixels, and Pillow would decode them to find it
        hidden = picture.format == "PNG" and not {"exif", "Raw profile type exif"} & {*picture.info}
        turned = 1 if hidden else orientation(picture)
        width, height = picture.size[::-1] if turned in _SIDEWAYS else picture.size
        return PictureInfo(width, height, picture.mode, str(picture.format), turned)


def read_sized(
    source: str | Path | bytes,
    name: str = "",
    *,
    height: int,
    width: int,
    channels: int = 3,
    fit: str = "crop",
    limit: int = PIXEL_LIMIT,
) -> Pixels:
    """Decode a picture to ``height`` x ``width`` pixels.

    Formats, orientation, transparency, bit depths and limits are those of
    `peewit.images.reader.read_picture`. The picture is resized by Pillow's antialiased bilinear
    filter, a triangle as wide as two new pixels. Several threads can decode at the same time; they
    take turns with pictures that need more than 64 MB.

    Parameters
    ----------
    source : str, Path or bytes
        The file, or its content.
    name : str, optional
        Name of the picture in errors; by default the path.
    height, width, channels : int
        Of the result; 1 channel is grey, 3 are RGB.
    fit : {"crop", "pad", "stretch"}
        What happens to a picture with another aspect ratio: its longer side is cropped, it is
        padded with grey, or it is distorted; see `peewit.images.fitting`.
    limit : int
        The most pixels to decode; see `read_picture`. With at most ``LARGE``, files are also
        refused that would have to wait for their turn.

    Returns
    -------
    uint8 array, shape (height, width, channels)

    Raises
    ------
    PeewitError
        The file is missing, damaged, too large or not a picture; see `read_picture`.
    """
    name = name or name_of(source)
    with opened(source, name) as picture:
        size, scale = picture.size, 1
        if isinstance(picture, Jpeg):
            part, rows, columns = _stored_region(size, orientation(picture), height, width, fit)
            scale = _reduce(picture, min(part.height / rows, part.width / columns) / MARGIN, limit)
        check_size(picture, name, limit)
        large = _is_large(picture, size)
        if large and limit <= LARGE:
            raise too_large(name, "its encoding needs much memory")
        with ONE_LARGE if large else nullcontext():
            image = _load(picture)
            turned = orientation(picture)  # a PNG may have it after the pixels
            part, rows, columns = _stored_region(size, turned, height, width, fit)
            resized = resize_region(_simple(image, name, channels), part, rows, columns, scale)
    method = UPRIGHT.get(turned)
    upright = resized if method is None else resized.transpose(method)
    mode = "L" if channels == 1 else "RGB"
    pixels = np.array(upright if upright.mode == mode else upright.convert(mode))
    return pixels.reshape(height, width, channels)


def _stored_region(
    size: tuple[int, int], turned: int, height: int, width: int, fit: str
) -> tuple[Region, int, int]:
    """Return which part of a picture, as it is stored, becomes the result, and to which size.

    Resizing comes before turning the picture upright, because the result is smaller.

    Parameters
    ----------
    size : tuple of int
        Width and height of the stored picture.
    turned : int
        Its EXIF orientation.
    height, width : int
        Of the upright result.
    fit : str
    """
    columns, rows = size
    if turned in _SIDEWAYS:
        left, top, kept_columns, kept_rows = region(cast(Fit, fit), columns, rows, height, width)
        height, width = width, height
    else:
        top, left, kept_rows, kept_columns = region(cast(Fit, fit), rows, columns, height, width)
    if turned in _RIGHT_TO_LEFT:
        left = columns - left - kept_columns
    if turned in _BOTTOM_UP:
        top = rows - top - kept_rows
    return Region(top, left, kept_rows, kept_columns), height, width


def _reduce(picture: Jpeg, most: float, limit: int) -> int:
    """Set and return the scale at which a JPEG is decoded: ``most``, or more if it is too large."""
    scale = next((scale for scale in (8, 4, 2) if scale <= most), 1)
    if limit > LARGE and is_too_large(picture, limit):
        scale = max(scale, scale_for(picture, LARGE))
    return reduce(picture, scale) if scale > 1 else 1


def _is_direct(picture: Image.Image) -> bool:
    """Return whether a picture is resized as Pillow keeps it, without a conversion."""
    return picture.mode in ("L", "RGB") and not picture.has_transparency_data


def _simple(image: Image.Image, name: str, channels: int) -> Image.Image:
    """Convert a decoded picture to mode L or RGB."""
    if not _is_direct(image):
        pixels = to_pixels(image, name)
        image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    return image.convert("L") if channels == 1 and image.mode == "RGB" else image


def _is_large(picture: ImageFile, full_size: tuple[int, int]) -> bool:
    """Return whether decoding takes so much memory that only one thread at a time may do it."""
    # other decoders, such as WebP's, keep copies of their own
    frugal = _is_direct(picture) and picture.format in ("JPEG", "PNG")
    needed = picture.width * picture.height * (4 if frugal else BYTES_PER_PIXEL)
    if isinstance(picture, Jpeg) and needed <= MOST_SHARED:
        kept = coefficients(picture, full_size)
        return kept > MOST_SHARED and has_several_scans(picture)
    return needed > MOST_SHARED


def _load(picture: ImageFile) -> Image.Image:
    """Decode a picture: a JPEG with simplejpeg if it is installed, all others with Pillow."""
    simplejpeg = _simplejpeg()
    if simplejpeg and isinstance(picture, Jpeg) and picture.mode in ("L", "RGB"):
        stream = cast(BinaryIO, picture.fp)
        stream.seek(0)
        try:
            pixels = simplejpeg.decode_jpeg(
                stream.read(LARGEST_PARSED),
                "GRAY" if picture.mode == "L" else "RGB",
                min_width=picture.width,
                min_height=picture.height,
            )
        except ValueError:  # Pillow tolerates more damage, and knows what is wrong
            pass
        else:
            return Image.fromarray(pixels.squeeze(2) if picture.mode == "L" else pixels)
    picture.load()
    return picture


@cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return cast(ModuleType, simplejpeg)
