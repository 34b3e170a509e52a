"""Inputs and error measures for the tests of the kernels."""

from __future__ import annotations

import torch


def images(inputs: int, height: int, width: int, count: int = 6) -> torch.Tensor:
    """Return normally distributed values, (count, inputs, height, width), channels last."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, inputs, height, width, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest error relative to the largest exact value."""
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()
