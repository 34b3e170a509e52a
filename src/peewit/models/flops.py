"""Count the floating-point operations of a training step.

Convolutions and dense layers are counted, with two operations per multiply-add. Convolutions are
counted as direct convolutions, whatever the algorithm, so that rates are comparable. All other
layers are left out, as usual; they are under 1 % in these networks.
"""

from __future__ import annotations

import math

from torch import nn

from peewit.models.trace import trace


def training_flops(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the operations of a training step per image in the batch.

    In the backward pass, the gradient of the weights and the gradient of the input each cost as
    much as the forward pass. Gradients that are not needed (frozen weights, images) do not count.

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
        forward * (1 + weight_gradient + input_gradient)
        for forward, weight_gradient, input_gradient in _layer_costs(model, input_shape)
    )


class TrainingFlops:
    """Count ``training_flops`` of a network whose layers may be frozen during training.

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
        # cached: finding the parameters in the modules takes longer than checking all of them
        self._parameters = list(model.parameters())
        self._known: dict[tuple[object, ...], int] = {}

    def an_image(self, input_shape: tuple[int, int, int]) -> int:
        """Return ``training_flops`` per image for the parameters that are trained now."""
        trained = tuple(parameter.requires_grad for parameter in self._parameters)
        key = (input_shape, trained)
        if key not in self._known:
            self._known[key] = training_flops(self.model, input_shape)
        return self._known[key]


def _layer_costs(
    model: nn.Module, input_shape: tuple[int, int, int]
) -> list[tuple[int, bool, bool]]:
    """Return each layer's forward operations, and whether weights and input need a gradient."""
    found = []
    for layer, x, y in trace(model, input_shape):
        if isinstance(layer, nn.Conv2d):
            inputs = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
        elif isinstance(layer, nn.Linear):
            inputs = layer.in_features
        else:
            continue
        found.append((2 * inputs * y.numel(), layer.weight.requires_grad, x.requires_grad))
    return found
