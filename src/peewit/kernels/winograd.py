"""3x3 convolution with a quarter of the multiplications (Winograd's minimal filtering)."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from peewit.kernels import library

_CHANNELS_LAST = torch.channels_last
_POINTS = 36  # elements of a transformed tile, 6 x 6
_MULTIPLE = 8  # channels that the transforms work on at once
# Images are done in chunks whose two workspaces together stay under this many floats (10 MB)
_CHUNK = 10_000_000 // 4


def conv3x3(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``conv2d(x, weight, padding=1)``, by Winograd's F(4x4, 3x3) where that is faster.

    A tile of 4x4 outputs takes 36 multiplications instead of 144 for each pair of channels (Lavin
    and Gray 2015, arXiv 1509.09308, sections 4.1 and 4.3): the input's tiles are transformed, the
    channels are summed by 36 matrix products, and the products are transformed back. The rounding
    error is about 1e-5 of the largest value, ten times that of the direct sum.

    Parameters
    ----------
    x : float32 tensor, shape (N, in, H, W), best in channels_last memory
    weight : float32 tensor, shape (out, in, 3, 3)

    Returns
    -------
    float32 tensor, shape (N, out, H, W), channels_last where the kernels were used. It has a
    gradient, but no second one.
    """
    if not supported(x, weight):
        return reference(x, weight)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        result: torch.Tensor = _Conv3x3.apply(x, weight)  # type: ignore[no-untyped-call]
        return result
    return forward(x, weight)


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Compute ``conv3x3`` by PyTorch: what the kernels are tested against."""
    return F.conv2d(x, weight, padding=1)


def supported(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether ``forward`` and ``gradients`` below can be used."""
    if not library.usable(x, weight) or x.dim() != 4 or x.numel() == 0:
        return False
    return weight.shape[2:] == (3, 3) and x.shape[1] == weight.shape[1]


def pays(inputs: int, outputs: int, height: int, width: int) -> bool:
    """Return whether Winograd's way is possible and faster than the direct sum."""
    return inputs % _MULTIPLE == 0 and outputs % _MULTIPLE == 0 and min(inputs, outputs) >= 64


def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the convolution of x (N, in, H, W), without a gradient."""
    if not pays(x.shape[1], weight.shape[0], *x.shape[2:]):
        return F.conv2d(x, weight, padding=1)
    return _convolve(x, _transform(weight))  # (36, out, in)


def gradients(
    x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor, for_x: bool, for_weight: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients by x and by the weight, or None for what is not wanted.

    Parameters
    ----------
    x : tensor, shape (N, in, H, W)
    weight : tensor, shape (out, in, 3, 3)
    grad : tensor, shape (N, out, H, W)
        The gradient by the convolution's result.
    """
    outputs, inputs = weight.shape[:2]
    if not pays(inputs, outputs, *x.shape[2:]):
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            *(grad, x, weight, None),
            *([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [for_x, for_weight, False]),
        )
        return grad_x, grad_weight
    grad_x = grad_weight = None
    if for_x:
        # the transposed convolution: filters turned by 180 degrees, in and out exchanged
        grad_x = _convolve(grad, _transform(weight.flip(2, 3).transpose(0, 1)))
    if for_weight:
        grad_weight = _gradient_of_weight(x, grad)
    return grad_x, grad_weight


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return forward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return gradients(*ctx.saved_tensors, grad, *ctx.needs_input_grad)


def _convolve(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    kernels, threads = library.loaded(), torch.get_num_threads()
    x = x.contiguous(memory_format=_CHANNELS_LAST)
    n, inputs, height, width = x.shape
    outputs = u.shape[1]
    y = torch.empty((n, outputs, height, width), memory_format=_CHANNELS_LAST)
    for first, count, tiles in _chunks(x, inputs + outputs):
        v, m = _workspaces((_POINTS, tiles, inputs), (_POINTS, tiles, outputs))
        size = (count, height, width)
        kernels.winograd_input(x[first:].data_ptr(), *size, inputs, v.data_ptr(), threads)
        torch.bmm(v, u.transpose(1, 2), out=m)  # (36, tiles, in) x (36, in, out)
        kernels.winograd_output(y[first:].data_ptr(), *size, outputs, m.data_ptr(), threads)
    return y


def _gradient_of_weight(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    kernels, threads = library.loaded(), torch.get_num_threads()
    x = x.contiguous(memory_format=_CHANNELS_LAST)
    grad = grad.contiguous(memory_format=_CHANNELS_LAST)
    (_, inputs, height, width), outputs = x.shape, grad.shape[1]
    total = torch.zeros(_POINTS, outputs, inputs)
    for first, count, tiles in _chunks(x, inputs + outputs):
        v, e = _workspaces((_POINTS, tiles, inputs), (_POINTS, tiles, outputs))
        size = (count, height, width)
        kernels.winograd_input(x[first:].data_ptr(), *size, inputs, v.data_ptr(), threads)
        kernels.winograd_gradient(grad[first:].data_ptr(), *size, outputs, e.data_ptr(), threads)
        total.baddbmm_(e.transpose(1, 2), v)  # (36, out, tiles) x (36, tiles, in)
    grad_weight = _matrix().t() @ total.view(_POINTS, -1)  # (9, out * in)
    return grad_weight.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


def _transform(weight: torch.Tensor) -> torch.Tensor:
    """Return G g G^T for every filter: (out, in, 3, 3) to (36, out, in)."""
    outputs, inputs = weight.shape[:2]
    flat = weight.permute(2, 3, 0, 1).reshape(9, outputs * inputs)
    return (_matrix() @ flat).view(_POINTS, outputs, inputs)


@cache
def _matrix() -> torch.Tensor:
    """Return g -> G g G^T as one matrix, (36, 9); G is in winograd.c."""
    g = torch.tensor(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    )
    return torch.kron(g, g)


def _chunks(x: torch.Tensor, channels: int) -> list[tuple[int, int, int]]:
    """Return (first image, images, tiles) of every chunk."""
    n, _, height, width = x.shape
    tiles = -(-height // 4) * -(-width // 4)
    step = max(1, _CHUNK // (_POINTS * tiles * channels))
    return [(i, min(step, n - i), min(step, n - i) * tiles) for i in range(0, n, step)]


class _Memory(threading.local):
    """What the workspaces of this thread are cut from; it grows to the largest need."""

    floats = torch.empty(0)


_memory = _Memory()


def _workspaces(*shapes: tuple[int, int, int]) -> list[torch.Tensor]:
    sizes = [a * b * c for a, b, c in shapes]
    if _memory.floats.numel() < sum(sizes):
        _memory.floats = torch.empty(sum(sizes))
    parts = torch.split(_memory.floats[: sum(sizes)], sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
