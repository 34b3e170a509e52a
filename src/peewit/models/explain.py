"""Where a layer's numbers come from, in sentences with its own numbers in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from peewit.models.fast import WhiteningConv
from peewit.models.layers import GlobalMaxPool

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Account:
    """What one layer costs, and the reasons.

    Parameters
    ----------
    multiply_adds : int
        Multiplications, each with its addition, to take one image through when predicting.
    sentences : tuple of str
        Where the parameters, the output shape and the multiply-adds come from.
    """

    multiply_adds: int
    sentences: tuple[str, ...]


def account(module: nn.Module, inputs: Shape, outputs: Shape) -> Account:
    """Return the account of one layer.

    Parameters
    ----------
    module : nn.Module
        A layer without layers inside.
    inputs, outputs : tuple of int
        Shapes for one image in Keras's order: (height, width, channels), or (features,).

    Examples
    --------
    >>> result = account(nn.Linear(256, 32), (256,), (32,))
    >>> result.multiply_adds
    8192
    >>> print(result.sentences[0])
    Parameters: 256 x 32 + 32 = 8,224: inputs x outputs + a bias for each output.
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
        return Account(0, (f"Parameters: {own:,}, of a kind that is not explained here.",))
    return Account(0, (f"No parameters: {_without_parameters(module, inputs, outputs)}",))


def times(values: Shape) -> str:
    """Return "30 x 30 x 64" for (30, 30, 64)."""
    return " x ".join(f"{value:,}" for value in values)


def _convolution(conv: nn.Conv2d, inputs: Shape, outputs: Shape) -> Account:
    kernel = (*conv.kernel_size, conv.in_channels // conv.groups, conv.out_channels)
    weights, has_bias = math.prod(kernel), conv.bias is not None
    total = weights + (conv.out_channels if has_bias else 0)
    sum_ = f"{times(kernel)}{f' + {conv.out_channels:,}' if has_bias else ''} = {total:,}"
    parameters = (
        f"Parameters: {sum_}: kernel height x kernel width x input channels"
        f"{f' of one of the {conv.groups:,} groups' if conv.groups > 1 else ''} x output channels"
        f"{' + a bias for each output channel' if has_bias else ''}."
    )
    if isinstance(conv.padding, str):
        shape = f'Output shape: {times(outputs)}: padding is "{conv.padding}".'
    else:
        more = conv.continued if isinstance(conv, WhiteningConv) else 0
        reach = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        sides = [
            _places(size, k, p, s, out, more=more)
            for size, k, p, s, out in zip(
                inputs, reach, conv.padding, conv.stride, outputs, strict=False
            )
        ]
        shape = (
            f"Output shape: {times(outputs)}: the places where the kernel fits, {_both(sides)}, "
            f"and one channel for each of the {conv.out_channels:,} kernels."
        )
        if more:
            shape += f" The image is continued by {more} pixel at the right and at the bottom."
    places = math.prod(outputs[:2])
    work = (
        f"Multiply-adds: {times(kernel)} = {weights:,} at each of {times(outputs[:2])} places "
        f"= {weights * places:,}."
    )
    frozen = () if conv.weight.requires_grad else (_frozen(conv, weights),)
    return Account(weights * places, (parameters, *frozen, shape, work))


def _frozen(conv: nn.Conv2d, weights: int) -> str:
    why = (
        "they are set once, so that the small patches of the training images come out uncorrelated "
        "and of equal size"
        if isinstance(conv, WhiteningConv)
        else "they were frozen"
    )
    return f"Not trained: the kernels, {weights:,}: {why}."


def _normalisation(norm: nn.BatchNorm2d, outputs: Shape) -> Account:
    channels = norm.num_features
    sentences = []
    trained = ["scale (gamma)", "shift (beta)"] if norm.affine else []
    measured = ["moving mean", "moving variance"] if norm.track_running_stats else []
    kinds = len(trained) + len(measured)
    if kinds:
        sentences.append(
            f"Parameters: {kinds} x {channels:,} = {kinds * channels:,}: each channel has "
            f"{', '.join(trained + measured)}."
        )
    frozen = norm.affine and not norm.weight.requires_grad
    if frozen:
        sentences.append(
            f"Trained: the shift, {channels:,}. The scale stays 1: the next layer's weights could "
            "take on any scale, so there is nothing to learn from it."
        )
    elif trained:
        sentences.append(
            f"Trained: scale and shift, 2 x {channels:,} = {2 * channels:,}: the gradient of the "
            "loss says how to change them, as it does for any weight."
        )
    if measured:
        rate = norm.momentum
        rule = (
            "the mean over all batches"
            if rate is None
            else f"moving = {1 - rate:g} x moving + {rate:g} x batch"
        )
        sentences.append(
            f"Not trained: moving mean and moving variance, 2 x {channels:,} = {2 * channels:,}: "
            "they are measured, not learned. In training each batch is normalised by its own mean "
            f"and variance, and the moving ones follow them ({rule}); no gradient reaches them. In "
            "prediction they stand in for the batch's, so that one image's answer does not "
            "depend on its neighbours."
        )
    work = math.prod(outputs)
    sentences.append(
        f"Output shape: {times(outputs)}, as the input's: each value is normalised alone."
    )
    sentences.append(
        f"Multiply-adds: {times(outputs)} = {work:,}: in prediction one for each value, times a "
        "number of its channel plus another."
    )
    return Account(work, tuple(sentences))


def _dense(dense: nn.Linear, inputs: Shape) -> Account:
    has_bias = dense.bias is not None
    weights = dense.in_features * dense.out_features
    total = weights + (dense.out_features if has_bias else 0)
    pair = times((dense.in_features, dense.out_features))
    rows = math.prod(inputs[:-1])  # 1, but for layers that look at each place by itself
    outputs = (*inputs[:-1], dense.out_features)
    return Account(
        weights * rows,
        (
            f"Parameters: {pair}{f' + {dense.out_features:,}' if has_bias else ''} = {total:,}: "
            f"inputs x outputs{' + a bias for each output' if has_bias else ''}.",
            f"Output shape: {times(outputs)}: one value for each output.",
            f"Multiply-adds: {pair}{f' x {rows:,}' if rows > 1 else ''} = {weights * rows:,}: each "
            "output looks at every input.",
        ),
    )


def _pooling(pool: nn.MaxPool2d | nn.AvgPool2d, inputs: Shape, outputs: Shape) -> Account:
    kernel, stride, padding = (_pair(v) for v in (pool.kernel_size, pool.stride, pool.padding))
    sides = [
        _places(size, k, p, s, out, up=pool.ceil_mode)
        for size, k, p, s, out in zip(inputs, kernel, padding, stride, outputs, strict=False)
    ]
    kept = "largest value" if isinstance(pool, nn.MaxPool2d) else "mean"
    # the mean's few additions are counted as nothing: there is no multiplication
    return Account(
        0,
        (
            f"No parameters: it keeps the {kept} of each {times(kernel)} window: a fixed rule.",
            f"Output shape: {times(outputs)}: {_both(sides)}; the channels stay.",
            "Multiply-adds: none.",
        ),
    )


def _without_parameters(module: nn.Module, inputs: Shape, outputs: Shape) -> str:
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return (
            f"in training it sets a random {module.p:.0%} of the values to 0 and multiplies the "
            f"others by {1 / (1 - module.p) if module.p < 1 else 0:g}; in prediction it does "
            "nothing."
        )
    if isinstance(module, nn.Flatten):
        return f"it lays {times(inputs)} values in a row: {times(inputs)} = {times(outputs)}."
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return f"it averages {times(inputs)} down to {times(outputs)}, which is a fixed rule."
    if isinstance(module, GlobalMaxPool):
        return "it keeps the largest value of each channel, wherever it is: a fixed rule."
    return f"it makes {times(outputs)} of {times(inputs)} by a fixed rule."


def _places(
    size: int, kernel: int, padding: int, stride: int, out: int, *, up: bool = False, more: int = 0
) -> str:
    """Return the arithmetic that leads from ``size`` to ``out`` along one side.

    ``padding`` is at both ends, ``more`` at the far one only.
    """
    padded = f"{size}{f' + 2 x {padding}' if padding else ''}{f' + {more}' if more else ''}"
    rounded = f", rounded {'up' if up else 'down'},"
    if kernel == stride > 1 and not padding and not more:
        return f"{size} / {kernel}{rounded if size % kernel else ''} = {out}"
    if stride == 1:
        return f"({padded} - {kernel}) + 1 = {out}"
    exact = (size + 2 * padding + more - kernel) % stride == 0
    return f"({padded} - {kernel}) / {stride}{'' if exact else rounded} + 1 = {out}"


def _both(sides: list[str]) -> str:
    high, wide = sides
    return f"{high} each way" if high == wide else f"{high} down and {wide} across"


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value
