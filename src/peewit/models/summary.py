"""The layer table of any network: shapes, parameters, multiply-adds and memory."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from peewit.models.explain import Explanation, Shape, explain_layer, times
from peewit.models.layers import GlobalMaxPool
from peewit.models.trace import trace

FLOAT = 4  # bytes of a float32
WIDTH = 88  # line width of the explanations, in characters
# what training stores for each trainable value besides the value: how many numbers, and which
STORED = {
    "adam": (3, "three", "its gradient and Adam's two moment estimates"),
    "adamw": (3, "three", "its gradient and Adam's two moment estimates"),
    "muon": (2, "two", "its gradient and Muon's momentum"),
}

# PyTorch class: Keras class, from which Keras derives layer names (Conv2D: conv2d, conv2d_1)
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


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Parameters
    ----------
    name, kind : str
        Name and class of the layer in Keras.
    output_shape : tuple of int
        For one image, in Keras's order: (height, width, channels), or (features,).
    parameters, trainable : int
        The number of all values, including moving statistics, and of trainable values. If a layer
        is called several times, only the first row counts them.
    multiply_adds : int
        To predict one image.
    activation_bytes : int
        Memory of the output for one image; 0 if it is a view of the input.
    explanation : tuple of str
        How the numbers are derived.
    """

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    trainable: int
    multiply_adds: int
    activation_bytes: int
    explanation: tuple[str, ...]

    @property
    def non_trainable(self) -> int:
        """The number of non-trainable values: moving statistics and frozen weights."""
        return self.parameters - self.trainable


@dataclass(frozen=True)
class Summary:
    """The layers of a network and their totals.

    Parameters
    ----------
    input_shape : tuple of int
        Height, width and channels.
    rows : tuple of LayerRow
        The layers in execution order.
    normalised : tuple of int
        The number of channels of each batch normalisation with moving statistics.
    optimizer : str
        The optimiser that trains it: a key of ``STORED``.
    """

    input_shape: Shape
    rows: tuple[LayerRow, ...]
    normalised: tuple[int, ...]
    optimizer: str = "adam"

    @property
    def parameters(self) -> int:
        """The number of all values, including moving statistics."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """The number of trainable values."""
        return sum(row.trainable for row in self.rows)

    @property
    def non_trainable(self) -> int:
        """The number of non-trainable values."""
        return self.parameters - self.trainable

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds to predict one image."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def weight_bytes(self) -> int:
        """Memory of all values."""
        return FLOAT * self.parameters

    @property
    def optimizer_bytes(self) -> int:
        """Memory of the gradients and the optimiser's state."""
        return STORED[self.optimizer][0] * FLOAT * self.trainable

    @property
    def activation_bytes(self) -> int:
        """Memory of all layers' outputs for one image, stored for the backward pass."""
        return sum(row.activation_bytes for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in a dict that can be written as JSON."""
        rows = [asdict(row) | {"non_trainable": row.non_trainable} for row in self.rows]
        names = (
            "parameters",
            "trainable",
            "non_trainable",
            "multiply_adds",
            "weight_bytes",
            "optimizer_bytes",
            "activation_bytes",
        )
        totals = {name: getattr(self, name) for name in names}
        return {"input_shape": list(self.input_shape), "layers": rows} | totals

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table in a notebook; called by IPython."""
        printer.text(self.table())

    def table(self) -> str:
        """Return the table as text: one line per layer, then the totals."""
        head = ("Layer", "Output shape", "Parameters", "Multiply-adds", "Output memory")
        lines = [
            (
                f"{row.name} ({row.kind})",
                times(row.output_shape),
                f"{row.parameters:,}",
                f"{row.multiply_adds:,}",
                format_bytes(row.activation_bytes),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        rule = "-" * (sum(widths) + 3 * (len(widths) - 1))

        def line(cells: tuple[str, ...]) -> str:
            first, *others = zip(cells, widths, strict=True)
            return "   ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)])

        return "\n".join([line(head), rule, *map(line, lines), rule, *self._totals()])

    def explain(self) -> str:
        """Return the table, followed by how each layer's numbers are derived."""
        parts = [self.table(), ""]
        shape = self.input_shape
        for row in self.rows:
            shapes = f": {times(shape)} -> {times(row.output_shape)}" if row.output_shape else ""
            parts.append(f"{row.name} ({row.kind}){shapes}")
            memory = (
                f"Memory: {times(row.output_shape)} float32 values of {FLOAT} bytes "
                f"= {format_bytes(row.activation_bytes)} per image."
                if row.activation_bytes
                else "Memory: none, the output is a view of the input."
            )
            parts.extend(_wrap(sentence) for sentence in (*row.explanation, memory))
            parts.append("")
            shape = row.output_shape or shape
        parts.append("Totals")
        parts.extend(_wrap(sentence) for sentence in self._explain_totals())
        return "\n".join(parts)

    def _totals(self) -> list[str]:
        image = times(self.input_shape)
        return [
            f"Parameters       {self.parameters:,}",
            f"  trainable      {self.trainable:,}",
            f"  non-trainable  {self.non_trainable:,}",
            f"Multiply-adds    {self.multiply_adds:,} to predict one {image} image",
            f"Memory           {format_bytes(self.weight_bytes)} for the weights; training adds "
            f"{format_bytes(self.optimizer_bytes)} plus {format_bytes(self.activation_bytes)} "
            "per image in the batch",
        ]

    def _explain_totals(self) -> list[str]:
        counts = [row.parameters for row in self.rows if row.parameters]
        sentences = [f"Parameters: {' + '.join(f'{n:,}' for n in counts)} = {self.parameters:,}."]
        statistics = 2 * sum(self.normalised)
        if statistics:
            channels = " + ".join(f"{count:,}" for count in self.normalised)
            sentences.append(
                f"Non-trainable: 2 x ({channels}) = {statistics:,}: the moving mean and the moving "
                "variance of each channel of each batch normalisation. They are estimated from the "
                "batches, not changed by gradients, and are used in prediction."
            )
        if self.non_trainable > statistics:
            frozen = self.non_trainable - statistics
            sentences.append(f"Non-trainable: {frozen:,} more, which are frozen.")
        sentences.append(
            f"Trainable: {self.parameters:,} - {self.non_trainable:,} = {self.trainable:,}."
        )
        work, (_, number, which) = self.multiply_adds, STORED[self.optimizer]
        sentences.append(
            f"Multiply-adds: {work:,} to predict one image. Training takes about three times as "
            f"many, {3 * work:,}: in the backward pass, the gradient of each layer's weights and "
            "the gradient of its input each cost as much as the forward pass."
        )
        sentences.append(
            f"Memory: the weights are {self.parameters:,} float32 values of {FLOAT} bytes, "
            f"{format_bytes(self.weight_bytes)}. Training stores {number} more numbers per "
            f"trainable value, {which}, {format_bytes(self.optimizer_bytes)}, and, for the "
            f"backward pass, the layers' outputs, up to {format_bytes(self.activation_bytes)} per "
            f"image in the batch ({format_bytes(32 * self.activation_bytes)} for 32 images)."
        )
        return sentences


def summarise(
    model: nn.Module, input_shape: tuple[int, int, int], optimizer: str = "adam"
) -> Summary:
    """Return the layer table of any network, by tracing one black image through it.

    Parameters
    ----------
    model : nn.Module
        Left unchanged. Modules without children become rows, except activations, which Keras
        counts as part of the layer before. A ``FusedBlock`` is split into its parts.
    input_shape : tuple of int
        Height, width and channels of an image.
    optimizer : str
        The optimiser that trains it: "adam" or "muon".

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

    def row(module: nn.Module, outputs: Shape, explanation: Explanation) -> LayerRow:
        kind = next((kind for base, kind in KINDS.items() if isinstance(module, base)), "")
        kind = kind or type(module).__name__
        base = keras_name(kind)
        number, names[base] = names[base], names[base] + 1
        # a layer that is called twice, or shares its weights, counts them once
        new = [value for value in _values(module) if value not in counted]
        counted.update(new)
        stored = outputs and not isinstance(module, nn.Flatten)
        return LayerRow(
            name=f"{base}_{number}" if number else base,
            kind=kind,
            output_shape=outputs,
            parameters=sum(value.numel() for value in new),
            trainable=sum(value.numel() for value in new if value.requires_grad),
            multiply_adds=explanation.multiply_adds,
            activation_bytes=FLOAT * math.prod(outputs) if stored else 0,
            explanation=explanation.sentences,
        )

    rows = [
        row(module, _shape(y), explain_layer(module, _shape(x), _shape(y)))
        for module, x, y in trace(model, input_shape)
        if not _is_activation(module)
    ]
    # values that belong to no traced layer (a vector that a block adds itself) count in the totals
    for module in model.modules():
        left = sum(value.numel() for value in _values(module) if value not in counted)
        if left:
            why = f"Parameters: {left:,}, used outside of the network's layers, or unused."
            rows.append(row(module, (), Explanation(0, (why,))))
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
    """Return the layer name that Keras derives from a class name.

    >>> keras_name("MaxPooling2D"), keras_name("BatchNormalization"), keras_name("Conv2D")
    ('max_pooling2d', 'batch_normalization', 'conv2d')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def format_bytes(count: int) -> str:
    """Return a number of bytes for display, in powers of 1,000.

    >>> format_bytes(0), format_bytes(40), format_bytes(230_400), format_bytes(1_902_072)
    ('0 B', '40 B', '230.4 kB', '1.9 MB')
    """
    value, units = float(count), ["B", "kB", "MB", "GB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def _values(module: nn.Module) -> list[torch.Tensor]:
    """Return a module's own weights and moving statistics, without step counters."""
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


def _wrap(sentence: str) -> str:
    return textwrap.fill(sentence, WIDTH, initial_indent="  ", subsequent_indent="    ")
