"""Decode picture files directly to the size in which they are used.

JPEGs, which are most photographs, are decoded at a half, a quarter or an eighth of their size:
libjpeg leaves out the high frequencies, which resizing would remove anyway.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from math import ceil, floor
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from peewit.errors import PeewitError
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
)
from peewit.images.work import LARGEST_PARSED
from peewit.system.cpu import usable_cores

Pixels = npt.NDArray[np.uint8]

# A JPEG is decoded to at least this many pixels for each pixel of the result, in both directions.
MARGIN = 2
# pictures that a thread works on at once in `decode_many`: handing one over takes 50 us
_CHUNK = 8
# chunks for each thread that are decoded before they are asked for
_AHEAD = 2


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
        padded with black, or it is distorted.

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
        whole = picture.size
        if isinstance(picture, Jpeg):
            sideways = orientation(picture) in _SIDEWAYS
            layout = _layout(whole[::-1] if sideways else whole, (width, height), fit)
            _reduce(picture, layout)
        check_size(picture, name, PIXEL_LIMIT)
        with ONE_LARGE if _is_large(picture) else nullcontext():
            image = _load(picture)
            turned = orientation(picture)  # may follow the pixels
            layout = _layout(whole[::-1] if turned in _SIDEWAYS else whole, (width, height), fit)
            resized = _resized(_simple(image, name, channels), whole, layout, turned)
    mode = "L" if channels == 1 else "RGB"
    if resized.size != (width, height):
        padded = Image.new(mode, (width, height))
        padded.paste(resized, layout.place)
        resized = padded
    return np.array(resized.convert(mode)).reshape(height, width, channels)


def decode_many(
    read: Callable[[int], bytes | Path],
    numbers: Iterable[int],
    names: Callable[[int], str],
    *,
    height: int,
    width: int,
    channels: int = 3,
    fit: str = "crop",
    threads: int | None = None,
) -> Iterator[tuple[int, Pixels | PeewitError]]:
    """Decode pictures with several threads.

    A few dozen pictures are read ahead, so memory does not grow with their number.

    Parameters
    ----------
    read : callable
        Returns the content, or the path, of the picture with this number; called by the threads.
    numbers : iterable of int
        The pictures to decode.
    names : callable
        Returns the name of a picture in errors.
    height, width, channels, fit
        As for `read_sized`.
    threads : int, optional
        By default, one for each core.

    Yields
    ------
    int
        Number of the picture, in the order of ``numbers``.
    uint8 array, shape (height, width, channels), or PeewitError
        Its pixels, or why it cannot be read. The pixels do not depend on ``threads``.
    """
    threads = threads or usable_cores()

    def decoded(number: int) -> tuple[int, Pixels | PeewitError]:
        try:
            return number, read_sized(
                read(number),
                names(number),
                height=height,
                width=width,
                channels=channels,
                fit=fit,
            )
        except PeewitError as error:
            return number, error

    def decoded_chunk(chunk: list[int]) -> list[tuple[int, Pixels | PeewitError]]:
        return [decoded(number) for number in chunk]

    waiting: deque[Future[list[tuple[int, Pixels | PeewitError]]]] = deque()
    pool = ThreadPoolExecutor(threads, "peewit-decoder")
    try:
        for chunk in _chunks(numbers, _CHUNK):
            waiting.append(pool.submit(decoded_chunk, chunk))
            if len(waiting) > _AHEAD * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:  # also if the caller stops iterating
        pool.shutdown(cancel_futures=True)


def _chunks(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    chunk: list[int] = []
    for number in numbers:
        chunk.append(number)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# EXIF orientations by what they do to the stored picture
_SIDEWAYS = (5, 6, 7, 8)
_MIRRORED_X, _MIRRORED_Y = (2, 3, 7, 8), (3, 4, 6, 7)


class _Layout(NamedTuple):
    """Which part of an upright picture becomes which part of the result."""

    box: tuple[int, int, int, int]  # left, top, right, bottom
    size: tuple[int, int]  # width and height of that part in the result
    place: tuple[int, int]  # its left and top there


def _layout(old: tuple[int, int], new: tuple[int, int], fit: str) -> _Layout:
    """Return how a picture of width and height ``old`` is fitted into ``new``."""
    width, height = old
    if fit == "crop":
        ratio = new[0] / new[1]
        kept = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
        return _Layout((left, top, left + kept[0], top + kept[1]), new, (0, 0))
    if fit == "pad":
        scale = min(new[0] / width, new[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return _Layout(
            (0, 0, width, height), size, ((new[0] - size[0]) // 2, (new[1] - size[1]) // 2)
        )
    return _Layout((0, 0, width, height), new, (0, 0))


def _reduce(picture: Jpeg, layout: _Layout) -> None:
    """Set the scale at which a JPEG is decoded."""
    left, top, right, bottom = layout.box
    columns, rows = layout.size
    enough = min((right - left) / columns, (bottom - top) / rows) / MARGIN
    scale = next((scale for scale in (8, 4, 2) if scale <= enough), 1)
    if is_too_large(picture, PIXEL_LIMIT):
        scale = max(scale, scale_for(picture, LARGE))
    if scale > 1:
        reduce(picture, scale)


def _is_direct(picture: Image.Image) -> bool:
    """Return whether a picture is resized as Pillow keeps it, without a conversion."""
    return picture.mode in ("L", "RGB") and not picture.has_transparency_data


def _is_large(picture: ImageFile) -> bool:
    """Return whether decoding takes so much memory that only one thread at a time may do it."""
    # other decoders, such as WebP's, keep copies of their own
    frugal = _is_direct(picture) and picture.format in ("JPEG", "PNG")
    needed = picture.width * picture.height * (4 if frugal else BYTES_PER_PIXEL)
    most = LARGE * BYTES_PER_PIXEL
    if isinstance(picture, Jpeg):
        kept = _full_coefficients(picture)
        return needed > most or (kept > most and has_several_scans(picture))
    return needed > most


def _load(picture: ImageFile) -> Image.Image:
    """Decode a picture, a JPEG with simplejpeg if it is installed."""
    simplejpeg = _simplejpeg() if isinstance(picture, Jpeg) else None
    if simplejpeg and picture.mode in ("L", "RGB"):
        stream = cast(BinaryIO, picture.fp)
        stream.seek(0)
        colours = "GRAY" if picture.mode == "L" else "RGB"
        try:
            pixels = simplejpeg.decode_jpeg(
                stream.read(LARGEST_PARSED),
                colours,
                min_height=picture.height,
                min_width=picture.width,
            )
        except ValueError:  # Pillow tolerates more damage, and says what is wrong
            pass
        else:
            return Image.fromarray(pixels.squeeze(2) if picture.mode == "L" else pixels)
    picture.load()
    return picture
