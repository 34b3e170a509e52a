"""Weights to and from Keras: its names, its order, its memory layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.errors import PeewitError

Array = npt.NDArray[np.float32]


def keras_weights(model: nn.Module) -> list[tuple[str, Array]]:
    """Return the weights as ``model.get_weights()`` would in Keras, each with Keras's name.

    Parameters
    ----------
    model : nn.Module
        Its layers with weights are of the kinds Conv2d, BatchNorm2d and Linear, registered in the
        order in which they work.

    Returns
    -------
    list of (str, float32 array)
        Copies. Convolution kernels are (height, width, in, out), those of dense layers (in, out).

    Examples
    --------
    >>> from peewit.models.registry import build
    >>> for name, array in keras_weights(build("tutorial", (32, 32, 3), 10, seed=0))[:3]:
    ...     print(name, array.shape)
    conv2d/kernel:0 (3, 3, 3, 64)
    conv2d/bias:0 (64,)
    batch_normalization/gamma:0 (64,)
    """
    return [
        (name, np.array(_to_keras(tensor).detach().numpy(), np.float32, order="C"))
        for name, tensor in _named(model)
    ]


@torch.no_grad()
def load_keras_weights(model: nn.Module, arrays: Sequence[npt.ArrayLike]) -> None:
    """Set the weights of ``model`` to what ``get_weights()`` of the same network in Keras gave.

    Parameters
    ----------
    model : nn.Module
        As in ``keras_weights``; changed in place, all of it or nothing.
    arrays : sequence of array
        In the order and the layout of ``keras_weights``.

    Raises
    ------
    PeewitError
        The number of arrays or a shape is not that of the network.
    """
    places = list(_named(model))
    if len(arrays) != len(places):
        raise PeewitError(
            "these Keras weights are not this network's",
            f"there are {len(arrays)} arrays and it has {len(places)}",
        )
    values = [torch.tensor(np.asarray(array), dtype=torch.float32) for array in arrays]
    for (name, tensor), value in zip(places, values, strict=True):
        wanted = tuple(_to_keras(tensor).shape)
        if tuple(value.shape) != wanted:
            raise PeewitError(
                "these Keras weights are not this network's",
                f"{name} has the shape {tuple(value.shape)}, not {wanted}",
            )
    for (_, tensor), value in zip(places, values, strict=True):
        _to_keras(tensor).copy_(value)  # the transposed view writes through to the tensor


def _named(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield Keras's name and the tensor itself for each weight, in Keras's order."""
    counts: dict[str, int] = {}
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            base, tensors = "conv2d", {"kernel": module.weight, "bias": module.bias}
        elif isinstance(module, nn.Linear):
            base, tensors = "dense", {"kernel": module.weight, "bias": module.bias}
        elif isinstance(module, nn.BatchNorm2d):
            base = "batch_normalization"
            tensors = {
                "gamma": module.weight,
                "beta": module.bias,
                "moving_mean": module.running_mean,
                "moving_variance": module.running_var,
            }
        else:
            continue
        count = counts[base] = counts.get(base, -1) + 1
        for kind, tensor in tensors.items():
            if tensor is not None:
                yield f"{base}{f'_{count}' if count else ''}/{kind}:0", tensor


def _to_keras(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of ``tensor`` in Keras's order of axes."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)  # (out, in, H, W) -> (H, W, in, out)
    return tensor.T if tensor.ndim == 2 else tensor  # (out, in) -> (in, out)
