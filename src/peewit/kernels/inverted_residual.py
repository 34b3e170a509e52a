"""The inverted residual block of EfficientNet-Lite as one autograd function."""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from peewit.kernels import library

_CHANNELS_LAST = torch.channels_last
# versions of the kernels, in inverted_residual.c; tests set FLOAT32 to AVX2 or PORTABLE
FLOAT32, BFLOAT16, AVX2, PORTABLE = range(4)


class Weights(NamedTuple):
    """Weights and biases of a block; ``expand`` is None for a block without expansion.

    Shapes: ``expand`` (inner, in, 1, 1), ``depthwise`` (inner, 1, k, k), ``project``
    (out, inner, 1, 1); the biases have as many elements.
    """

    expand: torch.Tensor | None
    expand_bias: torch.Tensor | None
    depthwise: torch.Tensor
    depthwise_bias: torch.Tensor
    project: torch.Tensor
    project_bias: torch.Tensor


def inverted_residual(
    x: torch.Tensor, weights: Weights, stride: int, residual: bool
) -> torch.Tensor:
    """Return the block's output, by the compiled kernels if possible.

    The block [1]_ expands the channels by 1x1, filters each channel, with padding "SAME", and
    projects by 1x1, with ReLU6 after the first two. PyTorch writes and reads the expanded channels,
    six times as large as the input, for each step. The kernels compute a few channels at a time
    from the input to the output, within the cache, and again in the backward pass. The gradients
    are those of ``reference`` but for rounding, and do not depend on the number of threads.

    Parameters
    ----------
    x : float32 tensor, shape (N, in, H, W)
        Fastest in channels_last memory.
    weights : Weights
    stride : int
        1 or 2, of the depthwise convolution.
    residual : bool
        Whether to add ``x``.

    Returns
    -------
    float32 tensor, shape (N, out, ceil(H / stride), ceil(W / stride))
        Differentiable once. Under PyTorch's autocast to bfloat16, the operands of the matrix
        products are rounded to bfloat16 if the processor multiplies these natively.

    References
    ----------
    .. [1] M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
       section 3.
    """
    if not supported(x, weights, stride):
        return reference(x, weights, stride, residual)
    x = x.float()  # autocast's convolutions return bfloat16
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *weights)):
        result: torch.Tensor = _Block.apply(  # type: ignore[no-untyped-call]
            x, *weights, stride, residual
        )
        return result
    return _forward(x, weights, stride, residual)


def reference(x: torch.Tensor, weights: Weights, stride: int, residual: bool) -> torch.Tensor:
    """Compute ``inverted_residual`` layer by layer; the kernels are tested against this."""
    inner = x
    if weights.expand is not None:
        inner = F.relu6(F.conv2d(x, weights.expand, weights.expand_bias))
    kernel = weights.depthwise.shape[2]
    (top, bottom), (left, right) = same_padding(x.shape[2], x.shape[3], kernel, stride)
    inner = F.pad(inner, (left, right, top, bottom))
    depthwise, bias = weights.depthwise, weights.depthwise_bias
    inner = F.relu6(F.conv2d(inner, depthwise, bias, stride, groups=len(depthwise)))
    out = F.conv2d(inner, weights.project, weights.project_bias)
    return x + out if residual else out


def same_padding(
    height: int, width: int, kernel: int, stride: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return TensorFlow's padding "SAME": above and below, and at the left and right.

    The output's size is ceil(size / stride). What cannot be split evenly is padded at the bottom
    and at the right.

    Examples
    --------
    >>> same_padding(8, 9, 3, 2)
    ((0, 1), (1, 1))
    """
    totals = [
        max((math.ceil(size / stride) - 1) * stride + kernel - size, 0) for size in (height, width)
    ]
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    return rows, columns


def supported(x: torch.Tensor, weights: Weights, stride: int) -> bool:
    """Return whether the compiled kernels can and should be used."""
    given = [t for t in weights if t is not None]
    if not library.usable(*given, bfloat16=True) or x.device.type != "cpu":
        return False
    if x.dim() != 4 or x.numel() == 0 or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    inner, _, *kernel = weights.depthwise.shape
    return (
        bool(library.loaded().has_inverted_residual())
        and kernel in ([3, 3], [5, 5])
        and stride in (1, 2)
        and not (x.shape[1] % 8 or len(weights.project) % 8 or inner % 16)
    )


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *arguments: Any) -> torch.Tensor:
        weights, stride, residual = Weights(*arguments[:-2]), *arguments[-2:]
        x = x.contiguous(memory_format=_CHANNELS_LAST)
        ctx.save_for_backward(x, *weights)
        ctx.stride, ctx.residual = stride, residual
        ctx.bfloat16 = torch.is_autocast_enabled("cpu")
        return _forward(x, weights, stride, residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        weights = Weights(*tensors)
        call = _Call(x, weights, ctx.stride, ctx.residual, ctx.bfloat16)
        grad = grad.contiguous(memory_format=_CHANNELS_LAST)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        found = [None if t is None else torch.empty(t.shape) for t in weights]
        addresses = (ctypes.c_void_p * 6)(*map(library.address, found))
        library.loaded().inverted_residual_backward(
            *(call.shape, x.data_ptr(), call.given),
            *(grad.data_ptr(), library.address(grad_x), addresses),
            *call.workspace(back=True),
        )
        return (grad_x, *found, None, None)


def _forward(x: torch.Tensor, weights: Weights, stride: int, residual: bool) -> torch.Tensor:
    call = _Call(
        x.contiguous(memory_format=_CHANNELS_LAST),
        *(weights, stride, residual, torch.is_autocast_enabled("cpu")),
    )
    n, _, height, width = x.shape
    out = library.empty(n, len(weights.project), -(-height // stride), -(-width // stride))
    library.loaded().inverted_residual_forward(
        *(call.shape, call.x.data_ptr(), call.given, out.data_ptr()),
        *call.workspace(back=False),
    )
    return out


class _Call:
    """The arguments that both C functions take; keeps the tensors whose addresses they hold."""

    def __init__(
        self, x: torch.Tensor, weights: Weights, stride: int, residual: bool, bfloat16: bool
    ) -> None:
        n, inputs, height, width = x.shape
        outputs, inner, kernel = len(weights.project), *weights.depthwise.shape[:3:2]
        self.x, self.version = x, BFLOAT16 if bfloat16 else FLOAT32
        self.shape = (ctypes.c_ssize_t * 10)(
            *(n, height, width, inputs, inner, outputs, kernel, stride),
            *(weights.expand is not None, residual),
        )
        self.tensors = [None if t is None else t.contiguous() for t in weights]
        self.given = (ctypes.c_void_p * 6)(*map(library.address, self.tensors))

    def workspace(self, back: bool) -> tuple[int, int, int]:
        """Return the last arguments: the address of the workspace, version and threads."""
        threads = torch.get_num_threads()
        space = library.loaded().inverted_residual_space(self.shape, back, self.version, threads)
        return library.workspace(space), self.version, threads
