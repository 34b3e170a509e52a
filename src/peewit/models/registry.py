"""The networks by name. Building one imports PyTorch; listing them does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peewit.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Metadata of a network, available without building it.

    Parameters
    ----------
    description : str
        One line.
    minimum_size : int
        The smallest height and width in pixels that the network accepts.
    native_size : int
        The height and width in pixels that it was designed for.
    make : callable
        ``make(input_shape, classes, generator)`` returns the network, with initial weights drawn
        from ``generator``.
    family : str
        "fast" for networks with a whitening layer and 3x3 filters, which Muon can train;
        "pretrained" for those that start from ImageNet's weights (``models.pretrained``).
    largest_size : int, optional
        Larger images are resized to this by default.
    normalisation : tuple of float, optional
        Mean and standard deviation that it was trained with, for pixels from 0 to 1 of RGB images;
        None if they follow from the training images.
    """

    description: str
    minimum_size: int
    native_size: int
    make: Callable[[Shape, int, torch.Generator], nn.Module]
    family: str = ""
    largest_size: int | None = None
    normalisation: tuple[float, float] | None = None


def _tutorial(input_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    from peewit.models.tutorial import Tutorial

    return Tutorial(input_shape, classes, generator)


def _fast(widths: tuple[int, ...], stride: int = 1) -> ModelInfo:
    def make(input_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
        from peewit.models.fast import Fast

        return Fast(input_shape, classes, generator, widths, stride)

    patches = "patch whitening" if stride == 1 else f"patch whitening with stride {stride}"
    return ModelInfo(
        description=f"{patches}, then pairs of convolutions with {_join(widths)} channels",
        minimum_size=8 * stride,
        native_size=32 * stride,
        make=make,
        family="fast",
        largest_size=32 * stride,
    )


def _efficientnet_lite(width: float, depth: float, size: int) -> ModelInfo:
    def make(input_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
        from peewit.models.efficientnet_lite import EfficientNetLite

        return EfficientNetLite(classes, generator, width, depth)

    return ModelInfo(
        description=f"pretrained on ImageNet: EfficientNet-Lite for {size} x {size} pixels",
        minimum_size=32,
        native_size=size,
        make=make,
        family=PRETRAINED,
        largest_size=size,
        normalisation=(127 / 255, 128 / 255),
    )


def _join(widths: tuple[int, ...]) -> str:
    return ", ".join(map(str, widths[:-1])) + f" and {widths[-1]}"


# channels after each halving of the resolution
FAST_WIDTHS: dict[str, tuple[int, ...]] = {
    "fast-xs": (16, 64, 128),
    "fast-s": (24, 96, 192),
    "fast-m": (32, 128, 256),
    "fast-l": (64, 256, 256),
    "fast-xl": (128, 384, 512),
}

HALF = "/2"
PRETRAINED = "pretrained"

MODELS: dict[str, ModelInfo] = {
    "tutorial": ModelInfo(
        description="three convolutions, batch normalisation, dropout: the Keras CIFAR-10 tutorial",
        minimum_size=22,
        native_size=32,
        make=_tutorial,
    ),
    **{name: _fast(widths) for name, widths in FAST_WIDTHS.items()},
    # for photographs: twice the resolution for the same arithmetic. The name gives the stride after
    # a slash, as those of vision transformers give the size of a patch.
    **{f"{name}{HALF}": _fast(widths, stride=2) for name, widths in FAST_WIDTHS.items()},
    "efficientnet-lite0": _efficientnet_lite(1.0, 1.0, 224),
    "efficientnet-lite1": _efficientnet_lite(1.0, 1.1, 240),
    "efficientnet-lite2": _efficientnet_lite(1.1, 1.2, 260),
}


# the model of a recipe with a backbone: a layer on the features of an image encoder
ENCODER = "onnx"


def _not_by_name(input_shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    raise UsageError(
        f"the model {ENCODER} is the file of an image encoder",
        todo="name it: --backbone FILE.onnx",
    )


_ENCODER = ModelInfo(
    description="the features of an image encoder, an ONNX file",
    minimum_size=1,
    native_size=224,
    make=_not_by_name,
    family=PRETRAINED,
)


def find(name: str) -> ModelInfo:
    """Return the entry of the network ``name``.

    Raises
    ------
    UsageError
        There is no network of this name.
    """
    if name == ENCODER:
        return _ENCODER
    if name not in MODELS:
        known = ", ".join(sorted(MODELS))
        raise UsageError(f"there is no model {name!r}", todo=f"choose one of: {known}")
    return MODELS[name]


def minimum_size(name: str) -> int:
    """Return the smallest height and width in pixels that the network ``name`` accepts.

    >>> minimum_size("tutorial")
    22
    """
    return find(name).minimum_size


def native_size(name: str) -> int:
    """Return the height and width in pixels that the network ``name`` was designed for.

    >>> native_size("tutorial")
    32
    """
    return find(name).native_size


def build(name: str, input_shape: Shape, classes: int, seed: int) -> nn.Module:
    """Build a network with initial weights, in channels_last memory format.

    Parameters
    ----------
    name : str
        A key of ``MODELS``.
    input_shape : tuple of int
        Height, width and channels of the images.
    classes : int
        The number of classes, at least 2: the number of outputs.
    seed : int
        The same seed yields the same weights, bit for bit. PyTorch's global random state is
        neither used nor changed.

    Raises
    ------
    UsageError
        The name is unknown, the images are too small, or there are fewer than 2 classes.

    Examples
    --------
    >>> network = build("tutorial", (32, 32, 3), classes=10, seed=0)
    >>> sum(parameter.numel() for parameter in network.parameters())
    158506
    """
    import torch

    info = find(name)
    height, width, channels = input_shape
    if min(height, width) < info.minimum_size:
        raise UsageError(
            f"images of {height} x {width} pixels are too small for the model {name}",
            f"it needs at least {info.minimum_size} x {info.minimum_size}",
            f"set the image size to {info.native_size} to enlarge them, or use larger images",
        )
    if info.normalisation is not None and channels != 3:
        raise UsageError(f"the model {name} needs RGB images")
    if channels < 1:
        raise UsageError(f"cannot classify images with {channels} channels")
    if classes < 2:
        raise UsageError(
            f"cannot build a classifier for {classes} class{'' if classes == 1 else 'es'}",
            todo="use data with at least 2",
        )
    # PyTorch's layers draw initial weights from the global random state: restore it afterwards
    with torch.random.fork_rng(devices=[]):
        model = info.make(input_shape, classes, torch.Generator().manual_seed(seed))
    # this documented overload of `to` is missing from PyTorch's type hints
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
