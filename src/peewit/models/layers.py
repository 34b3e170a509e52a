"""Layers that PyTorch does not have, or has in another form than Keras."""

from __future__ import annotations

import torch
from torch import nn

from peewit.kernels import conv_relu_norm_pool, stage


class ConvReluNormPool(nn.Module):
    """A 3x3 convolution without padding, ReLU, batch normalisation and 2x2 max pooling.

    Batch normalisation is Keras's: epsilon 1e-3, and moving statistics that keep 0.99 of
    themselves at each step (which PyTorch calls momentum 0.01).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.

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
        """Compute ``forward`` layer by layer: what any faster form is tested against."""
        return stage.reference(x, self.conv, self.norm)

    def parts(self) -> list[nn.Module]:
        """Return the layers in the order in which they work, for the layer table."""
        return [self.conv, self.norm, self.pool]


class FlattenHWC(nn.Flatten):
    """Lay each image's features in one row, in Keras's order: height, width, channels.

    In channels_last memory this is only a view. PyTorch's own ``Flatten`` gives channels,
    height, width, with which the weights of a following Keras Dense layer would not fit.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[[1, 2]], [[10, 20]]]])  # (N, C, H, W) = (1, 2, 1, 2)
    >>> FlattenHWC()(x).tolist()
    [[1, 10, 2, 20]]
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows: (N, C, H, W) -> (N, H * W * C)."""
        return super().forward(x.permute(0, 2, 3, 1))


class GlobalMaxPool(nn.Module):
    """Keep the largest value of each channel, wherever in the picture it is.

    Examples
    --------
    >>> GlobalMaxPool()(torch.tensor([[[[1.0, 5.0], [2.0, 3.0]]]])).tolist()
    [[5.0]]
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the largest values, (N, C, H, W) -> (N, C)."""
        return x.amax((2, 3))
