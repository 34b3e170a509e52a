"""3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from peewit.kernels import library
from peewit.kernels.library import address, empty

_CHANNELS_LAST = torch.channels_last
_MULTIPLE = 8  # channels per vector in winograd_transforms.h


def conv3x3(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``conv2d(x, weight, padding=1)``, by Winograd's F(4x4, 3x3) if that is faster.

    A tile of 4x4 outputs takes 36 multiplications instead of 144 for each pair of input and output
    channel (Lavin and Gray 2015, arXiv 1509.09308, sections 4.1 and 4.3): the input tiles are
    transformed, 36 matrix products sum over the channels, and the products are transformed back.
    The rounding error is about 1e-5 of the largest value, ten times that of direct convolution.

    Parameters
    ----------
    x : float32 tensor, shape (N, in, H, W)
        Fastest in channels_last memory.
    weight : float32 tensor, shape (out, in, 3, 3)

    Returns
    -------
    float32 tensor, shape (N, out, H, W)
        In channels_last memory if the kernels were used. Differentiable once.
    """
    if not supported(x, weight):
        return reference(x, weight)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        result: torch.Tensor = _Conv3x3.apply(x, weight)  # type: ignore[no-untyped-call]
        return result
    return forward(x, weight)


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Compute ``conv3x3`` by PyTorch; the kernels are tested against this."""
    return F.conv2d(x, weight, padding=1)


def supported(x: torch.Tensor, weight: torch.Tensor, *, bfloat16: bool = False) -> bool:
    """Return whether ``forward`` and ``gradients`` apply, with ``bfloat16`` also under autocast."""
    if not library.usable(x, weight, bfloat16=bfloat16) or x.dim() != 4 or x.numel() == 0:
        return False
    return weight.shape[2:] == (3, 3) and x.shape[1] == weight.shape[1]


def pays(n: int, inputs: int, outputs: int, height: int, width: int) -> bool:
    """Return whether Winograd's convolution applies and is faster than PyTorch's direct one.

    Speed-up on one AVX-512 core (forward, gradient of x, gradient of the weight): 2.9, 2.9, 2.7
    for 256 to 256 channels at 16 x 16; 1.7, 2.1, 1.4 for 24 to 64 at 32 x 32; 1.1, 1.2, 0.9 for 16
    to 16. Tiles that extend past the edge: 1.7 at 7 x 7 pixels, 1.3 at 6 x 6, 0.9 at 5 x 5, 0.1 at
    1 x 1. A single image, because the filters must be transformed: 1.1 with 16 tiles, 0.4 with 4.
    """
    if not supports_channels(inputs, outputs):
        return False
    tiles = -(-height // 4) * -(-width // 4)
    return n * tiles >= 16 and tiles * 16 <= 2 * height * width


def supports_channels(inputs: int, outputs: int) -> bool:
    """Return whether the kernels support these numbers of channels and can be faster."""
    return not (inputs % _MULTIPLE or outputs % _MULTIPLE) and min(inputs, outputs) >= 24


def transform_filters(weight: torch.Tensor) -> torch.Tensor:
    """Return the transformed filters of a weight (out, in, 3, 3), float32, four times its size.

    For fixed weights, passing them to ``forward`` saves transforming the filters for each batch.
    """
    outputs, inputs = weight.shape[:2]
    u = torch.empty(library.loaded().winograd_filters_space(outputs, inputs))
    _transform(weight.data_ptr(), outputs, inputs, weight.stride(), False, u)
    return u


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bfloat16: bool = False,
    filters: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the convolution of x (N, in, H, W), (N, out, H, W), without recording a gradient.

    Parameters
    ----------
    bfloat16 : bool
        Round the transformed operands of the matrix products to bfloat16; everything else stays
        float32. The error is 2 to 3 % of the root mean square; processors with bfloat16
        instructions compute twice as many products in the same time.
    filters : float32 tensor, optional
        ``transform_filters(weight)``; not with ``bfloat16``.
    """
    if not pays(len(x), x.shape[1], weight.shape[0], *x.shape[2:]):
        with torch.autocast("cpu", enabled=False):  # the following passes read float32
            return F.conv2d(x, weight, padding=1)
    n, _, height, width = x.shape
    y = empty(n, len(weight), height, width)
    _convolve(x, None, weight.data_ptr(), weight.stride(), bfloat16, y, None, filters)
    return y


def forward_pooled(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bfloat16: bool = False,
    filters: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the convolution after 2x2 max pooling, and the index of each maximum.

    Only for shapes for which it ``pays``. The unpooled result is never written to memory.
    ``bfloat16`` and ``filters`` are those of ``forward``.

    Returns
    -------
    pooled : float32 tensor, shape (N, out, H // 2, W // 2), channels_last
    place : uint8 tensor of the same shape and memory format
        0 and 1 are the upper two pixels, 2 and 3 the lower two; the first of equal values.
    """
    n, _, height, width = x.shape
    pooled = empty(n, len(weight), height // 2, width // 2)
    place = torch.empty_like(pooled, dtype=torch.uint8)
    _convolve(x, None, weight.data_ptr(), weight.stride(), bfloat16, pooled, place, filters)
    return pooled, place


def gradients(
    x: torch.Tensor,
    weight: torch.Tensor,
    grad: torch.Tensor,
    for_x: bool,
    for_weight: bool,
    *,
    bfloat16: bool = False,
    place: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of x and of the weight, each None if not requested.

    Parameters
    ----------
    x : tensor, shape (N, in, H, W)
    weight : tensor, shape (out, in, 3, 3)
    grad : tensor, shape (N, out, H, W)
        The gradient of the convolution's output.
    bfloat16 : bool
        As for ``forward``.
    place : uint8 tensor, shape (N, out, H // 2, W // 2), optional
        From ``forward_pooled``; ``grad`` is then the gradient of the pooled output.
    """
    outputs, inputs = weight.shape[:2]
    if not pays(len(x), inputs, outputs, *x.shape[2:]):
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            *(grad, x, weight, None),
            *([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [for_x, for_weight, False]),
        )
        return grad_x, grad_weight
    grad_x = grad_weight = None
    if for_x:
        # the transposed convolution: inputs and outputs exchanged and the filters rotated by 180
        # degrees, that is, read backwards from their last element
        by_out, by_in, by_row, by_column = weight.stride()
        last = weight[0, 0, 2, 2].data_ptr()
        grad_x = empty(*x.shape)
        steps = by_in, by_out, -by_row, -by_column
        _convolve(grad, place, last, steps, bfloat16, grad_x, None)
    if for_weight:
        grad_weight = _gradient_of_weight(x, grad, place, bfloat16)
    return grad_x, grad_weight


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return forward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight = ctx.needs_input_grad
        return gradients(x, weight, grad, for_x, for_weight)


def _convolve(
    x: torch.Tensor,
    x_place: torch.Tensor | None,
    first: int,
    steps: tuple[int, ...],
    bfloat16: bool,
    y: torch.Tensor,
    y_place: torch.Tensor | None,
    filters: torch.Tensor | None = None,
) -> None:
    """Convolve ``x`` with the filters at address ``first`` into ``y``.

    Parameters
    ----------
    x_place, y_place : uint8 tensor or None
        If given, ``x`` or ``y`` has one value per 2x2 pixels, and this is the pixel's index.
    steps : tuple of int
        The filters' strides in floats: output, input, row, column.
    filters : float32 tensor, optional
        The transformed filters, if known.
    """
    kernels, threads = library.loaded(), torch.get_num_threads()
    x = x.contiguous(memory_format=_CHANNELS_LAST)
    (n, inputs), outputs = x.shape[:2], y.shape[1]
    height, width = (x if x_place is None else y).shape[2:]  # in pixels, not 2x2 cells
    u, work = _workspace(
        0 if filters is not None else kernels.winograd_filters_space(outputs, inputs),
        kernels.winograd_convolve_space(n, height, width, inputs, threads),
    )
    if filters is not None:
        u = filters
    else:
        _transform(first, outputs, inputs, steps, bfloat16, u)
    kernels.winograd_convolve(
        *(x.data_ptr(), address(x_place), n, height, width, inputs, u.data_ptr()),
        *(outputs, bfloat16, y.data_ptr(), address(y_place), work.data_ptr(), threads),
    )


def _transform(
    first: int, outputs: int, inputs: int, steps: tuple[int, ...], bfloat16: bool, u: torch.Tensor
) -> None:
    """Transform the filters at address ``first`` into ``u``."""
    library.loaded().winograd_filters(
        first, outputs, inputs, *steps, bfloat16, u.data_ptr(), torch.get_num_threads()
    )


def _gradient_of_weight(
    x: torch.Tensor, grad: torch.Tensor, place: torch.Tensor | None, bfloat16: bool
) -> torch.Tensor:
    kernels, threads = library.loaded(), torch.get_num_threads()
    x = x.contiguous(memory_format=_CHANNELS_LAST)
    grad = grad.contiguous(memory_format=_CHANNELS_LAST)
    (n, inputs, height, width), outputs = x.shape, grad.shape[1]
    grad_weight = empty(outputs, inputs, 3, 3)
    (work,) = _workspace(kernels.winograd_gradient_space(n, height, width, inputs, outputs))
    kernels.winograd_filters_gradient(
        *(x.data_ptr(), n, height, width, inputs, grad.data_ptr(), address(place)),
        *(outputs, bfloat16, grad_weight.data_ptr(), work.data_ptr(), threads),
    )
    return grad_weight


class _Memory(threading.local):
    """The memory of this thread's workspaces; it grows to the largest size requested."""

    floats = torch.empty(0)


_memory = _Memory()


def _workspace(*sizes: int) -> tuple[torch.Tensor, ...]:
    lines = [-(-size // 16) * 16 for size in sizes]  # whole cache lines of 64 bytes
    if _memory.floats.numel() < sum(lines):
        _memory.floats = torch.empty(sum(lines))
    return torch.split(_memory.floats[: sum(lines)], lines)
