"""Trace one image through a network, layer by layer."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class FusedBlock(Protocol):
    """A module that may run its layers as one kernel, so that hooks on them are not called."""

    def parts(self) -> list[nn.Module]:
        """Return its layers in execution order; each takes the output of the one before."""


class LayerCall(NamedTuple):
    """One call of a layer: its input and its output, for a batch of one image."""

    layer: nn.Module
    x: torch.Tensor
    y: torch.Tensor


def trace(model: nn.Module, input_shape: tuple[int, int, int]) -> list[LayerCall]:
    """Return the calls of all layers for one black image, in execution order.

    Parameters
    ----------
    model : nn.Module
        Left unchanged. Modules without children are traced; a ``FusedBlock`` is split into its
        parts.
    input_shape : tuple of int
        Height, width and channels of the image.
    """
    calls: list[LayerCall] = []

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x = inputs[0]
        for part in module.parts() if isinstance(module, FusedBlock) else [module]:
            y = output if part is module else part(x)
            calls.append(LayerCall(part, x, y))
            x = y

    hooks = [module.register_forward_hook(record) for module in _layers(model)]
    training = {module: module.training for module in model.modules()}
    height, width, channels = input_shape
    try:
        model.eval()  # leaves the moving statistics unchanged
        with torch.enable_grad():  # so that x.requires_grad shows which inputs need a gradient
            model(torch.zeros(1, channels, height, width))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return calls


def _layers(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, FusedBlock) or not list(module.children()):
        return [module]
    found = [layer for child in module.children() for layer in _layers(child)]
    return list(dict.fromkeys(found))
