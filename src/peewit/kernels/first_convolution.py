"""The first convolution of EfficientNet-Lite, with ReLU6, as one autograd function."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from peewit.kernels import inverted_residual, library
from peewit.kernels.inverted_residual import same_padding

_CHANNELS_LAST = torch.channels_last


def conv_relu6(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int
) -> torch.Tensor:
    """Return ``relu6(conv2d(x, weight, bias, stride))`` with TensorFlow's padding "SAME".

    For images, whose few channels make the convolution a product of narrow matrices; ReLU6 and its
    gradient cost PyTorch as much time as the convolution. The kernels compute neither padding nor
    the gradient of the image.

    Parameters
    ----------
    x : float32 tensor, shape (N, in, H, W)
        Fastest in channels_last memory.
    weight : float32 tensor, shape (out, in, k, k)
    bias : float32 tensor, shape (out,)
    stride : int

    Returns
    -------
    float32 tensor, shape (N, out, ceil(H / stride), ceil(W / stride))
        Differentiable once. Under PyTorch's autocast to bfloat16, the operands of the products are
        rounded to bfloat16 if the processor multiplies these natively.
    """
    if not supported(x, weight, bias, stride):
        return reference(x, weight, bias, stride)
    bfloat16 = torch.is_autocast_enabled("cpu")
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        result: torch.Tensor = _FirstConvolution.apply(  # type: ignore[no-untyped-call]
            x, weight, bias, stride, bfloat16
        )
        return result
    return _forward(x.contiguous(memory_format=_CHANNELS_LAST), weight, bias, stride, bfloat16)


def reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int
) -> torch.Tensor:
    """Compute ``conv_relu6`` by PyTorch; the kernels are tested against this."""
    (top, bottom), (left, right) = same_padding(x.shape[2], x.shape[3], weight.shape[2], stride)
    return F.relu6(F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride))


def supported(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int) -> bool:
    """Return whether the compiled kernels can and should be used."""
    if not library.usable(x, weight, bias, bfloat16=True) or x.dim() != 4 or x.numel() == 0:
        return False
    outputs, inputs, *kernel = weight.shape
    return (
        bool(library.loaded().has_inverted_residual())
        and not x.requires_grad
        and x.shape[1] == inputs <= 4
        and outputs in (16, 32, 48)
        and kernel == [3, 3]
        and stride in (1, 2)
    )


class _FirstConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        bfloat16: bool,
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=_CHANNELS_LAST)
        out = _forward(x, weight, bias, stride, bfloat16)
        ctx.save_for_backward(x, weight, out)
        ctx.stride, ctx.bfloat16 = stride, bfloat16
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_CHANNELS_LAST)
        outputs, inputs, kernel, _ = weight.shape
        grad_filters = torch.empty(kernel, kernel, inputs, outputs)
        grad_bias = torch.empty(outputs)
        shape, *last = _arguments(x, weight, ctx.stride, ctx.bfloat16)
        library.loaded().first_convolution_backward(
            *(shape, x.data_ptr(), out.data_ptr(), grad.data_ptr()),
            *(grad_filters.data_ptr(), grad_bias.data_ptr(), *last),
        )
        return None, grad_filters.permute(3, 2, 0, 1), grad_bias, None, None


def _forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, bfloat16: bool
) -> torch.Tensor:
    filters = weight.permute(2, 3, 1, 0).contiguous()  # (k, k, in, out)
    bias = bias.contiguous()
    n, _, height, width = x.shape
    out = library.empty(n, len(weight), -(-height // stride), -(-width // stride))
    shape, *last = _arguments(x, weight, stride, bfloat16)
    library.loaded().first_convolution_forward(
        *(shape, x.data_ptr(), filters.data_ptr(), bias.data_ptr(), out.data_ptr(), *last)
    )
    return out


def _arguments(
    x: torch.Tensor, weight: torch.Tensor, stride: int, bfloat16: bool
) -> tuple[ctypes.Array[ctypes.c_ssize_t], int, int, int]:
    """Return the shape, the address of the workspace, the version and the number of threads."""
    n, inputs, height, width = x.shape
    shape = (ctypes.c_ssize_t * 7)(n, height, width, inputs, len(weight), weight.shape[2], stride)
    threads = torch.get_num_threads()
    space = library.loaded().first_convolution_space(shape, threads)
    version = inverted_residual.BFLOAT16 if bfloat16 else inverted_residual.FLOAT32
    return shape, library.workspace(space), version, threads
