"""How much arithmetic a network takes: that of its convolutions and dense layers, which is all.

Counted as direct convolution, two operations a multiply-add, whatever way the convolution is
computed by: so that rates can be compared. The other passes are left out, as usual; in these
networks they are under 1 %.
"""

from __future__ import annotations

import math

from torch import nn

from peewit.models.watch import watched


def training_flops(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the operations of a training step for each image of the batch.

    On the way back a layer works out the gradient of its weights, and that of its input, each as
    much work as the way forward. What needs no gradient (frozen weights, an image) is not counted.

    Parameters
    ----------
    model : nn.Module
    input_shape : tuple of int
        Height, width and channels of the image.

    Examples
    --------
    >>> training_flops(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2)), (2, 2, 3))
    300
    """
    return sum(
        work * (1 + needs_weights + needs_input)
        for work, needs_weights, needs_input in _works(model, input_shape)
    )


class TrainingFlops:
    """``training_flops`` of a network whose layers may be frozen while it is trained.

    Parameters
    ----------
    model : nn.Module

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
    >>> count = TrainingFlops(model)
    >>> count.an_image((2, 2, 3))
    300
    >>> _ = model[1].requires_grad_(False)
    >>> count.an_image((2, 2, 3))
    160
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        # kept, because walking through the modules to find them takes longer than to ask them all
        self._parameters = list(model.parameters())
        self._known: dict[tuple[object, ...], int] = {}

    def an_image(self, input_shape: tuple[int, int, int]) -> int:
        """Return ``training_flops`` with what is trained at this moment."""
        trained = tuple(parameter.requires_grad for parameter in self._parameters)
        key = (input_shape, trained)
        if key not in self._known:
            self._known[key] = training_flops(self.model, input_shape)
        return self._known[key]


def _works(model: nn.Module, input_shape: tuple[int, int, int]) -> list[tuple[int, bool, bool]]:
    """Return each layer's operations, and whether its weights and its input need a gradient."""
    found = []
    for layer, x, y in watched(model, input_shape):
        if isinstance(layer, nn.Conv2d):
            inputs = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
        elif isinstance(layer, nn.Linear):
            inputs = layer.in_features
        else:
            continue
        found.append((2 * inputs * y.numel(), layer.weight.requires_grad, x.requires_grad))
    return found
