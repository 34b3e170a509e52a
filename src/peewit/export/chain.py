"""A network as a chain of plain operations with their weights: what every format is made from.

PyTorch's own exporters trace a network as it runs. Peewit's networks run compiled kernels, which
nothing can trace, so each kind of block says here what it computes. A format then only has to know
the few operations below, and what it gives is checked against the Run itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.models.fast import LOGITS_SCALE, ConvPoolNormGelu, Fast, WhiteningConv
from peewit.models.layers import ConvReluNormPool, FlattenHWC, GlobalMaxPool
from peewit.models.tutorial import Tutorial

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution with stride 1. ``weight`` is (out, in, height, width); zeros pad all sides."""

    weight: Array
    bias: Array | None
    padding: int = 0


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch normalisation by fixed statistics, one value a channel each."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float


@dataclass(frozen=True, eq=False)
class Dense:
    """A product with ``weight`` (out, in), on rows."""

    weight: Array
    bias: Array | None


@dataclass(frozen=True)
class Relu:
    """``max(x, 0)``."""


@dataclass(frozen=True)
class GeluTanh:
    """GELU in its approximation by tanh."""


@dataclass(frozen=True)
class MaxPool:
    """The maximum of each ``size`` x ``size`` square, without overlap or padding."""

    size: int


@dataclass(frozen=True)
class GlobalMax:
    """The maximum over all pixels: (N, C, H, W) -> (N, C)."""


@dataclass(frozen=True)
class RepeatEdge:
    """One more row at the bottom and one more column at the right, which repeat the last."""


@dataclass(frozen=True)
class Flatten:
    """Rows in the order height, width, channels."""


@dataclass(frozen=True)
class Dropout:
    """Nothing, once trained. Kept for formats that can be trained on."""

    rate: float


@dataclass(frozen=True)
class Scale:
    """A product with a number."""

    by: float


Operation = (
    Conv
    | Norm
    | Dense
    | Relu
    | GeluTanh
    | MaxPool
    | GlobalMax
    | RepeatEdge
    | Flatten
    | Dropout
    | Scale
)


@singledispatch
def chain(model: nn.Module) -> list[Operation]:
    """Return what ``model`` computes, from (N, C, H, W) to logits, in evaluation mode.

    Raises
    ------
    PeewitError
        It has a layer that no export knows.

    Examples
    --------
    >>> from peewit.models.registry import build
    >>> [type(part).__name__ for part in chain(build("tutorial", (32, 32, 3), 10, seed=0))[:5]]
    ['Conv', 'Relu', 'Norm', 'MaxPool', 'Conv']
    """
    raise PeewitError(
        f"cannot export this network: no export knows its layer {type(model).__name__}"
    )


@chain.register
def _(model: nn.Sequential) -> list[Operation]:
    return [operation for layer in model for operation in chain(layer)]


@chain.register
def _(model: Tutorial) -> list[Operation]:
    parts = (model.stages, model.flatten, model.dropout, model.hidden, nn.ReLU(), model.logits)
    return [operation for part in parts for operation in chain(part)]


@chain.register
def _(stage: ConvReluNormPool) -> list[Operation]:
    return [*chain(stage.conv), Relu(), *chain(stage.norm), MaxPool(2)]


@chain.register
def _(model: Fast) -> list[Operation]:
    parts = (model.whitening, model.blocks, model.pool, model.head)
    return [*(operation for part in parts for operation in chain(part)), Scale(LOGITS_SCALE)]


@chain.register
def _(layer: WhiteningConv) -> list[Operation]:
    return [RepeatEdge(), Conv(array(layer.weight), _maybe(layer.bias)), GeluTanh()]


@chain.register
def _(stage: ConvPoolNormGelu) -> list[Operation]:
    pooling: list[Operation] = [MaxPool(stage.pool)] if stage.pool > 1 else []
    return [*chain(stage.conv), *pooling, *chain(stage.norm), GeluTanh()]


@chain.register
def _(layer: GlobalMaxPool) -> list[Operation]:
    return [GlobalMax()]


@chain.register
def _(layer: nn.Conv2d) -> list[Operation]:
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1
    padding = layer.padding
    if not plain or isinstance(padding, str) or padding[0] != padding[1]:
        raise PeewitError("cannot export this network: no export knows such a convolution")
    return [Conv(array(layer.weight), _maybe(layer.bias), int(padding[0]))]


@chain.register
def _(layer: nn.BatchNorm2d) -> list[Operation]:
    assert layer.running_mean is not None and layer.running_var is not None
    ones = torch.ones(layer.num_features)
    gamma = layer.weight if layer.weight is not None else ones
    beta = layer.bias if layer.bias is not None else torch.zeros_like(ones)
    statistics = array(layer.running_mean), array(layer.running_var)
    return [Norm(array(gamma), array(beta), *statistics, layer.eps)]


@chain.register
def _(layer: nn.Linear) -> list[Operation]:
    return [Dense(array(layer.weight), _maybe(layer.bias))]


@chain.register
def _(layer: nn.ReLU) -> list[Operation]:
    return [Relu()]


@chain.register
def _(layer: nn.Dropout) -> list[Operation]:
    return [Dropout(layer.p)]


@chain.register
def _(layer: FlattenHWC) -> list[Operation]:
    return [Flatten()]


def array(tensor: torch.Tensor) -> Array:
    """Return a copy of ``tensor`` as float32, in C order."""
    return np.array(tensor.detach().numpy(), np.float32, order="C")


def _maybe(tensor: torch.Tensor | None) -> Array | None:
    return None if tensor is None else array(tensor)
