"""Watch an image go through a network, layer by layer."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Block(Protocol):
    """A module that may work its layers as one, so that they cannot be watched one by one."""

    def parts(self) -> list[nn.Module]:
        """Return its layers in the order in which they work, each fed with the one before."""


class Call(NamedTuple):
    """A layer at work: what went in and what came out, for one image."""

    layer: nn.Module
    x: torch.Tensor
    y: torch.Tensor


def watched(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Call]:
    """Return each layer's work when one black image goes through ``model``, as for training.

    Parameters
    ----------
    model : nn.Module
        Left as it was. Layers without layers inside are watched; a ``Block`` is asked for its
        parts.
    input_shape : tuple of int
        Height, width and channels of an image.
    """
    calls: list[Call] = []

    def watch(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x = inputs[0]
        for part in module.parts() if isinstance(module, Block) else [module]:
            y = output if part is module else part(x)
            calls.append(Call(part, x, y))
            x = y

    hooks = [module.register_forward_hook(watch) for module in _layers(model)]
    training = {module: module.training for module in model.modules()}
    height, width, channels = input_shape
    try:
        model.eval()  # so that moving statistics stay as they are
        with torch.enable_grad():  # so that it shows what needs a gradient
            model(torch.zeros(1, channels, height, width))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return calls


def _layers(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, Block) or not list(module.children()):
        return [module]
    found = [layer for child in module.children() for layer in _layers(child)]
    return list(dict.fromkeys(found))
