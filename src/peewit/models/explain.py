"""Explain how a layer's numbers are derived, in sentences with the numbers of this layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from peewit.models.fast import WhiteningConv
from peewit.models.layers import GlobalMaxPool

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Explanation:
    """The cost of a layer and how its numbers are derived.

    Parameters
    ----------
    multiply_adds : int
        Multiply-adds to predict one image.
    sentences : tuple of str
        How parameters, output shape and multiply-adds are derived.
    """

    multiply_adds: int
    sentences: tuple[str, ...]


def explain_layer(module: nn.Module, inputs: Shape, outputs: Shape) -> Explanation:
    """Explain one layer.

    Parameters
    ----------
    module : nn.Module
        A module without children.
    inputs, outputs : tuple of int
        Shapes for one image in Keras's order: (height, width, channels), or (features,).

    Examples
    --------
    >>> result = explain_layer(nn.Linear(256, 32), (256,), (32,))
    >>> result.multiply_adds
    8192
    >>> print(result.sentences[0])
    Parameters: 256 x 32 + 32 = 8,224: inputs x outputs + one bias per output.
    """
    if isinstance(module, nn.Conv2d):
        return _convolution(module, inputs, outputs)
    if isinstance(module, nn.BatchNorm2d):
        return _normalisation(module, outputs)
    if isinstance(module, nn.Linear):
        return _dense(module, inputs)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return _pooling(module, inputs, outputs)
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    if own:
        kind = type(module).__name__
        return Explanation(0, (f"Parameters: {own:,}. Layers of type {kind} are not explained.",))
    return Explanation(0, (f"No parameters: {_without_parameters(module, inputs, outputs)}",))


def times(values: Shape) -> str:
    """Return "30 x 30 x 64" for (30, 30, 64)."""
    return " x ".join(f"{value:,}" for value in values)


def _convolution(conv: nn.Conv2d, inputs: Shape, outputs: Shape) -> Explanation:
    kernel = (*conv.kernel_size, conv.in_channels // conv.groups, conv.out_channels)
    weights, has_bias = math.prod(kernel), conv.bias is not None
    total = weights + (conv.out_channels if has_bias else 0)
    sum_ = f"{times(kernel)}{f' + {conv.out_channels:,}' if has_bias else ''} = {total:,}"
    parameters = (
        f"Parameters: {sum_}: kernel height x kernel width x input channels"
        f"{f' of each of the {conv.groups:,} groups' if conv.groups > 1 else ''} x output channels"
        f"{' + one bias per output channel' if has_bias else ''}."
    )
    if isinstance(conv.padding, str):
        shape = f'Output shape: {times(outputs)}: padding is "{conv.padding}".'
    else:
        after = conv.padding_after if isinstance(conv, WhiteningConv) else 0
        reach = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        sides = [
            _positions(size, k, p, s, out, after=after)
            for size, k, p, s, out in zip(
                inputs, reach, conv.padding, conv.stride, outputs, strict=False
            )
        ]
        shape = (
            f"Output shape: {times(outputs)}: the number of kernel positions, {_both(sides)}; "
            f"one channel for each of the {conv.out_channels:,} kernels."
        )
        if after:
            shape += f" The image is padded by {after} pixel at the right and at the bottom."
    positions = math.prod(outputs[:2])
    work = (
        f"Multiply-adds: {times(kernel)} = {weights:,} at each of {times(outputs[:2])} positions "
        f"= {weights * positions:,}."
    )
    frozen = () if conv.weight.requires_grad else (_frozen(conv, weights),)
    return Explanation(weights * positions, (parameters, *frozen, shape, work))


def _frozen(conv: nn.Conv2d, weights: int) -> str:
    why = (
        "they are computed once from the training images, to make the responses to small patches "
        "uncorrelated with equal variance (whitening)"
        if isinstance(conv, WhiteningConv)
        else "they are frozen"
    )
    return f"Non-trainable: the kernels, {weights:,}: {why}."


def _normalisation(norm: nn.BatchNorm2d, outputs: Shape) -> Explanation:
    channels = norm.num_features
    sentences = []
    trained = ["scale (gamma)", "shift (beta)"] if norm.affine else []
    statistics = ["moving mean", "moving variance"] if norm.track_running_stats else []
    kinds = trained + statistics
    if kinds:
        total = f"{len(kinds)} x {channels:,} = {len(kinds) * channels:,}"
        names = f"{', '.join(kinds[:-1])} and {kinds[-1]}"
        sentences.append(f"Parameters: {total}: each channel has {names}.")
    frozen = norm.affine and not norm.weight.requires_grad
    if frozen:
        sentences.append(
            f"Trainable: the shift, {channels:,}. The scale is fixed at 1, because the weights of "
            "the next layer can absorb any scale."
        )
    elif trained:
        sentences.append(
            f"Trainable: scale and shift, 2 x {channels:,} = {2 * channels:,}: updated by their "
            "gradients, like any weight."
        )
    if statistics:
        rate = norm.momentum
        rule = (
            "the mean over all batches"
            if rate is None
            else f"moving = {1 - rate:g} x moving + {rate:g} x batch"
        )
        sentences.append(
            f"Non-trainable: moving mean and moving variance, 2 x {channels:,} = {2 * channels:,}: "
            "they are estimated, not learned. In training, each batch is normalised by its own "
            f"mean and variance, and the moving statistics follow them ({rule}); no gradient "
            "changes them. In prediction, they replace the batch statistics, so that the result "
            "for an image does not depend on the other images in the batch."
        )
    work = math.prod(outputs)
    sentences.append(
        f"Output shape: {times(outputs)}, the shape of the input: each value is normalised "
        "separately."
    )
    sentences.append(
        f"Multiply-adds: {times(outputs)} = {work:,}: in prediction, each value is multiplied by "
        "one constant of its channel, and another is added."
    )
    return Explanation(work, tuple(sentences))


def _dense(dense: nn.Linear, inputs: Shape) -> Explanation:
    has_bias = dense.bias is not None
    weights = dense.in_features * dense.out_features
    total = weights + (dense.out_features if has_bias else 0)
    pair = times((dense.in_features, dense.out_features))
    rows = math.prod(inputs[:-1])  # 1, unless the layer is applied at each position
    outputs = (*inputs[:-1], dense.out_features)
    return Explanation(
        weights * rows,
        (
            f"Parameters: {pair}{f' + {dense.out_features:,}' if has_bias else ''} = {total:,}: "
            f"inputs x outputs{' + one bias per output' if has_bias else ''}.",
            f"Output shape: {times(outputs)}: one value per output.",
            f"Multiply-adds: {pair}{f' x {rows:,}' if rows > 1 else ''} = {weights * rows:,}: each "
            "output is connected to every input.",
        ),
    )


def _pooling(pool: nn.MaxPool2d | nn.AvgPool2d, inputs: Shape, outputs: Shape) -> Explanation:
    kernel, stride, padding = (_pair(v) for v in (pool.kernel_size, pool.stride, pool.padding))
    sides = [
        _positions(size, k, p, s, out, up=pool.ceil_mode)
        for size, k, p, s, out in zip(inputs, kernel, padding, stride, outputs, strict=False)
    ]
    rule = "maximum" if isinstance(pool, nn.MaxPool2d) else "mean"
    # the additions of the mean are not counted: there are no multiplications
    return Explanation(
        0,
        (
            f"No parameters: the output is the {rule} of each {times(kernel)} window.",
            f"Output shape: {times(outputs)}: {_both(sides)}; the number of channels is unchanged.",
            "Multiply-adds: none.",
        ),
    )


def _without_parameters(module: nn.Module, inputs: Shape, outputs: Shape) -> str:
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return (
            f"in training, a random {module.p:.0%} of the values are set to 0 and the others are "
            f"multiplied by {1 / (1 - module.p) if module.p < 1 else 0:g}; in prediction, nothing "
            "is changed."
        )
    if isinstance(module, nn.Flatten):
        return f"the values are arranged in one row, {times(inputs)} = {times(outputs)}."
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return f"a fixed function that averages {times(inputs)} to {times(outputs)}."
    if isinstance(module, GlobalMaxPool):
        return "the output is the maximum of each channel over all positions."
    return f"a fixed function from {times(inputs)} to {times(outputs)}."


def _positions(
    size: int, kernel: int, padding: int, stride: int, out: int, *, up: bool = False, after: int = 0
) -> str:
    """Return the arithmetic from the input ``size`` to the output size ``out`` along one side.

    ``padding`` is added at both ends, ``after`` only at the far end.
    """
    padded = f"{size}{f' + 2 x {padding}' if padding else ''}{f' + {after}' if after else ''}"
    rounded = f", rounded {'up' if up else 'down'},"
    if kernel == stride > 1 and not padding and not after:
        return f"{size} / {kernel}{rounded if size % kernel else ''} = {out}"
    if stride == 1:
        return f"({padded} - {kernel}) + 1 = {out}"
    exact = (size + 2 * padding + after - kernel) % stride == 0
    return f"({padded} - {kernel}) / {stride}{'' if exact else rounded} + 1 = {out}"


def _both(sides: list[str]) -> str:
    height, width = sides
    if height == width:
        return f"{height} in height and width"
    return f"{height} in height and {width} in width"


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value
