"""Which of Peewit's networks a Keras model is: two chains of operations, compared link by link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from peewit.errors import UsageError
from peewit.export.chain import (
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Norm,
    Operation,
    Relu,
    chain,
)
from peewit.importing.keras_config import Architecture, Layer, unsupported
from peewit.importing.keras_h5 import Array
from peewit.models.keras_weights import load_keras_weights
from peewit.models.registry import build

NETWORK = "tutorial"


def matching_network(architecture: Architecture, arrays: Sequence[Array]) -> tuple[str, nn.Module]:
    """Return the name of the network that the model is, and that network with its weights.

    Raises
    ------
    PeewitError
        It is none of them; the first difference is named.
    """
    try:
        model = build(NETWORK, architecture.input_shape, architecture.outputs, seed=0)
    except UsageError as error:
        raise unsupported(str(error)) from error
    found = list(_operations(architecture.layers, arrays))
    ours = [describe(operation) for operation in chain(model)]
    theirs = [(layer, describe(operation)) for layer, operation in found]
    for index, wanted in enumerate(ours):
        if index == len(theirs):
            raise unsupported(f"it ends where the network of the tutorial has {wanted}")
        layer, given = theirs[index]
        if given != wanted:
            raise unsupported(
                f"its layer {layer.name} is {given}, where the network of the tutorial, the only "
                f"one that can be imported, has {wanted}"
            )
    if len(theirs) > len(ours):
        layer, given = theirs[len(ours)]
        raise unsupported(
            f"its layer {layer.name} is {given}, after the end of the network of the tutorial"
        )
    # not simply the file's arrays: a normalisation without scale has none, and here it has ones
    load_keras_weights(model, [array for _, part in found for array in _keras_arrays(part)])
    return NETWORK, model


def describe(operation: Operation) -> str:
    """Say what an operation is, with all that decides what it computes except the weights.

    >>> describe(MaxPool(2))
    'pooling over 2 x 2'
    """
    match operation:
        case Conv(weight=weight, bias=bias, padding=padding):
            out, inputs, height, width = weight.shape
            edges = f"padded by {padding}" if padding else "without padding"
            return (
                f"a {height} x {width} convolution from {inputs} to {out} channels, {edges}"
                f"{'' if bias is not None else ' or bias'}"
            )
        case Norm(epsilon=epsilon):
            return f"batch normalisation with epsilon {epsilon:g}"
        case Dense(weight=weight, bias=bias):
            return (
                f"a dense layer from {weight.shape[1]} to {weight.shape[0]}"
                f"{'' if bias is not None else ' without bias'}"
            )
        case MaxPool(size=size):
            return f"pooling over {size} x {size}"
        case Relu():
            return "relu"
        case Flatten():
            return "flattening"
        case Dropout(rate=rate):
            return f"dropout of {rate:g}"
        case _:
            return type(operation).__name__


def _keras_arrays(operation: Operation) -> list[Array]:
    match operation:
        case Conv(weight=weight, bias=bias):
            kernel = weight.transpose(2, 3, 1, 0)  # OIHW -> HWIO
        case Dense(weight=weight, bias=bias):
            kernel = weight.T
        case Norm():
            return [operation.gamma, operation.beta, operation.mean, operation.variance]
        case _:
            return []
    return [kernel] if bias is None else [kernel, bias]


def _operations(
    layers: Sequence[Layer], arrays: Sequence[Array]
) -> Iterator[tuple[Layer, Operation]]:
    rest = iter(arrays)
    last = layers[-1]
    for layer in layers:
        settings = layer.settings
        weights = {name: next(rest) for name in layer.weights}
        if layer.kind == "Conv2D":
            height, width = settings["kernel"]
            if settings["same"] and (height != width or height % 2 == 0):
                raise unsupported(f"its layer {layer.name} pads its sides differently")
            kernel = np.ascontiguousarray(weights["kernel"].transpose(3, 2, 0, 1))  # HWIO -> OIHW
            padding = height // 2 if settings["same"] else 0
            yield layer, Conv(kernel, weights.get("bias"), padding)
        elif layer.kind == "BatchNormalization":
            mean, variance = weights["moving_mean"], weights["moving_variance"]
            gamma = weights.get("gamma", np.ones_like(mean))
            beta = weights.get("beta", np.zeros_like(mean))
            yield layer, Norm(gamma, beta, mean, variance, settings["epsilon"])
        elif layer.kind == "MaxPooling2D":
            height, width = settings["size"]
            if height != width:
                raise unsupported(f"its layer {layer.name} pools over {height} x {width}")
            yield layer, MaxPool(height)
        elif layer.kind == "Flatten":
            yield layer, Flatten()
        elif layer.kind == "Dropout":
            yield layer, Dropout(settings["rate"])
        elif layer.kind == "Dense":
            yield layer, Dense(np.ascontiguousarray(weights["kernel"].T), weights.get("bias"))
        activation = settings.get("activation", "linear")
        if activation == "relu":
            yield layer, Relu()
        elif activation == "softmax" and layer is not last:
            raise unsupported(f"its layer {layer.name} has softmax before the end")
        # softmax at the end turns logits into probabilities: the network is what gives the logits
