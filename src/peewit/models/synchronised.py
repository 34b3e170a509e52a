"""Layers of a network whose batch is divided among processes.

Batch normalisation and dropout depend on the whole batch. These forms compute what the plain layers
compute of the whole batch, so that a training does not depend on the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@dataclass
class BatchPart:
    """Which images of the present batch this process has.

    Parameters
    ----------
    first, end : int
        Their positions in the batch: from ``first`` up to ``end``.
    of : int
        The number of images of the batch; 0 outside training steps, when a process computes on its
        own, and the layers are the plain ones.
    """

    first: int = 0
    end: int = 0
    of: int = 0

    @property
    def images(self) -> slice:
        """Their positions in the batch."""
        return slice(self.first, self.end)


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' images [1]_.

    One sum over the processes forward, of 2 C + 1 values in double precision, and one backward, of
    2 C. The gradients of scale and shift are those of this process's images, like those of all
    other parameters: they are summed after the backward pass.

    References
    ----------
    .. [1] C. Peng et al., "MegDet: A Large Mini-Batch Object Detector", CVPR 2018, section 3.3.
    """

    part: BatchPart

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised ``x``, (N, C, H, W) -> (N, C, H, W)."""
        if not (self.training and self.part.of):
            return super().forward(x)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        result: torch.Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self
        )
        return result


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        norm: SynchronisedBatchNorm,
    ) -> torch.Tensor:
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.momentum is not None
        channels, count = x.shape[1], x.numel() // x.shape[1]
        sums = torch.zeros(2 * channels + 1, dtype=torch.float64)
        if count:
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            mean = mean.double()
            sums[:channels] = count * mean
            sums[channels:-1] = count * (variance.double() + mean**2)
            sums[-1] = count
        distributed.all_reduce(sums)
        total = sums[-1].item()
        exact = sums[:channels] / total
        variance = (sums[channels:-1] / total - exact**2).clamp_(min=0)
        norm.running_mean.lerp_(exact.float(), norm.momentum)
        unbiased = variance * (total / max(total - 1, 1))
        norm.running_var.lerp_(unbiased.float(), norm.momentum)
        inverse = torch.rsqrt(variance + norm.eps).float()
        normalised = (x - _each(exact.float())) * _each(inverse)
        ctx.save_for_backward(normalised, weight, inverse)
        ctx.total = total
        return normalised * _each(weight) + _each(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        normalised, weight, inverse = ctx.saved_tensors
        grad_bias = grad.sum((0, 2, 3))
        grad_weight = (grad * normalised).sum((0, 2, 3))
        sums = torch.stack((grad_bias, grad_weight)).double()
        distributed.all_reduce(sums)
        mean, slope = (sums / ctx.total).float()
        grad_x = (grad - _each(mean) - normalised * _each(slope)) * _each(weight * inverse)
        return grad_x, grad_weight, grad_bias, None


class SynchronisedDropout(nn.Dropout):
    """Dropout that draws the mask of the whole batch in each process, and uses its part.

    So every process consumes as many random numbers as one process would.
    """

    part: BatchPart

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``, (N, ...), with each value zeroed with probability p."""
        if not (self.training and self.part.of):
            return super().forward(x)
        mask = F.dropout(torch.ones(self.part.of, *x.shape[1:]), self.p)
        return x * mask[self.part.images]


def synchronise(model: nn.Module) -> BatchPart:
    """Replace batch normalisation and dropout of ``model`` by their synchronised forms, in place.

    Returns
    -------
    BatchPart
        To be set before each forward pass in training mode.
    """
    part = BatchPart()
    forms = {nn.BatchNorm2d: SynchronisedBatchNorm, nn.Dropout: SynchronisedDropout}
    for module in model.modules():
        form = forms.get(type(module))
        if form is not None:
            # the class alone changes: parameters, buffers and references to the layer stay
            module.__class__ = form
            module.part = part  # type: ignore[assignment]
    return part


def _each(values: torch.Tensor) -> torch.Tensor:
    """Return one value per channel in the shape (1, C, 1, 1)."""
    return values[None, :, None, None]
