"""The network of the Keras CIFAR-10 tutorial, with Keras's initial weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from peewit.models.layers import ConvReluNormPool, FlattenHWC


class Tutorial(nn.Module):
    """Three convolution stages and a small classifier: 159,018 parameters for CIFAR-10.

    Parameters
    ----------
    input_shape : tuple of int
        Height, width and channels of the images; height and width are at least 22.
    classes : int
        The number of outputs.
    generator : torch.Generator
        Source of the initial weights.
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
        init_like_keras(self, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``x``, float32, (N, C, H, W) -> (N, classes)."""
        # at 32 x 32: (N, 3, 32, 32) -> (N, 64, 15, 15) -> (N, 128, 6, 6) -> (N, 64, 2, 2)
        x = self.flatten(self.stages(x))  # -> (N, 256)
        x = F.relu(self.hidden(self.dropout(x)))  # -> (N, 32)
        logits: torch.Tensor = self.logits(x)
        return logits


def init_like_keras(model: nn.Module, generator: torch.Generator) -> None:
    """Initialise all layers in place by the defaults of Keras.

    Kernels are Glorot uniform: uniform between -limit and limit, where limit
    = sqrt(6 / (fan in + fan out)) and a fan is the number of inputs (or outputs) of a unit times
    the area of the kernel [1]_. Biases are 0; batch normalisation starts with scale 1, shift 0,
    moving mean 0 and moving variance 1.

    References
    ----------
    .. [1] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward
       neural networks", AISTATS 2010, equation 16.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
