"""A network as a list of plain operations with their weights, from which all formats are built.

PyTorch's exporters trace a network while it runs. Peewit's networks run compiled kernels, which
cannot be traced, so each kind of block is translated here into the operations that it computes. An
exporter then only has to support the few operations below, and its output is checked against the
Run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.models.efficientnet_lite import ConvRelu6, EfficientNetLite, InvertedResidual
from peewit.models.encoders.encoder import Encoder
from peewit.models.encoders.network import EncoderNetwork
from peewit.models.fast import LOGITS_SCALE, ConvPoolNormGelu, Fast, WhiteningConv
from peewit.models.layers import ConvReluNormPool, FlattenHWC, GlobalMaxPool
from peewit.models.tutorial import Tutorial

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Conv:
    """Convolution with ``weight`` (out, in / groups, height, width) and zero padding.

    The padding is a number of pixels on all sides, or "same": TensorFlow's, for an output of size
    ceil(size / stride), at the bottom and at the right if it is not even.
    """

    weight: Array
    bias: Array | None
    padding: int | Literal["same"] = 0
    stride: int = 1
    groups: int = 1

    def pads(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the padding of an image at the top, the left, the bottom and the right."""
        if self.padding != "same":
            return (self.padding,) * 4
        totals = [
            max(-(-size // self.stride) * self.stride - self.stride + kernel - size, 0)
            for size, kernel in zip((height, width), self.weight.shape[2:], strict=True)
        ]
        top, left = (total // 2 for total in totals)
        return top, left, totals[0] - top, totals[1] - left


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch normalisation with fixed statistics, one value per channel."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float


@dataclass(frozen=True, eq=False)
class Dense:
    """Dense layer with ``weight`` (out, in)."""

    weight: Array
    bias: Array | None


@dataclass(frozen=True)
class Relu:
    """``max(x, 0)``."""


@dataclass(frozen=True)
class Relu6:
    """``min(max(x, 0), 6)``."""


@dataclass(frozen=True)
class GeluTanh:
    """GELU in its tanh approximation."""


@dataclass(frozen=True)
class MaxPool:
    """Max pooling over ``size`` x ``size`` windows, without overlap or padding."""

    size: int


@dataclass(frozen=True)
class GlobalMax:
    """Global max pooling: (N, C, H, W) -> (N, C)."""


@dataclass(frozen=True)
class GlobalMean:
    """Global average pooling: (N, C, H, W) -> (N, C)."""


@dataclass(frozen=True, eq=False)
class Residual:
    """The sum of the input and of what ``operations`` make of it."""

    operations: list[Operation]


@dataclass(frozen=True)
class RepeatEdge:
    """Pad by one row at the bottom and one column at the right, repeating the last ones."""


@dataclass(frozen=True)
class Flatten:
    """Flatten in the order height, width, channels."""


@dataclass(frozen=True)
class Dropout:
    """Identity at inference; kept for formats in which the network can be trained."""

    rate: float


@dataclass(frozen=True)
class Scale:
    """Multiply by a constant."""

    by: float


@dataclass(frozen=True, eq=False)
class Encode:
    """The features of an image encoder, an ONNX file."""

    encoder: Encoder


Operation = (
    Conv
    | Encode
    | Norm
    | Dense
    | Relu
    | Relu6
    | GeluTanh
    | MaxPool
    | GlobalMax
    | GlobalMean
    | Residual
    | RepeatEdge
    | Flatten
    | Dropout
    | Scale
)


@singledispatch
def operations_of(model: nn.Module) -> list[Operation]:
    """Return the operations of ``model`` in evaluation mode, from (N, C, H, W) to logits.

    Raises
    ------
    PeewitError
        It has a layer that cannot be exported.

    Examples
    --------
    >>> from peewit.models.registry import build
    >>> model = build("tutorial", (32, 32, 3), 10, seed=0)
    >>> [type(operation).__name__ for operation in operations_of(model)][:5]
    ['Conv', 'Relu', 'Norm', 'MaxPool', 'Conv']
    """
    raise PeewitError(
        "cannot export this network", f"its layer {type(model).__name__} is not supported"
    )


@operations_of.register
def _(model: nn.Sequential) -> list[Operation]:
    return [operation for layer in model for operation in operations_of(layer)]


@operations_of.register
def _(model: Tutorial) -> list[Operation]:
    parts = (model.stages, model.flatten, model.dropout, model.hidden, nn.ReLU(), model.logits)
    return [operation for part in parts for operation in operations_of(part)]


@operations_of.register
def _(stage: ConvReluNormPool) -> list[Operation]:
    return [*operations_of(stage.conv), Relu(), *operations_of(stage.norm), MaxPool(2)]


@operations_of.register
def _(model: Fast) -> list[Operation]:
    parts = (model.whitening, model.blocks, model.pool, model.head)
    operations = [operation for part in parts for operation in operations_of(part)]
    return [*operations, Scale(LOGITS_SCALE)]


@operations_of.register
def _(layer: WhiteningConv) -> list[Operation]:
    stride = layer.stride[0]
    conv = Conv(_array(layer.weight), _optional_array(layer.bias), stride=stride)
    return [*([RepeatEdge()] if layer.padding_after else []), conv, GeluTanh()]


@operations_of.register
def _(stage: ConvPoolNormGelu) -> list[Operation]:
    pooling: list[Operation] = [MaxPool(stage.pool)] if stage.pool > 1 else []
    return [*operations_of(stage.conv), *pooling, *operations_of(stage.norm), GeluTanh()]


@operations_of.register
def _(model: EfficientNetLite) -> list[Operation]:
    parts = (model.stem, model.blocks, model.top)
    operations = [operation for part in parts for operation in operations_of(part)]
    return [*operations, GlobalMean(), *operations_of(model.head)]


@operations_of.register
def _(model: EncoderNetwork) -> list[Operation]:
    return [Encode(model.encoder), *operations_of(model.head)]


@operations_of.register
def _(block: InvertedResidual) -> list[Operation]:
    parts = [block.depthwise, block.project]
    if block.expand is not None:
        parts.insert(0, block.expand)
    operations = [operation for part in parts for operation in operations_of(part)]
    return [Residual(operations)] if block.residual else operations


@operations_of.register
def _(layer: ConvRelu6) -> list[Operation]:
    weight, bias = _array(layer.weight), _optional_array(layer.bias)
    padding: Literal[0, "same"] = "same" if layer.kernel_size[0] > 1 else 0
    conv = Conv(weight, bias, padding, layer.stride[0], layer.groups)
    return [conv] if layer.linear else [conv, Relu6()]


@operations_of.register
def _(layer: GlobalMaxPool) -> list[Operation]:
    return [GlobalMax()]


@operations_of.register
def _(layer: nn.Conv2d) -> list[Operation]:
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1
    padding = layer.padding
    if not plain or isinstance(padding, str) or padding[0] != padding[1]:
        raise PeewitError(
            "cannot export this network",
            "it has a convolution with a stride, dilation, groups or unequal padding",
        )
    return [Conv(_array(layer.weight), _optional_array(layer.bias), int(padding[0]))]


@operations_of.register
def _(layer: nn.BatchNorm2d) -> list[Operation]:
    assert layer.running_mean is not None and layer.running_var is not None
    ones = torch.ones(layer.num_features)
    gamma = layer.weight if layer.weight is not None else ones
    beta = layer.bias if layer.bias is not None else torch.zeros_like(ones)
    statistics = _array(layer.running_mean), _array(layer.running_var)
    return [Norm(_array(gamma), _array(beta), *statistics, layer.eps)]


@operations_of.register
def _(layer: nn.Linear) -> list[Operation]:
    return [Dense(_array(layer.weight), _optional_array(layer.bias))]


@operations_of.register
def _(layer: nn.ReLU) -> list[Operation]:
    return [Relu()]


@operations_of.register
def _(layer: nn.Dropout) -> list[Operation]:
    return [Dropout(layer.p)]


@operations_of.register
def _(layer: FlattenHWC) -> list[Operation]:
    return [Flatten()]


def refuse_encoder(operations: Sequence[Operation], to: str) -> None:
    """Raise PeewitError if the network is on an image encoder, whose operations are those of ONNX.

    Parameters
    ----------
    operations : sequence of Operation
    to : str
        The format.
    """
    if any(isinstance(operation, Encode) for operation in operations):
        raise PeewitError(
            f"cannot export this network to {to}",
            "its backbone is an ONNX file",
            "export to onnx or openvino instead",
        )


def _array(tensor: torch.Tensor) -> Array:
    """Return a copy of ``tensor`` as float32, in C order."""
    return np.array(tensor.detach().numpy(), np.float32, order="C")


def _optional_array(tensor: torch.Tensor | None) -> Array | None:
    return None if tensor is None else _array(tensor)
