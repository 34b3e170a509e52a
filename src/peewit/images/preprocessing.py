"""From pixels to what a network reads: one rule, kept with the network that was trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError

if TYPE_CHECKING:
    import torch

# ITU-R BT.601, the weights that Pillow's and Keras's greyscale conversions use as well
LUMA = (0.299, 0.587, 0.114)
# rows of a picture that are made floats at once, about: of 4,000 pixels each, 24 MB
_BAND = 512
# rows of the result that are computed at once: the more, the more zeros are multiplied
_ROWS = 8
# multiplications of one product: OpenBLAS does up to so many in this thread; for a larger one it
# waits for all its threads, which on a busy machine takes ten times as long as the work
_PRODUCT = 4 * 65536
# values that are made floats at once to be resized: 200 MB, a picture of 4,000 x 4,000
_RESIZED_AT_ONCE = 50_000_000


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and scale of a network's input.

    Parameters
    ----------
    height, width : int
        The network's input size in pixels. Pictures of another size are resized whole.
    channels : int
        1 (grey) or 3 (RGB). Pictures with the other number are converted.
    mean, std : tuple of float
        One value a channel, in units of the full range (0 to 1): the network reads
        ``(pixel / 255 - mean) / std``. The tutorial only divides by 255: mean 0, std 1.

    Raises
    ------
    PeewitError
        A value makes no sense.

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

    def __post_init__(self) -> None:
        # JSON and numpy hand over lists and numpy scalars; plain tuples compare and serialise
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        wrong = (
            "height and width are not both at least 1"
            if self.height < 1 or self.width < 1
            else "channels is neither 1 nor 3"
            if self.channels not in (1, 3)
            else "mean and std do not have one value a channel"
            if not len(self.mean) == len(self.std) == self.channels
            else "a mean or std is not finite"
            if not np.isfinite((*self.mean, *self.std)).all()
            else "a std is not positive"
            if min(self.std) <= 0
            else ""
        )
        if wrong:
            raise PeewitError(f"{self} cannot prepare pictures", wrong)

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name, ready for JSON or YAML (mean and std as lists)."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return what ``to_dict`` gave.

        Raises
        ------
        PeewitError
            A value is missing, unknown or makes no sense.
        """
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise PeewitError(f"{dict(values)} is not a preprocessing", str(error)) from error

    def tensor(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return what the network reads for ``images``.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 1) or (N, H, W, 3)
            Any size; grey or RGB.

        Returns
        -------
        float32 tensor, shape (N, channels, height, width)
            In channels_last memory (the order of the bytes is still N, H, W, C).

        Raises
        ------
        PeewitError
            ``images`` has another type or shape.
        """
        import torch
        from torch.nn import functional as F

        _check(images)
        resized = images.shape[1:3] != (self.height, self.width)
        few = max(1, _RESIZED_AT_ONCE // max(images[0].size, 1)) if len(images) else 1
        if resized and len(images) > few:
            parts = [self.tensor(images[n : n + few]) for n in range(0, len(images), few)]
            return torch.cat(parts).contiguous(memory_format=torch.channels_last)
        # one pass from uint8 into new memory: `images` may be read-only, which from_numpy dislikes
        nhwc = torch.empty(images.shape, dtype=torch.float32)
        np.copyto(nhwc.numpy(), images)
        if images.shape[3] > self.channels:
            nhwc = (nhwc @ torch.tensor(LUMA)).unsqueeze(3)
        x = nhwc.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W), the same memory
        if resized and len(images):
            size = (self.height, self.width)
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        elif not len(images):
            x = x.new_empty(0, x.shape[1], self.height, self.width)
        if x.shape[1] < self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = x.div_(255)  # a true division: times 1/255 would be off by one unit in the last place
        # in rows of W * C values, which the processor takes 8 at a time; 3 channels it would not
        rows = x.permute(0, 2, 3, 1).view(len(x) * self.height, self.width * self.channels)
        if any(self.mean):
            rows.sub_(torch.tensor(self.mean).repeat(self.width))
        if any(value != 1 for value in self.std):
            rows.div_(torch.tensor(self.std).repeat(self.width))
        return x

    def array(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return what ``tensor`` does, without PyTorch: for runtimes that do not need it.

        Where nothing is resized or made grey the values are the same, bit for bit; elsewhere sums
        are taken in another order, and differ by 1e-6 of the full range.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, 1) or (N, H, W, 3)
            Any size; grey or RGB.

        Returns
        -------
        float32 array, shape (N, height, width, channels)

        Raises
        ------
        PeewitError
            ``images`` has another type or shape.
        """
        _check(images)
        n, height, width, channels = images.shape
        if (height, width) == (self.height, self.width):
            x = images.astype(np.float32, order="C")
        else:
            x = np.empty((n, self.height, self.width, channels), np.float32)
            for place, image in zip(x, images, strict=True):
                place[:] = _resized(image, self.height, self.width)
        if channels > self.channels:
            x = (x @ np.array(LUMA, np.float32))[..., None]
        elif channels < self.channels:
            x = np.repeat(x, self.channels, axis=3)
        x /= 255
        # in rows of W * C values, as in `tensor`; the same memory
        rows = x.reshape(n * self.height, self.width * self.channels)
        if any(self.mean):
            rows -= _repeated(self.mean, self.width)
        if any(value != 1 for value in self.std):
            rows /= _repeated(self.std, self.width)
        return x


class AsTheyAre(Preprocessing):
    """For pictures that have been prepared already."""

    def tensor(self, images: npt.NDArray[Any]) -> torch.Tensor:
        """Return ``images``, float32 (N, H, W, C), as (N, C, H, W): the same memory."""
        import torch

        return torch.from_numpy(images).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)  # those of one network: for a small picture they take as long as its division
def _repeated(values: tuple[float, ...], times: int) -> npt.NDArray[np.float32]:
    row = np.tile(np.array(values, np.float32), times)
    row.flags.writeable = False
    return row


def _check(images: npt.NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise PeewitError(
            "these images cannot be prepared for the network",
            f"they are {images.dtype} with shape {images.shape}",
            "give uint8 with shape (N, H, W, 1) or (N, H, W, 3)",
        )


def _resized(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.float32]:
    """Resize one picture, a band of rows at a time: as floats it would take four times the room."""
    old_height, old_width, channels = image.shape
    rows, columns = resize_weights(old_height, height), resize_weights(old_width, width)
    # (height, old width * C): the rows first, over memory in its own order
    flat = image.reshape(old_height, old_width * channels)
    x = np.empty((height, old_width * channels), np.float32)
    step = max(1, min(_ROWS, _BAND * height // old_height - 1))
    for first in range(0, height, step):
        weights = rows[first : first + step]
        seen = np.flatnonzero(weights.any(axis=0))
        band = slice(seen[0], seen[-1] + 1)
        _multiply(weights[:, band], flat[band].astype(np.float32), x[first : first + step])
    # (height, old width, C) -> (height * C, old width): one product, not one a row
    x = x.reshape(height, old_width, channels).transpose(0, 2, 1).reshape(-1, old_width)
    resized = np.empty((width, len(x)), np.float32)
    _multiply(columns, x.T, resized)
    return resized.reshape(width, height, channels).transpose(1, 0, 2)


def _multiply(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
) -> None:
    """Write ``a @ b`` into ``out``, a few columns at a time."""
    step = max(1, _PRODUCT // a.size)
    for first in range(0, b.shape[1], step):
        part = slice(first, first + step)
        out[:, part] = a @ b[:, part]


@lru_cache(maxsize=8)  # pictures of one camera: it takes as long as a small picture's products
def resize_weights(size: int, target: int) -> npt.NDArray[np.float32]:
    """Return how much each of ``size`` pixels counts in each of ``target``, (target, size).

    The antialiased bilinear rule of Pillow and PyTorch: a triangle that reaches over one new
    pixel when the picture shrinks, and over one old pixel when it grows.

    >>> resize_weights(4, 2).astype(float).round(3).tolist()
    [[0.429, 0.429, 0.143, 0.0], [0.0, 0.143, 0.429, 0.429]]
    """
    scale = size / target
    centres = (np.arange(target) + 0.5)[:, None] * scale
    distance = np.abs(np.arange(size) + 0.5 - centres)
    weights = np.maximum(0, 1 - distance / max(scale, 1))
    shares: npt.NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    shares.flags.writeable = False
    return shares
