"""Parse the JSON configuration of a Keras model into layers, and validate it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]
# 256 million values are 1 GB, far more than any network that runs on a CPU
MAX_VALUES = 2**28
# replaced by the name of the file where that is known
THIS_MODEL = "cannot import this model"
ACTIVATIONS = ("linear", "relu", "softmax")
# the tutorial's network has 5 kB; parsed, JSON takes up to 20 times its size
MAX_CONFIG = 2**20
# texts from the file may be of any length, and appear in errors and as paths in the file
MAX_NAME, MAX_REASON = 200, 400


@dataclass(frozen=True)
class Layer:
    """One layer of a Sequential model.

    Parameters
    ----------
    kind : str
        Keras class: Conv2D, Dense ...
    name : str
        Name in the model.
    settings : dict
        The settings that matter here, validated.
    weights : dict of str to tuple of int
        Names and expected shapes of its weights, in Keras's order.
    """

    kind: str
    name: str
    settings: dict[str, Any]
    weights: dict[str, Shape]


@dataclass(frozen=True)
class Architecture:
    """A Sequential model: input shape (height, width, channels), layers, number of outputs."""

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    outputs: int


def read_architecture(text: str | bytes) -> Architecture:
    """Parse the JSON configuration of a Sequential model of Keras 2 or 3.

    Raises
    ------
    PeewitError
        It is not valid JSON, not Sequential, or has an unsupported layer or setting. Layers that
        would run code from the file (Lambda, custom classes) are unsupported.
    """
    if len(text) > MAX_CONFIG:
        raise unsupported(f"its configuration is larger than {MAX_CONFIG >> 20} MB")
    try:
        model = json.loads(text, object_hook=_replace_tuple)
        kind, config = model["class_name"], model["config"]
        if kind != "Sequential":
            raise unsupported(f"it is a {kind} model, and only Sequential models are supported")
        # before Keras 2.2.3 it was the list itself
        layers = config["layers"] if isinstance(config, dict) else config
        return _architecture(layers)
    except (ValueError, RecursionError) as error:
        raise damaged("its configuration is not valid JSON") from error
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise damaged("its configuration is not a Keras configuration") from error


def unsupported(why: str) -> PeewitError:
    """Return the error for a valid model that Peewit does not support."""
    return PeewitError(THIS_MODEL, _shortened(why))


def damaged(why: str) -> PeewitError:
    """Return the error for a file that is damaged or was not written by Keras."""
    return PeewitError(THIS_MODEL, _shortened(why), "save it again with model.save")


def _shortened(why: str) -> str:
    return why if len(why) <= MAX_REASON else f"{why[:MAX_REASON]}..."


def _replace_tuple(value: dict[str, Any]) -> Any:
    """Replace a SavedModel's representation of a tuple by a list, as in all other files."""
    return value["items"] if value.get("class_name") == "__tuple__" else value


def _architecture(layers: list[dict[str, Any]]) -> Architecture:
    shape = _input_shape(layers)
    first = shape
    found: list[Layer] = []
    total = 0
    for entry in layers:
        kind, settings = str(entry["class_name"]), entry["config"]
        if kind == "InputLayer":
            continue
        if kind not in READERS or not _is_keras_layer(entry):
            raise _unknown(kind, str(settings.get("name", kind)))
        layer, shape = READERS[kind](LayerConfig(kind, settings, shape))
        for name, weight_shape in layer.weights.items():
            total += math.prod(weight_shape)
            if total > MAX_VALUES:
                raise unsupported(
                    f"with the {name} of its layer {layer.name}, {weight_shape}, it has more than "
                    f"{MAX_VALUES:,} weights"
                )
        if math.prod(shape) > MAX_VALUES:
            raise unsupported(
                f"the output of its layer {layer.name} has the shape {shape}, which is too large"
            )
        found.append(layer)
    if len(shape) != 1:
        raise unsupported(f"its output has the shape {shape}, not one value per class")
    return Architecture((first[0], first[1], first[2]), tuple(found), shape[0])


def _is_keras_layer(entry: dict[str, Any]) -> bool:
    module = entry.get("module")  # absent before Keras 3
    return not entry.get("registered_name") and (
        module is None or str(module).split(".")[:2] == ["keras", "layers"]
    )


def _unknown(kind: str, name: str) -> PeewitError:
    if kind == "Lambda":
        return unsupported(f"its layer {name} is a Lambda, and no code from a model file is run")
    supported = ", ".join(READERS)
    return unsupported(f"its layer {name} is a {kind}; supported layers: {supported}")


def _input_shape(layers: list[dict[str, Any]]) -> Shape:
    config = layers[0]["config"]
    given = config.get("batch_input_shape") or config.get("batch_shape")
    if given is None:
        build = layers[0].get("build_config") or {}
        given = build.get("input_shape")
    if given is None:
        raise unsupported("its input size is not set: build the model, and save it again")
    shape = tuple(given[1:])
    if shape[:2] == (None, None):
        raise unsupported(
            f"its input is {list(shape)}, not height, width and channels of an image, as in "
            "peewit's own exports with the preprocessing inside: import the .h5 file that was "
            "exported with it, or export with --raw"
        )
    if len(shape) != 3 or not all(isinstance(size, int) and 1 <= size < 2**15 for size in shape):
        raise unsupported(f"its input is {list(shape)}, not height, width and channels of an image")
    if shape[2] not in (1, 3):
        raise unsupported(f"its input has {shape[2]} channels, neither 1 (grey) nor 3 (RGB)")
    return shape


@dataclass(frozen=True)
class LayerConfig:
    """A layer being parsed: its Keras class, all of its settings, and its input shape."""

    kind: str
    settings: dict[str, Any]
    shape: Shape

    @property
    def name(self) -> str:
        name = str(self.settings["name"])
        if len(name) > MAX_NAME:
            raise damaged(f"the name of a layer has {len(name):,} characters")
        return name

    def require(self, setting: str, *allowed: Any) -> None:
        """Raise unless the setting is missing or one of ``allowed``."""
        value = self.settings.get(setting, allowed[0])
        if value not in allowed:
            raise unsupported(
                f"its layer {self.name} ({self.kind}) has an unsupported value for "
                f"{setting}: {value}"
            )

    def image_shape(self) -> Shape:
        """Return the input shape (height, width, channels), or raise."""
        if len(self.shape) != 3:
            raise unsupported(f"its layer {self.name} ({self.kind}) needs an image as its input")
        self.require("data_format", "channels_last", None)
        return self.shape

    def integer(self, setting: str) -> int:
        """Return a setting that is an integer, at least 1."""
        value = self.settings[setting]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_VALUES:
            raise damaged(f"its layer {self.name} has an unsupported value for {setting}: {value}")
        return value

    def pair(self, setting: str) -> tuple[int, int]:
        """Return a setting that is a pair of integers, or one for both, at least 1."""
        value = self.settings[setting]
        pair = [value, value] if isinstance(value, int) else list(value)
        if len(pair) != 2 or not all(isinstance(part, int) and 1 <= part < 2**15 for part in pair):
            raise damaged(f"its layer {self.name} has an unsupported value for {setting}: {value}")
        return pair[0], pair[1]

    def number(self, setting: str, default: float) -> float:
        """Return a setting that is a finite number."""
        value = self.settings.get(setting, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise unsupported(
                f"its layer {self.name} ({self.kind}) has an unsupported value for "
                f"{setting}: {value}"
            )
        return float(value)

    def activation(self) -> str:
        """Return the name of the activation."""
        value = self.settings.get("activation") or "linear"
        if isinstance(value, dict):  # Keras 3 may store the function's class
            value = value.get("config", value.get("class_name"))
        if value not in ACTIVATIONS:
            raise unsupported(f"its layer {self.name} ({self.kind}) has the activation {value}")
        return str(value)

    def layer(self, weights: dict[str, Shape] | None = None, **settings: Any) -> Layer:
        """Return the parsed layer."""
        return Layer(self.kind, self.name, settings, weights or {})


def _conv(config: LayerConfig) -> tuple[Layer, Shape]:
    height, width, channels = config.image_shape()
    for setting in ("strides", "dilation_rate"):
        config.require(setting, [1, 1], 1)
    config.require("groups", 1)
    config.require("padding", "valid", "same")
    filters, kernel = config.integer("filters"), config.pair("kernel_size")
    same = config.settings.get("padding") == "same"
    if not same:
        height, width = height - kernel[0] + 1, width - kernel[1] + 1
    if min(height, width) < 1:
        raise damaged(f"its layer {config.name} has an input smaller than its kernel")
    weights: dict[str, Shape] = {"kernel": (*kernel, channels, filters)}
    if config.settings.get("use_bias", True):
        weights["bias"] = (filters,)
    layer = config.layer(
        weights, filters=filters, kernel=kernel, same=same, activation=config.activation()
    )
    return layer, (height, width, filters)


def _norm(config: LayerConfig) -> tuple[Layer, Shape]:
    last = len(config.shape)
    axis = config.settings.get("axis", -1)
    if (axis[0] if isinstance(axis, list) and len(axis) == 1 else axis) not in (-1, last):
        raise unsupported(f"its layer {config.name} normalises axis {axis}, not the channels")
    weights: dict[str, Shape] = {}
    channels = config.shape[-1:]
    if config.settings.get("scale", True):
        weights["gamma"] = channels
    if config.settings.get("center", True):
        weights["beta"] = channels
    weights |= {"moving_mean": channels, "moving_variance": channels}
    epsilon = config.number("epsilon", 1e-3)
    momentum = config.number("momentum", 0.99)
    return config.layer(weights, epsilon=epsilon, momentum=momentum), config.shape


def _pool(config: LayerConfig) -> tuple[Layer, Shape]:
    height, width, channels = config.image_shape()
    size = config.pair("pool_size")
    config.require("padding", "valid")
    strides = config.settings.get("strides")
    if strides is not None and config.pair("strides") != size:
        raise unsupported(f"its layer {config.name} pools {size} windows with strides {strides}")
    shape = (height // size[0], width // size[1], channels)
    if min(shape) < 1:
        raise damaged(f"its layer {config.name} has an input smaller than its pooling window")
    return config.layer(size=size), shape


def _flatten(config: LayerConfig) -> tuple[Layer, Shape]:
    config.require("data_format", "channels_last", None)
    return config.layer(), (math.prod(config.shape),)


def _dropout(config: LayerConfig) -> tuple[Layer, Shape]:
    return config.layer(rate=config.number("rate", 0.5)), config.shape


def _dense(config: LayerConfig) -> tuple[Layer, Shape]:
    if len(config.shape) != 1:
        raise unsupported(f"its layer {config.name} (Dense) has no Flatten before it")
    units = config.integer("units")
    weights: dict[str, Shape] = {"kernel": (config.shape[0], units)}
    if config.settings.get("use_bias", True):
        weights["bias"] = (units,)
    return config.layer(weights, units=units, activation=config.activation()), (units,)


def _activation(config: LayerConfig) -> tuple[Layer, Shape]:
    return config.layer(activation=config.activation()), config.shape


def _relu(config: LayerConfig) -> tuple[Layer, Shape]:
    config.require("max_value", None)
    for setting in ("negative_slope", "threshold"):
        config.require(setting, 0)
    return config.layer(activation="relu"), config.shape


def _softmax(config: LayerConfig) -> tuple[Layer, Shape]:
    config.require("axis", -1, len(config.shape))
    return config.layer(activation="softmax"), config.shape


READERS: dict[str, Callable[[LayerConfig], tuple[Layer, Shape]]] = {
    "Conv2D": _conv,
    "BatchNormalization": _norm,
    "MaxPooling2D": _pool,
    "Flatten": _flatten,
    "Dropout": _dropout,
    "Dense": _dense,
    "Activation": _activation,
    "ReLU": _relu,
    "Softmax": _softmax,
}
