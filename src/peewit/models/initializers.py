"""The values that a network starts from."""

from __future__ import annotations

import torch
from torch import nn


def keras_defaults(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the initial weights as Keras's layers do when nothing is asked of them, in place.

    Kernels are glorot-uniform: uniform between -limit and limit with limit
    = sqrt(6 / (fan in + fan out)), where a fan is the inputs (or outputs) of a unit times the
    area of the kernel [1]_. Biases are 0; batch normalisation starts with scale 1, shift 0,
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
