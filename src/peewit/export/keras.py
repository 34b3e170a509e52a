"""Keras formats, written without Keras: ``.keras`` (Keras 3) and ``.h5`` (Keras 2.4 and later)."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.evaluation.inference import softmax
from peewit.export.agreement import Predictor
from peewit.export.operations import (
    Array,
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Norm,
    Operation,
    Relu,
    refuse_encoder,
)
from peewit.images.preprocessing import (
    ConvertChannels,
    CropToAspect,
    Divide,
    PadToAspect,
    Preprocessing,
    Resize,
    Subtract,
)
from peewit.system.packages import import_required

if TYPE_CHECKING:
    from peewit.export.job import Content

SUFFIXES = (".keras", ".h5")
NOTE = ""
# versions stored in the files: the oldest that reads the .h5, and the one the .keras is tested with
OLD_KERAS, NEW_KERAS = b"2.4.0", "3.10.0"
# a fixed timestamp in the zip, so that the same run always gives the same bytes
ZIP_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.keras`` and ``stem.h5``; the latter always holds the bare network.

    TensorFlow 2.4 has no layer that resizes as Peewit does, so its file expects, as the tutorial's
    own does, images that are already divided by 255.
    """
    refuse_encoder(content.operations, "Keras")
    archive, legacy = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    rule = content.preprocessing
    shape: list[int | None] = [rule.height, rule.width, rule.channels]
    layers = network_layers(content.operations, LayerNames())
    legacy.write_bytes(h5_file(layers, shape, content.metadata))
    if not content.raw:
        names = LayerNames()
        layers = [
            *preprocessing_layers(rule, names),
            *network_layers(content.operations, names),
            names.layer("Softmax", {"axis": -1}),
        ]
        shape = [None, None, rule.channels]
    archive.write_bytes(keras_file(layers, shape, content.metadata))
    return [archive, legacy]


def load(content: Content, file: Path) -> Predictor | None:
    """Load the file in Keras 3, or return None if Keras and TensorFlow are not both installed."""
    if not find_spec("keras") or not find_spec("tensorflow"):
        return None
    # silence TensorFlow's start-up messages; the one about oneDNN appears at every log level unless
    # oneDNN is off, which also makes the results those of plain float32
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import keras

    model = keras.models.load_model(file, compile=False)

    def forward(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.asarray(model(images.astype(np.float32), training=False), np.float32)

    if file.suffix == ".h5":  # always the bare network
        return lambda images: softmax(forward(content.preprocessing.array(images)))
    return content.predictor(forward)


@dataclass
class KerasLayer:
    """A layer: its Keras class, its configuration, and its weights by name in Keras's order."""

    kind: str
    config: dict[str, Any]
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The layer's name in Keras."""
        return str(self.config["name"])


# Keras class -> prefix of the names that Keras gives such layers
NAME_PREFIXES = {
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


class LayerNames:
    """Creates layers with the names that Keras would give them: conv2d, conv2d_1, ..."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def layer(self, kind: str, settings: dict[str, Any], **weights: Array | None) -> KerasLayer:
        """Create a layer; weights that are None are left out."""
        prefix = NAME_PREFIXES[kind]
        number = self._counts[prefix]
        self._counts[prefix] += 1
        name = f"{prefix}_{number}" if number else prefix
        config = {"name": name, "trainable": True, "dtype": "float32", **settings}
        present = {key: value for key, value in weights.items() if value is not None}
        return KerasLayer(kind, config, present)


def preprocessing_layers(rule: Preprocessing, names: LayerNames) -> list[KerasLayer]:
    """Return the steps of ``rule`` as layers, for images with its channels and of any size.

    Keras's Resizing rounds whole numbers, so the normalisation goes before it: the weights of
    resizing sum to 1, so the two can be swapped. All subtractions and divisions together are one
    Rescaling, ``x * scale + offset``.
    """
    scale, offset = np.ones(rule.channels), np.zeros(rule.channels)
    resizing: dict[str, Any] = {}
    padding = 0.0
    for step in rule.steps:
        match step:
            case ConvertChannels():
                pass  # the model accepts only the network's own number of channels
            case CropToAspect():
                resizing = {"crop_to_aspect_ratio": True}
            case PadToAspect(value=value):
                resizing = {"pad_to_aspect_ratio": True, "fill_mode": "constant", "fill_value": 0.0}
                padding = value
            case Resize(height=height, width=width):
                resizing |= {
                    "height": height,
                    "width": width,
                    "interpolation": "bilinear",
                    "antialias": True,
                    "data_format": "channels_last",
                }
            case Subtract(values=values):
                offset = offset - values
            case Divide(values=values):
                scale, offset = scale / values, offset / values
    rescaling = {"scale": scale.tolist(), "offset": offset.tolist()}
    if not padding:
        return [names.layer("Rescaling", rescaling), names.layer("Resizing", resizing)]
    # Keras pads with one value for all channels, so normalisation comes after it, and before it
    # the padding's value becomes 0
    return [
        names.layer("Rescaling", {"scale": 1.0, "offset": -padding}),
        names.layer("Resizing", resizing),
        names.layer(
            "Rescaling", {"scale": scale.tolist(), "offset": (offset + padding * scale).tolist()}
        ),
    ]


def network_layers(operations: Sequence[Operation], names: LayerNames) -> list[KerasLayer]:
    """Return the layers of the bare network: prepared images (N, H, W, C) -> logits.

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
            layers.append(_layer(operation, names))
    return layers


def _layer(operation: Operation, names: LayerNames) -> KerasLayer:
    match operation:
        case Conv(weight=weight, bias=bias, padding=padding, stride=1) if padding in (
            0,
            _same(weight),
        ):
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
            return names.layer("Conv2D", settings, kernel=weight.transpose(2, 3, 1, 0), bias=bias)
        case Norm(epsilon=epsilon):
            return names.layer(
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
            return names.layer("MaxPooling2D", settings | {"data_format": "channels_last"})
        case Flatten():
            return names.layer("Flatten", {"data_format": "channels_last"})
        case Dropout(rate=rate):
            return names.layer("Dropout", {"rate": rate, "noise_shape": None, "seed": None})
        case Dense(weight=weight, bias=bias):
            settings = {"units": weight.shape[0], "activation": "linear"}
            settings["use_bias"] = bias is not None
            return names.layer("Dense", settings, kernel=weight.T, bias=bias)
    raise PeewitError(
        "cannot export this network to Keras",
        f"Keras has no layer for its {type(operation).__name__}",
        "export to onnx, openvino or torch instead",
    )


def _same(weight: Array) -> int:
    """Return the padding that Keras calls "same", or -1 unless the kernel is square and odd."""
    height, width = weight.shape[2:]
    return height // 2 if height == width and height % 2 else -1


def h5_file(
    layers: Sequence[KerasLayer], shape: list[int | None], metadata: dict[str, str]
) -> bytes:
    """Return an HDF5 file as Keras 2's ``model.save`` writes it."""
    entries: list[dict[str, Any]] = [
        {
            "class_name": "InputLayer",
            "config": {
                "batch_input_shape": [None, *shape],
                "dtype": "float32",
                "sparse": False,
                "ragged": False,
                "name": "pictures",
            },
        },
        *({"class_name": layer.kind, "config": layer.config} for layer in layers),
    ]
    config = {"class_name": "Sequential", "config": {"name": "peewit", "layers": entries}}
    h5py = import_required("h5py", "keras", "export to Keras")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        # bytes, because TensorFlow 2.4 calls decode() on it
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["peewit"] = json.dumps(metadata).encode()
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for group in (file, top):
            group.attrs["keras_version"], group.attrs["backend"] = OLD_KERAS, b"tensorflow"
        for layer in layers:
            group = top.create_group(layer.name)
            names = [f"{layer.name}/{name}:0" for name in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, values in zip(names, layer.weights.values(), strict=True):
                group.create_dataset(name, data=values)
    return buffer.getvalue()


def keras_file(
    layers: Sequence[KerasLayer], shape: list[int | None], metadata: dict[str, str]
) -> bytes:
    """Return a ``.keras`` archive as Keras 3's ``model.save`` writes it."""
    first = {"batch_shape": [None, *shape], "dtype": "float32", "name": "pictures"}
    entries = [_entry("InputLayer", first)]
    entries += [_entry(layer.kind, layer.config) for layer in layers]
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "peewit", "trainable": True, "dtype": "float32", "layers": entries},
        "registered_name": None,
        "build_config": {"input_shape": [None, *shape]},
    }
    facts = {"keras_version": NEW_KERAS, "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S")}
    parts = {
        "metadata.json": json.dumps({**facts, "peewit": metadata}).encode(),
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": _weights_file(layers),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIMESTAMP), content)
    return buffer.getvalue()


def _entry(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": config,
        "registered_name": None,
    }


def _weights_file(layers: Sequence[KerasLayer]) -> bytes:
    h5py = import_required("h5py", "keras", "export to Keras")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        # Keras names the groups by class and number, which is how these layers are named
        for layer in layers:
            group = file.create_group(f"layers/{layer.name}/vars")
            for index, values in enumerate(layer.weights.values()):
                group.create_dataset(str(index), data=np.ascontiguousarray(values))
    return buffer.getvalue()
