"""How a picture of any aspect ratio becomes an input of fixed size: crop, pad or stretch.

All three map a rectangle of the picture, its region, onto the whole input by one resize. Crop: the
largest centred rectangle with the input's aspect ratio. Pad: the smallest one around the
picture, with as much grey on either side of it. Stretch: the picture, whatever its aspect ratio.

Only whole numbers are used, rounded down as Keras's ``Resizing`` does, so that every exported
format computes the same region.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Literal, NamedTuple

from PIL import Image

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")
# The padding's value in all channels: a middle grey, near the mean of photographs. It is part of
# what a network was trained on, so it must not change.
PADDING = 128


class Region(NamedTuple):
    """A rectangle in a picture's coordinates, in pixels; it may reach beyond the picture."""

    top: int
    left: int
    height: int
    width: int


def crop_region(height: int, width: int, target_height: int, target_width: int) -> Region:
    """Return the largest centred part of a picture with the target's aspect ratio.

    >>> crop_region(480, 640, 32, 32)
    Region(top=0, left=80, height=480, width=480)
    """
    kept_height = max(1, min(height, width * target_height // target_width))
    kept_width = max(1, min(width, height * target_width // target_height))
    return Region((height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width)


def pad_region(height: int, width: int, target_height: int, target_width: int) -> Region:
    """Return the rectangle with the target's aspect ratio and the picture in its centre.

    ``top`` and ``left`` are 0 or less: minus the number of rows above and of columns to the left,
    which are as many as below and to the right.

    >>> pad_region(480, 640, 32, 32)
    Region(top=-80, left=0, height=640, width=640)
    """
    rows = max(0, width * target_height // target_width - height) // 2
    columns = max(0, height * target_width // target_height - width) // 2
    return Region(-rows, -columns, height + 2 * rows, width + 2 * columns)


def region(fit: Fit, height: int, width: int, target_height: int, target_width: int) -> Region:
    """Return the part of a picture of ``height`` x ``width`` that becomes the network's input."""
    if fit == "crop":
        return crop_region(height, width, target_height, target_width)
    if fit == "pad":
        return pad_region(height, width, target_height, target_width)
    return Region(0, 0, height, width)


def fit_picture(picture: Image.Image, height: int, width: int, fit: Fit) -> Image.Image:
    """Fit a picture into ``height`` x ``width`` pixels, by antialiased bilinear interpolation.

    Parameters
    ----------
    picture : PIL.Image.Image
        In mode L or RGB.
    height, width : int
    fit : {"crop", "pad", "stretch"}

    Examples
    --------
    >>> list(fit_picture(Image.new("L", (1, 3)), 3, 3, "pad").tobytes())
    [128, 0, 128, 128, 0, 128, 128, 0, 128]
    """
    part = region(fit, picture.height, picture.width, height, width)
    return resize_region(picture, part, height, width)


def resize_region(
    picture: Image.Image, part: Region, height: int, width: int, scale: int = 1
) -> Image.Image:
    """Resize a part of a picture, by antialiased bilinear interpolation.

    Parameters
    ----------
    picture : PIL.Image.Image
        In mode L or RGB.
    part : Region
        In the coordinates of the picture at full size; beyond the picture is ``PADDING``.
    height, width : int
        Of the result.
    scale : int
        ``picture`` has been decoded at ``1 / scale`` of its full size, rounded up.
    """
    top, left, rows, columns = (value / scale for value in part)
    bottom, right = top + rows, left + columns
    # The longer side first: the frame of a picture of 30,000 x 1 pixels has 900,000,000.
    if left < 0 or right > picture.width:
        picture = _resized(picture, picture.width, height, (0, top, picture.width, bottom))
        top, bottom = 0, height
    elif top < 0 or bottom > picture.height:
        picture = _resized(picture, width, picture.height, (left, 0, right, picture.height))
        left, right = 0, width
    x, y = floor(left), floor(top)
    size = ceil(right) - x, ceil(bottom) - y
    # Image.resize alone would also read pixels beyond its box
    if (x, y) != (0, 0) or size != picture.size:
        frame = Image.new(picture.mode, size, (PADDING,) * len(picture.getbands()))
        frame.paste(picture, (-x, -y))
        picture = frame
    return _resized(picture, width, height, (left - x, top - y, right - x, bottom - y))


def _resized(
    picture: Image.Image, width: int, height: int, box: tuple[float, float, float, float]
) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.BILINEAR, box)
