"""Export weights to and import weights from Keras: names, order and memory layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.errors import PeewitError

Array = npt.NDArray[np.float32]


def keras_weights(model: nn.Module) -> list[tuple[str, Array]]:
    """Return the weights as Keras's ``model.get_weights()`` does, each with its Keras name.

    Parameters
    ----------
    model : nn.Module
        Its layers with weights are Conv2d, BatchNorm2d and Linear, registered in execution order.

    Returns
    -------
    list of (str, float32 array)
        Copies. Convolution kernels are (height, width, in, out), dense kernels (in, out).

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
        for name, tensor in _named_weights(model)
    ]


@torch.no_grad()
def load_keras_weights(model: nn.Module, arrays: Sequence[npt.ArrayLike]) -> None:
    """Load the result of Keras's ``get_weights()`` for the same network into ``model``.

    Parameters
    ----------
    model : nn.Module
        As in ``keras_weights``; changed in place. If anything does not fit, nothing is changed.
    arrays : sequence of array
        In the order and the layout of ``keras_weights``.

    Raises
    ------
    PeewitError
        The number of arrays or a shape does not match the network.
    """
    targets = list(_named_weights(model))
    if len(arrays) != len(targets):
        raise PeewitError(
            "these Keras weights do not fit this network",
            f"there are {len(arrays)} arrays, the network has {len(targets)}",
        )
    values = [torch.tensor(np.asarray(array), dtype=torch.float32) for array in arrays]
    for (name, tensor), value in zip(targets, values, strict=True):
        expected = tuple(_to_keras(tensor).shape)
        if tuple(value.shape) != expected:
            raise PeewitError(
                "these Keras weights do not fit this network",
                f"{name} has shape {tuple(value.shape)}, not {expected}",
            )
    for (_, tensor), value in zip(targets, values, strict=True):
        _to_keras(tensor).copy_(value)  # the transposed view writes through to the tensor


def _named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the Keras name and the tensor of each weight, in Keras's order."""
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
    """Return a view of ``tensor`` with the axes in Keras's order."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)  # (out, in, H, W) -> (H, W, in, out)
    return tensor.T if tensor.ndim == 2 else tensor  # (out, in) -> (in, out)
