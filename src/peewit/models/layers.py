"""Layers that PyTorch lacks or that differ from Keras's."""

from __future__ import annotations

import torch
from torch import nn

from peewit.kernels import conv_relu_norm_pool, relu_norm_pool


class ConvReluNormPool(nn.Module):
    """A 3x3 convolution without padding, ReLU, batch normalisation and 2x2 max pooling.

    Batch normalisation has Keras's defaults: epsilon 1e-3 and momentum 0.99, which is 0.01 in
    PyTorch's definition.

    Parameters
    ----------
    in_channels, out_channels : int
        Numbers of channels of the input and the output.

    Examples
    --------
    >>> import torch
    >>> ConvReluNormPool(3, 8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 8, 15, 15])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of ``x``, (N, in, H, W) -> (N, out, (H - 2) // 2, (W - 2) // 2)."""
        return conv_relu_norm_pool(x, self.conv, self.norm)

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        """Compute ``forward`` layer by layer, as a reference for tests."""
        return relu_norm_pool.reference(x, self.conv, self.norm)

    def parts(self) -> list[nn.Module]:
        """Return the layers in execution order, for the layer table."""
        return [self.conv, self.norm, self.pool]


class FlattenHWC(nn.Flatten):
    """Flatten each image's features in Keras's order: height, width, channels.

    In channels_last memory this is a view. The order of PyTorch's ``Flatten`` is channels, height,
    width, which does not match the weights of a Keras Dense layer after it.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[[1, 2]], [[10, 20]]]])  # (N, C, H, W) = (1, 2, 1, 2)
    >>> FlattenHWC()(x).tolist()
    [[1, 10, 2, 20]]
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the flattened features, (N, C, H, W) -> (N, H * W * C)."""
        return super().forward(x.permute(0, 2, 3, 1))


class GlobalMaxPool(nn.Module):
    """Keep the maximum of each channel over all positions.

    Examples
    --------
    >>> GlobalMaxPool()(torch.tensor([[[[1.0, 5.0], [2.0, 3.0]]]])).tolist()
    [[5.0]]
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maxima, (N, C, H, W) -> (N, C)."""
        return x.amax((2, 3))
