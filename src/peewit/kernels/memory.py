"""Memory in the order that the kernels read: images, rows, columns, channels."""

from __future__ import annotations

import torch


def empty(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Return float32 (n, channels, height, width), channels last, with whatever is there."""
    return torch.empty((n, channels, height, width), memory_format=torch.channels_last)


def address(tensor: torch.Tensor | None) -> int | None:
    """Return where the tensor begins, as the kernels take it; None for none."""
    return None if tensor is None else tensor.data_ptr()
