"""From pixels to the input of a network; stored with the network that was trained on it.

``Preprocessing.steps`` is the definition: the ordered steps with their constants. ``reference``
applies them one by one in float64. ``tensor`` and ``array`` compute the same, fast, with PyTorch
and with NumPy. The exporters walk the steps and write each one in the operators of their format.
``tests/export/test_preprocessing_forms.py`` compares every form with ``reference``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.images.fitting import FITS, PADDING, Fit, Region, crop_region, pad_region, region

if TYPE_CHECKING:
    import torch

# ITU-R BT.601, the weights that Pillow's and Keras's greyscale conversions use as well
LUMA = (0.299, 0.587, 0.114)
# approximate number of input rows converted to float at once: 24 MB for rows of 4,000 RGB pixels
_BAND = 512
# output rows computed at once: the more rows, the more zero weights are multiplied
_ROWS = 8
# multiplications in one matrix product: up to this size OpenBLAS stays in the calling thread; for
# larger ones it waits for all of its threads, which takes ten times as long on a busy machine
_PRODUCT = 4 * 65536
# values converted to float at once for resizing: 200 MB, one RGB picture of 4,000 x 4,000
_RESIZED_AT_ONCE = 50_000_000

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ConvertChannels:
    """Convert RGB to grey by ``LUMA``, or grey to RGB by repeating it, if the number differs."""

    channels: int

    def apply(self, x: Float64s) -> Float64s:
        """Convert ``x``, (N, H, W, C)."""
        if x.shape[3] > self.channels:
            grey: Float64s = (x @ np.array(LUMA))[..., None]
            return grey
        return np.repeat(x, self.channels // x.shape[3], axis=3)


@dataclass(frozen=True)
class CropToAspect:
    """Cut out the centre that has the aspect ratio of ``height`` x ``width``."""

    height: int
    width: int

    def apply(self, x: Float64s) -> Float64s:
        """Crop ``x``, (N, H, W, C)."""
        _, height, width, _ = x.shape
        cropped: Float64s = _cropped(x, crop_region(height, width, self.height, self.width))
        return cropped


@dataclass(frozen=True)
class PadToAspect:
    """Pad with ``value`` to the aspect ratio of ``height`` x ``width``, the picture centred."""

    height: int
    width: int
    value: float

    def apply(self, x: Float64s) -> Float64s:
        """Pad ``x``, (N, H, W, C)."""
        n, height, width, channels = x.shape
        top, left, *size = pad_region(height, width, self.height, self.width)
        framed = np.full((n, *size, channels), self.value)
        framed[:, -top : height - top, -left : width - left] = x
        return framed


@dataclass(frozen=True)
class Resize:
    """Resize by the weights of ``resize_weights``, without keeping the aspect ratio."""

    height: int
    width: int

    def apply(self, x: Float64s) -> Float64s:
        """Resize ``x``, (N, H, W, C)."""
        rows = resize_weights(x.shape[1], self.height)
        columns = resize_weights(x.shape[2], self.width)
        resized: Float64s = np.einsum("hy,nyxc,wx->nhwc", rows, x, columns)
        return resized


@dataclass(frozen=True)
class Subtract:
    """Subtract ``values``: one for all channels, or one per channel."""

    values: tuple[float, ...]

    def apply(self, x: Float64s) -> Float64s:
        """Subtract from ``x``, (N, H, W, C)."""
        difference: Float64s = x - np.array(self.values)
        return difference


@dataclass(frozen=True)
class Divide:
    """Divide by ``values``: one for all channels, or one per channel."""

    values: tuple[float, ...]

    def apply(self, x: Float64s) -> Float64s:
        """Divide ``x``, (N, H, W, C)."""
        quotient: Float64s = x / np.array(self.values)
        return quotient


Step = ConvertChannels | CropToAspect | PadToAspect | Resize | Subtract | Divide


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and normalisation of a network's input.

    Parameters
    ----------
    height, width : int
        Input size in pixels. Images of another size are resized.
    channels : int
        1 (grey) or 3 (RGB). Images with the other number are converted.
    mean, std : tuple of float
        One value per channel, in units of the full range (0 to 1). The network's input is
        ``(pixel / 255 - mean) / std``. The tutorial only divides by 255: mean 0, std 1.
    fit : {"stretch", "crop", "pad"}
        What happens to images with another aspect ratio before they are resized: nothing, so that
        they are distorted; their longer side is cropped; or they are padded with ``PADDING``.

    Raises
    ------
    PeewitError
        A value is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> rule = Preprocessing(2, 2, 1, mean=(0.5,), std=(0.5,))
    >>> rule.tensor(np.array([[[[0], [255]], [[51], [204]]]], np.uint8)).flatten().tolist()
    [-1.0, 1.0, -0.6000000238418579, 0.6000000238418579]
    >>> Preprocessing.from_dict(rule.to_dict()) == rule
    True
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "stretch"  # the only one of earlier versions, whose runs do not name it

    def __post_init__(self) -> None:
        # JSON and NumPy supply lists and NumPy scalars; plain tuples can be compared and serialised
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        wrong = (
            "height and width are not both at least 1"
            if self.height < 1 or self.width < 1
            else "channels is neither 1 nor 3"
            if self.channels not in (1, 3)
            else "mean and std do not have one value per channel"
            if not len(self.mean) == len(self.std) == self.channels
            else "a mean or std is not finite"
            if not np.isfinite((*self.mean, *self.std)).all()
            else "a std is not positive"
            if min(self.std) <= 0
            else f"fit is not one of {', '.join(FITS)}"
            if self.fit not in FITS
            else ""
        )
        if wrong:
            raise PeewitError(f"{self} is not a valid preprocessing", wrong)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict for JSON or YAML, with mean and std as lists."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Create a Preprocessing from the dict that ``to_dict`` returned.

        Raises
        ------
        PeewitError
            A field is missing, unknown or invalid.
        """
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise PeewitError(f"{dict(values)} is not a preprocessing", str(error)) from error

    @property
    def steps(self) -> tuple[Step, ...]:
        """The definition of the preprocessing: its steps in order.

        >>> for step in Preprocessing(32, 48, 1, mean=(0.5,), std=(0.25,)).steps:
        ...     print(step)
        ConvertChannels(channels=1)
        Resize(height=32, width=48)
        Divide(values=(255.0,))
        Subtract(values=(0.5,))
        Divide(values=(0.25,))
        """
        steps: list[Step] = [ConvertChannels(self.channels)]
        if self.fit == "crop":
            steps.append(CropToAspect(self.height, self.width))
        elif self.fit == "pad":
            steps.append(PadToAspect(self.height, self.width, float(PADDING)))
        steps += [Resize(self.height, self.width), Divide((255.0,))]
        if any(self.mean):
            steps.append(Subtract(self.mean))
        if any(value != 1 for value in self.std):
            steps.append(Divide(self.std))
        return tuple(steps)

    def region(self, height: int, width: int) -> Region:
        """Return the part of an image of ``height`` x ``width`` that becomes the whole input."""
        return region(self.fit, height, width, self.height, self.width)

    def reference(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Apply ``steps`` one by one: slow, readable, in float64. Every fast form is tested on it.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 1) or (N, H, W, 3)
            Grey or RGB images of any size.

        Returns
        -------
        float64 array, shape (N, height, width, channels)

        Raises
        ------
        PeewitError
            ``images`` has another dtype or shape.
        """
        _check(images)
        x = images.astype(np.float64)
        for step in self.steps:
            x = step.apply(x)
        return x

    def tensor(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Prepare ``images`` for the network with PyTorch.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 1) or (N, H, W, 3)
            Grey or RGB images of any size.

        Returns
        -------
        float32 tensor, shape (N, channels, height, width)
            In channels_last memory format (the order in memory is still N, H, W, C).

        Raises
        ------
        PeewitError
            ``images`` has another dtype or shape.
        """
        import torch
        from torch.nn import functional as F

        _check(images)
        resized = images.shape[1:3] != (self.height, self.width)
        if resized and self.fit == "pad":
            return from_prepared(self.array(images))  # which needs no frame in memory
        few = max(1, _RESIZED_AT_ONCE // max(images[0].size, 1)) if len(images) else 1
        if resized and len(images) > few:
            parts = [self.tensor(images[n : n + few]) for n in range(0, len(images), few)]
            return torch.cat(parts).contiguous(memory_format=torch.channels_last)
        images, _ = self._in_region(images)
        # one pass from uint8 to new memory: `images` may be read-only, and from_numpy would warn
        nhwc = torch.empty(images.shape, dtype=torch.float32)
        np.copyto(nhwc.numpy(), images)
        if images.shape[3] > self.channels:
            nhwc = (nhwc @ torch.tensor(LUMA)).unsqueeze(3)
        x = nhwc.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W), a view
        if resized and len(images):
            size = (self.height, self.width)
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        elif not len(images):
            x = x.new_empty(0, x.shape[1], self.height, self.width)
        if x.shape[1] < self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = x.div_(255)  # multiplying by 1/255 would be off by one unit in the last place
        # as rows of W * C values, which are vectorised 8 at a time; rows of 3 channels are not
        rows = x.permute(0, 2, 3, 1).view(len(x) * self.height, self.width * self.channels)
        if any(self.mean):
            rows.sub_(torch.tensor(self.mean).repeat(self.width))
        if any(value != 1 for value in self.std):
            rows.div_(torch.tensor(self.std).repeat(self.width))
        return x

    def array(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Prepare ``images`` for the network with NumPy, for runtimes that do not need PyTorch.

        The values are those of ``tensor``, bit for bit, unless images are resized or converted to
        grey: the order of summation is then different, and values differ by 1e-6 of the full range.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 1) or (N, H, W, 3)
            Grey or RGB images of any size.

        Returns
        -------
        float32 array, shape (N, height, width, channels)

        Raises
        ------
        PeewitError
            ``images`` has another dtype or shape.
        """
        _check(images)
        n, height, width, channels = images.shape
        if (height, width) == (self.height, self.width):
            x = images.astype(np.float32, order="C")
        else:
            x = np.empty((n, self.height, self.width, channels), np.float32)
            images, part = self._in_region(images)
            for resized, image in zip(x, images, strict=True):
                resized[:] = _resize(image, part, self.height, self.width)
        if channels > self.channels:
            x = (x @ np.array(LUMA, np.float32))[..., None]
        elif channels < self.channels:
            x = np.repeat(x, self.channels, axis=3)
        x /= 255
        # as rows of W * C values, as in `tensor`; a view
        rows = x.reshape(n * self.height, self.width * self.channels)
        if any(self.mean):
            rows -= _repeated(self.mean, self.width)
        if any(value != 1 for value in self.std):
            rows /= _repeated(self.std, self.width)
        return x

    def _in_region(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], Region]:
        """Return ``images``, cropped if ``fit`` says so, and the region in their coordinates."""
        part = self.region(*images.shape[1:3])
        if self.fit == "crop":
            return _cropped(images, part), Region(0, 0, part.height, part.width)
        return images, part


def from_prepared(images: npt.NDArray[np.float32]) -> torch.Tensor:
    """Return the output of ``Preprocessing.array``, (N, H, W, C), as an (N, C, H, W) view."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)  # computing them takes as long as the division of a small picture
def _repeated(values: tuple[float, ...], times: int) -> npt.NDArray[np.float32]:
    """Return ``values`` repeated ``times`` times, read-only."""
    row = np.tile(np.array(values, np.float32), times)
    row.flags.writeable = False
    return row


def _check(images: npt.NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise PeewitError(
            "cannot prepare these images for the network",
            f"the array is {images.dtype} with shape {images.shape}",
            "pass uint8 with shape (N, H, W, 1) or (N, H, W, 3)",
        )


def _cropped(x: Any, part: Region) -> Any:
    """Return the region ``part`` of ``x``, (N, H, W, C), as a view."""
    return x[:, part.top : part.top + part.height, part.left : part.left + part.width]


def _resize(
    image: npt.NDArray[np.uint8], part: Region, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Resize the region ``part`` of one image, which may reach beyond it.

    In bands of rows, because an image as floats takes four times the memory. An image is
    padded without a frame in memory: less ``PADDING``, the frame's pixels are 0.
    """
    old_height, old_width, channels = image.shape
    rows = resize_weights(part.height, height)[:, -part.top : old_height - part.top]
    columns = resize_weights(part.width, width)[:, -part.left : old_width - part.left]
    padding = np.float32(PADDING if (part.height, part.width) != image.shape[:2] else 0)
    # (old height, old width * C): rows first, in memory order
    flat = image.reshape(old_height, old_width * channels)
    x = np.zeros((height, old_width * channels), np.float32)
    step = max(1, min(_ROWS, _BAND * height // part.height - 1))
    for first in range(0, height, step):
        weights = rows[first : first + step]
        used = np.flatnonzero(weights.any(axis=0))
        if not len(used):
            continue  # these rows are padding
        band = slice(used[0], used[-1] + 1)
        values = flat[band].astype(np.float32)
        if padding:
            values -= padding
        _multiply(weights[:, band], values, x[first : first + step])
    # (height, old width, C) -> (height * C, old width): one product instead of one per row
    x = x.reshape(height, old_width, channels).transpose(0, 2, 1).reshape(-1, old_width)
    resized = np.empty((width, len(x)), np.float32)
    _multiply(columns, x.T, resized)
    if padding:
        resized += padding
    return resized.reshape(width, height, channels).transpose(1, 0, 2)


def _multiply(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
) -> None:
    """Write ``a @ b`` into ``out``, a few columns at a time."""
    step = max(1, _PRODUCT // a.size)
    for first in range(0, b.shape[1], step):
        part = slice(first, first + step)
        out[:, part] = a @ b[:, part]


@lru_cache(maxsize=8)  # computing them takes as long as resizing a small picture
def resize_weights(size: int, target: int) -> npt.NDArray[np.float32]:
    """Return the weights of the ``size`` old pixels in the ``target`` new ones, (target, size).

    Antialiased bilinear interpolation as in Pillow and PyTorch: a triangle filter whose half-width
    is one new pixel when the image shrinks, and one old pixel when it grows.

    >>> resize_weights(4, 2).astype(float).round(3).tolist()
    [[0.429, 0.429, 0.143, 0.0], [0.0, 0.143, 0.429, 0.429]]
    """
    scale = size / target
    centres = (np.arange(target) + 0.5)[:, None] * scale
    distance = np.abs(np.arange(size) + 0.5 - centres)
    triangle = np.maximum(0, 1 - distance / max(scale, 1))
    normalised = triangle / triangle.sum(1, keepdims=True)
    weights: npt.NDArray[np.float32] = normalised.astype(np.float32)
    weights.flags.writeable = False
    return weights
