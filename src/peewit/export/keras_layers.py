"""A chain of operations as the layers of a Keras Sequential model: their configurations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peewit.errors import PeewitError
from peewit.export.chain import (
    Array,
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Norm,
    Operation,
    Relu,
)
from peewit.images.preprocessing import Preprocessing


@dataclass
class KerasLayer:
    """A layer: Keras's class, its configuration, its weights by name in Keras's order."""

    kind: str
    config: dict[str, Any]
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Keras's name for it."""
        return str(self.config["name"])


# Keras's class -> the beginning of the names that Keras gives its layers
NAMES = {
    "Conv2D": "conv2d",
    "BatchNormalization": "batch_normalization",
    "MaxPooling2D": "max_pooling2d",
    "Flatten": "flatten",
    "Dropout": "dropout",
    "Dense": "dense",
    "Rescaling": "rescaling",
    "Resizing": "resizing",
    "Softmax": "softmax",
}


class Naming:
    """Gives layers the names that Keras would: conv2d, conv2d_1, ..."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def layer(self, kind: str, settings: dict[str, Any], **weights: Array | None) -> KerasLayer:
        """Make a layer; weights that are None are left out."""
        stem = NAMES[kind]
        number = self._counts[stem]
        self._counts[stem] += 1
        name = f"{stem}_{number}" if number else stem
        config = {"name": name, "trainable": True, "dtype": "float32", **settings}
        kept = {key: value for key, value in weights.items() if value is not None}
        return KerasLayer(kind, config, kept)


def network(operations: Sequence[Operation], naming: Naming) -> list[KerasLayer]:
    """Return the layers of the bare network: prepared pictures (N, H, W, C) -> logits.

    Raises
    ------
    PeewitError
        Keras has no layer for one of the operations.
    """
    layers: list[KerasLayer] = []
    for operation in operations:
        if isinstance(operation, Relu) and layers and "activation" in layers[-1].config:
            layers[-1].config["activation"] = "relu"
        else:
            layers.append(_layer(operation, naming))
    return layers


def preparation(rule: Preprocessing, naming: Naming) -> list[KerasLayer]:
    """Return the layers that do what ``Preprocessing.tensor`` does, for pictures of any size."""
    scale = [1 / (255 * std) for std in rule.std]
    offset = [-mean / std for mean, std in zip(rule.mean, rule.std, strict=True)]
    resizing = {
        "height": rule.height,
        "width": rule.width,
        "interpolation": "bilinear",
        "antialias": True,
        "data_format": "channels_last",
    }
    # scaled first, because resizing would round whole numbers; the two can change places
    return [
        naming.layer("Rescaling", {"scale": scale, "offset": offset}),
        naming.layer("Resizing", resizing),
    ]


def _layer(operation: Operation, naming: Naming) -> KerasLayer:
    match operation:
        case Conv(weight=weight, bias=bias, padding=padding) if padding in (0, _half(weight)):
            settings = {
                "filters": weight.shape[0],
                "kernel_size": list(weight.shape[2:]),
                "strides": [1, 1],
                "padding": "same" if padding else "valid",
                "data_format": "channels_last",
                "dilation_rate": [1, 1],
                "groups": 1,
                "activation": "linear",
                "use_bias": bias is not None,
            }
            # OIHW -> HWIO
            return naming.layer("Conv2D", settings, kernel=weight.transpose(2, 3, 1, 0), bias=bias)
        case Norm(epsilon=epsilon):
            return naming.layer(
                "BatchNormalization",
                {"axis": -1, "momentum": 0.99, "epsilon": epsilon, "center": True, "scale": True},
                gamma=operation.gamma,
                beta=operation.beta,
                moving_mean=operation.mean,
                moving_variance=operation.variance,
            )
        case MaxPool(size=size):
            pair = [size, size]
            settings = {"pool_size": pair, "strides": pair, "padding": "valid"}
            return naming.layer("MaxPooling2D", settings | {"data_format": "channels_last"})
        case Flatten():
            return naming.layer("Flatten", {"data_format": "channels_last"})
        case Dropout(rate=rate):
            return naming.layer("Dropout", {"rate": rate, "noise_shape": None, "seed": None})
        case Dense(weight=weight, bias=bias):
            settings = {"units": weight.shape[0], "activation": "linear"}
            settings["use_bias"] = bias is not None
            return naming.layer("Dense", settings, kernel=weight.T, bias=bias)
    raise PeewitError(
        "cannot export this network to Keras",
        f"Keras has no layer for its {type(operation).__name__}",
        "export it to ONNX, OpenVINO or PyTorch",
    )


def _half(weight: Array) -> int:
    """Return the padding that Keras calls same: of odd, square kernels only."""
    height, width = weight.shape[2:]
    return height // 2 if height == width and height % 2 else -1
