"""Make the layer table of any network."""

from __future__ import annotations

import math
import re
from collections import Counter

import torch
from torch import nn

from peewit.models.explain import Account, Shape, account
from peewit.models.layers import GlobalMaxPool
from peewit.models.table import FLOAT, LayerRow, Summary
from peewit.models.watch import watched

# PyTorch's class: the kind in Keras, from which Keras makes the name (Conv2D: conv2d, conv2d_1)
KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "Conv2D",
    nn.BatchNorm2d: "BatchNormalization",
    nn.MaxPool2d: "MaxPooling2D",
    nn.AvgPool2d: "AveragePooling2D",
    nn.Linear: "Dense",
    nn.Flatten: "Flatten",
    nn.Dropout: "Dropout",
    GlobalMaxPool: "GlobalMaxPooling2D",
}


def summarise(
    model: nn.Module, input_shape: tuple[int, int, int], optimizer: str = "adam"
) -> Summary:
    """Return the layer table of any network, by watching one black image go through it.

    Parameters
    ----------
    model : nn.Module
        Left as it was. Layers without layers inside become rows, except activations, which Keras
        counts as part of the layer before. A ``Block`` is asked for its parts.
    input_shape : tuple of int
        Height, width and channels of an image.
    optimizer : str
        What it is trained with: a key of ``peewit.models.registry.table.KEPT``.

    Examples
    --------
    >>> from peewit.models.registry import build
    >>> summary = summarise(build("tutorial", (32, 32, 3), 10, seed=0), (32, 32, 3))
    >>> summary.parameters, summary.trainable, summary.non_trainable
    (159018, 158506, 512)
    >>> [row.name for row in summary.rows if row.kind == "Conv2D"]
    ['conv2d', 'conv2d_1', 'conv2d_2']
    """
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
        row(module, _shape(y), account(module, _shape(x), _shape(y)))
        for module, x, y in watched(model, input_shape)
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
        optimizer,
    )


def keras_name(kind: str) -> str:
    """Return the name that Keras makes from the name of a class.

    >>> keras_name("MaxPooling2D"), keras_name("BatchNormalization"), keras_name("Conv2D")
    ('max_pooling2d', 'batch_normalization', 'conv2d')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


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
