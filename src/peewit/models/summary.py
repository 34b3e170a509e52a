"""Watch an image go through a network, and make the layer table of what was seen."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from peewit.models.explain import Account, Shape, account
from peewit.models.table import FLOAT, LayerRow, Summary

# PyTorch's class: the kind in Keras, from which Keras makes the name (Conv2D: conv2d, conv2d_1)
KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "Conv2D",
    nn.BatchNorm2d: "BatchNormalization",
    nn.MaxPool2d: "MaxPooling2D",
    nn.AvgPool2d: "AveragePooling2D",
    nn.Linear: "Dense",
    nn.Flatten: "Flatten",
    nn.Dropout: "Dropout",
}


@runtime_checkable
class Block(Protocol):
    """A module that may work its layers as one, so that they cannot be watched one by one."""

    def parts(self) -> list[nn.Module]:
        """Return its layers in the order in which they work, each fed with the one before."""


def summarise(model: nn.Module, input_shape: tuple[int, int, int]) -> Summary:
    """Return the layer table of any network, by watching one black image go through it.

    Parameters
    ----------
    model : nn.Module
        Left as it was. Layers without layers inside become rows, except activations, which Keras
        counts as part of the layer before. A ``Block`` is asked for its parts.
    input_shape : tuple of int
        Height, width and channels of an image.

    Examples
    --------
    >>> from peewit.models import build
    >>> summary = summarise(build("tutorial", (32, 32, 3), 10, seed=0), (32, 32, 3))
    >>> summary.parameters, summary.trainable, summary.non_trainable
    (159018, 158506, 512)
    >>> [row.name for row in summary.rows if row.kind == "Conv2D"]
    ['conv2d', 'conv2d_1', 'conv2d_2']
    """
    calls: list[tuple[nn.Module, Shape, Shape]] = []

    def watch(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x = inputs[0]
        for part in module.parts() if isinstance(module, Block) else [module]:
            y = output if part is module else part(x)
            calls.append((part, _shape(x), _shape(y)))
            x = y

    hooks = [module.register_forward_hook(watch) for module in _watched(model)]
    training = {module: module.training for module in model.modules()}
    height, width, channels = input_shape
    try:
        model.eval()  # so that moving statistics stay as they are
        with torch.no_grad():
            model(torch.zeros(1, channels, height, width))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode

    names: Counter[str] = Counter()
    counted: set[torch.Tensor] = set()

    def row(module: nn.Module, outputs: Shape, costs: Account) -> LayerRow:
        kind = next((kind for base, kind in KINDS.items() if isinstance(module, base)), "")
        kind = kind or type(module).__name__
        base = keras_name(kind)
        number, names[base] = names[base], names[base] + 1
        # a layer that is used twice, or shares its weights, counts them once
        new = [value for value in _values(module) if value not in counted]
        counted.update(new)
        kept = outputs and not isinstance(module, nn.Flatten)
        return LayerRow(
            name=f"{base}_{number}" if number else base,
            kind=kind,
            output_shape=outputs,
            parameters=sum(value.numel() for value in new),
            trainable=sum(value.numel() for value in new if value.requires_grad),
            multiply_adds=costs.multiply_adds,
            activation_bytes=FLOAT * math.prod(outputs) if kept else 0,
            explanation=costs.sentences,
        )

    rows = [
        row(module, outputs, account(module, inputs, outputs))
        for module, inputs, outputs in calls
        if not _is_activation(module)
    ]
    # what no layer's call has shown (a vector that a block adds itself) belongs in the totals too
    for module in model.modules():
        left = sum(value.numel() for value in _values(module) if value not in counted)
        if left:
            why = f"Parameters: {left:,}, which the network uses outside of its layers, or not."
            rows.append(row(module, (), Account(0, (why,))))
    return Summary(
        tuple(input_shape),
        tuple(rows),
        tuple(
            module.num_features
            for module in model.modules()
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
        ),
    )


def keras_name(kind: str) -> str:
    """Return the name that Keras makes from the name of a class.

    >>> keras_name("MaxPooling2D"), keras_name("BatchNormalization"), keras_name("Conv2D")
    ('max_pooling2d', 'batch_normalization', 'conv2d')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def _watched(module: nn.Module) -> list[nn.Module]:
    """Return the modules whose calls make the rows."""
    if isinstance(module, Block) or not list(module.children()):
        return [module]
    found = [leaf for child in module.children() for leaf in _watched(child)]
    return list(dict.fromkeys(found))


def _values(module: nn.Module) -> list[torch.Tensor]:
    """Return a module's own weights and moving statistics; counters of steps are none."""
    return [
        *module.parameters(recurse=False),
        *(buffer for buffer in module.buffers(recurse=False) if buffer.is_floating_point()),
    ]


def _is_activation(module: nn.Module) -> bool:
    plain = type(module).__module__ == nn.ReLU.__module__ or isinstance(module, nn.Identity)
    return plain and not _values(module)


def _shape(x: torch.Tensor) -> Shape:
    """Return the shape of one image's values in Keras's order."""
    shape = tuple(x.shape[1:])
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape  # (C, H, W) -> (H, W, C)
