"""Decode picture files directly to the size in which they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from peewit.images.fitting import Fit, fit_picture
from peewit.images.reader import each_in_turn, read_picture


def read_sized(
    source: str | Path | bytes,
    name: str = "",
    *,
    height: int,
    width: int,
    channels: int = 3,
    fit: Fit = "crop",
) -> npt.NDArray[np.uint8]:
    """Decode a picture to ``height`` x ``width`` pixels.

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
    pixels = each_in_turn(lambda limit: read_picture(source, name, limit=limit))
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    picture = picture.convert("L" if channels == 1 else "RGB")
    return np.asarray(fit_picture(picture, height, width, fit)).reshape(height, width, channels)
