"""Networks with high accuracy for little compute: the family fast-xs to fast-xl."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from peewit.kernels.pool_norm_gelu import Fixed, conv_pool_norm_gelu
from peewit.models.layers import GlobalMaxPool
from peewit.models.whitening import PATCH

Widths = tuple[int, ...]
# Keeps the initial logits small, as in airbench94; the recipe's learning rates assume it.
LOGITS_SCALE = 1 / 9


class WhiteningConv(nn.Conv2d):
    """A 2x2 convolution with fixed filters and a trained bias, followed by GELU.

    The filters are computed from the training images (``whitening_filters``). With stride 1 the
    images are padded by one replicated pixel at the right and at the bottom, so that the output has
    the size of the input and can be halved as often.

    Parameters
    ----------
    channels : int
        The number of channels of the images.
    stride : int
        1, or 2 for patches that do not overlap and an output of half the size.

    Attributes
    ----------
    padding_after : int
        The padding at the right and at the bottom, in pixels.

    Examples
    --------
    >>> WhiteningConv(3)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 24, 32, 32])
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(channels, 2 * PATCH**2 * channels, PATCH, stride)
        self.padding_after = PATCH - stride
        assert self.bias is not None
        self.weight.requires_grad_(False)
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations, always in float32.

        (N, C, H, W) -> (N, 8 * C, H // stride, W // stride).

        Whitening amplifies the smallest differences between pixels, so the input must not be
        rounded to bfloat16.
        """
        with torch.autocast("cpu", enabled=False):
            if self.padding_after:
                x = F.pad(x, (0, self.padding_after) * 2, mode="replicate")
            return F.gelu(super().forward(x), approximate="tanh")


class ConvPoolNormGelu(nn.Module):
    """A 3x3 convolution, optional 2x2 max pooling, batch normalisation and GELU.

    Pooling precedes normalisation, so the later passes process a quarter of the values. The scale
    of the normalisation is not trained, because the next normalisation would undo it.

    Parameters
    ----------
    in_channels, out_channels : int
        Numbers of channels of the input and the output.
    pool : int
        2, or 1 for no pooling.

    Examples
    --------
    >>> ConvPoolNormGelu(24, 64, pool=2)(torch.zeros(2, 24, 32, 32)).shape
    torch.Size([2, 64, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, pool: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        # momentum by PyTorch's definition: the moving statistics keep 0.6 of their value per step.
        # Epsilon is PyTorch's default: with airbench94's 1e-12, a batch of identical images has
        # gradients a million times as large, and training diverges
        self.norm = nn.BatchNorm2d(out_channels, momentum=0.4)
        self.norm.weight.requires_grad_(False)
        self.pool = pool
        self.fixed: Fixed | None = None

    def train(self, mode: bool = True) -> ConvPoolNormGelu:
        """Set the mode; training mode discards the values that ``fix`` has precomputed."""
        if mode:
            self.fixed = None
        super().train(mode)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of ``x``, (N, in, H, W) -> (N, out, H // pool, W // pool)."""
        return conv_pool_norm_gelu(x, self.conv, self.norm, self.pool, self.fixed)

    def parts(self) -> list[nn.Module]:
        """Return the layers in execution order, for the layer table."""
        pooling = [nn.MaxPool2d(self.pool)] if self.pool > 1 else []
        return [self.conv, *pooling, self.norm]


def fix(network: nn.Module) -> None:
    """Precompute what inference derives from fixed weights, until ``train()`` is called."""
    for stage in network.modules():
        if isinstance(stage, ConvPoolNormGelu):
            stage.fixed = Fixed.of(stage.conv, stage.norm)


class Fast(nn.Module):
    """airbench94's network [1]_ in any width, for images of any size from 8 x 8.

    Fixed whitening of 2x2 patches; two convolutions for each width, the first of which halves the
    resolution; global max pooling; a linear layer.

    Parameters
    ----------
    input_shape : tuple of int
        Height, width and channels of the images.
    classes : int
        The number of outputs.
    generator : torch.Generator
        Source of the initial weights.
    widths : tuple of int
        The number of channels after each halving.
    stride : int
        Of the whitening layer: with 2 the other layers have half the resolution.

    References
    ----------
    .. [1] K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498,
       section 3.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        generator: torch.Generator,
        widths: Widths,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.whitening = WhiteningConv(input_shape[2], stride)
        self.blocks = nn.Sequential()
        channels = self.whitening.out_channels
        for width in widths:
            self.blocks.append(ConvPoolNormGelu(channels, width, pool=2))
            self.blocks.append(ConvPoolNormGelu(width, width, pool=1))
            channels = width
        self.pool = GlobalMaxPool()
        self.head = nn.Linear(channels, classes, bias=False)
        self._initialise(generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``x``, float32, (N, C, H, W) -> (N, classes)."""
        # at 32 x 32: (N, 3, 32, 32) -> (N, 24, 32, 32) -> (N, w1, 16, 16) -> (N, w2, 8, 8)
        x = self.blocks(self.whitening(x))  # -> (N, w3, 4, 4)
        logits: torch.Tensor = self.head(self.pool(x)) * LOGITS_SCALE  # -> (N, w3) -> (N, classes)
        return logits

    def _initialise(self, generator: torch.Generator) -> None:
        """Draw PyTorch's default weights, but start each convolution with identity filters.

        Each identity filter passes on one input channel, so that signal and gradient reach all
        layers from the first step on. This reduces the epochs to 94 % from 21 to 18 [1, section
        3.3].
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad:
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        for block in self.blocks.children():
            assert isinstance(block, ConvPoolNormGelu)
            weight = block.conv.weight.data
            nn.init.dirac_(weight[: weight.shape[1]])
        # a placeholder: replaced by the whitening filters before the first step
        nn.init.kaiming_uniform_(self.whitening.weight, a=math.sqrt(5), generator=generator)
