"""EfficientNet-Lite0, 1 and 2, with batch normalisation folded into the convolutions.

Features of ImageNet for one's own pictures: ``pretrained.py`` reads the weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from peewit.kernels import inverted_residual as kernels
from peewit.kernels.first_convolution import conv_relu6

FEATURES = 1280
STEM = 32
MULTIPLE = 8  # of the numbers of channels


class Stage(NamedTuple):
    """A row of the architecture's table: blocks of the same kind, the first with ``stride``."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# EfficientNet-B0's table; the Lite networks have no squeeze-and-excitation, and ReLU6 for swish
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class ConvRelu6(nn.Conv2d):
    """A convolution with bias, TensorFlow's padding "SAME", and ReLU6 unless ``linear``.

    "SAME" pads to an output of size ceil(size / stride); what cannot be split evenly is padded at
    the bottom and at the right.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel : int
        Height and width.
    stride : int
    groups : int
        ``in_channels`` for a depthwise convolution.
    linear : bool
        Whether to leave out ReLU6.

    Examples
    --------
    >>> ConvRelu6(3, 8, 3, stride=2)(torch.zeros(1, 3, 33, 32)).shape
    torch.Size([1, 8, 17, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups)
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features, (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        if self.kernel_size[0] > 1 and self.groups == 1 and not self.linear:
            assert self.bias is not None
            return conv_relu6(x, self.weight, self.bias, self.stride[0])
        if self.kernel_size[0] > 1:
            kernel, stride = self.kernel_size[0], self.stride[0]
            (top, bottom), (left, right) = kernels.same_padding(
                x.shape[2], x.shape[3], kernel, stride
            )
            x = F.pad(x, (left, right, top, bottom))
        x = super().forward(x)
        return x if self.linear else F.relu6(x)


class InvertedResidual(nn.Module):
    """MobileNetV2's block [1]_: expand by 1x1, filter each channel, project by 1x1; add the input.

    The input is added if it has the shape of the output; without expansion there is no first
    convolution.

    References
    ----------
    .. [1] M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
       section 3.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = ConvRelu6(in_channels, inner, 1) if expansion > 1 else None
        self.depthwise = ConvRelu6(inner, inner, kernel, stride, groups=inner)
        self.project = ConvRelu6(inner, out_channels, 1, linear=True)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features, (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        out: torch.Tensor = kernels.inverted_residual(*self._arguments(x))
        return out

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        """Compute ``forward`` layer by layer, as a reference for tests."""
        return kernels.reference(*self._arguments(x))

    def parts(self) -> list[nn.Module]:
        """Return the layers in execution order, for the layer table."""
        return [part for part in (self.expand, self.depthwise, self.project) if part is not None]

    def _arguments(self, x: torch.Tensor) -> tuple[torch.Tensor, kernels.Weights, int, bool]:
        expand, depthwise, project = self.expand, self.depthwise, self.project
        assert depthwise.bias is not None and project.bias is not None
        weights = kernels.Weights(
            None if expand is None else expand.weight,
            None if expand is None else expand.bias,
            *(depthwise.weight, depthwise.bias),
            *(project.weight, project.bias),
        )
        return x, weights, depthwise.stride[0], self.residual


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite [1]_ [2]_ with a linear layer for one's own classes.

    Parameters
    ----------
    classes : int
        The number of outputs.
    generator : torch.Generator
        Source of the initial weights, which ``pretrained.load_weights`` replaces.
    width, depth : float
        Factors of the numbers of channels and of blocks.

    References
    ----------
    .. [1] M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
       Networks", ICML 2019, table 1.
    .. [2] R. Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020.

    Examples
    --------
    >>> network = EfficientNetLite(5, torch.Generator(), width=1.0, depth=1.0)
    >>> network.features(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1280])
    >>> sum(parameter.numel() for parameter in network.blocks.parameters())
    2938224
    """

    def __init__(
        self, classes: int, generator: torch.Generator, width: float, depth: float
    ) -> None:
        super().__init__()
        self.stem = ConvRelu6(3, STEM, 3, stride=2)
        self.blocks = nn.Sequential()
        channels = STEM
        for number, stage in enumerate(STAGES):
            # the first and the last stage, the stem and the top are the same in all sizes
            scaled = 0 < number < len(STAGES) - 1
            count = math.ceil(stage.blocks * depth) if scaled else stage.blocks
            out = _rounded(stage.channels * width)
            for index in range(count):
                stride = stage.stride if index == 0 else 1
                self.blocks.append(
                    InvertedResidual(channels, out, stage.kernel, stride, stage.expansion)
                )
                channels = out
        self.top = ConvRelu6(channels, FEATURES, 1)
        self.head = nn.Linear(FEATURES, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                assert module.bias is not None
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
                nn.init.zeros_(module.bias)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, (N, 3, H, W) -> (N, 1280, ceil(H / 32), ceil(W / 32))."""
        out: torch.Tensor = self.top(self.blocks(self.stem(x)))
        return out

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of whole images, (N, 3, H, W) -> (N, 1280)."""
        return self.feature_map(x).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``x``, float32, (N, 3, H, W) -> (N, classes)."""
        logits: torch.Tensor = self.head(self.features(x).float())
        return logits


def _rounded(channels: float) -> int:
    """Return the nearest multiple of 8 that is at least 0.9 times ``channels``.

    >>> [_rounded(channels) for channels in (17.6, 26.4, 44, 352)]
    [16, 24, 48, 352]
    """
    rounded = max(MULTIPLE, int(channels + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return rounded if rounded >= 0.9 * channels else rounded + MULTIPLE
