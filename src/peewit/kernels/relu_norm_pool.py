"""Convolution, ReLU, batch normalisation and 2x2 max pooling as one autograd function."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from peewit.kernels import library
from peewit.kernels.library import empty

_CHANNELS_LAST = torch.channels_last


def conv_relu_norm_pool(x: torch.Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """Return ``max_pool2d(norm(relu(conv(x))), 2)``, by the compiled kernels if possible.

    In PyTorch each of these layers is a forward and a backward pass over activations that do not
    fit into the cache. The kernels need two passes forward and one backward, in channels_last
    memory; the convolution itself is PyTorch's. The statistics are summed in double precision, so
    the result is closer to exact arithmetic than PyTorch's.

    Parameters
    ----------
    x : float32 tensor, shape (N, in, H, W)
    conv : Conv2d
        With a bias, zero padding, and no groups or dilation.
    norm : BatchNorm2d
        With scale, shift and running statistics, which are updated in training mode.

    Returns
    -------
    float32 tensor, shape (N, out, H' // 2, W' // 2)
        H' x W' is the output size of the convolution.
    """
    if not _kernel_applies(x, norm):
        return reference(x, conv, norm)
    if norm.training:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        result: torch.Tensor = _Stage.apply(  # type: ignore[no-untyped-call]
            x, conv.weight, conv.bias, norm.weight, norm.bias, conv, norm
        )
        return result
    return _inference(conv(x), norm)


def reference(x: torch.Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """Compute ``conv_relu_norm_pool`` layer by layer; the kernels are tested against this."""
    x = F.relu(conv(x))  # (N, in, H, W) -> (N, out, H', W')
    return F.max_pool2d(norm(x), 2)  # -> (N, out, H' // 2, W' // 2)


def _kernel_applies(x: torch.Tensor, norm: nn.BatchNorm2d) -> bool:
    if norm.training:
        return library.usable(x) and type(norm) is nn.BatchNorm2d  # not synchronised
    # gradients in evaluation mode (heat maps) are left to PyTorch
    return library.usable(x) and not torch.is_grad_enabled()


def _inference(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    assert norm.running_mean is not None and norm.running_var is not None
    x = x.contiguous(memory_format=_CHANNELS_LAST)
    n, channels, height, width = x.shape
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    pooled = empty(n, channels, height // 2, width // 2)
    library.loaded().relu_norm_pool_inference(
        x.data_ptr(),
        *(n, height, width, channels),
        *(scale.data_ptr(), shift.data_ptr(), pooled.data_ptr()),
        torch.get_num_threads(),
    )
    return pooled


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
    ) -> torch.Tensor:
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.momentum is not None
        # (N, in, H, W) -> (N, out, H', W')
        y = F.conv2d(x, weight, bias, conv.stride, conv.padding)
        y = y.contiguous(memory_format=_CHANNELS_LAST)
        n, channels, height, width = y.shape
        pooled = empty(n, channels, height // 2, width // 2)
        chosen = torch.empty_like(pooled)  # relu(y) at the maximum of each window
        place = torch.empty_like(pooled, dtype=torch.uint8)  # index of the maximum, 0 to 3
        mean, inverse = torch.empty(2, channels).unbind()
        workspace = _workspace(n, channels)
        library.loaded().relu_norm_pool_forward(
            y.data_ptr(),
            *(n, height, width, channels),
            *(gamma.data_ptr(), beta.data_ptr()),
            *(norm.running_mean.data_ptr(), norm.running_var.data_ptr()),
            *(norm.momentum, norm.eps),
            *(pooled.data_ptr(), chosen.data_ptr(), place.data_ptr()),
            *(mean.data_ptr(), inverse.data_ptr(), workspace.data_ptr()),
            torch.get_num_threads(),
        )
        ctx.save_for_backward(x, weight, gamma)
        ctx.conv, ctx.saved = conv, (y, chosen, place, mean, inverse)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.saved is None:
            raise RuntimeError("the activations were freed by the first backward pass of this step")
        (y, chosen, place, mean, inverse), ctx.saved = ctx.saved, None
        x, weight, gamma = ctx.saved_tensors
        n, channels, height, width = y.shape
        grad = grad.contiguous(memory_format=_CHANNELS_LAST)
        grad_gamma, grad_beta, grad_bias = torch.empty(3, channels).unbind()
        workspace = _workspace(n, channels)
        # y is overwritten by its gradient
        library.loaded().relu_norm_pool_backward(
            y.data_ptr(),
            *(n, height, width, channels),
            *(grad.data_ptr(), chosen.data_ptr(), place.data_ptr()),
            *(gamma.data_ptr(), mean.data_ptr(), inverse.data_ptr()),
            *(grad_gamma.data_ptr(), grad_beta.data_ptr(), grad_bias.data_ptr()),
            workspace.data_ptr(),
            torch.get_num_threads(),
        )
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            *(y, x, weight, None),
            *(ctx.conv.stride, ctx.conv.padding, ctx.conv.dilation, False, [0, 0], 1),
            [ctx.needs_input_grad[0], True, False],  # the kernel has computed the bias's
        )
        return grad_x, grad_weight, grad_bias, grad_gamma, grad_beta, None, None


def _workspace(n: int, channels: int) -> torch.Tensor:
    # relu_norm_pool.c: (N + 1) * 2C doubles, then (N + 3) * C floats of half the size
    doubles = (n + 1) * 2 * channels + ((n + 3) * channels + 1) // 2
    return torch.empty(doubles, dtype=torch.float64)
