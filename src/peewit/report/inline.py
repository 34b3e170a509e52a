"""Pictures as text, to stand inside a page: data URIs."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from torch import nn

Pixels = npt.NDArray[np.uint8]

# Up to this many pixels a picture is kept as it is, and its pixels are shown as squares
SMALL = 64
# The longest side of what is made of a larger one
THUMBNAIL = 192


def picture(image: Pixels) -> str:
    """Return a picture, uint8 (H, W, 1) or (H, W, 3), whole if it is small, as a data URI."""
    if max(image.shape[:2]) <= SMALL:
        return png(image)
    thumbnail = Image.fromarray(_shaped(image))
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return jpeg(np.asarray(thumbnail))


def png(image: Pixels) -> str:
    """Return pixels, uint8 (H, W, 1), (H, W, 3) or (H, W, 4), exactly, as a data URI."""
    return _uri(image, "png", optimize=False, compress_level=6)


def jpeg(image: Pixels) -> str:
    """Return a smooth picture, uint8 (H, W, 1) or (H, W, 3), as a data URI."""
    return _uri(image, "jpeg", quality=85)


def from_png(content: bytes) -> str:
    """Return what a PNG file holds as a data URI."""
    return f"data:image/png;base64,{b64encode(content).decode('ascii')}"


def first_filters(model: nn.Module | None) -> npt.NDArray[np.float32] | None:
    """Return the weights of the first layer, where they are filters of pixels.

    Returns
    -------
    float32 array, shape (filters, 1 or 3, height, width), or None
    """
    if model is None:
        return None
    for values in model.state_dict().values():
        if values.ndim == 4:
            return values.float().numpy() if values.shape[1] in (1, 3) else None
    return None


def filter_sheet(filters: npt.NDArray[np.float32], columns: int = 8) -> Pixels:
    """Return all filters side by side: 0 is grey, each filter's largest weight is full colour.

    Parameters
    ----------
    filters : float32 array, shape (filters, channels, height, width)
        Of 1 or 3 channels.
    columns : int
        How many stand in a row.

    Returns
    -------
    uint8 array, shape (h, w, 4)
        One pixel a weight, with transparent lines one pixel wide in between.

    Examples
    --------
    >>> sheet = filter_sheet(np.array([1, -1], np.float32).reshape(2, 1, 1, 1))
    >>> sheet[0].tolist()
    [[255, 255, 255, 255], [0, 0, 0, 0], [1, 1, 1, 255]]
    """
    count, channels, height, width = filters.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shares = filters / np.maximum(largest, np.finfo(np.float32).tiny)
    colours = np.rint(128 + 127 * shares).astype(np.uint8).transpose(0, 2, 3, 1)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for number, colour in enumerate(colours):
        y, x = number // columns * (height + 1), number % columns * (width + 1)
        sheet[y : y + height, x : x + width, :3] = colour if channels == 3 else colour[..., :1]
        sheet[y : y + height, x : x + width, 3] = 255
    return sheet


def _uri(image: Pixels, kind: str, **options: int | bool) -> str:
    content = io.BytesIO()
    Image.fromarray(_shaped(image)).save(content, kind, **options)
    return f"data:image/{kind};base64,{b64encode(content.getvalue()).decode('ascii')}"


def _shaped(image: Pixels) -> Pixels:
    # Pillow knows grey pictures without a channel axis only
    return np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image)
