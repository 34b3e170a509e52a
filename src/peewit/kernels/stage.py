"""Convolution, ReLU, batch normalisation and pooling as one step of the automatic gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from peewit.kernels import library
from peewit.kernels.memory import empty

_CHANNELS_LAST = torch.channels_last


def conv_relu_norm_pool(x: torch.Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """Return ``max_pool2d(norm(relu(conv(x))), 2)``, by the compiled kernels where they can.

    PyTorch makes each of these layers a pass, forward and backward, over activations that do not
    fit the cache. The kernels make them two passes forward and one backward, in channels_last;
    the convolution itself stays PyTorch's. They also sum the statistics in double precision, so
    that the result is nearer to exact arithmetic than PyTorch's own.

    Parameters
    ----------
    x : float32 tensor, shape (N, in, H, W)
    conv : Conv2d
        Without padding mode, groups or dilation, with a bias.
    norm : BatchNorm2d
        With scale, shift and running statistics. In training mode these are updated.

    Returns
    -------
    float32 tensor, shape (N, out, H' // 2, W' // 2), where H' x W' is what the convolution gives.
    """
    if not _fits(x, norm):
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
    """Compute ``conv_relu_norm_pool`` layer by layer: what the kernels are tested against."""
    x = F.relu(conv(x))  # (N, in, H, W) -> (N, out, H', W')
    return F.max_pool2d(norm(x), 2)  # -> (N, out, H' // 2, W' // 2)


def _fits(x: torch.Tensor, norm: nn.BatchNorm2d) -> bool:
    # a gradient through fixed statistics (a heat map of a finished network) is PyTorch's work
    return library.usable(x) and (norm.training or not torch.is_grad_enabled())


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
        chosen = torch.empty_like(pooled)  # relu(y) at each maximum
        place = torch.empty_like(pooled, dtype=torch.uint8)  # which of its four it was
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
        ctx.conv, ctx.kept = conv, (y, chosen, place, mean, inverse)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.kept is None:
            raise RuntimeError("the activations of this step are gone: its gradient was taken")
        (y, chosen, place, mean, inverse), ctx.kept = ctx.kept, None
        x, weight, gamma = ctx.saved_tensors
        n, channels, height, width = y.shape
        grad = grad.contiguous(memory_format=_CHANNELS_LAST)
        grad_gamma, grad_beta, grad_bias = torch.empty(3, channels).unbind()
        workspace = _workspace(n, channels)
        # y has had its day: the kernel turns it, in place, into the gradient of the loss by y
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
            [ctx.needs_input_grad[0], True, False],  # the bias's is a by-product of the kernel
        )
        return grad_x, grad_weight, grad_bias, grad_gamma, grad_beta, None, None


def _workspace(n: int, channels: int) -> torch.Tensor:
    # native.c: (N + 1) * 2C doubles and (N + 3) * C floats, which are half as many doubles
    doubles = (n + 1) * 2 * channels + ((n + 3) * channels + 1) // 2
    return torch.empty(doubles, dtype=torch.float64)
