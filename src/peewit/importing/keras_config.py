"""What a Keras model says of itself: its JSON configuration -> layers, known and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peewit.errors import PeewitError

Shape = tuple[int, ...]
# 256 million values are 1 GB: far more than any network that a CPU is asked to run
LARGEST = 2**28
# what is said where the name of the file is not known
THIS_MODEL = "cannot import this model"
ACTIVATIONS = ("linear", "relu", "softmax")


@dataclass(frozen=True)
class Layer:
    """One layer of a Sequential model.

    Parameters
    ----------
    kind : str
        Keras's class: Conv2D, Dense ...
    name : str
        What the model calls it.
    settings : dict
        Those of its settings that matter here, checked.
    weights : dict of str to tuple of int
        Its weights in Keras's order: name, and the shape that they must have.
    """

    kind: str
    name: str
    settings: dict[str, Any]
    weights: dict[str, Shape]


@dataclass(frozen=True)
class Architecture:
    """A Sequential model: input (height, width, channels), layers, number of outputs."""

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    outputs: int


def read_architecture(text: str | bytes) -> Architecture:
    """Read the JSON that Keras 2 or 3 keeps of a Sequential model.

    Raises
    ------
    PeewitError
        It is not whole, not Sequential, or has a layer or a setting that Peewit does not know.
        Layers that would run code of the file's own (Lambda, custom classes) are among those.
    """
    try:
        model = json.loads(text, object_hook=_plain)
        kind, config = model["class_name"], model["config"]
        if kind != "Sequential":
            raise unsupported(f"it is a {kind} model, and only Sequential models are read")
        # Keras before 2.2.3 had the list itself
        layers = config["layers"] if isinstance(config, dict) else config
        return _architecture(layers)
    except (ValueError, RecursionError) as error:
        raise broken("its configuration is not whole JSON") from error
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise broken("its configuration is not Keras's") from error


def unsupported(why: str) -> PeewitError:
    """Return the sentence for a sound model that Peewit cannot take."""
    return PeewitError(THIS_MODEL, why)


def broken(why: str) -> PeewitError:
    """Return the sentence for a file that no Keras wrote, or not wholly."""
    return PeewitError(THIS_MODEL, why, "save it again with model.save")


def _plain(value: dict[str, Any]) -> Any:
    """Undo how SavedModels spell a tuple; as in all other files, it becomes a list."""
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
        if kind not in READERS or not _is_kerass_own(entry):
            raise _unknown(kind, str(settings.get("name", kind)))
        layer, shape = READERS[kind](Reading(kind, settings, shape))
        for name, wanted in layer.weights.items():
            total += math.prod(wanted)
            if total > LARGEST:
                raise unsupported(
                    f"its layer {layer.name} has a {name} of {wanted}, and that makes more than "
                    f"{LARGEST:,} values in all"
                )
        if math.prod(shape) > LARGEST:
            raise unsupported(f"its layer {layer.name} makes {shape} values of each image")
        found.append(layer)
    if len(shape) != 1:
        raise unsupported(f"it ends in {shape} values an image, not in one a class")
    return Architecture((first[0], first[1], first[2]), tuple(found), shape[0])


def _is_kerass_own(entry: dict[str, Any]) -> bool:
    module = entry.get("module")  # not there before Keras 3
    return not entry.get("registered_name") and (
        module is None or str(module).split(".")[:2] == ["keras", "layers"]
    )


def _unknown(kind: str, name: str) -> PeewitError:
    if kind == "Lambda":
        return unsupported(
            f"its layer {name} is a Lambda, which is code, and no code of a model file is run"
        )
    known = ", ".join(READERS)
    return unsupported(f"its layer {name} is a {kind}; layers that are read: {known}")


def _input_shape(layers: list[dict[str, Any]]) -> Shape:
    config = layers[0]["config"]
    given = config.get("batch_input_shape") or config.get("batch_shape")
    if given is None:
        build = layers[0].get("build_config") or {}
        given = build.get("input_shape")
    if given is None:
        raise unsupported("it was never told the size of its input: build it, and save it again")
    shape = tuple(given[1:])
    if shape[:2] == (None, None):
        raise unsupported(
            f"its input is {list(shape)}, not height, width and channels of an image, as peewit "
            "export writes it with the preprocessing inside: import the .h5 beside it, or what "
            "--raw writes"
        )
    if len(shape) != 3 or not all(isinstance(size, int) and 1 <= size < 2**15 for size in shape):
        raise unsupported(f"its input is {list(shape)}, not height, width and channels of an image")
    if shape[2] not in (1, 3):
        raise unsupported(f"its input has {shape[2]} channels, neither 1 (grey) nor 3 (RGB)")
    return shape


@dataclass(frozen=True)
class Reading:
    """A layer that is being read: Keras's class, all its settings, the shape that it is given."""

    kind: str
    settings: dict[str, Any]
    shape: Shape

    @property
    def name(self) -> str:
        return str(self.settings["name"])

    def must(self, setting: str, *wanted: Any) -> None:
        """Refuse the layer unless the setting is missing or one of ``wanted``."""
        value = self.settings.get(setting, wanted[0])
        if value not in wanted:
            raise unsupported(f"its layer {self.name} ({self.kind}) has {setting} {value}")

    def image(self) -> Shape:
        """Return height, width, channels, or refuse."""
        if len(self.shape) != 3:
            raise unsupported(f"its layer {self.name} ({self.kind}) is not given an image")
        self.must("data_format", "channels_last", None)
        return self.shape

    def whole(self, setting: str) -> int:
        """Return a setting that is a whole number, at least 1."""
        value = self.settings[setting]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
            raise broken(f"its layer {self.name} has {setting} {value}")
        return value

    def pair(self, setting: str) -> tuple[int, int]:
        """Return a setting of two whole numbers, or of one for both, at least 1."""
        value = self.settings[setting]
        pair = [value, value] if isinstance(value, int) else list(value)
        if len(pair) != 2 or not all(isinstance(part, int) and 1 <= part < 2**15 for part in pair):
            raise broken(f"its layer {self.name} has {setting} {value}")
        return pair[0], pair[1]

    def number(self, setting: str, default: float) -> float:
        """Return a setting that is a finite number."""
        value = self.settings.get(setting, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise unsupported(f"its layer {self.name} ({self.kind}) has {setting} {value}")
        return float(value)

    def activation(self) -> str:
        """Return the name of the activation."""
        value = self.settings.get("activation") or "linear"
        if isinstance(value, dict):  # Keras 3 may write out the function's class
            value = value.get("config", value.get("class_name"))
        if value not in ACTIVATIONS:
            raise unsupported(f"its layer {self.name} ({self.kind}) has the activation {value}")
        return str(value)

    def layer(self, weights: dict[str, Shape] | None = None, **settings: Any) -> Layer:
        """Return the layer."""
        return Layer(self.kind, self.name, settings, weights or {})


def _conv(reading: Reading) -> tuple[Layer, Shape]:
    height, width, channels = reading.image()
    for setting in ("strides", "dilation_rate"):
        reading.must(setting, [1, 1], 1)
    reading.must("groups", 1)
    reading.must("padding", "valid", "same")
    filters, kernel = reading.whole("filters"), reading.pair("kernel_size")
    same = reading.settings.get("padding") == "same"
    if not same:
        height, width = height - kernel[0] + 1, width - kernel[1] + 1
    if min(height, width) < 1:
        raise broken(f"its layer {reading.name} is given less than its kernel covers")
    weights: dict[str, Shape] = {"kernel": (*kernel, channels, filters)}
    if reading.settings.get("use_bias", True):
        weights["bias"] = (filters,)
    layer = reading.layer(
        weights, filters=filters, kernel=kernel, same=same, activation=reading.activation()
    )
    return layer, (height, width, filters)


def _norm(reading: Reading) -> tuple[Layer, Shape]:
    last = len(reading.shape)
    axis = reading.settings.get("axis", -1)
    if (axis[0] if isinstance(axis, list) and len(axis) == 1 else axis) not in (-1, last):
        raise unsupported(f"its layer {reading.name} normalises axis {axis}, not the channels")
    weights: dict[str, Shape] = {}
    channels = reading.shape[-1:]
    if reading.settings.get("scale", True):
        weights["gamma"] = channels
    if reading.settings.get("center", True):
        weights["beta"] = channels
    weights |= {"moving_mean": channels, "moving_variance": channels}
    epsilon = reading.number("epsilon", 1e-3)
    momentum = reading.number("momentum", 0.99)
    return reading.layer(weights, epsilon=epsilon, momentum=momentum), reading.shape


def _pool(reading: Reading) -> tuple[Layer, Shape]:
    height, width, channels = reading.image()
    size = reading.pair("pool_size")
    reading.must("padding", "valid")
    strides = reading.settings.get("strides")
    if strides is not None and reading.pair("strides") != size:
        raise unsupported(f"its layer {reading.name} pools with strides {strides} over {size}")
    shape = (height // size[0], width // size[1], channels)
    if min(shape) < 1:
        raise broken(f"its layer {reading.name} is given less than it pools")
    return reading.layer(size=size), shape


def _flatten(reading: Reading) -> tuple[Layer, Shape]:
    reading.must("data_format", "channels_last", None)
    return reading.layer(), (math.prod(reading.shape),)


def _dropout(reading: Reading) -> tuple[Layer, Shape]:
    return reading.layer(rate=reading.number("rate", 0.5)), reading.shape


def _dense(reading: Reading) -> tuple[Layer, Shape]:
    if len(reading.shape) != 1:
        raise unsupported(f"its layer {reading.name} (Dense) is not given rows: Flatten is missing")
    units = reading.whole("units")
    weights: dict[str, Shape] = {"kernel": (reading.shape[0], units)}
    if reading.settings.get("use_bias", True):
        weights["bias"] = (units,)
    return reading.layer(weights, units=units, activation=reading.activation()), (units,)


def _activation(reading: Reading) -> tuple[Layer, Shape]:
    return reading.layer(activation=reading.activation()), reading.shape


def _relu(reading: Reading) -> tuple[Layer, Shape]:
    reading.must("max_value", None)
    for setting in ("negative_slope", "threshold"):
        reading.must(setting, 0)
    return reading.layer(activation="relu"), reading.shape


def _softmax(reading: Reading) -> tuple[Layer, Shape]:
    reading.must("axis", -1, len(reading.shape))
    return reading.layer(activation="softmax"), reading.shape


READERS: dict[str, Callable[[Reading], tuple[Layer, Shape]]] = {
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
