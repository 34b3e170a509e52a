"""Match a Keras model with Peewit's networks by comparing their operations one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from peewit.errors import UsageError
from peewit.export.operations import (
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Norm,
    Operation,
    Relu,
    operations_of,
)
from peewit.importing.architecture import Architecture, Array, Layer, unsupported
from peewit.models.keras_weights import load_keras_weights
from peewit.models.registry import build

NETWORK = "tutorial"


def matching_network(architecture: Architecture, arrays: Sequence[Array]) -> tuple[str, nn.Module]:
    """Return the name of the network that the model matches, and the network with its weights.

    Raises
    ------
    PeewitError
        The model matches none of them; the message names the first difference.
    """
    try:
        model = build(NETWORK, architecture.input_shape, architecture.outputs, seed=0)
    except UsageError as error:
        raise unsupported(str(error)) from error
    found = list(_operations(architecture.layers, arrays))
    ours = [describe(operation) for operation in operations_of(model)]
    theirs = [(layer, describe(operation)) for layer, operation in found]
    for index, expected in enumerate(ours):
        if index == len(theirs):
            raise unsupported(f"it ends where the tutorial's network has {expected}")
        layer, actual = theirs[index]
        if actual != expected:
            raise unsupported(
                f"its layer {layer.name} is {actual}, but the tutorial's network, the only one "
                f"that can be imported, has {expected} there"
            )
    if len(theirs) > len(ours):
        layer, actual = theirs[len(ours)]
        raise unsupported(
            f"its layer {layer.name} is {actual}, after the end of the tutorial's network"
        )
    # not `arrays` as they are: a normalisation without scale has no gamma, where this one has ones
    load_keras_weights(model, [array for _, step in found for array in _keras_arrays(step)])
    return NETWORK, model


def describe(operation: Operation) -> str:
    """Describe an operation by everything that determines its result except the weights.

    >>> describe(MaxPool(2))
    'max pooling over 2 x 2'
    """
    match operation:
        case Conv(weight=weight, bias=bias, padding=padding):
            out, inputs, height, width = weight.shape
            edges = f"padding {padding}" if padding else "no padding"
            return (
                f"a {height} x {width} convolution from {inputs} to {out} channels with {edges}"
                f"{'' if bias is not None else ' and no bias'}"
            )
        case Norm(epsilon=epsilon):
            return f"batch normalisation with epsilon {epsilon:g}"
        case Dense(weight=weight, bias=bias):
            return (
                f"a dense layer from {weight.shape[1]} to {weight.shape[0]}"
                f"{'' if bias is not None else ' without bias'}"
            )
        case MaxPool(size=size):
            return f"max pooling over {size} x {size}"
        case Relu():
            return "relu"
        case Flatten():
            return "flattening"
        case Dropout(rate=rate):
            return f"dropout with rate {rate:g}"
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
    remaining = iter(arrays)
    last = layers[-1]
    for layer in layers:
        settings = layer.settings
        weights = {name: next(remaining) for name in layer.weights}
        if layer.kind == "Conv2D":
            height, width = settings["kernel"]
            if settings["same"] and (height != width or height % 2 == 0):
                raise unsupported(f"its layer {layer.name} has unequal padding")
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
            raise unsupported(f"its layer {layer.name} applies softmax before the end")
        # a final softmax is dropped: Peewit's networks end with the logits
