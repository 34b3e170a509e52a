"""The network of the Keras CIFAR-10 tutorial, with Keras's defaults."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from peewit.models.initializers import keras_defaults
from peewit.models.layers import ConvReluNormPool, FlattenHWC


class Tutorial(nn.Module):
    """Three stages of convolution, then a small classifier: 159,018 parameters for CIFAR-10.

    Parameters
    ----------
    input_shape : tuple of int
        Height, width and channels of the images; height and width are at least 22.
    classes : int
        The number of outputs.
    generator : torch.Generator
        Where the initial weights are drawn from.
    """

    def __init__(
        self, input_shape: tuple[int, int, int], classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        height, width, channels = input_shape
        widths = (64, 128, 64)
        self.stages = nn.Sequential()
        for inputs, outputs in zip((channels, *widths), widths, strict=False):
            self.stages.append(ConvReluNormPool(inputs, outputs))
            height, width = (height - 2) // 2, (width - 2) // 2
        self.flatten = FlattenHWC()
        self.dropout = nn.Dropout(0.5)
        self.hidden = nn.Linear(height * width * widths[-1], 32)
        self.logits = nn.Linear(32, classes)
        keras_defaults(self, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``x``, float32, (N, C, H, W) -> (N, classes)."""
        # at 32 x 32: (N, 3, 32, 32) -> (N, 64, 15, 15) -> (N, 128, 6, 6) -> (N, 64, 2, 2)
        x = self.flatten(self.stages(x))  # -> (N, 256)
        x = F.relu(self.hidden(self.dropout(x)))  # -> (N, 32)
        logits: torch.Tensor = self.logits(x)
        return logits
